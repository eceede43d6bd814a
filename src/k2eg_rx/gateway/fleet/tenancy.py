"""The owner of each partition of the state log, by the order of the log: the same for all gateways that read it. Pure.

An owner entry counts if its epoch is greater than that of the one before it; otherwise it is void, and its writer,
which sees that as all others do, writes another one. An owner that has lost the partition before it has published
anything says so, and the next one waits for the owner before it.
"""

from __future__ import annotations

from k2eg_rx.gateway.fleet.entries import Release

_EARLIER = 8  # owners before that are remembered; more than one if some published nothing


class Tenancy:
    """The owner of one partition.

    Attributes:
        owner: The gateway; empty before the first one.
        epoch: Its epoch.
        release: The latest release; that of the owner, or of the owner before.
    """

    def __init__(self) -> None:
        self.owner = ""
        self.epoch = 0
        self.release: Release | None = None
        self._earlier: dict[int, str] = {}  # the owners before, by epoch, the latest last
        self._is_withdrawn = False
        self._handing_over: set[int] = set()  # the epochs of owners that will release

    def take(self, owner: str, epoch: int) -> bool:
        """Applies an owner entry; returns whether it counts."""
        if epoch <= self.epoch:
            return False
        if self.epoch and not self._is_withdrawn:
            self._earlier = dict([*self._earlier.items(), (self.epoch, self.owner)][-_EARLIER:])
        self.owner, self.epoch, self._is_withdrawn = owner, epoch, False
        self._handing_over &= self._earlier.keys()
        return True

    def give_up(self, release: Release) -> None:
        """Applies the release of an owner."""
        if release.epoch in (self.epoch, *self._earlier):
            self.release = release

    def withdraw(self, owner: str, epoch: int) -> None:
        """Applies the end of an owner that has published nothing: the next one waits for the owner before it."""
        if (owner, epoch) == (self.owner, self.epoch):
            self._is_withdrawn = True
        elif self._earlier.get(epoch) == owner:
            del self._earlier[epoch]

    def announce(self, epoch: int, *, is_given_up: bool) -> None:
        """Applies the announcement of an owner that it will release the partition, or that it does not any more."""
        if is_given_up:
            self._handing_over.add(epoch)
        else:
            self._handing_over.discard(epoch)

    @property
    def before(self) -> int:
        """The epoch of the owner before; 0 if there is none, as far as known."""
        return next(reversed(self._earlier), 0)

    @property
    def is_handing_over(self) -> bool:
        """Whether the owner has announced that it will release the partition."""
        return self.epoch in self._handing_over

    @property
    def was_handing_over(self) -> bool:
        """Whether the owner before has."""
        return self.before in self._handing_over

    @property
    def is_vacant(self) -> bool:
        """Whether nothing of the partition is published by an owner."""
        if self._is_withdrawn:
            return self.may_begin
        return not self.epoch or (self.release is not None and self.release.epoch == self.epoch)

    @property
    def release_before(self) -> Release | None:
        """The release of the owner before; None if it has not stopped, as far as known."""
        return self.release if self.release is not None and self.release.epoch == self.before else None

    @property
    def may_begin(self) -> bool:
        """Whether the owner can publish without waiting for the one before."""
        return not self.before or self.release_before is not None

    def next_epoch(self, now_ms: int) -> int:
        """Returns the epoch of a new owner. By the clock, it is greater than earlier ones even if the log was lost."""
        return max(self.epoch + 1, now_ms)

"""The owner of each partition of the state log, by the order of the log: the same for all gateways that read it. Pure.

An owner entry counts if its epoch is greater than that of the one before it; otherwise it is void, and its writer,
which sees that as all others do, writes another one. An owner that has lost the partition, and publishes nothing of it,
says so, and the next one waits for the owner before it.
"""

from __future__ import annotations

from k2eg_rx.gateway.fleet.entries import Release

_EARLIER = 8  # owners before that are remembered; more than one if some published nothing


class Tenancy:
    """The owner of one partition.

    Attributes:
        owner: The gateway; empty before the first one.
        epoch: Its epoch.
    """

    def __init__(self) -> None:
        self.owner = ""
        self.epoch = 0
        self._earlier: dict[int, str] = {}  # the owners before, by epoch, the latest last
        self._releases: dict[int, Release] = {}  # of these and of the owner, by epoch
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
        self._releases = {each: self._releases[each] for each in self._earlier if each in self._releases}
        return True

    def give_up(self, release: Release) -> None:
        """Applies the release of an owner."""
        if release.epoch in (self.epoch, *self._earlier):
            self._releases[release.epoch] = release

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

    def before(self, epoch: int) -> int:
        """Returns the epoch of the owner before the one with an epoch; 0 if there is none, as far as known."""
        return max((each for each in self._earlier if each < epoch), default=0)

    @property
    def is_handing_over(self) -> bool:
        """Whether the owner has announced that it will release the partition."""
        return self.is_awaited(self.epoch)

    def was_handing_over(self, epoch: int) -> bool:
        """Returns whether the owner before the one with an epoch has announced that."""
        return self.is_awaited(self.before(epoch))

    def is_awaited(self, epoch: int) -> bool:
        """Returns whether the owner with an epoch has announced that, and the next one has not given it up."""
        return epoch in self._handing_over

    @property
    def is_vacant(self) -> bool:
        """Whether nothing of the partition is published by an owner."""
        if self._is_withdrawn:
            return self.may_begin(self.epoch)
        return not self.epoch or self.epoch in self._releases

    def release_before(self, epoch: int) -> Release | None:
        """Returns the release of the owner before the one with an epoch; None if that has not stopped yet."""
        return self._releases.get(self.before(epoch))

    def may_begin(self, epoch: int) -> bool:
        """Returns whether the owner with an epoch can publish without waiting for the one before."""
        return not self.before(epoch) or self.release_before(epoch) is not None

    def next_epoch(self, now_ms: int) -> int:
        """Returns the epoch of a new owner. By the clock, it is greater than earlier ones even if the log was lost."""
        return max(self.epoch + 1, now_ms)

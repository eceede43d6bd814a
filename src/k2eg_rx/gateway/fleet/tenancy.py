"""The owner of each partition of the state log, by the order of the log: the same for all gateways that read it. Pure.

An owner entry counts if its epoch is greater than that of the one before it; otherwise it is void, and its writer,
which sees that as all others do, writes another one.
"""

from __future__ import annotations

from k2eg_rx.gateway.fleet.entries import Release


class Tenancy:
    """The owner of one partition.

    Attributes:
        owner: The gateway; empty before the first one.
        epoch: Its epoch.
        before: The epoch of the owner before; 0 if it is not known to have been one.
        release: The latest release; that of the owner, or of the owner before.
    """

    def __init__(self) -> None:
        self.owner = ""
        self.epoch = 0
        self.before = 0
        self.release: Release | None = None

    def take(self, owner: str, epoch: int) -> bool:
        """Applies an owner entry; returns whether it counts."""
        if epoch <= self.epoch:
            return False
        self.before, self.owner, self.epoch = self.epoch, owner, epoch
        return True

    def give_up(self, release: Release) -> None:
        """Applies the release of an owner."""
        if release.epoch in (self.epoch, self.before):
            self.release = release

    @property
    def is_vacant(self) -> bool:
        """Whether nothing of the partition is published by an owner."""
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

"""The door that keeps large records out."""

from __future__ import annotations

from collections.abc import Sequence

from k2eg_rx.discards import Discards, SizeGuard
from k2eg_rx.transport import Receiver, Record, Sieve


class Newest(Receiver):
    """Wants the last record of a batch only."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def ready(self) -> bool:
        return True

    def receive(self, records: Sequence[Record]) -> None:
        self.received.extend(record.offset for record in records)

    def sieve(self) -> Sieve | None:
        return lambda keys, _: [len(keys) - 1]


def test_what_is_too_large_is_not_received_and_counted() -> None:
    discards = Discards()
    newest = Newest()
    guard = SizeGuard(newest, 10, discards)
    guard.receive([Record("t", 0, offset, b"a", b"x" * size) for offset, size in enumerate([1, 10, 11])])
    assert newest.received == [0, 1]
    assert discards.total == 1


def test_the_door_sifts_what_its_receiver_sifts() -> None:
    newest = Newest()
    guard = SizeGuard(newest, 10, Discards())
    sieve = guard.sieve()
    assert sieve is not None
    assert sieve([b"a", b"a", b"a"], lambda _: 1) == [2]
    newest.sieve = lambda: None
    assert SizeGuard(newest, 10, Discards()).sieve() is None

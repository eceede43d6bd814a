"""The door that keeps large records out."""

from __future__ import annotations

from collections.abc import Sequence

from k2eg_rx.transport.decode_errors import DecodeErrorCounter, SizeFilter
from k2eg_rx.transport.interfaces import ConflationFilter, Receiver, Record


class Newest(Receiver):
    """Wants the last record of a batch only."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def ready(self) -> bool:
        return True

    def receive(self, records: Sequence[Record]) -> None:
        self.received.extend(record.offset for record in records)

    def conflation_filter(self) -> ConflationFilter | None:
        return lambda keys, _: [len(keys) - 1]


def test_what_is_too_large_is_not_received_and_counted() -> None:
    discards = DecodeErrorCounter()
    newest = Newest()
    guard = SizeFilter(newest, 10, discards)
    guard.receive([Record("t", 0, offset, b"a", b"x" * size) for offset, size in enumerate([1, 10, 11])])
    assert newest.received == [0, 1]
    assert discards.total == 1


def test_the_door_sifts_what_its_receiver_sifts() -> None:
    newest = Newest()
    guard = SizeFilter(newest, 10, DecodeErrorCounter())
    conflation_filter = guard.conflation_filter()
    assert conflation_filter is not None
    assert conflation_filter([b"a", b"a", b"a"], lambda _: 1) == [2]
    newest.conflation_filter = lambda: None
    assert SizeFilter(newest, 10, DecodeErrorCounter()).conflation_filter() is None

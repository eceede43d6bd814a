"""Counting of decode errors, and rejection of oversized records."""

from __future__ import annotations

from collections.abc import Sequence

from k2eg_rx.transport.decode_errors import DecodeErrorCounter, SizeFilter
from k2eg_rx.transport.interfaces import ConflationFilter, Receiver, Record


class NewestReceiver(Receiver):
    """A receiver whose conflation filter keeps the last record of a batch."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def ready(self) -> bool:
        return True

    def receive(self, records: Sequence[Record]) -> None:
        self.received.extend(record.offset for record in records)

    def conflation_filter(self) -> ConflationFilter | None:
        return lambda keys, _: [len(keys) - 1]


def test_oversized_records_are_counted_and_not_received() -> None:
    decode_errors = DecodeErrorCounter()
    receiver = NewestReceiver()
    size_filter = SizeFilter(receiver, 10, decode_errors)
    size_filter.receive([Record("t", 0, offset, b"a", b"x" * size) for offset, size in enumerate([1, 10, 11])])
    assert receiver.received == [0, 1]
    assert decode_errors.total == 1


def test_the_receivers_conflation_filter_is_passed_on() -> None:
    receiver = NewestReceiver()
    size_filter = SizeFilter(receiver, 10, DecodeErrorCounter())
    conflation_filter = size_filter.conflation_filter()
    assert conflation_filter is not None
    assert conflation_filter([b"a", b"a", b"a"], lambda _: 1) == [2]
    receiver.conflation_filter = lambda: None
    assert SizeFilter(receiver, 10, DecodeErrorCounter()).conflation_filter() is None

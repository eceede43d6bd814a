"""Batches of columns: collects the records of PVs, decodes them many at once, and emits them by time or number.

Thread safety: a collector belongs to one subscription and is called where its queue is drained; `Ticks` any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable

from k2eg_rx.delivery import LabelledObservable, Overflow, RecordRun, SubscriberInput
from k2eg_rx.errors import K2EGError, WireError
from k2eg_rx.protocol import ColumnBatch, Record
from k2eg_rx.protocol.column_decoder import ColumnDecoder
from k2eg_rx.pv import PVAddress

_MOST_EVENTS = 512  # of one PV that wait to be decoded together: 0.3 MB, which stays in the processor's cache
_MOST_BYTES = 4 << 20  # of all PVs that wait: with more, few events of each would take much memory


class Ticks:
    """Puts the ends of time intervals between the records of a subscription, one at a time.

    A subscriber that is slower than the intervals has one batch for several of them.

    Args:
        subscriber: The queue of the subscription.
    """

    def __init__(self, subscriber: SubscriberInput[Any]) -> None:
        self._subscriber = subscriber
        self._waits = False  # written by the timer, and where the queue is drained: at worst a tick is left out

    def add(self, _: object = None) -> None:
        """Adds a tick unless one waits."""
        if not self._waits:
            self._waits = True
            self._subscriber.offer((self,))

    def take(self) -> None:
        """Called when a tick has been delivered."""
        self._waits = False

    def __len__(self) -> int:
        return 0  # events in it, which the queue counts


class ColumnCollector:
    """Collects the events of a batch.

    Args:
        addresses: The PVs; batches have them in this order.
        count: Events of all PVs in a batch; None for no bound.
        on_error: Called with a PV and the error of an event that cannot be decoded.
    """

    def __init__(
        self, addresses: Sequence[PVAddress], count: int | None, on_error: Callable[[PVAddress, WireError], None]
    ) -> None:
        def decoder(address: PVAddress) -> ColumnDecoder:
            return ColumnDecoder(address, lambda error: on_error(address, error))

        self._decoders = {address.uri: decoder(address) for address in addresses}
        self._waiting: dict[str, list[Record]] = {}
        self._unusual: set[str] = set()  # PVs some of whose waiting records may have unusual headers
        self._waiting_bytes = 0
        self._count = count
        self._held = 0  # events of the batch, decoded or not

    def feed(self, item: RecordRun | Ticks) -> list[ColumnBatch]:
        """Takes records or a tick; returns the batches that are complete by it.

        Raises:
            K2EGError: The events of a PV are those of a record, where a field of it was requested.
        """
        if isinstance(item, Ticks):
            item.take()
            return self.finish()
        batches: list[ColumnBatch] = []
        while self._count is not None and len(item) >= (room := self._count - self._held):
            self._add(item.cut(0, room))
            item = item.cut(room)
            self._decode_all()
            if self._held == self._count:  # else some could not be decoded
                batches += self.finish()
        if item.records:
            self._add(item)
        return batches

    def finish(self) -> list[ColumnBatch]:
        """Returns the batch of what was collected, unless that is nothing."""
        self._decode_all()
        columns = {uri: column for uri, decoder in self._decoders.items() if (column := decoder.take()) is not None}
        self._held = 0
        return [ColumnBatch(columns)] if columns else []

    def _add(self, run: RecordRun) -> None:
        uri, records = run.address.uri, run.records
        self._held += len(records)
        if run.read is not None:
            if uri in self._waiting:
                self._decode(uri, self._waiting.pop(uri))
            self._decoders[uri].add_read(run.read, records[-1])
            return
        if not run.are_usual:
            self._unusual.add(uri)
        waiting = self._waiting.setdefault(uri, [])
        waiting += records
        self._waiting_bytes += len(records) * len(records[0].value or b"")  # roughly
        if len(waiting) >= _MOST_EVENTS:
            self._decode(uri, self._waiting.pop(uri))
        if self._waiting_bytes >= _MOST_BYTES:
            self._decode_all()

    def _decode(self, uri: str, records: Sequence[Record]) -> None:
        self._waiting_bytes -= min(self._waiting_bytes, len(records) * len(records[0].value or b""))
        self._held -= len(records) - self._decoders[uri].add(records, are_usual=uri not in self._unusual)
        self._unusual.discard(uri)

    def _decode_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for uri, records in waiting.items():
            self._decode(uri, records)
        self._waiting_bytes = 0


def column_batches(
    source: Observable[Any], make: Callable[[], ColumnCollector], label: str, overflow: Overflow
) -> Observable[ColumnBatch]:
    """Returns the batches of a stream of `RecordRun` and `Ticks`, for each subscription those of its own collector.

    What was collected is emitted before the stream completes or fails.
    """

    def subscribe(
        observer: abc.ObserverBase[ColumnBatch], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        collector = make()
        subscription = SingleAssignmentDisposable()
        raised = False

        def emit(batches: Sequence[ColumnBatch]) -> None:
            nonlocal raised
            raised = True  # unless it returns
            for batch in batches:
                observer.on_next(batch)
            raised = False

        def on_next(item: Any) -> None:
            try:
                batches = collector.feed(item)
            except K2EGError as error:  # of the PV, not of the subscriber
                subscription.dispose()
                observer.on_error(error)
            else:
                emit(batches)

        def on_error(error: Exception) -> None:
            if not raised:  # else it is that of the subscriber
                emit(collector.finish())
            observer.on_error(error)

        def on_completed() -> None:
            emit(collector.finish())
            observer.on_completed()

        subscription.disposable = source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
        return subscription

    return LabelledObservable(subscribe, label, overflow)

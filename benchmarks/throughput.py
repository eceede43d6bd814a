"""Events per second that a client delivers, compared with a minimal reader of the same records.

    python benchmarks/throughput.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

Each round produces full NTScalars (550 bytes) to topics that a client monitors and a bare consumer is assigned to,
while both are blocked. Then one of them is released and timed until it has all events, then the other; so both start
with the same prefetch and do not compete with the producer. A round measures both orders and adds the times, because
the first has an advantage. "Reading" passes updates to a handler that reads value,
severity and time, "columns" gets these in batches of numpy arrays, "decoding" reads the whole structure, all compared
with `consume` and `msgpack.unpackb`;
"latest" is a subscriber with ``overflow="latest"`` that reads ten times a second, compared with `consume`.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgpack
from confluent_kafka import Message

from k2eg_rx import Client, ColumnBatch, PVUpdate, first
from k2eg_rx.pv import monitor_topic
from laboratory import TIMEOUT, BareReader, Laboratory, laboratory
from measuring import Row, at_least, run

EVENTS = 150_000  # decoded; 100 MB, several times the prefetch of both
NEWEST_EVENTS = 450_000  # with few decoded; fewer events would measure the start only
COUNTS = (1, 10, 1000)
_BATCH = 30_000  # events of a batch of columns
_FASTEST = 4e6  # events per second that no client reaches
_POLL_SECONDS = 0.1  # between two polls of the subscriber to the newest values
# Both prefetch the same amount, otherwise the records read before the start would decide.
_PREFETCH: dict[str, str | int] = {
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.max.bytes": 16 * 1024 * 1024,
    "fetch.queue.backoff.ms": 20,
}
_SETTLE = 1.0  # seconds until the broker has finished writing
_HELD = 3  # events of the gate's PV: one in the handler, the others fill its queue


@dataclass
class Gate:
    """Blocks a client's poll thread with a subscriber that does not return and a full queue.

    `opened` is set by the benchmark's thread, `shut` by the subscriber's.
    """

    opened: threading.Event = field(default_factory=threading.Event)
    shut: threading.Event = field(default_factory=threading.Event)

    def hold(self, _update: PVUpdate) -> None:
        """Blocks until released."""
        self.shut.set()
        self.opened.wait()


class Decoding:
    """A subscriber that decodes and counts every event."""

    def __init__(self, client: Client, uris: Sequence[str], total: int) -> None:
        self._total = total
        self._done = threading.Event()
        self._count = 0
        self._subscription = client.monitor_many_stream(uris).subscribe(self._take)

    def _take(self, update: PVUpdate) -> None:
        if update.data:
            self._count += 1
            if self._count == self._total:
                self._done.set()

    def came(self) -> int:
        """Returns the number of events."""
        return self._count

    def wait(self) -> None:
        """Waits for the last event."""
        if not self._done.wait(TIMEOUT * 4):
            raise SystemExit(f"the client handed over {self._count} of {self._total} events")
        self._subscription.dispose()


class Reading(Decoding):
    """A subscriber that reads value, severity and time of every event."""

    def _take(self, update: PVUpdate) -> None:
        if update.value is not None and update.severity is not None and update.timestamp:
            self._count += 1
            if self._count == self._total:
                self._done.set()


class Batching(Decoding):
    """A subscriber that gets value, severity and time of every event in batches of columns."""

    def __init__(self, client: Client, uris: Sequence[str], total: int) -> None:
        self._total = total
        self._done = threading.Event()
        self._count = 0
        self._subscription = client.monitor_columns(uris, count=_BATCH).subscribe(self._take_batch)

    def _take_batch(self, batch: ColumnBatch) -> None:
        for column in batch.values():
            if column.time.min() > 0 and column.severity.max() >= 0 and len(column.value):
                self._count += len(column)
        if self._count == self._total:
            self._done.set()


class Looking:
    """A subscriber that reads the newest event of each PV ten times a second."""

    def __init__(self, client: Client, uris: Sequence[str], total: int) -> None:
        self._client = client
        self._pvs = len(uris)
        self._total = total
        self._seen = 0
        self._dropped = client.status.dropped
        self._stopped = threading.Event()
        self._subscription = client.monitor_many_stream(uris, overflow="latest").subscribe(self._look)

    def _look(self, _update: PVUpdate) -> None:
        self._seen += 1
        if self._seen % self._pvs == 0:
            self._stopped.wait(_POLL_SECONDS)

    def came(self) -> int:
        """Returns the number of events replaced or seen."""
        return self._client.status.dropped - self._dropped + self._seen

    def wait(self) -> None:
        """Waits for all events but those in the queue, one per PV."""
        while (left := self._total - self._pvs - self.came()) > 0:
            time.sleep(max(left / _FASTEST, 0.001))  # polling more often would slow down the readers
        self._subscription.dispose()
        self._stopped.set()


def _let_go(gate: Gate, subscriber: Decoding | Looking) -> float:
    """Returns the seconds the client takes."""
    start = time.perf_counter()
    gate.opened.set()
    subscriber.wait()
    return time.perf_counter() - start


def _read(reader: BareReader, total: int, use: Callable[[Message], object] | None) -> float:
    """Returns the seconds the minimal reader takes."""
    start = time.perf_counter()
    for batch in reader.batches():
        if use is not None:
            for message in batch:
                use(message)
        total -= len(batch)
        if total <= 0:
            return time.perf_counter() - start
    raise AssertionError


def _shut(place: Laboratory, gate_name: str, gate: Gate) -> None:
    """Blocks the client's poll thread: first the subscriber, then its full queue."""
    for _ in range(2):
        place.produce([gate_name], _HELD)
        if not gate.shut.wait(TIMEOUT):
            raise SystemExit("no event came")
        time.sleep(0.5)  # until the poll thread has read them, which is checked below


@dataclass(frozen=True, slots=True)
class Case:
    """A comparison.

    Attributes:
        name: What the client does.
        subscriber: Its subscriber.
        events: The number of events.
        use: What the bare loop does with a message; None consumes only.
        targets: The least ratio by number of PVs.
    """

    name: str
    subscriber: Callable[[Client, Sequence[str], int], Decoding | Looking]
    events: int
    use: Callable[[Message], object] | None
    targets: tuple[float, float, float]


def _unpacked(message: Message) -> object:
    return msgpack.unpackb(message.value())


READ = Case("value, severity and time", Reading, EVENTS, _unpacked, (2.0, 2.0, 1.6))
COLUMNS = Case("columns", Batching, EVENTS, _unpacked, (3.5, 3.5, 3.5))
DECODED = Case("decoded", Decoding, EVENTS, _unpacked, (0.8, 0.8, 0.8))
NEWEST = Case('overflow="latest" at 10 Hz', Looking, NEWEST_EVENTS, None, (0.8, 0.8, 0.8))


def one_round(place: Laboratory, names: Sequence[str], case: Case, *, ours_first: bool) -> tuple[float, float]:
    """Returns events per second, of the client and of the bare loop, on PVs that may have been used before."""
    (gate_name,) = place.new_pvs(1)
    gate = Gate()
    uris = [f"pva://{name}" for name in names]
    with Client("bench", "throughput", settings=place.settings(), silence=600.0) as client:
        client.monitor_stream(f"pva://{gate_name}", capacity=1).subscribe(gate.hold)
        events = case.events
        subscriber = case.subscriber(client, uris, events)
        first(client.activation_stream([f"pva://{gate_name}", *uris], timeout=TIMEOUT))
        reader = BareReader(place.address, names, _PREFETCH)
        _shut(place, gate_name, gate)
        place.produce(names, events)
        time.sleep(_SETTLE)
        if subscriber.came():
            raise SystemExit("the client was not held while the events were produced")
        timed: dict[bool, float] = {}
        for ours in (ours_first, not ours_first):
            timed[ours] = _let_go(gate, subscriber) if ours else _read(reader, events, case.use)
        reader.close()
    return events / timed[True], events / timed[False]


def _in_either_order(place: Laboratory, names: Sequence[str], case: Case) -> tuple[float, float]:
    runs = [one_round(place, names, case, ours_first=ours_first) for ours_first in (True, False)]
    ours, bare = (statistics.harmonic_mean(rates) for rates in zip(*runs, strict=True))
    return ours, bare


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns the rows of both comparisons per number of PVs."""
    rows: list[Row] = []
    with laboratory(kafka) as place:
        for case in (READ, COLUMNS, DECODED, NEWEST):
            for count, target in zip(COUNTS, case.targets, strict=True):
                names = place.new_pvs(count)
                pairs = [_in_either_order(place, names, case) for _ in range(rounds)]
                ours, bare = zip(*pairs, strict=True)
                against = "consume" if case.use is None else "consume + unpackb"
                name = f"{case.name}, {count} PV{'s' * (count > 1)}"
                rows.append(Row(name, "events/s", ours, bare, against=against, target=at_least(target)))
                place.delete(map(monitor_topic, names))
    return rows


if __name__ == "__main__":
    run("throughput", measure)

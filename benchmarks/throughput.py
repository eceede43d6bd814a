"""Events per second of processor time that a client delivers, compared with a minimal reader of the same records.

    python benchmarks/throughput.py [reading columns decoding newest] [--pvs 1 10 1000] [--rounds 5] [--json FILE]

Each round produces full NTScalars (550 bytes) to topics that a client monitors and a bare consumer is assigned to,
while both are held back. librdkafka fetches all of it for both, so that neither waits for the broker, nor competes with
it for the processors, while it is measured. Then one of them is released until it has all events, then the other;
rounds alternate which is first. Compared are the processor times of the process, all threads together, because other
work on the machine disturbs them less than the times. The note has the ratio of the times, too.

    reading   updates go to a handler that reads value, severity and time; compared with `consume` and `unpackb`
    columns   a handler gets these in batches of numpy arrays; compared with the same
    decoding  a handler reads the whole structure; compared with the same
    newest    a subscriber with ``overflow="latest"`` reads ten times a second; compared with `consume`
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgpack
from confluent_kafka import Message

from k2eg_rx import Client, ColumnBatch, PVUpdate, first
from k2eg_rx.pv import monitor_topic
from laboratory import TIMEOUT, BareReader, Laboratory, laboratory
from measuring import Row, at_least, execute, options_parser

EVENTS = 150_000  # decoded
NEWEST_EVENTS = 450_000  # with few decoded; fewer events would measure the start only
COUNTS = (1, 10, 1000)
_BATCH = 30_000  # events of a batch of columns
_FASTEST = 4e6  # events per second that no client reaches
_POLL_SECONDS = 0.1  # between two polls of the subscriber to the newest values
# Room for all events. By default librdkafka holds 64 MiB, and 100,000 records of a partition.
_PREFETCH: dict[str, str] = {
    "queued.max.messages.kbytes": str(1 << 20),
    "queued.min.messages": "10000000",
    "fetch.max.bytes": str(16 << 20),
}
_HELD = 3  # events of the gate's PV: one in the handler, the others fill its queue
_REST = 0.2  # seconds in which a process that has fetched everything takes less than a fifth of a processor
_RESTS = 4  # of them in a row: on a busy machine a thread may not run in one


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


@dataclass(frozen=True, slots=True)
class Speed:
    """Events per second of processor time, and per second."""

    by_processor_time: float
    by_time: float


def _measured(events: int, read: Callable[[], None]) -> Speed:
    processor, start = time.process_time(), time.perf_counter()
    read()
    return Speed(events / (time.process_time() - processor), events / (time.perf_counter() - start))


def _let_go(gate: Gate, subscriber: Decoding | Looking) -> None:
    """Lets the client read until its subscriber has everything."""
    gate.opened.set()
    subscriber.wait()


def _read(reader: BareReader, total: int, use: Callable[[Message], object] | None) -> None:
    """Lets the minimal reader read everything."""
    for batch in reader.batches():
        if use is not None:
            for message in batch:
                use(message)
        total -= len(batch)
        if total <= 0:
            return


def _wait_until_fetched() -> None:
    """Waits until librdkafka's threads, which fetch for both readers, rest."""
    deadline, rests = time.monotonic() + TIMEOUT * 4, 0
    while rests < _RESTS:
        before = time.process_time()
        time.sleep(_REST)
        rests = rests + 1 if time.process_time() - before < _REST / 5 else 0
        if time.monotonic() > deadline:
            raise SystemExit("the events were not fetched")


def shut(place: Laboratory, gate_name: str, gate: Gate) -> None:
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
CASES = {"reading": READ, "columns": COLUMNS, "decoding": DECODED, "newest": NEWEST}


def one_round(place: Laboratory, names: Sequence[str], case: Case, *, ours_first: bool) -> tuple[Speed, Speed]:
    """Returns the speed of the client and of the bare loop, on PVs that may have been used before."""
    (gate_name,) = place.new_pvs(1)
    gate = Gate()
    uris = [f"pva://{name}" for name in names]
    settings = replace(place.settings(), kafka=_PREFETCH)
    with Client("bench", "throughput", settings=settings, silence=600.0) as client:
        client.monitor_stream(f"pva://{gate_name}", capacity=1).subscribe(gate.hold)
        events = case.events
        subscriber = case.subscriber(client, uris, events)
        first(client.activation_stream([f"pva://{gate_name}", *uris], timeout=TIMEOUT))
        reader = BareReader(place.address, names, dict(_PREFETCH))
        shut(place, gate_name, gate)
        place.produce(names, events, in_turn=False)
        _wait_until_fetched()
        if subscriber.came():
            raise SystemExit("the client was not held while the events were produced")
        measured: dict[bool, Speed] = {}
        for ours in (ours_first, not ours_first):
            read = partial(_let_go, gate, subscriber) if ours else partial(_read, reader, events, case.use)
            measured[ours] = _measured(events, read)
        reader.close()
    return measured[True], measured[False]


def _row(place: Laboratory, case: Case, names: Sequence[str], rounds: int) -> Row:
    count = len(names)
    pairs = [one_round(place, names, case, ours_first=number % 2 == 0) for number in range(rounds)]
    ours, bare = zip(*((ours.by_processor_time, bare.by_processor_time) for ours, bare in pairs), strict=True)
    by_time = statistics.median(ours.by_time / bare.by_time for ours, bare in pairs)
    return Row(
        f"{case.name}, {count} PV{'s' * (count > 1)}",
        "events/s",
        ours,
        bare,
        against="consume" if case.use is None else "consume + unpackb",
        target=at_least(case.targets[COUNTS.index(count)]),
        note=f"by time {by_time:.2f}",
    )


def measure(
    kafka: str, rounds: int, kinds: Sequence[str] = tuple(CASES), counts: Sequence[int] = COUNTS
) -> Iterator[Row]:
    """Yields the rows of some comparisons per number of PVs."""
    with laboratory(kafka) as place:
        for count in counts:
            names = place.new_pvs(count)  # for all kinds: a broker takes long to create a thousand topics
            for kind in kinds:
                yield _row(place, CASES[kind], names, rounds)
            place.delete(map(monitor_topic, names))


if __name__ == "__main__":
    parser = options_parser("Measures how many events a client delivers.")
    parser.add_argument("kinds", nargs="*", choices=[*CASES, []], help="(default: all)")
    parser.add_argument("--pvs", type=int, nargs="+", choices=COUNTS, default=COUNTS, help="(default: all)")
    chosen = parser.parse_args()
    execute({"throughput": partial(measure, kinds=chosen.kinds or tuple(CASES), counts=chosen.pvs)}, chosen)

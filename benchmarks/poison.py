"""Sends undecodable records between good ones on all topics of a client, and checks the outcome.

    python benchmarks/poison.py [--count 100000] [--seed 1] [--json FILE]

The client reads from the in-memory broker. Bad records are damaged messages of a deployed gateway
(tests/data/recorded.jsonl) and generated ones. Each bad record must be counted, each good one delivered, and no
exception logged.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import platform
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from k2eg_rx import Client, PVUpdate, Settings, Snapshot, SnapshotProperties, first
from k2eg_rx.errors import K2EGError, WireError
from k2eg_rx.protocol import decode_body, decode_reply, decode_snapshot_message, pack
from k2eg_rx.pv import PVAddress, monitor_topic, snapshot_topic
from k2eg_rx.testing import MemoryBroker, MemoryTransport
from k2eg_rx.transport import Headers, Receiver, Record

RECORDED = Path(__file__).parents[1] / "tests" / "data" / "recorded.jsonl"
PV, SNAPSHOT = "poison:pv", "poison-snapshot"
ADDRESS = PVAddress.parse(f"pva://{PV}")
COMMANDS, REPLIES = "commands", "poison-reply"
EVENTS, ITERATIONS = monitor_topic(PV), snapshot_topic(SNAPSHOT)
HALF = "\ud800"  # a surrogate: valid in JSON escapes, not in UTF-8
MSGPACK: Headers = (("k2eg-ser-type", b"Msgpack"),)
JSON: Headers = (("k2eg-ser-type", b"Json"),)
LARGEST = 64 * 1024  # the client's size limit here
GOOD_EVERY = 10  # bad records per good event
ASK_EVERY = 200  # bad records per get and snapshot iteration
TIMEOUT = 60.0  # seconds


class Poison(NamedTuple):
    """A bad record and its topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass
class Report:
    """The outcome: counts of records by their handling.

    Attributes:
        poison: Bad records sent; some are valid by chance or not for this client.
        discarded: Records that the client counted as undecodable.
        expected: Number of undecodable records according to a decoder of single records.
        kinds: Discarded records by kind.
        good_events: Good events sent, and those received in order.
        good_gets: Gets with a reply, and all gets.
        good_iterations: Iterations received, and all sent.
        exceptions: Log lines with exceptions or above level WARNING.
        seconds: Duration from the first to the last record.
    """

    poison: int = 0
    discarded: int = 0
    expected: int = 0
    kinds: dict[str, int] = field(default_factory=dict[str, int])
    good_events: tuple[int, int] = (0, 0)
    good_gets: tuple[int, int] = (0, 0)
    good_iterations: tuple[int, int] = (0, 0)
    exceptions: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether all checks passed."""
        pairs = (self.good_events, self.good_gets, self.good_iterations)
        return self.discarded == self.expected and all(a == b for a, b in pairs) and not self.exceptions


def recorded() -> list[tuple[bytes, Headers]]:
    """Returns recorded bodies and headers of a deployed gateway."""
    messages = map(json.loads, RECORDED.read_text().splitlines())
    return [
        (base64.b64decode(message["value_b64"]), tuple((name, text.encode()) for name, text in message["headers"]))
        for message in messages
    ]


class Spoiler:
    """Generates bad records, reproducibly for a seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._seeds = recorded()
        self._spoil: Sequence[Callable[[bytearray], bytes | None]] = (
            self._flip,
            self._cut,
            self._splice,
            self._stretch,
            self._noise,
            self._nest,
            self._lie,
            self._renamed,
            lambda _: None,
            lambda _: b"",
            lambda body: bytes(body) * (LARGEST // max(len(body), 1) + 1),
            bytes,
        )

    def records(self, count: int) -> Iterator[Poison]:
        """Returns a number of bad records."""
        chance = self._chance
        for _ in range(count):
            body, headers = chance.choice(self._seeds)
            topic = chance.choice((REPLIES, EVENTS, EVENTS, ITERATIONS))
            key = chance.choice((PV.encode(), PV.encode(), PV.encode(), None, b"", b"\xff\xfe", b"other:pv"))
            value = chance.choice(self._spoil)(bytearray(body))
            yield Poison(topic, key, value, self._headers(JSON if value and value[:1] == b"{" else headers))

    def _headers(self, headers: Headers) -> Headers:
        if self._chance.random() < 0.8:
            return headers
        names = ("k2eg-ser-type", "other", "")
        values = (b"Msgpack", b"Json", b"msgpack-compact", b"\xff\x00", b"", None, b"x" * 2000)
        some = range(self._chance.randrange(3))
        return tuple((self._chance.choice(names), self._chance.choice(values)) for _ in some)

    def _flip(self, body: bytearray) -> bytes:
        for _ in range(self._chance.randint(1, 8)):
            body[self._chance.randrange(len(body))] = self._chance.randrange(256)
        return bytes(body)

    def _cut(self, body: bytearray) -> bytes:
        return bytes(body[: self._chance.randrange(len(body))])

    def _splice(self, body: bytearray) -> bytes:
        other, _ = self._chance.choice(self._seeds)
        at = self._chance.randrange(len(body))
        return bytes(body[:at]) + other[self._chance.randrange(len(other)) :]

    def _stretch(self, body: bytearray) -> bytes:
        at = self._chance.randrange(len(body))
        return bytes(body[:at] + body[at : at + 40] * self._chance.randint(2, 20) + body[at:])

    def _noise(self, _: bytearray) -> bytes:
        return self._chance.randbytes(self._chance.randrange(200))

    def _nest(self, _: bytearray) -> bytes:
        """Returns nesting at and beyond the depth limit in place of a plain value."""
        depth = self._chance.choice((10, 900, 1015, 1020, 1100, 20_000))
        name = self._chance.choice((PV, "error", "reply_id", "message_type", "iter_index"))
        if self._chance.random() < 0.5:
            return f'{{"{name}":'.encode() + b"[" * depth + b"]" * depth + b"}"
        return b"\x81" + pack(name) + b"\x91" * depth + b"\x01"

    def _lie(self, body: bytearray) -> bytes:
        """Returns wrong lengths and an unused MessagePack byte."""
        heads = (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff")
        return self._chance.choice((*heads, b"\xc1")) + bytes(body)

    def _renamed(self, _: bytearray) -> bytes:
        """Returns maps with the right keys and arbitrary values."""
        names: Sequence[Any] = ("error", "reply_id", "message", "message_type", "timestamp", "iter_index", PV, SNAPSHOT)
        values: Sequence[Any] = (0, -1, 1, 2**63, 1.5, "x", None, [], {}, {"value": 1}, True, [[{}]], PV)
        as_json = self._chance.random() < 0.4
        names, values = (*names, *((HALF,) if as_json else (5, b"\xff"))), (*values, HALF if as_json else b"\xff")
        body: dict[Any, Any] = {
            self._chance.choice(names): self._chance.choice(values) for _ in range(self._chance.randrange(8))
        }
        return json.dumps(body).encode() if as_json else pack(body)


class Judge:
    """Decides which records violate the protocol, one at a time."""

    def __init__(self) -> None:
        self.expected = 0
        self._last: bytes | None = None

    def see(self, poison: Poison) -> None:
        """Adds a record, in the order of its topic."""
        record = Record(poison.topic, 0, 0, poison.key, poison.value, poison.headers)
        if len(poison.value or b"") > LARGEST:
            self.expected += 1
            return
        try:
            self._read(record)
        except WireError:
            self.expected += 1
        except K2EGError:
            pass

    def _read(self, record: Record) -> None:
        if record.topic == REPLIES:
            decode_reply(record)
        elif record.topic == ITERATIONS:
            decode_snapshot_message(record)
        elif record.key == PV.encode() or (record.key is None and PV in map(str, decode_body(record))):
            repeated = record.value is not None and record.value == self._last and b"timeStamp" in record.value
            self._last = record.value
            if not repeated:
                PVUpdate(ADDRESS, record).load()

    def see_good(self, value: bytes) -> None:
        """Adds a good event."""
        self._last = value


class Gateway(Receiver):
    """Replies to every command successfully."""

    def __init__(self, broker: MemoryBroker) -> None:
        transport = MemoryTransport(broker)
        self._sink = transport.sink()
        self._source = transport.events(self, None)
        self._source.read(COMMANDS).result(TIMEOUT)
        self._closing: list[Callable[[float], None]] = [self._source.close, self._sink.close, transport.close]

    def ready(self) -> bool:
        """Always ready."""
        return True

    def receive(self, records: Sequence[Record]) -> None:
        """Replies to commands."""
        for record in records:
            command = json.loads(record.value or b"")
            body = {"error": 0, "reply_id": command["reply_id"], PV: {"value": 1}}
            self._sink.send(command["reply_topic"], pack(body), headers=MSGPACK)

    def close(self) -> None:
        """Stops replying."""
        for close in self._closing:
            close(1.0)


class Trouble(logging.Handler):
    """Records log lines with exceptions or above level WARNING."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Records a log line."""
        if record.exc_info or record.levelno > logging.WARNING:
            self.said.append(logging.Formatter().format(record))


class Run:
    """A client and the records sent to it.

    Use as a context manager; `feed` as often as is wanted, then `report`.
    """

    def __init__(self) -> None:
        self._broker = MemoryBroker()
        for topic in (COMMANDS, REPLIES, EVENTS, ITERATIONS):
            self._broker.create_topic(topic)
        self._gateway = Gateway(self._broker)
        settings = Settings("poison", "memory", COMMANDS, REPLIES, max_message_bytes=LARGEST)
        self.client = Client("poison", "poison", settings=settings, transport=MemoryTransport(self._broker))
        self._judge = Judge()
        self._report = Report()
        self._trouble = Trouble()
        self._events: list[int] = []
        self._iterations: list[int] = []
        self._sent = self._asked = self._answered = self._taken = 0
        self._news = threading.Condition()
        logging.getLogger("k2eg_rx").addHandler(self._trouble)
        self.client.monitor_stream(ADDRESS.uri).subscribe(self._event, self._failed)
        properties = SnapshotProperties(snapshot_name=SNAPSHOT, pv_uri_list=[ADDRESS.uri])
        self.client.snapshot_recurring_stream(properties).subscribe(self._iteration, self._failed)
        first(self.client.activation_stream([ADDRESS.uri]))
        first(self.client.snapshot_activation_stream(SNAPSHOT))

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()
        self._gateway.close()
        logging.getLogger("k2eg_rx").removeHandler(self._trouble)

    def _failed(self, error: Exception) -> None:
        self._trouble.said.append(f"a stream ended: {error!r}")

    def _event(self, update: PVUpdate) -> None:
        with self._news:
            match update.value:
                case {"good": int(number)}:  # bad records never contain this
                    self._events.append(number)
                case _:
                    pass
            self._news.notify()

    def _iteration(self, snapshot: Snapshot) -> None:
        with self._news:
            if snapshot.timestamp == -1_000_000:  # nanoseconds
                self._iterations.append(snapshot.iteration)
            self._news.notify()

    def feed(self, poison: Iterable[Poison]) -> None:
        """Sends bad records with good ones between them."""
        began = time.perf_counter()
        for bad in poison:
            self._judge.see(bad)
            self._broker.append(bad.topic, bad.value, bad.key, bad.headers)  # pyright: ignore[reportArgumentType]
            self._report.poison += 1
            if self._report.poison % GOOD_EVERY == 0:
                self._send_event()
            if self._report.poison % ASK_EVERY == 0:
                self._ask()
        self._report.seconds += time.perf_counter() - began

    def _send_event(self) -> None:
        value = pack({PV: {"value": {"good": self._sent}}})
        self._sent += 1
        self._judge.see_good(value)
        self._broker.append(EVENTS, value, PV.encode(), MSGPACK)

    def _ask(self) -> None:
        """Runs a get and an iteration, after which earlier records have been processed."""
        self._send_event()
        self._taken += 1
        common = {"snapshot_name": SNAPSHOT, "timestamp": -1, "iter_index": self._taken}
        data = {"message_type": 1, "timestamp": -1, "iter_index": self._taken, PV: {"value": 1}}
        for body in ({"message_type": 0} | common, data, {"message_type": 2, "error": 0} | common):
            self._broker.append(ITERATIONS, pack(body), SNAPSHOT.encode(), MSGPACK)
        self._asked += 1
        try:
            self._answered += first(self.client.get_stream(ADDRESS.uri, TIMEOUT)).value == 1
        except K2EGError as error:
            self._trouble.said.append(repr(error))
        with self._news:
            self._news.wait_for(
                lambda: len(self._events) >= self._sent and len(self._iterations) >= self._taken, TIMEOUT
            )

    def report(self) -> Report:
        """Returns the outcome for all records sent."""
        self._ask()
        report = self._report
        counts: Counter[str] = Counter()
        for (kind, _), count in self.client.status.decode_errors.items():
            counts[kind] += count
        report.kinds = dict(counts)
        report.discarded, report.expected = self.client.status.discarded, self._judge.expected
        in_order = sum(found == wanted for wanted, found in enumerate(self._events))
        report.good_events = self._sent, in_order
        report.good_gets = self._asked, self._answered
        report.good_iterations = self._taken, len(set(self._iterations))
        report.exceptions = self._trouble.said
        return report


def main() -> int:
    """Runs the check and prints the figures; returns 1 if a check failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with Run() as run:
        run.feed(Spoiler(arguments.seed).records(arguments.count))
        report = run.report()
    figures = asdict(report) | {"seed": arguments.seed, "python": platform.python_version()}
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if report.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())

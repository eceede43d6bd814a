"""Cost of a get in the client, in batches of 1,000 and one by one, compared with a minimal client.

    python benchmarks/batches.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

The minimal client is a producer and a consumer of confluent-kafka: it produces all commands and consumes until every
reply has arrived, decoding each for its id; it has no timeouts or retries. Processor time is that of this process with
all its threads; broker and responder are other processes. Of the batches of a round the median counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import msgpack
from reactivex import operators as ops

from k2eg_rx import Client, first
from laboratory import Laboratory, laboratory
from latency import Bare
from measuring import Row, at_most, run

GETS = 1000  # per batch
SINGLE_GETS = 300  # one by one, per round
BATCHES = 5  # per round, after two that are not counted

Cost = tuple[float, float]  # microseconds per get: processor, wall


class Reader(Bare):
    """A minimal client that reads many PVs concurrently."""

    def get_many(self, uris: Sequence[str]) -> None:
        """Reads PVs."""
        waiting = {self.send(command="get", pv_name=uri) for uri in uris}

        def all_are_there(value: bytes | None) -> bool:
            waiting.discard(msgpack.unpackb(value)["reply_id"])
            return not waiting

        self.until(lambda message: all_are_there(message.value()))


def _cost(action: Callable[[], object], gets: int) -> Cost:
    processor, wall = time.process_time(), time.perf_counter()
    action()
    return (time.process_time() - processor) * 1e6 / gets, (time.perf_counter() - wall) * 1e6 / gets


def _costs(get_many: Callable[[Sequence[str]], object], get: Callable[[str], object]) -> tuple[Cost, Cost]:
    """Returns the cost of a get in a batch, and alone."""
    uris = [f"pva://bench:{number}" for number in range(GETS)]
    for _ in range(2):
        get_many(uris)
    batches = [_cost(lambda: get_many(uris), GETS) for _ in range(BATCHES)]
    processor, wall = zip(*batches, strict=True)

    def one_after_another() -> None:
        for uri in uris[:SINGLE_GETS]:
            get(uri)

    return (statistics.median(processor), statistics.median(wall)), _cost(one_after_another, SINGLE_GETS)


def _ours(place: Laboratory) -> tuple[Cost, Cost]:
    def get_many(uris: Sequence[str]) -> None:
        for got in first(client.get_many_stream(uris).pipe(ops.to_list())):
            got.result()

    with Client("bench", "batches", settings=place.settings()) as client:
        return _costs(get_many, lambda uri: first(client.get_stream(uri)))


def _bare(place: Laboratory) -> tuple[Cost, Cost]:
    bare = Reader(place.settings())
    try:
        return _costs(bare.get_many, bare.get)
    finally:
        bare.close()


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns the rows of gets in batches and one by one, in processor and wall time."""
    with laboratory(kafka) as place:
        measured = [(_ours(place), _bare(place)) for _ in range(rounds)]

    def row(name: str, kind: int, part: int, limit: float | None) -> Row:
        ours, theirs = (tuple(costs[side][kind][part] for costs in measured) for side in (0, 1))
        target = None if limit is None else at_most(limit)
        return Row(name, "us/get", ours, theirs, against="produce + consume", target=target)

    return [
        row(f"get_many_stream of {GETS:,}, processor time", 0, 0, 2.0),
        row(f"get_many_stream of {GETS:,}, time", 0, 1, None),
        row("get after get, processor time", 1, 0, None),
        row("get after get, time", 1, 1, None),
    ]


if __name__ == "__main__":
    run("batches", measure)

"""Processor time of an event in a client, by stage.

    python benchmarks/stages.py [--rounds 5] [--kafka HOST:PORT] [--json FILE]

Runs the client's side of `throughput` and measures its stages: reading messages from librdkafka, creating records,
routing, decoding and delivery. It uses thread time, so waiting for the GIL does not count. It patches private
functions, because a public hook there would cost time for every event.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import throughput
from k2eg_rx.delivery import SubscriberQueue
from k2eg_rx.kafka.consumer import poll_loop
from k2eg_rx.kafka.consumer.poll_loop import PollLoop
from laboratory import laboratory
from measuring import Row, run

_STAGES: tuple[tuple[str, Any, str], ...] = (
    ("consume", PollLoop, "_fetch"),
    ("make records", poll_loop, "records_of"),
    ("route", PollLoop, "_deliver"),
    ("decode and deliver", SubscriberQueue, "_deliver"),
)


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    """Measures the stages; yields the seconds of each."""
    spent: dict[str, float] = defaultdict(float)

    def clocked(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def run_stage(*arguments: Any) -> Any:
            start = time.thread_time()
            try:
                return stage(*arguments)
            finally:
                spent[name] += time.thread_time() - start  # each stage has one thread

        return run_stage

    with ExitStack() as patches:
        for name, owner, attribute in _STAGES:
            patches.enter_context(patch.object(owner, attribute, clocked(name, getattr(owner, attribute))))
        yield spent


def measure(kafka: str, rounds: int) -> list[Row]:
    """Returns a row per stage, for decoded events and for the newest ones."""
    rows: list[Row] = []
    with laboratory(kafka) as place:
        for case in (throughput.READ, throughput.DECODED, throughput.NEWEST):
            names = place.new_pvs(1)
            figures: dict[str, list[float]] = {name: [] for name, _, _ in _STAGES}
            for _ in range(rounds):
                with _timed() as spent:
                    throughput.one_round(place, names, case, ours_first=False)
                for name, columns in figures.items():
                    columns.append(spent[name] / case.events * 1e6)
            rows += [Row(f"{case.name}: {name}", "us/event", tuple(column)) for name, column in figures.items()]
    return rows


if __name__ == "__main__":
    run("stages", measure)

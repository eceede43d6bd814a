"""Two gateways of one group carry out puts to a real IOC; one is killed, one is frozen. No put is carried out twice.

The records of the IOC log what is written to them.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from p4p.client.thread import Context

from k2eg_rx import Client, K2EGError
from k2eg_rx.embedded.ioc import SoftIoc

RECORDS = [f"put{number}" for number in range(4)]
PERIOD = 0.01  # seconds between puts, as a load
UNDER_WAY = 500  # puts at most: on a busy machine more would wait longer than their timeout, and none would be written
PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
PUT_TIMEOUT = 20.0
SESSION = {"session.timeout.ms": "6000"}  # the shortest that a broker accepts by default
RECORD = """
record(ao, "{name}") {{ field(FLNK, "{name}:log") }}
record(compress, "{name}:log") {{
    field(INP, "{name}") field(ALG, "Circular Buffer") field(NSAM, "50000")
}}
"""


class Putter:
    """Puts the numbers 1, 2, 3, ... to the records in turn, until `stop`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._begun = 0
        self._ended = 0
        self.written: dict[str, list[int]] = defaultdict(list)
        self.errors: dict[str, dict[int, Exception]] = defaultdict(dict)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(PERIOD):
            with self._changed:
                self._changed.wait_for(lambda: self._begun - self._ended < UNDER_WAY or self._stopped.is_set())
            self._begun += 1
            self._put(RECORDS[self._begun % len(RECORDS)], self._begun)

    def _put(self, name: str, number: int) -> None:
        def end(error: Exception | None = None) -> None:
            with self._changed:
                self._ended += 1
                if error is None:
                    self.written[name].append(number)
                else:
                    self.errors[name][number] = error
                self._changed.notify_all()

        put = self._client.put_stream(f"pva://{name}", number, PUT_TIMEOUT, check=False)
        put.subscribe(lambda _: end(), end)

    def wait_until_new_puts_are_written(self) -> None:
        """Waits until a put that has not begun yet is written to each record."""
        begun = self._begun
        with self._changed:
            assert self._changed.wait_for(
                lambda: all(max(self.written[name], default=0) > begun for name in RECORDS), PATIENCE
            ), {name: numbers[-1:] for name, numbers in self.written.items()}

    def stop(self) -> None:
        """Ends the puts; waits for the replies to all. Idempotent."""
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()
        self._thread.join()
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended == self._begun, PATIENCE)


@pytest.fixture
def ioc(tmp_path: Path) -> Iterator[SoftIoc]:
    database = tmp_path / "log.db"
    database.write_text("".join(RECORD.format(name=name) for name in RECORDS))
    with SoftIoc(database) as running:
        yield running


@pytest.fixture
def logs(ioc: SoftIoc) -> Iterator[Any]:
    """Returns what was written to a record, in order."""
    with Context("pva", conf=ioc.client_environment, useenv=False) as context:

        def log(name: str) -> Sequence[int]:
            values: Any = context.get(f"{name}:log", timeout=PATIENCE)
            return [int(value) for value in values]

        yield log


@pytest.fixture
def putter(site: Any) -> Iterator[Putter]:
    admin = AdminClient({"bootstrap.servers": site.broker})
    topic = f"commands-{site.name}"
    admin.create_topics([NewTopic(topic, 6, config={"message.timestamp.type": "LogAppendTime"})])[topic].result(
        PATIENCE
    )
    putter = Putter(site.client())
    yield putter
    with suppress(AssertionError):
        putter.stop()


def test_a_put_is_carried_out_at_most_once_and_in_order_when_gateways_are_killed_and_frozen(
    site: Any, ioc: SoftIoc, logs: Any, putter: Putter
) -> None:
    epics = ioc.client_environment
    killed, frozen = (site.gateway(kafka=SESSION, epics=epics) for _ in range(2))
    putter.wait_until_new_puts_are_written()

    killed.kill()
    putter.wait_until_new_puts_are_written()  # by the other one

    site.gateway(kafka=SESSION, epics=epics)
    frozen.freeze()
    putter.wait_until_new_puts_are_written()  # by the successor
    frozen.thaw()
    frozen.pause()  # it answers
    putter.wait_until_new_puts_are_written()
    putter.stop()

    for name in RECORDS:
        log = logs(name)
        assert len(log) == len(set(log)), "a put was carried out twice"
        # A process that is frozen, or not scheduled, between the claim of a put and the network writes it late.
        late = [number for number, later in pairwise(log) if later < number]
        assert len(late) <= 1, f"puts were carried out after later ones: {late}"
        assert set(putter.written[name]) <= set(log), "a put that was answered with success was not carried out"
        refused = {number for number, error in putter.errors[name].items() if "nothing was written" in str(error)}
        assert not refused & set(log), "a put was carried out though the error says that it was not"
        assert all(isinstance(error, K2EGError) for error in putter.errors[name].values())

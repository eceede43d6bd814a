"""The processes of the gateway benchmark, one role each; `Process` starts and controls one.

A role reads tasks from standard input, one JSON object per line: the method's name under "do", and its arguments. It
writes each result as a JSON line, runs one task at a time on its main thread, and ends with its input.

    source   a PVAccess server in Python that posts to its PVs
    gateway  `k2eg gateway` with production settings, and its metrics
    peer     p4p's client: gets and a monitor, for comparison
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

_ANSWER_SECONDS = 60.0  # twice the longest answer
_EXIT_SECONDS = 15.0  # a gateway that flushes its records takes a few
_SLICE = 0.001  # seconds: posts due in one slice are made together, since sleeps are not shorter
_NANO = 1_000_000_000


class Process:
    """A role in a process of its own; a context manager.

    Args:
        role: Which.
        arguments: What its class is made of.
        environment: Of the process.
    """

    def __init__(self, role: str, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._role = role
        self._process = subprocess.Popen(
            [sys.executable, __file__, role, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def tell(self, do: str, **arguments: Any) -> None:
        """Starts a task of the role; `answer` waits for its result."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def is_done(self) -> bool:
        """Whether the answer has arrived."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def answer(self) -> Any:
        """Waits for the result of the task and returns it."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _ANSWER_SECONDS)[0]:
            raise RuntimeError(f"the {self._role} does not answer")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self._role} ended with code {self._process.wait()}")
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Runs a task of the role and returns its result."""
        self.tell(do, **arguments)
        return self.answer()

    def __enter__(self) -> Self:
        self.answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Source:
    """A PVAccess server; each PV is an NTScalar with the fields of an analog record.

    Args:
        pvs: The names of its PVs.
    """

    def __init__(self, pvs: Sequence[str]) -> None:
        from p4p import Value, nt, server
        from p4p.server import raw

        self._type: Any = nt.NTScalar.buildType("d", display=True, control=True, valueAlarm=True, form=True)
        self._value: Any = Value
        first = {
            "display": {"limitLow": -100.0, "limitHigh": 100.0, "description": "of the benchmark", "units": "mm"},
            "control": {"limitLow": -100.0, "limitHigh": 100.0, "minStep": 0.1},
            "valueAlarm": {"active": True, "highAlarmLimit": 90.0, "lowAlarmLimit": -90.0},
        }
        self._pvs: dict[str, Any] = {name: raw.SharedPV(initial=Value(self._type, first)) for name in pvs}
        self._server: Any = server.Server(providers=[self._pvs])

    def post(self, pv: str, first: int, rate: float, seconds: float) -> dict[str, Any]:
        """Posts whole numbers from `first` on, with timestamps; returns their number and the seconds."""
        post, value_of, type_ = self._pvs[pv].post, self._value, self._type
        start, number = time.monotonic(), 0
        while (elapsed := time.monotonic() - start) < seconds:
            due = int(elapsed * rate) + 1
            while number < due:
                now = time.time_ns()
                stamp = {"secondsPastEpoch": now // _NANO, "nanoseconds": now % _NANO}
                post(value_of(type_, {"value": float(first + number), "timeStamp": stamp}))
                number += 1
                if not number % 100 and time.monotonic() - start >= seconds:
                    break
            time.sleep(max(0.0, min(start + due / rate - time.monotonic(), _SLICE if rate > 1 / _SLICE else 1.0)))
        return {"posts": number, "seconds": time.monotonic() - start}

    def close(self) -> None:
        """Stops serving."""
        self._server.stop()


class GatewayProcess:
    """A gateway with settings of its own.

    Args:
        broker: Kafka's address.
        commands: Its command topic.
    """

    def __init__(self, broker: str, commands: str) -> None:
        from k2eg_rx.gateway.service import gateway, interpreter_of_a_gateway
        from k2eg_rx.settings import Settings

        self._running = ExitStack()
        settings = Settings("benchmark", broker, commands, "unused", {})
        self._running.enter_context(interpreter_of_a_gateway())
        self._gateway = self._running.enter_context(gateway(settings))

    def numbers(self) -> dict[str, float]:
        """Returns the gateway's metrics, its live partitions of the state topic, and its processor time in seconds."""
        fleet = self._gateway.state().fleet
        live = 0 if fleet is None else fleet.partitions["live"]
        return {**self._gateway.metrics.as_dict(), "live": live, "cpu": time.process_time()}

    def close(self) -> None:
        """Stops it."""
        self._running.close()


class Peer:
    """A plain p4p client, for comparison."""

    def __init__(self) -> None:
        from p4p.client import raw

        self._raw: Any = raw
        self._context: Any = raw.Context("pva", useenv=True, nt=False)
        self._latencies: list[float] = []
        self._monitor: Any = None

    def gets(self, pv: str, count: int) -> list[float]:
        """Reads a PV repeatedly, one by one; returns each duration in milliseconds."""
        took: list[float] = []
        held: list[Any] = []  # p4p closes the channel with the last operation on it
        for _ in range(count):
            done = threading.Event()
            start = time.perf_counter()
            held.append(self._context.get(pv, lambda _, done=done: done.set()))
            if not done.wait(_ANSWER_SECONDS / count):
                raise TimeoutError(f"p4p did not read {pv}")
            took.append((time.perf_counter() - start) * 1e3)
        return took

    def begin(self, pv: str) -> None:
        """Starts recording the latency of a PV's updates."""
        connected, opened = threading.Event(), threading.Lock()

        def signal() -> None:
            with opened:  # the first update may precede p4p's return of the monitor
                monitor = self._monitor
            while (value := monitor.pop()) is not None:
                connected.set()
                if not isinstance(value, Exception):
                    value.todict()  # as an application would
                    now = time.time_ns()
                    stamp = value["timeStamp.secondsPastEpoch"] * _NANO + value["timeStamp.nanoseconds"]
                    self._latencies.append((now - stamp) / 1e6)

        request = self._raw.Context.makeRequest("field()record[queueSize=100]")
        self._latencies.clear()
        with opened:
            self._monitor = self._context.monitor(pv, signal, request=request)
        connected.wait(5.0)

    def end(self) -> list[float]:
        """Returns the latencies, in milliseconds."""
        self._monitor.close()
        return self._latencies

    def close(self) -> None:
        """Ends it."""
        self._context.close()


_ROLES = {"source": Source, "gateway": GatewayProcess, "peer": Peer}


def main() -> None:
    """Runs a role until the input ends."""
    role: Any = _ROLES[sys.argv[1]](**json.loads(sys.argv[2]))
    # output of libraries must not mix with answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write("{}\n")
    answers.flush()
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            answer = getattr(role, asked.pop("do"))(**asked)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    except KeyboardInterrupt:
        pass
    finally:
        role.close()


if __name__ == "__main__":
    main()

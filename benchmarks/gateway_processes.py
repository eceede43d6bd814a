"""The processes around the gateway that is measured, one role each: `Process` starts one, and is its other end.

In: on standard input a JSON object a line, with the name of a method of the role under "do" and its arguments. Out: a
JSON object a line, each answer when the method is done. A role does one thing at a time, on its main thread; it ends
with its input.

    source   a PVAccess server in Python, whose PVs are posted to as fast as asked for
    gateway  `k2eg gateway` as it is run in earnest, and its numbers
    peer     p4p's own client: its gets and its monitor beside ours
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

_ANSWER_SECONDS = 60.0  # nothing here takes half as long
_EXIT_SECONDS = 15.0  # a gateway that sends what it still has takes a few
_SLICE = 0.001  # seconds: what is due in one is posted in a row, for a shorter sleep is not to be had
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

    def tell(self, do: str, **arguments: Any) -> None:
        """Has the role begin something; `answer` tells of its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def is_done(self) -> bool:
        """Whether the answer is there."""
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def answer(self) -> Any:
        """Returns the role's answer to what it was told to do; waits for it."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _ANSWER_SECONDS)[0]:
            raise RuntimeError(f"the {self._role} does not answer")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self._role} ended with code {self._process.wait()}")
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Has the role do something and returns its answer."""
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
    """A PVAccess server; each PV an NTScalar with all that an analog record has.

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
        """Posts whole numbers from `first` on to a PV, with the time; returns how many in how long."""
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
    """A gateway, of an environment made here.

    Args:
        broker: Kafka's address.
        commands: Its command topic.
    """

    def __init__(self, broker: str, commands: str) -> None:
        from k2eg_rx.gateway.service import gateway
        from k2eg_rx.settings import Settings

        self._running = ExitStack()
        settings = Settings("benchmark", broker, commands, "unused", {})
        self._gateway = self._running.enter_context(gateway(settings))

    def numbers(self) -> dict[str, float]:
        """Returns its metrics, and the processor seconds that it took until now."""
        return {**self._gateway.metrics.as_dict(), "cpu": time.process_time()}

    def close(self) -> None:
        """Stops it."""
        self._running.close()


class Peer:
    """p4p without anything above it."""

    def __init__(self) -> None:
        from p4p.client import raw

        self._raw: Any = raw
        self._context: Any = raw.Context("pva", useenv=True, nt=False)
        self._latencies: list[float] = []
        self._monitor: Any = None

    def gets(self, pv: str, count: int) -> list[float]:
        """Reads a PV so often, one after the other; returns how long each took, in milliseconds."""
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
        """Begins to note the latency of a PV's updates."""
        connected, opened = threading.Event(), threading.Lock()

        def signal() -> None:
            with opened:  # it comes before p4p has returned the monitor
                monitor = self._monitor
            while (value := monitor.pop()) is not None:
                connected.set()
                if not isinstance(value, Exception):
                    value.todict()  # as whoever uses it would
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
    """Plays a role until the input ends."""
    role: Any = _ROLES[sys.argv[1]](**json.loads(sys.argv[2]))
    # what a library prints is not an answer
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

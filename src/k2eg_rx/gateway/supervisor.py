"""Several gateways of a group on one machine, each in a process of its own, with one log and one HTTP endpoint.

A member that ends is started again, later each time; one that gives no answer is killed first. Members end when the
supervisor does, also when it is killed: each reads the supervisor's questions from a pipe, and stops at its end.

Thread safety: the supervisor's main thread starts and stops members; the thread of the HTTP endpoint asks them. The
lock of a member keeps one question at a time in its pipe. In a member, one thread answers.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from k2eg_rx.concurrency import TerminationSignals
from k2eg_rx.gateway.endpoint import alive, ready, serve_pages
from k2eg_rx.gateway.figures import Figures
from k2eg_rx.gateway.gateway import Gateway
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.gateway.runtime.service_manager import ServiceManager
from k2eg_rx.gateway.service import run_gateway
from k2eg_rx.metrics import Buckets, Family, MetricsServer, Page, Reading, health_page
from k2eg_rx.settings import Settings
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_STEP = 0.5  # seconds between two looks at the members
_ANSWER = 2.0  # seconds for an answer; a member answers within milliseconds
_STUCK = 120.0  # seconds without an answer after which a member is killed; a starved machine is no reason
_FIRST_DELAY, _LAST_DELAY = 1.0, 30.0  # seconds until a member starts again: doubled each time
_STEADY = 60.0  # seconds after which the next delay is the first again
_END = 22.0  # seconds for all members to close; they take 2, and 18 more at most for others to take over

_MEMBERS = Family(
    "k2eg_gateway_members", "gauge", "Processes of this gateway: all, and those that are ready", ("state",)
)
_RESTARTS = Family("k2eg_gateway_restarts_total", "counter", "Processes of this gateway that had to be started again")
SUPERVISOR_FAMILIES = (_MEMBERS, _RESTARTS)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a member says of itself.

    Attributes:
        readings: Its metrics.
        stuck: What a restart may cure, by part; empty texts if nothing.
        unready: Why it cannot carry commands out, by part; empty texts if it can.
    """

    readings: Sequence[Reading] = ()
    stuck: Mapping[str, str] = field(default_factory=dict[str, str])
    unready: Mapping[str, str] = field(default_factory=lambda: {"gateway": "it has no answer: it starts, or is stuck"})

    @property
    def is_ready(self) -> bool:
        return not any(self.unready.values())


class _Member:
    """A member as the supervisor sees it."""

    def __init__(self, settings: Settings, number: int, configure: Callable[[], None]) -> None:
        self.number = number
        self.starts = 0
        self.answered = 0.0
        self.was_ready = False
        self._settings = settings
        self._configure = configure
        self._process: SpawnProcess | None = None
        self._questions: Connection[tuple[int, bool], Any] | None = None
        self._asking = threading.Lock()
        self._asked = 0
        self._killed = False
        self._delay = _FIRST_DELAY
        self._started = self._next_start = 0.0

    @property
    def pid(self) -> int | None:
        """The process id; None while it waits for its next start."""
        return self._process.pid if self._process else None

    def look(self, now: float) -> int | None:
        """Starts the process if that is due, and kills it if it is stuck; returns its exit code if it has ended."""
        if self._process is None:
            if now >= self._next_start:
                self._start(now)
        elif self._process.exitcode is not None:
            return self._ended(now)
        else:
            self.ask()
            if now - self.answered <= _STUCK or self._killed:
                return None
            _log.error("gateway process killed: member=%d reason=stuck for %.0f s", self.number, _STUCK)
            self._process.kill()
            self._killed = True
        return None

    def _start(self, now: float) -> None:
        context = multiprocessing.get_context("spawn")
        pipe: Any = context.Pipe()  # of another type on Windows
        ours: Connection[tuple[int, bool], Any] = pipe[0]
        theirs: Connection[Any, Any] = pipe[1]
        process = context.Process(
            target=_run_member, args=(self._settings, self._configure, theirs), name=f"gateway-{self.number}"
        )
        process.start()
        theirs.close()
        with self._asking:
            self._process, self._questions = process, ours
        self.starts += 1
        self._started = self.answered = now
        self._killed = False
        _log.info("gateway process started: member=%d pid=%d starts=%d", self.number, process.pid or 0, self.starts)

    def _ended(self, now: float) -> int:
        assert self._process is not None  # noqa: S101 - the caller has looked
        code = self._process.exitcode or 0
        if now - self._started >= _STEADY:
            self._delay = _FIRST_DELAY
        text = "gateway process ended: member=%d pid=%d exit_code=%d starts_again_in=%.0f"
        _log.error(text, self.number, self._process.pid or 0, code, self._delay)
        self._next_start, self._delay = now + self._delay, min(2 * self._delay, _LAST_DELAY)
        self._discard()
        return code

    def _discard(self) -> None:
        with self._asking:
            if self._questions is not None:
                self._questions.close()
            if self._process is not None:
                self._process.close()
            self._process = self._questions = None

    def ask(self, *, readings: bool = False) -> _Answer | None:
        """Returns what the member says of itself, with its metrics if asked for; None without an answer. Any thread."""
        with self._asking:
            if self._questions is None:
                return None
            self._asked += 1
            deadline = time.monotonic() + _ANSWER
            try:
                self._questions.send((self._asked, readings))
                while self._questions.poll(max(deadline - time.monotonic(), 0.0)):
                    number, answer = self._questions.recv()
                    if number == self._asked:  # others are late
                        if not any(answer.stuck.values()):
                            self.answered = time.monotonic()
                        self.was_ready |= answer.is_ready
                        return answer
            except (OSError, EOFError):  # it has ended
                pass
            return None

    def stop(self) -> None:
        """Asks the process to end."""
        if self._process is not None and self._process.exitcode is None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Waits for the end of the process, and kills it at the deadline."""
        if self._process is None:
            return
        self._process.join(max(deadline - time.monotonic(), 0.0))
        if self._process.exitcode is None:
            _log.error("gateway process killed: member=%d reason=it did not end", self.number)
            self._process.kill()
            self._process.join()
        self._discard()


def run_gateways(settings: Settings, configure: Callable[[], None], stop: threading.Event | None = None) -> int:
    """Runs the gateways of `[gateway] processes` until SIGTERM, SIGINT or SIGHUP; returns the exit code of the process.

    One gateway runs in this process. Of several, if one ends with an error before any was ready, as when Kafka refuses
    the connection, all end.

    Thread safety: blocks the calling thread. Signals are handled only if it is the main thread.

    Args:
        settings: The environment.
        configure: Sets a member's logs up. Called in its process, so it has to be a function of a module.
        stop: Setting this event also ends the gateways.
    """
    try:
        options = GatewayOptions.from_section(settings.section("gateway"))
        if options.processes == 1:
            return run_gateway(settings, stop)
        members = [_Member(settings, number, configure) for number in range(1, options.processes + 1)]
        stop = stop or threading.Event()
        with TerminationSignals() as signals, ExitStack() as running:
            signals.defer()
            if options.metrics_port:
                running.enter_context(_serve(members, options))
            running.callback(_end, members)
            return _supervise(members, lambda: stop.is_set() or signals.wait(_STEP), settings.command_topic)
    except ValueError as error:
        _log.error("gateway cannot run: %s", error)
        return 1


def _supervise(members: Sequence[_Member], stops: Callable[[], bool], command_topic: str) -> int:
    manager = ServiceManager()
    manager.starting("starting gateways")
    is_ready = False
    while True:
        now = time.monotonic()
        codes = [member.look(now) for member in members]
        if any(code is not None and code > 0 for code in codes) and not any(member.was_ready for member in members):
            _log.error("gateways cannot run: reason=a process ended before any was ready; its log lines say why")
            return 1
        if not is_ready and any(member.was_ready for member in members):
            is_ready = True
            manager.ready(f"{len(members)} gateways carry out the commands of {command_topic}")
        if manager.watchdog_period is not None:
            manager.alive()
        if stops():
            manager.stopping()
            return 0


def _end(members: Sequence[_Member]) -> None:
    for member in members:
        member.stop()
    deadline = time.monotonic() + _END
    for member in members:
        member.wait(deadline)


def _serve(members: Sequence[_Member], options: GatewayOptions) -> MetricsServer:
    def answers(*, readings: bool = False) -> dict[str, _Answer]:
        return {str(member.number): member.ask(readings=readings) or _Answer() for member in members}

    def readings() -> list[Reading]:
        found = answers(readings=True)
        count = {("all",): float(len(found)), ("ready",): float(sum(answer.is_ready for answer in found.values()))}
        restarts = float(sum(max(member.starts - 1, 0) for member in members))
        of_members = merged({name: answer.readings for name, answer in found.items()})
        return [Reading(_MEMBERS, count), Reading(_RESTARTS, restarts), *of_members]

    def readiness() -> Page:
        found = answers()
        reasons = {
            f"member {name}": "; ".join(f"{part}: {text}" for part, text in answer.unready.items() if text)
            for name, answer in found.items()
        }
        return health_page(reasons, is_well=any(answer.is_ready for answer in found.values()))

    return serve_pages(readings, lambda: health_page({}), readiness, options)


def merged(readings: Mapping[str, Sequence[Reading]]) -> list[Reading]:
    """Returns the metrics of all members: those of each with the label ``member``.

    Args:
        readings: The metrics by member.
    """
    values: dict[Family, dict[tuple[str, ...], float | Buckets]] = {}
    for member, of_member in readings.items():
        for family, present in of_member:
            series = present if isinstance(present, Mapping) else {(): present}
            for labels, value in series.items():
                padding = ("",) * (len(family.labels) - len(labels))
                values.setdefault(family, {})[*labels, *padding, member] = value
    return [Reading(replace(family, labels=(*family.labels, "member")), series) for family, series in values.items()]


def _run_member(settings: Settings, configure: Callable[[], None], questions: Connection[Any, Any]) -> None:
    """The main function of a member's process."""
    os.environ.pop("NOTIFY_SOCKET", None)  # the supervisor is the service
    configure()
    stop = threading.Event()
    created: list[Gateway] = []
    threading.Thread(target=_answer, args=(questions, created, stop), name="k2eg-member", daemon=True).start()
    sys.exit(run_gateway(settings, stop, created=created.append))


def _answer(questions: Connection[Any, Any], created: Sequence[Gateway], stop: threading.Event) -> None:
    figures: Figures | None = None
    try:
        while True:
            number, with_readings = questions.recv()
            if figures is None and created:
                figures = Figures(created[0].metrics, created[0].options, created[0].state)
            answer = _Answer()
            if figures is not None:
                state = created[0].state()
                readings = tuple(figures.read()) if with_readings else ()
                answer = _Answer(readings, alive(state), ready(state))
            questions.send((number, answer))
    except (OSError, EOFError):
        stop.set()  # the supervisor has ended

"""A gateway whose PVs are Python objects, in virtual time: for tests of scripts without a broker or an IOC.

In: PVs and what happens to them, from the test; clients that the test, or the script it tests, makes. Out: what a
gateway says, to those clients. There are no threads: all happens on that of the test, when it says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from reactivex import Observable
from reactivex.abc import SchedulerBase
from reactivex.scheduler import TimeoutScheduler

from k2eg_rx.client import Client
from k2eg_rx.concurrency import Runtime, current_runtime, use_runtime
from k2eg_rx.gateway import GatewayOptions, OutgoingRecord
from k2eg_rx.protocol import Command, ParsedCommand, Severity, parse_command
from k2eg_rx.pv import Protocol, PVAddress, pv_name_of
from k2eg_rx.settings import Settings, check_app_name
from k2eg_rx.testing.faults import Faults
from k2eg_rx.testing.gateway_process import GatewayProcess
from k2eg_rx.testing.memory_broker import MemoryBroker
from k2eg_rx.testing.memory_transport import MemoryTransport
from k2eg_rx.testing.scripted_provider import ScriptedProvider
from k2eg_rx.testing.scripted_pvs import ScriptedPV
from k2eg_rx.testing.virtual_clock import VirtualClock, VirtualExecutor
from k2eg_rx.transport import Record, Transport

_COMMANDS = "commands"
_REACTIVEX_TIMEOUTS = TimeoutScheduler.singleton()
_PROTOCOLS: tuple[Protocol, ...] = ("pva", "ca")


_patch_lock = threading.Lock()
_patches: list[object] = []  # the singleton of reactivex, as often as there are gateways; under the lock


@contextmanager
def _virtual_timeouts() -> Generator[None]:
    """Runs timers of reactivex's operators that are given no scheduler in the virtual time of their context.

    They ask `TimeoutScheduler.singleton`, and reactivex has no other place to change that.
    """
    with _patch_lock:
        original = _patches[0] if _patches else TimeoutScheduler.__dict__["singleton"]
        _patches.append(original)
        TimeoutScheduler.singleton = _timeout_scheduler  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        with _patch_lock:
            _patches.pop()
            if not _patches:
                setattr(TimeoutScheduler, "singleton", original)  # noqa: B010 - its type is a class method's


def _timeout_scheduler() -> SchedulerBase:
    runtime = current_runtime()
    return runtime.scheduler if runtime.is_virtual else _REACTIVEX_TIMEOUTS


class ScriptedGateway:
    """A gateway for tests; a context manager, within which it stands in for the real world.

    Within it every client that is made without a transport of its own comes here, whatever the environment's name;
    so does `dml`. Nothing happens by itself: what was asked is done when the test settles, advances the time, posts to
    a PV, or waits for an answer (`first`, the blocking methods of `dml`), and then all of it, in order, on the test's
    thread. Waiting for an answer advances the time as far as it takes: a timeout of a minute takes no time.

    Several may be open at a time, each in a thread or context of its own. A thread that a script starts belongs to the
    one that is open; with several, start it by ``Thread(target=contextvars.copy_context().run, args=(function,))``.

    Timers of `k2eg_rx.operators` and of reactivex's own operators run in virtual time too, unless they are given a
    scheduler. Code that waits in other ways, such as by `threading.Event`, `time.sleep` or asyncio, needs
    `clock.running()`.

    Example:
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> with ScriptedGateway() as gateway, gateway.client() as client:
        ...     current = gateway.pv("demo:current", 1.5, units="A")
        ...     _ = client.monitor_stream("pva://demo:current").subscribe(lambda update: print(update.value))
        ...     current.post(2.5, severity=1)
        1.5
        2.5

    Attributes:
        clock: The time.
        broker: Kafka: its ups and downs, and what was sent.
        faults: What goes wrong with answers.
        commands: What was asked, in order.
        latency: Seconds from what the gateway says, replies and events, to its arrival in Kafka; 0 at the begin.

    Args:
        environment: The one environment there is; None for any name.
        options: How the gateway behaves; it neither makes topics nor looks who listens.
        clock: The time; a new one if None.
    """

    def __init__(
        self,
        environment: str | None = None,
        *,
        options: GatewayOptions | None = None,
        clock: VirtualClock | None = None,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.broker = MemoryBroker(clock=self.clock.time)
        self.faults = Faults(self.clock)
        self.commands: list[Command] = []
        self.latency = 0.0
        self._environment = environment
        # a broker in memory has no administration
        self._options = replace(options or GatewayOptions(), create_topics=False, monitor_expiration=0.0)
        self._providers: dict[Protocol, ScriptedProvider] = {
            protocol: ScriptedProvider(protocol, self.clock) for protocol in _PROTOCOLS
        }
        self._pvs: dict[tuple[str, Protocol], ScriptedPV] = {}
        self._topics = [_COMMANDS]
        self._process: GatewayProcess | None = None
        self._open = ExitStack()
        self._runtime = Runtime(
            scheduler=self.clock,
            executor=lambda: VirtualExecutor(self.clock),
            settings=self._settings,
            transport=self._transport,
            wait=self.clock.wait,
        )

    # what a test says

    def pv(
        self,
        name: str,
        value: object = None,
        *,
        kind: str | None = None,
        units: str = "",
        limits: tuple[float, float] | None = None,
        description: str = "",
        severity: Severity | int = Severity.NO_ALARM,
        message: str = "",
        choices: Sequence[str] | None = None,
        fields: Mapping[str, Any] | None = None,
        read_only: bool = False,
        delay: float = 0.0,
        on_put: Callable[[Any], object] | None = None,
        connected: bool = True,
    ) -> ScriptedPV:
        """Makes a PV and returns it.

        Args:
            name: Its name, for one over both protocols; or its URI, for one over that protocol. A record's field is a
                PV of its own: ``demo:current.HIGH``.
            value: Its value, as `k2eg_rx.testing.structure` takes it; its type is the PV's: 0 is an integer, 0.0 a
                float, a numpy array has its own type, a map from column to list is a table.
            kind: The type by its pvData name, such as ``short`` or ``float[]``, if it is not the value's.
            units: Engineering units.
            limits: The lowest and the highest value.
            description: What it is.
            severity: Its alarm's severity.
            message: Its alarm's text.
            choices: An enum's labels; given, the value is one of them or its index.
            fields: Further fields; without a value, those of a structure that is no Normative Type.
            read_only: Whether puts are refused.
            delay: Seconds that a get or a put takes it.
            on_put: Called with what is put, before it is stored; see `ScriptedPV`.
            connected: Whether it is there from the begin.

        Raises:
            ValueError: There is one of that name, or something about it is not possible.
        """
        address = PVAddress.parse(name if "://" in name else f"pva://{name}")
        protocols = (address.protocol,) if "://" in name else _PROTOCOLS
        if any((address.name, protocol) in self._pvs for protocol in protocols):
            raise ValueError(f"there is a PV {address.name!r} already; gateway[{address.name!r}] is it")
        pv = ScriptedPV(
            address.name,
            protocols,
            self.clock,
            self._changed,
            value,
            kind=kind,
            severity=severity,
            message=message,
            choices=choices,
            fields=fields,
            about={"units": units, "limits": limits, "description": description},
            read_only=read_only,
            delay=delay,
            on_put=on_put,
            connected=connected,
        )
        with self.clock.alone():
            for protocol in protocols:
                self._pvs[address.name, protocol] = pv
                self._providers[protocol].add(pv)
        return pv

    def __getitem__(self, name: str) -> ScriptedPV:
        """Returns a PV by its name or URI.

        Raises:
            KeyError: There is none.
        """
        protocols = (PVAddress.parse(name).protocol,) if "://" in name else _PROTOCOLS
        for protocol in protocols:
            pv = self._pvs.get((pv_name_of(name), protocol))
            if pv is not None:
                return pv
        raise KeyError(f"no PV {name!r}; there is {', '.join(sorted({known for known, _ in self._pvs})) or 'none'}")

    def is_monitored(self, name: str) -> bool:
        """Returns whether the gateway has a subscription to a PV, for a monitor or a snapshot."""
        pv = self[name]
        return any(self._providers[protocol].subscriptions(pv) for protocol in pv.protocols)

    def client(self, app_name: str = "test", group_name: str | None = None, **options: Any) -> Client:
        """Returns a client of this gateway. It is the caller's to close.

        Args:
            app_name: The application.
            group_name: The group that shares the events, if any.
            options: What `k2eg_rx.Client` takes besides.
        """
        return Client(self._environment or "test", app_name, group_name=group_name, **options)

    def settle(self) -> None:
        """Has all happen that follows from what was done so far; the time stays as it is."""
        self.clock.settle()

    def advance(self, seconds: float) -> None:
        """Lets so many seconds pass, and all happen that is due in them."""
        self.clock.advance(seconds)

    def go_down(self) -> None:
        """Has the gateway die: it forgets its monitors and snapshots, and commands wait in Kafka. Idempotent."""
        with self.clock.alone():
            self.clock.settle()
            self._end()

    def come_up(self) -> None:
        """Starts it again; what waits for it is carried out, if it is not too old. Idempotent."""
        with self.clock.alone():
            if self._process is None:
                self._process = GatewayProcess(
                    MemoryTransport(self.broker, self.clock),
                    self._providers,
                    self._options,
                    clock=self.clock,
                    answering=self._answering,
                    latency=lambda: self.latency,
                )
                for topic in self._topics:
                    self._listen(topic)
            self.clock.settle()

    def _settings(self, environment_id: str, app_name: str) -> Settings:
        check_app_name(app_name)
        if self._environment not in (None, environment_id):
            raise ValueError(f"no environment {environment_id!r} in this test; there is {self._environment}")
        return Settings(environment_id, "memory", _COMMANDS, f"{app_name}-reply")

    def _transport(self, settings: Settings) -> Transport:
        if settings.command_topic not in self._topics:
            self._topics.append(settings.command_topic)
            self._listen(settings.command_topic)
        return MemoryTransport(self.broker, self.clock)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.enter_context(use_runtime(self._runtime))
            opened.enter_context(_virtual_timeouts())
            opened.callback(self._end)
            self.come_up()
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def _listen(self, topic: str) -> None:
        self.broker.create_topic(topic)  # so that its begin is where the gateway's group begins
        if self._process is not None:
            self._process.listen(topic)

    def _changed(self, pv: ScriptedPV) -> None:
        for protocol in pv.protocols:
            self._providers[protocol].tell(pv)

    def _answering(
        self, record: Record, answer: Callable[[Record], Observable[OutgoingRecord]]
    ) -> Observable[OutgoingRecord]:
        asked = parse_command(record.value)
        if not isinstance(asked, ParsedCommand):
            return answer(record)
        self.commands.append(asked.command)
        return self.faults.answer(asked, lambda: answer(record))

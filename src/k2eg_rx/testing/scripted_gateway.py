"""A gateway in virtual time whose PVs are Python objects, to test scripts without broker or IOC.

Thread safety: no threads; everything runs on the thread that runs the clock, usually the test's.
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

from k2eg_rx.arguments import callback
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
_patches: list[object] = []  # reactivex's singleton, once per open gateway; guarded by _patch_lock


@contextmanager
def _virtual_timeouts() -> Generator[None]:
    """Runs timers of reactivex's operators without scheduler in the virtual time of their context.

    These operators call `TimeoutScheduler.singleton`, which reactivex offers no other way to replace.
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
                setattr(TimeoutScheduler, "singleton", original)  # noqa: B010 - the type checker sees a class method


def _timeout_scheduler() -> SchedulerBase:
    runtime = current_runtime()
    return runtime.scheduler if runtime.is_virtual else _REACTIVEX_TIMEOUTS


class ScriptedGateway:
    """A gateway for tests; a context manager that replaces Kafka, threads and time for clients created within it.

    Clients without a transport of their own connect to this gateway, whatever their environment; so does `dml`.
    Commands are executed, in order and on the test's thread, when the test settles the clock, advances it, posts to a
    PV, or waits for a reply (`first`, the blocking methods of `dml`). Waiting advances the virtual time as needed, so a
    timeout of a minute takes no real time.

    Several gateways may be open at the same time, each in a thread or context of its own. A thread that a script starts
    uses the open gateway; with several, start it with
    ``Thread(target=contextvars.copy_context().run, args=(function,))``.

    Timers of `k2eg_rx.operators` and of reactivex's operators run in virtual time unless they have a scheduler of their
    own. Code that waits by other means, such as `threading.Event`, `time.sleep` or asyncio, needs `clock.running()`.

    Example:
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> with ScriptedGateway() as gateway, gateway.client() as client:
        ...     current = gateway.pv("demo:current", 1.5, units="A")
        ...     _ = client.monitor_stream("pva://demo:current").subscribe(lambda update: print(update.value))
        ...     current.post(2.5, severity=1)
        1.5
        2.5

    Attributes:
        clock: The virtual clock.
        broker: The in-memory Kafka broker, with its records and outages.
        faults: Fault injection for replies.
        commands: The commands received so far.
        latency: Delay of the gateway's replies and events on their way to Kafka, in seconds; initially 0.

    Args:
        environment: The only environment that exists; None accepts any name.
        options: The gateway's options; topic creation and monitor expiration are switched off.
        clock: The clock; by default a new one.
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
        # the in-memory broker has no topic administration
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
        """Creates and returns a PV.

        Args:
            name: The name, to serve it over both protocols, or the URI, to serve it over one. A record's field is a PV
                of its own: ``demo:current.HIGH``.
            value: The value, as `k2eg_rx.testing.structure` takes it. It determines the PV's type: 0 is an integer, 0.0
                a float, a numpy array has its dtype, a mapping from column to list is a table.
            kind: The pvData name of the type, such as ``short`` or ``float[]``, if not that of the value.
            units: Engineering units.
            limits: Lowest and highest value.
            description: The description.
            severity: The alarm's severity.
            message: The alarm's message.
            choices: The labels of an enum; the value is then a label or an index.
            fields: Further fields; without a value, the fields of a structure that is no Normative Type.
            read_only: Whether puts are rejected.
            delay: Seconds that a get or put takes.
            on_put: Called with the value of a put before it is stored; see `ScriptedPV`.
            connected: Whether the PV is connected at first.

        Raises:
            ValueError: The name is in use, or an argument is invalid.
        """
        address = PVAddress.parse(name if "://" in name else f"pva://{name}")
        if on_put is not None:
            callback(on_put, "on_put", "the value")
        protocols = (address.protocol,) if "://" in name else _PROTOCOLS
        if any((address.name, protocol) in self._pvs for protocol in protocols):
            raise ValueError(f"PV {address.name!r} exists already: use gateway[{address.name!r}]")
        pv = ScriptedPV(
            address.name,
            protocols,
            self.clock,
            self._publish,
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
        with self.clock.exclusive():
            for protocol in protocols:
                self._pvs[address.name, protocol] = pv
                self._providers[protocol].add(pv)
        return pv

    def __getitem__(self, name: str) -> ScriptedPV:
        """Returns a PV by its name or URI.

        Raises:
            KeyError: The PV does not exist.
        """
        protocols = (PVAddress.parse(name).protocol,) if "://" in name else _PROTOCOLS
        for protocol in protocols:
            pv = self._pvs.get((pv_name_of(name), protocol))
            if pv is not None:
                return pv
        raise KeyError(
            f"no PV {name!r}; existing PVs: {', '.join(sorted({known for known, _ in self._pvs})) or 'none'}"
        )

    def is_monitored(self, name: str) -> bool:
        """Returns whether the gateway is subscribed to a PV, for a monitor or a snapshot."""
        pv = self[name]
        return any(self._providers[protocol].subscriptions(pv) for protocol in pv.protocols)

    def client(self, app_name: str = "test", group_name: str | None = None, **options: Any) -> Client:
        """Returns a client of this gateway, which the caller must close.

        Args:
            app_name: The application.
            group_name: The group that shares events, if any.
            options: Keyword arguments of `k2eg_rx.Client`.
        """
        return Client(self._environment or "test", app_name, group_name=group_name, **options)

    def settle(self) -> None:
        """Runs all actions that are due; see `VirtualClock.settle`."""
        self.clock.settle()

    def advance(self, seconds: float) -> None:
        """Advances the time and runs what is due; see `VirtualClock.advance`."""
        self.clock.advance(seconds)

    def go_down(self) -> None:
        """Stops the gateway process: it loses its monitors and snapshots; commands wait in Kafka. Idempotent."""
        with self.clock.exclusive():
            self.clock.settle()
            self._end()

    def come_up(self) -> None:
        """Starts the gateway process again; it executes waiting commands that are not too old. Idempotent."""
        with self.clock.exclusive():
            if self._process is None:
                self._process = GatewayProcess(
                    MemoryTransport(self.broker, self.clock),
                    self._providers,
                    self._options,
                    clock=self.clock,
                    command_filter=self._apply_faults,
                    latency=lambda: self.latency,
                )
                for topic in self._topics:
                    self._read_commands(topic)
            self.clock.settle()

    def _settings(self, environment_id: str, app_name: str) -> Settings:
        check_app_name(app_name)
        if self._environment not in (None, environment_id):
            raise ValueError(f"no environment {environment_id!r} in this test, only {self._environment!r}")
        return Settings(environment_id, "memory", _COMMANDS, f"{app_name}-reply")

    def _transport(self, settings: Settings) -> Transport:
        if settings.command_topic not in self._topics:
            self._topics.append(settings.command_topic)
            self._read_commands(settings.command_topic)
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

    def _read_commands(self, topic: str) -> None:
        self.broker.create_topic(topic)  # before the first command, so that the gateway's group starts at its beginning
        if self._process is not None:
            self._process.listen(topic)

    def _publish(self, pv: ScriptedPV) -> None:
        for protocol in pv.protocols:
            self._providers[protocol].publish(pv)

    def _apply_faults(
        self, record: Record, answer: Callable[[Record], Observable[OutgoingRecord]]
    ) -> Observable[OutgoingRecord]:
        command = parse_command(record.value)
        if not isinstance(command, ParsedCommand):
            return answer(record)
        self.commands.append(command.command)
        return self.faults.answer(command, lambda: answer(record))

"""The commands get, put, monitor and snapshot.

Thread safety: commands run on the calling thread; updates are printed on the client's worker threads, in order.
"""

from __future__ import annotations

import uuid
from argparse import Namespace
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from reactivex import Observable

from k2eg.cli.formatting import Formatter, format_exactly
from k2eg.cli.output import print_lines, print_note
from k2eg.cli.session import CLOSE_SECONDS, CommandError, cause_of, open_client, until_signal
from k2eg.cli.stream_printer import ConnectionReporter, StreamPrinter
from k2eg.cli.value_parser import parse_value
from k2eg.cli.verification import is_written
from k2eg_rx import (
    Client,
    ConnectionEvent,
    ConnectionState,
    K2EGError,
    OperationError,
    OperationTimeout,
    PVAddress,
    PVData,
    PVUpdate,
    Settings,
    Snapshot,
    SnapshotProperties,
    SnapshotType,
    first,
)
from k2eg_rx.protocol import GetCommand
from k2eg_rx.texts import shown

_T = TypeVar("_T")

_NOTICE_SECONDS = 3.0  # a gateway connects a PV within one second; after three, the PV is worth a note
_MILLISECONDS = 1000


def _formatter(arguments: Namespace, uris: Iterable[str]) -> Formatter:
    width = max(len(PVAddress.parse(uri).name) for uri in uris)
    return Formatter(json=arguments.json, full=arguments.full, name_width=width)


def _start(stream: Observable[_T]) -> Future[_T]:
    """Subscribes to a single-item Observable; the future gets its item or error."""
    future: Future[_T] = Future()
    stream.subscribe(future.set_result, future.set_exception)
    return future


def get(arguments: Namespace, settings: Settings) -> None:
    """Reads PVs concurrently and prints them in the given order.

    Raises:
        K2EGError: A PV could not be read; the other PVs are printed first.
    """
    uris: Sequence[str] = arguments.uris
    formatter = _formatter(arguments, uris)
    failures: list[K2EGError] = []
    with open_client(settings, arguments) as client:
        for future in [_start(client.get_stream(uri, arguments.timeout)) for uri in uris]:
            try:
                print_lines(formatter.pv(future.result()))
            except OperationTimeout as error:
                failures.append(cause_of(error, client))
            except K2EGError as error:
                failures.append(error)
    if failures:
        for failure in failures[:-1]:
            print_note(str(failure))
        raise failures[-1]


def _as_label(text: str, data: PVData) -> str | None:
    """Returns the label that a text is, or None: labels may look like numbers, and come first, as for caput."""
    labels = data.choices or []
    return next((word for word in (text, text.strip()) if word in labels), None)


def put(arguments: Namespace, settings: Settings) -> None:
    """Writes a PV and prints the gateway's reply.

    Raises:
        K2EGError: The put failed or was not confirmed.
        CommandError: The PV's type or its value afterwards could not be read, or the PV has another value.
        ValueError: The value does not fit the PV.
    """
    value = arguments.value if arguments.string else parse_value(arguments.value)
    formatter = _formatter(arguments, [arguments.uri])
    with open_client(settings, arguments) as client:
        try:
            if not isinstance(value, str) and not arguments.no_check:
                value = _as_label(arguments.value, first(client.get_stream(arguments.uri, arguments.timeout))) or value
            sent = client.put_stream(
                arguments.uri, value, arguments.timeout, wait=arguments.wait, check=not arguments.no_check
            )
            reply = first(sent)
            print_lines(formatter.reply(arguments.uri, reply))
            if arguments.wait and not reply.completed:
                print_note("this gateway does not wait: whether the record has completed is not known")
            if arguments.verify:
                _verify(value, formatter, client, arguments)
        except OperationTimeout as error:
            explained = cause_of(error, client)
            if error.operation != GetCommand.operation or explained is not error:
                raise explained from error
            raise _type_not_known(arguments, error) from error
        except OperationError as error:
            if error.operation != GetCommand.operation:
                raise
            raise _type_not_known(arguments, error) from error
        except ValueError as error:
            if isinstance(value, str) or "(string)" not in str(error):
                raise
            raise CommandError(f"{error}; use --string to send {arguments.value!r} as text") from error


def _type_not_known(arguments: Namespace, error: K2EGError) -> CommandError:
    return CommandError(f"put of {arguments.uri}: nothing was sent, its type is not known: {error}")


def _verify(value: object, formatter: Formatter, client: Client, arguments: Namespace) -> None:
    """Reads a PV back, prints it, and compares it with the value that was sent.

    Raises:
        CommandError: It differs, or could not be read.
    """
    uri: str = arguments.uri
    try:
        read = first(client.get_stream(uri, arguments.timeout))
    except K2EGError as error:
        explained = cause_of(error, client) if isinstance(error, OperationTimeout) else error
        raise CommandError(f"put of {uri}: the value was sent, but could not be read back: {explained}") from error
    print_lines(formatter.pv(read))
    if not is_written(value, read):
        sent = shown(value)
        raise CommandError(f"put of {uri}: sent {sent}, but read {format_exactly(read)}: the PV has another value")


def monitor(arguments: Namespace, settings: Settings) -> None:
    """Prints the updates of PVs until the count or duration is reached, or a signal ends it.

    Raises:
        K2EGError: The monitor could not be activated.
        CommandError: A PV sent no update within the timeout.
    """
    uris: Sequence[str] = arguments.uris
    formatter = _formatter(arguments, uris)
    silent = {PVAddress.parse(uri).name: uri for uri in uris}

    unshown = set[str]()

    def show(update: PVUpdate | ConnectionEvent) -> None:
        if isinstance(update, ConnectionEvent):
            if not update.is_connected:
                print_lines(formatter.connection(update))
            return
        silent.pop(update.name, None)
        try:
            text = formatter.pv(update)
        except Exception as error:  # of one PV: the others go on
            if update.name not in unshown:
                print_note(f"{update.name} has a value that cannot be shown: {error}")
            unshown.add(update.name)
            return
        print_lines(text)

    printer = StreamPrinter(show, arguments.count, lambda item: isinstance(item, PVUpdate))
    reporter = ConnectionReporter(of_pvs=arguments.json)  # the lines of scripts are those of values
    with until_signal(), open_client(settings, arguments) as client:
        client.status_stream().subscribe(reporter.on_status)
        updates: Observable[Any] = client.monitor_many_stream(
            uris, overflow=arguments.overflow, connection=not arguments.json
        )
        updates.subscribe(printer.on_next, printer.end, printer.end)
        _wait_for_updates(printer, silent, client, arguments)


def _wait_for_updates(printer: StreamPrinter, silent: dict[str, str], client: Client, arguments: Namespace) -> None:
    timeout, duration = arguments.timeout, arguments.duration
    steps = sorted({_NOTICE_SECONDS} | {seconds for seconds in (timeout, duration) if seconds})
    waited = 0.0
    for step in steps:
        if printer.wait(step - waited):
            return
        waited = step
        names = ", ".join(list(silent.values()))
        connected = client.status.connection is ConnectionState.UP
        if step == timeout and names:
            why = client.status.reason or "does the PV exist?"
            raise CommandError(f"monitor of {names}: no update within {timeout:g} s; {why}")
        if step == duration:
            printer.end()
            return
        if step == _NOTICE_SECONDS and names and connected:
            print_note(f"still waiting for a first update of {names}")
    printer.wait()


def snapshot(arguments: Namespace, settings: Settings) -> None:
    """Takes a one-shot snapshot, or a recurring one until the count is reached or a signal ends it.

    Raises:
        K2EGError: The gateway refused or did not reply.
        CommandError: PVs had no value in a one-shot snapshot.
    """
    if arguments.every is None:
        with open_client(settings, arguments) as client:
            _one_shot(arguments, client)
    else:
        with until_signal(), open_client(settings, arguments) as client:
            _recurring(arguments, client)


def _one_shot(arguments: Namespace, client: Client) -> None:
    window = None if arguments.window is None else arguments.window / _MILLISECONDS
    # the timeout is for the reply, which the gateway sends when the window is over
    timeout = arguments.timeout + (window or 0)
    try:
        taken = first(client.snapshot_stream(arguments.uris, timeout, duration=window))
    except OperationTimeout as error:
        raise cause_of(error, client) from error
    print_lines(_formatter(arguments, arguments.uris).snapshot(taken))
    empty = [name for name, samples in taken.data.items() if not samples]
    if empty:
        raise CommandError(f"snapshot: no value of {', '.join(empty)}; does the PV exist?")


def _recurring(arguments: Namespace, client: Client) -> None:
    name = arguments.name or f"{arguments.app}-{uuid.uuid4().hex[:8]}"
    properties = SnapshotProperties(
        snapshot_name=name,
        pv_uri_list=list(arguments.uris),
        time_window=arguments.every,
        sub_push_delay_msec=arguments.push or 0,
        type=SnapshotType.TIMED_BUFFERED if arguments.all_values else SnapshotType.NORMAL,
    )
    formatter = _formatter(arguments, arguments.uris)

    def show(taken: Snapshot) -> None:
        print_lines(formatter.snapshot(taken))

    printer = StreamPrinter(show, arguments.count)
    client.status_stream().subscribe(ConnectionReporter().on_status)
    iterations = client.snapshot_recurring_stream(properties)
    iterations.subscribe(printer.on_next, printer.end, printer.end)
    ours, interrupted = True, False
    try:
        started = first(client.snapshot_activation_stream(name, arguments.timeout))
        ours = "publishing_topic" in started.body
        if not ours:
            print_note(f"snapshot {name} is already running: it is joined, and not stopped at the end")
        printer.wait()
    except KeyboardInterrupt:
        printer.end()
        interrupted = True
    except OperationError:
        ours = False  # refused: a snapshot of that name is another client's
        raise
    except OperationTimeout as error:
        ours = False  # no gateway confirmed the start: there is nothing to stop
        raise cause_of(error, client) from error
    finally:
        if ours:
            _stop(name, client, arguments.timeout, interrupted=interrupted)


def _stop(name: str, client: Client, timeout: float, *, interrupted: bool) -> None:
    """Stops a recurring snapshot; without a connection, waits for it only a moment."""
    if client.status.connection is not ConnectionState.UP:
        timeout = min(timeout, CLOSE_SECONDS)
    try:
        first(client.snapshot_stop_stream(name, timeout))
    except K2EGError as error:
        text = f"snapshot {name} was not stopped, the gateway may go on with it: {error}"
        if not interrupted:
            raise CommandError(text) from error
        print_note(text)

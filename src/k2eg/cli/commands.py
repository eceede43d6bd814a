"""What get, put, monitor and snapshot do.

In: parsed arguments and an environment. Out: lines on standard output, or an exception that says what went wrong. The
commands run on the calling thread; updates are printed on the client's worker thread, in order.
"""

from __future__ import annotations

import uuid
from argparse import Namespace
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from reactivex import Observable

from k2eg.cli.extras import require_extra
from k2eg.cli.listening import ConnectionNotes, Listening, note
from k2eg.cli.output import Form
from k2eg.cli.values import parse_value
from k2eg_rx import (
    Client,
    ConnectionState,
    K2EGError,
    OperationTimeout,
    PVAddress,
    PVUpdate,
    Settings,
    Snapshot,
    SnapshotProperties,
    SnapshotType,
    TransportError,
    first,
)

_T = TypeVar("_T")

_NOTICE_SECONDS = 3.0  # after which people wonder why nothing comes: a gateway connects a PV within one
_MILLISECONDS = 1000
# It takes about 0.02 s; a consumer group that is just finding itself may hold it up, and is not waited for.
_CLOSE_SECONDS = 1.0


class CommandError(Exception):
    """A command failed in a way of its own; the text says how."""


def _form(arguments: Namespace, uris: Iterable[str]) -> Form:
    width = max(len(PVAddress.parse(uri).name) for uri in uris)
    return Form(json=arguments.json, full=arguments.full, name_width=width)


@contextmanager
def _client(settings: Settings, arguments: Namespace) -> Generator[Client]:
    client = Client(settings.environment_id, arguments.app, settings=settings)
    try:
        yield client
    finally:
        client.close(_CLOSE_SECONDS)


def _say(text: str) -> None:
    print(text, flush=True)


def _start(stream: Observable[_T]) -> Future[_T]:
    """Subscribes to a stream of one; several can be under way together."""
    future: Future[_T] = Future()
    stream.subscribe(future.set_result, future.set_exception)
    return future


def _explained(error: OperationTimeout, client: Client) -> K2EGError:
    """A broker that cannot be reached shows as a missing reply: says so, where it is known."""
    status = client.status
    if status.connection is ConnectionState.UP or not status.reason:
        return error
    return TransportError(status.reason)


def get(arguments: Namespace, settings: Settings) -> None:
    """Reads PVs, all at once, and prints them in the order asked for.

    Raises:
        K2EGError: One could not be read; with several, the others are printed first.
    """
    uris: Sequence[str] = arguments.uris
    form = _form(arguments, uris)
    failures: list[K2EGError] = []
    with _client(settings, arguments) as client:
        for future in [_start(client.get_stream(uri, arguments.timeout)) for uri in uris]:
            try:
                _say(form.pv(future.result()))
            except OperationTimeout as error:
                failures.append(_explained(error, client))
            except K2EGError as error:
                failures.append(error)
    if failures:
        for failure in failures[:-1]:
            note(str(failure))
        raise failures[-1]


def put(arguments: Namespace, settings: Settings) -> None:
    """Writes a PV and prints the gateway's answer.

    Raises:
        K2EGError: It was not written, or nobody said so.
        ValueError: The value does not fit the PV.
    """
    value = arguments.value if arguments.string else parse_value(arguments.value)
    form = _form(arguments, [arguments.uri])
    with _client(settings, arguments) as client:
        try:
            reply = first(client.put_stream(arguments.uri, value, arguments.timeout, check=not arguments.no_check))
            _say(form.reply(arguments.uri, reply))
            if arguments.verify:
                _say(form.pv(first(client.get_stream(arguments.uri, arguments.timeout))))
        except OperationTimeout as error:
            raise _explained(error, client) from error
        except ValueError as error:
            if isinstance(value, str) or "(string)" not in str(error):
                raise
            raise CommandError(f"{error}; with --string, {arguments.value!r} is taken as text") from error


def monitor(arguments: Namespace, settings: Settings) -> None:
    """Prints the updates of PVs until enough have come, or Ctrl-C.

    Raises:
        K2EGError: The monitor could not be activated.
        CommandError: A PV gave nothing within the time-out.
    """
    uris: Sequence[str] = arguments.uris
    form = _form(arguments, uris)
    silent = {PVAddress.parse(uri).name: uri for uri in uris}

    def show(update: PVUpdate) -> None:
        silent.pop(update.name, None)
        _say(form.pv(update))

    listening = Listening(show, arguments.count)
    notes = ConnectionNotes()
    with _client(settings, arguments) as client:
        client.status_stream().subscribe(notes.status)
        updates = client.monitor_many_stream(uris, overflow=arguments.overflow)
        updates.subscribe(listening.item, listening.end, listening.end)
        try:
            _wait_for_updates(listening, silent, client, arguments)
        except KeyboardInterrupt:
            listening.end()  # the way to end it: nothing has failed


def _wait_for_updates(listening: Listening, silent: dict[str, str], client: Client, arguments: Namespace) -> None:
    timeout, duration = arguments.timeout, arguments.duration
    steps = sorted({_NOTICE_SECONDS} | {seconds for seconds in (timeout, duration) if seconds})
    waited = 0.0
    for step in steps:
        if listening.wait(step - waited):
            return
        waited = step
        names = ", ".join(list(silent.values()))
        connected = client.status.connection is ConnectionState.UP
        if step == timeout and names:
            why = client.status.reason or "does it exist?"
            raise CommandError(f"monitor of {names}: no update within {timeout:g} s; {why}")
        if step == duration:
            listening.end()
            return
        if step == _NOTICE_SECONDS and names and connected:
            note(f"still waiting for a first update of {names}")
    listening.wait()


def snapshot(arguments: Namespace, settings: Settings) -> None:
    """Acquires PVs together: once, or again and again until enough have come, or Ctrl-C.

    Raises:
        K2EGError: The gateway refused, or did not answer.
        CommandError: PVs had no value in a one-shot snapshot.
    """
    with _client(settings, arguments) as client:
        if arguments.every is None:
            _one_shot(arguments, client)
        else:
            _recurring(arguments, client)


def _one_shot(arguments: Namespace, client: Client) -> None:
    window = None if arguments.window is None else arguments.window / _MILLISECONDS
    # the window is the gateway's to wait; the time-out is for its answers
    timeout = arguments.timeout + (window or 0)
    try:
        taken = first(client.snapshot_stream(arguments.uris, timeout, time_window=window))
    except OperationTimeout as error:
        raise _explained(error, client) from error
    _say(_form(arguments, arguments.uris).snapshot(taken))
    empty = [name for name, samples in taken.data.items() if not samples]
    if empty:
        raise CommandError(f"snapshot: no value of {', '.join(empty)}; does it exist?")


def _recurring(arguments: Namespace, client: Client) -> None:
    name = arguments.name or f"{arguments.app}-{uuid.uuid4().hex[:8]}"
    properties = SnapshotProperties(
        snapshot_name=name,
        pv_uri_list=list(arguments.uris),
        time_window=arguments.every,
        sub_push_delay_msec=arguments.push or 0,
        type=SnapshotType.TIMED_BUFFERED if arguments.all_values else SnapshotType.NORMAL,
    )
    form = _form(arguments, arguments.uris)

    def show(taken: Snapshot) -> None:
        _say(form.snapshot(taken))

    listening = Listening(show, arguments.count)
    client.status_stream().subscribe(ConnectionNotes().status)
    iterations = client.snapshot_recurring_stream(properties)
    iterations.subscribe(listening.item, listening.end, listening.end)
    ours = True
    try:
        started = first(client.snapshot_activation_stream(name, arguments.timeout))
        ours = "publishing_topic" in started.body
        if not ours:
            note(f"snapshot {name} was running already: it stays as it was started, and goes on afterwards")
        listening.wait()
    except KeyboardInterrupt:
        listening.end()
    except OperationTimeout as error:
        ours = False  # as far as anybody knows there is nothing to stop, and nobody to do it
        raise _explained(error, client) from error
    finally:
        if ours:
            first(client.snapshot_stop_stream(name, arguments.timeout))


def gateway(settings: Settings) -> int:
    """Runs a gateway for the environment until SIGTERM or Ctrl-C; returns the exit code.

    Raises:
        MissingExtraError: The extra ``gateway`` is not installed.
    """
    require_extra("gateway")
    from k2eg_rx.gateway.service import run_gateway  # noqa: PLC0415 - an extra

    return run_gateway(settings)

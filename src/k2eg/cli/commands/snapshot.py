"""``k2eg snapshot``: acquires PVs together, once or again and again.

Thread safety: snapshots are printed on the client's worker threads, in order; the main thread waits.
"""

from __future__ import annotations

import uuid
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime

from k2eg.cli.arguments import Parser, add_full_option, add_pvs, add_timeout_option, positive
from k2eg.cli.commands.reading import SEARCH_SECONDS, found_uris
from k2eg.cli.output import print_lines, print_note
from k2eg.cli.printing.progress import progress
from k2eg.cli.printing.stream_printer import ConnectionReporter, StreamPrinter
from k2eg.cli.session import CLOSE_SECONDS, CommandError, cause_of, formatter_for, open_connected_client, until_signal
from k2eg.cli.values.pv_names import targets_of
from k2eg_rx import (
    Client,
    ConnectionState,
    K2EGError,
    OperationError,
    OperationTimeout,
    PVAddress,
    PVData,
    Settings,
    Snapshot,
    SnapshotProperties,
    SnapshotType,
    first,
)

_MILLISECONDS = 1000
_WINDOW = 1000  # milliseconds, the default of gateways


def snapshot(arguments: Namespace, settings: Settings) -> None:
    """Takes a one-shot snapshot, or a recurring one until the count is reached or a signal ends it.

    Raises:
        K2EGError: The gateway refused or did not reply.
        CommandError: PVs had no value in a one-shot snapshot.
    """
    targets = targets_of(arguments.names, arguments, settings)
    is_one_shot = arguments.every is None and arguments.recurring is None
    with nullcontext() if is_one_shot else until_signal(), open_connected_client(settings, arguments) as client:
        arguments.uris = found_uris(client, targets, min(arguments.timeout, SEARCH_SECONDS))
        if is_one_shot:
            _one_shot(arguments, client)
        else:
            _recurring(arguments, client)


def _one_shot(arguments: Namespace, client: Client) -> None:
    window = None if arguments.window is None else arguments.window / _MILLISECONDS
    # the timeout is for the reply, which the gateway sends when the window is over
    timeout = arguments.timeout + (window or 0)
    try:
        with progress(lambda: f"acquiring {len(arguments.uris)} PVs"):
            taken = first(client.snapshot_stream(arguments.uris, timeout, duration=window))
    except OperationTimeout as error:
        raise cause_of(error, client) from error
    if arguments.output is None:
        _show_of(arguments)(taken)
    else:
        _save(taken, arguments)
    empty = [name for name, samples in taken.data.items() if not samples]
    if empty:
        raise CommandError(f"snapshot: no value of {', '.join(empty)}; does the PV exist?")


def _show_of(arguments: Namespace) -> Callable[[Snapshot], None]:
    """Returns the function that prints a snapshot."""
    if arguments.csv:
        from k2eg.cli.commands.recurring import SnapshotTable  # noqa: PLC0415 - for one option

        return SnapshotTable().show
    formatter = formatter_for(arguments, arguments.uris)
    return lambda taken: print_lines(formatter.snapshot(taken))


def _save(taken: Snapshot, arguments: Namespace) -> None:
    from k2eg.cli.values.saved_values import form_of, saved, text_of, write_new  # noqa: PLC0415 - for one option

    addresses = {uri: PVAddress.parse(uri) for uri in arguments.uris}
    found = {uri: samples[-1] for uri, address in addresses.items() if (samples := taken.data.get(address.key))}
    values = [
        saved(uri, PVData(address.name, found[uri]) if uri in found else None) for uri, address in addresses.items()
    ]
    text = text_of(values, form_of(arguments.output), datetime.now(UTC).isoformat(timespec="seconds"))
    write_new(arguments.output, text)
    print_note(f"{len(found)} of {len(values)} PVs saved in {arguments.output}")


def _recurring(arguments: Namespace, client: Client) -> None:
    name = arguments.recurring or arguments.name or f"{arguments.app}-{uuid.uuid4().hex[:8]}"
    properties = SnapshotProperties(
        snapshot_name=name,
        pv_uri_list=list(arguments.uris),
        time_window=arguments.every or _WINDOW,
        repeat_delay=arguments.delay or 0,
        sub_push_delay_msec=arguments.push or 0,
        triggered=arguments.triggered,
        pv_field_filter_list=arguments.fields,
        type=SnapshotType.TIMED_BUFFERED if arguments.all_values else SnapshotType.NORMAL,
    )
    printer = StreamPrinter(_show_of(arguments), arguments.count)
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


def add_arguments(parser: Parser) -> None:
    """Adds the arguments of ``snapshot``."""
    add_pvs(parser)
    parser.add_argument("--window", type=positive, metavar="MSEC", help="how long a one-shot snapshot waits for values")
    parser.add_argument("--every", type=positive, metavar="MSEC", help="take a recurring snapshot until Ctrl-C")
    parser.add_argument("--recurring", metavar="NAME", help="likewise, with this name, each second without --every")
    parser.add_argument("--name", help="the recurring snapshot's name (default: a unique one)")
    parser.add_argument("--triggered", action="store_true", help="take one at each `k2eg trigger NAME` only")
    parser.add_argument("--delay", type=positive, metavar="MSEC", help="pause between recurring snapshots")
    parser.add_argument(
        "--fields", type=_fields, metavar="NAMES", help="top-level fields to keep, such as value,alarm (default: all)"
    )
    parser.add_argument("--csv", action="store_true", help="print comma-separated values, a row for each sample")
    parser.add_argument("--count", type=positive, metavar="N", help="stop after N snapshots")
    parser.add_argument(
        "--all-values", action="store_true", help="all values of the window instead of the last (type timedbuffered)"
    )
    parser.add_argument(
        "--push", type=positive, metavar="MSEC", help="with --all-values: publish partial results at this interval"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the values to a new file, .csv or .json, for diff and restore"
    )
    add_full_option(parser)
    add_timeout_option(parser)
    collect: Callable[[Namespace], None] = parser.get_default("check")

    def check(arguments: Namespace) -> None:
        collect(arguments)
        _check(arguments)

    parser.set_defaults(check=check)


def _fields(text: str) -> list[str]:
    """Returns the names of fields."""
    return [name.strip() for name in text.split(",")]


def _check(arguments: Namespace) -> None:
    """Raises ValueError for options that do not fit."""
    if arguments.output is not None:
        from k2eg.cli.values.saved_values import form_of  # noqa: PLC0415 - for one option

        form_of(arguments.output)  # before anything is acquired
        if arguments.every is not None or arguments.recurring is not None:
            raise ValueError("--output is for one-shot snapshots, not with --every or --recurring")
    if arguments.every is None and arguments.recurring is None:
        for option in ("name", "count", "all_values", "push", "triggered", "delay", "fields"):
            if getattr(arguments, option):
                raise ValueError(f"--{option.replace('_', '-')} needs --every, which makes the snapshot recurring")
    elif arguments.recurring is not None and arguments.name is not None:
        raise ValueError("--recurring has the name already, give no --name")
    elif arguments.window is not None:
        raise ValueError("--window is for one-shot snapshots; the window of a recurring one is --every")

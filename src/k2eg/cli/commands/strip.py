"""``k2eg strip``: a strip chart of PVs that begins with the past, on a terminal or once as text.

Thread safety: the client's threads add updates to the series, which have a lock; the main thread draws.
"""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime

from k2eg.cli.charts.canvas import coloured
from k2eg.cli.charts.chart import chart_lines
from k2eg.cli.charts.series import Curve, SeriesBook
from k2eg.cli.charts.view import View
from k2eg.cli.commands.reading import found_uris, no_history, read_history
from k2eg.cli.output import print_spans
from k2eg.cli.session import CommandError, ExitCode, open_client, open_connected_client, until_signal
from k2eg.cli.values.pv_names import Target, targets_of
from k2eg_rx import Client, Settings
from k2eg_rx.errors import require_extra
from k2eg_rx.protocol import nanoseconds_of

_SEARCH_SECONDS = 3.0  # for PVs without a protocol, before the chart is shown with those of PVAccess
_SMALLEST = (40, 10)  # columns and rows of a chart without a terminal of its own


def strip(arguments: Namespace, settings: Settings) -> None:
    """Shows a strip chart until it is left, or prints one.

    Raises:
        K2EGError: Kafka did not answer.
        CommandError: Standard output is no terminal, or a PV has no history in this time; its chart is printed first.
        ModuleNotFoundError: textual is not installed.
    """
    targets = targets_of(arguments.names, arguments, settings)
    since, until = arguments.interval
    view = View(
        (until - since).total_seconds(),
        own=arguments.own
        or bool(arguments.range)
        or any(curve.extent or curve.is_log for curve in arguments.file_curves),
        is_log=arguments.log,
    )
    if arguments.once:
        with open_connected_client(settings, arguments) as client:
            curves = _curves(arguments, targets, found_uris(client, targets, _SEARCH_SECONDS))
            _print_once(client, SeriesBook(curves, arguments.gap), view, arguments.interval)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("a strip chart needs a terminal: --once prints one as text", ExitCode.USAGE)
    require_extra("cli", ["textual"], "`k2eg strip`")
    from k2eg.cli.commands.strip_app import StripApp  # noqa: PLC0415 - an extra

    with until_signal() as signals, open_client(settings, arguments) as client:
        curves = _curves(arguments, targets, found_uris(client, targets, _SEARCH_SECONDS))
        book = SeriesBook(curves, arguments.gap)
        app = StripApp(book, view, lambda: client.status, is_over=lambda: signals.received is not None)
        streams = [
            client.monitor_many_stream([curve.uri for curve in curves], since=since),
            client.connection_stream([curve.uri for curve in curves], overflow="latest"),
        ]
        subscriptions = [stream.subscribe(book.take, app.fail) for stream in streams]
        try:
            signals.defer()
            app.run()
        finally:
            for subscription in subscriptions:
                subscription.dispose()
        if app.error is not None:
            raise app.error


def _curves(arguments: Namespace, targets: Sequence[Target], uris: Sequence[str]) -> list[Curve]:
    """Returns the PVs of a command; those of files of other strip charts with their ranges.

    Args:
        arguments: The command's.
        targets: The PVs as given.
        uris: Those that were found.
    """
    of_files = {curve.name: curve for curve in arguments.file_curves}
    curves: list[Curve] = []
    for target, uri in zip(targets, uris, strict=True):
        found = of_files.get(target.text)
        extent, is_log = (found.extent, found.is_log) if found else (None, False)
        curves.append(Curve(uri, target.name, arguments.range or extent, is_log))
    return curves


def _print_once(client: Client, book: SeriesBook, view: View, interval: tuple[datetime, datetime]) -> None:
    read_history(client, client.replay_stream([curve.uri for curve in book.curves], *interval), book.take)
    now = nanoseconds_of(interval[1])
    columns, rows = shutil.get_terminal_size()
    least_columns, least_rows = _SMALLEST
    rows = max(min(rows - 1, 40), least_rows + len(book.curves))  # a line for the prompt
    print_spans([coloured(line) for line in chart_lines(book, view, now, max(columns, least_columns), rows)])
    empty = [curve.uri for curve, series in zip(book.curves, book.series, strict=True) if not len(series)]
    if empty:
        raise no_history(empty)

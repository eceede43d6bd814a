"""``k2eg top``: a live table of PVs on a terminal.

Thread safety: the client's threads add updates to the rows, which have a lock; the main thread draws.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace

from k2eg.cli.commands.monitor import updates_of
from k2eg.cli.printing.top_rows import TopRows
from k2eg.cli.session import CommandError, ExitCode, open_client, until_signal
from k2eg.cli.values.pv_names import targets_of
from k2eg_rx import Settings
from k2eg_rx.errors import require_extra


def top(arguments: Namespace, settings: Settings) -> None:
    """Shows the table until it is left.

    Raises:
        K2EGError: The monitor could not be activated.
        CommandError: Standard output is no terminal.
        ModuleNotFoundError: textual is not installed.
    """
    targets = targets_of(arguments.names, arguments, settings)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("a live table needs a terminal: `k2eg monitor` prints updates as text", ExitCode.USAGE)
    require_extra("cli", ["textual"], "`k2eg top`")
    from k2eg.cli.commands.top_app import TopApp  # noqa: PLC0415 - an extra

    names = {target.uri: target.text for target in targets}
    names |= {target.other: target.text for target in targets if target.is_open}
    rows = TopRows(names, arguments.stale)
    with until_signal() as signals, open_client(settings, arguments) as client:
        app = TopApp(
            rows,
            lambda: client.status,
            alarms=arguments.alarms,
            sort=arguments.sort,
            is_over=lambda: signals.received is not None,
        )
        updates = updates_of(client, targets, overflow="latest", connection=True)
        subscription = updates.subscribe(lambda item: rows.add(item, time.monotonic()), app.fail)
        try:
            signals.defer()
            app.run()
        finally:
            subscription.dispose()
        if app.error is not None:
            raise app.error

"""``k2eg trigger`` and ``k2eg stop``: recurring snapshots, of whatever client; and snapshots as CSV.

Thread safety: main thread only, but for `SnapshotTable`, which one thread at a time calls.
"""

from __future__ import annotations

from argparse import Namespace

from k2eg.cli.output import print_lines
from k2eg.cli.printing.history_rows import VALUE_COLUMNS, csv_line, value_cells
from k2eg.cli.session import cause_of, open_connected_client
from k2eg_rx import OperationTimeout, PVData, Settings, Snapshot, first


def trigger(arguments: Namespace, settings: Settings) -> None:
    """Triggers a recurring snapshot once.

    Raises:
        K2EGError: The gateway refused or did not reply.
    """
    with open_connected_client(settings, arguments) as client:
        try:
            reply = first(client.snapshot_trigger_stream(arguments.name, arguments.timeout, tags=dict(arguments.tags)))
        except OperationTimeout as error:
            raise cause_of(error, client) from error
    print_lines(f"{arguments.name}: {reply.message or 'triggered'}")


def stop(arguments: Namespace, settings: Settings) -> None:
    """Stops a recurring snapshot; a gateway accepts that of one that does not run, too.

    Raises:
        K2EGError: The gateway refused or did not reply.
    """
    with open_connected_client(settings, arguments) as client:
        try:
            reply = first(client.snapshot_stop_stream(arguments.name, arguments.timeout))
        except OperationTimeout as error:
            raise cause_of(error, client) from error
    print_lines(f"{arguments.name}: {reply.message or 'stopped'}")


class SnapshotTable:
    """Prints snapshots as CSV: a row for each sample, below one line of headings."""

    def __init__(self) -> None:
        self._is_headed = False

    def show(self, taken: Snapshot) -> None:
        """Prints the rows of a snapshot; a PV without a value has one with empty cells."""
        lines = [] if self._is_headed else [csv_line(["snapshot", "iteration", *VALUE_COLUMNS])]
        self._is_headed = True
        head = [taken.name, taken.iteration or ""]
        for pv, samples in taken.data.items():
            lines += (csv_line([*head, *value_cells(PVData(pv, sample))]) for sample in samples)
            if not samples:
                lines.append(csv_line([*head, "", pv, "", "", "", ""]))
        print_lines("\n".join(lines))

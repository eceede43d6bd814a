"""``k2eg restore``: writes saved values to PVs.

It shows each value before it writes it, asks, writes each PV once and one after the other, and reads all of them back.
After a put without a reply it stops: a command that waits in Kafka is carried out when the gateway is back, so nothing
more must wait there.

Thread safety: main thread only.
"""

from __future__ import annotations

import fnmatch
import sys
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from k2eg.cli.commands.diff import Difference, print_differences, read_all
from k2eg.cli.output import print_lines, print_note
from k2eg.cli.printing.progress import progress
from k2eg.cli.session import CommandError, ExitCode, open_connected_client
from k2eg.cli.values.restoring import Tolerance, fitting, is_same
from k2eg.cli.values.saved_values import SavedValue, read_saved, saved
from k2eg_rx import Client, GetResult, K2EGError, OperationError, Settings, first
from k2eg_rx.texts import shown

_HEADINGS = ("PV", "to write", "now")


@dataclass(frozen=True, slots=True)
class Change:
    """A value to write.

    Attributes:
        uri: The PV.
        value: The value, as it is shown and as it is written.
        now: The present value.
        units: Engineering units.
    """

    uri: str
    value: object
    now: object
    units: str


@dataclass(slots=True)
class Plan:
    """What a restore does.

    Attributes:
        changes: What it writes, in the order of the file.
        same: The number of PVs that have their value already.
        refused: What it cannot write, by URI, and why.
    """

    changes: list[Change] = field(default_factory=list[Change])
    same: int = 0
    refused: dict[str, str] = field(default_factory=dict[str, str])


def restore(arguments: Namespace, settings: Settings) -> None:
    """Writes saved values to PVs that have others.

    Raises:
        K2EGError: The present values could not be read.
        CommandError: A value could not be written, or is not there afterwards; the text names the PVs.
        ValueError: The file is malformed.
    """
    entries = _selected(read_saved(arguments.file), arguments.only)
    with open_connected_client(settings, arguments) as client:
        plan = plan_of(
            entries, read_all(client, [entry.uri for entry in entries], arguments.timeout), arguments.tolerance
        )
        print_differences(
            [Difference(one.uri, one.value, one.now, one.units) for one in plan.changes],
            as_json=arguments.json,
            headings=_HEADINGS,
        )
        for uri, reason in plan.refused.items():
            print_note(f"{uri} cannot be restored: {reason}")
        print_note(f"{len(plan.changes)} to write, {plan.same} as saved, {len(plan.refused)} that cannot be restored")
        if plan.changes and not arguments.dry_run:
            if not arguments.yes and not _agreed(len(plan.changes)):
                raise CommandError("nothing was written")
            _write(plan, client, arguments)
    if plan.refused:
        raise CommandError(f"{len(plan.refused)} of {len(entries)} PVs were not restored")


def _selected(entries: Sequence[SavedValue], patterns: Sequence[str] | None) -> list[SavedValue]:
    def is_wanted(entry: SavedValue) -> bool:
        names = (entry.uri, entry.uri.partition("://")[2])
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns or ())

    chosen = [entry for entry in entries if patterns is None or is_wanted(entry)]
    if not chosen:
        raise ValueError(f"no PV of the file fits --only {' '.join(patterns or ())}")
    return chosen


def plan_of(entries: Sequence[SavedValue], found: Mapping[str, GetResult], tolerance: Tolerance) -> Plan:
    """Returns what to write, given the results of reading the PVs."""
    plan = Plan()
    for entry in entries:
        result = found[entry.uri]
        if result.data is None:
            plan.refused[entry.uri] = f"its present value is not known: {result.error}"
            continue
        try:
            value = fitting(entry, result.data)
        except ValueError as error:
            plan.refused[entry.uri] = str(error)
            continue
        if is_same(value, result.data, tolerance):
            plan.same += 1
        else:
            now = saved(entry.uri, result.data)
            plan.changes.append(Change(entry.uri, value, now.value, now.units))
    return plan


def _agreed(count: int) -> bool:
    """Asks at the terminal.

    Raises:
        ValueError: There is none.
    """
    if not sys.stdin.isatty():
        raise ValueError("restore asks at a terminal before it writes; without one, give --yes or --dry-run")
    print(f"Write these {count} values? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _write(plan: Plan, client: Client, arguments: Namespace) -> None:
    written: list[Change] = []
    failed: dict[str, str] = {}
    rest = list(plan.changes)
    try:
        with progress(lambda: f"{len(written)} of {len(plan.changes)} PVs written"):
            while rest:
                change = rest.pop(0)  # before it is written: whatever happens then, it is not written again
                try:
                    first(client.put_stream(change.uri, change.value, arguments.timeout))
                except (OperationError, ValueError) as error:
                    failed[change.uri] = str(error)  # refused: the others go on
                except K2EGError as error:
                    failed[change.uri] = f"whether it was written is not known: {error}"
                    break
                except BaseException:
                    failed[change.uri] = "whether it was written is not known: interrupted"
                    raise
                else:
                    written.append(change)
                if rest:
                    _pause(1 / arguments.rate)
    except BaseException:
        _report(written, failed, rest, {})
        raise
    different = _differences(written, client, arguments)
    _report(written, failed, rest, different)
    if failed or rest:
        raise CommandError(f"{len(failed) + len(rest)} of {len(plan.changes)} values were not written or not confirmed")
    if different:
        raise CommandError(f"{len(different)} PVs do not have the value that was written", ExitCode.NOT_VERIFIED)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _differences(written: Sequence[Change], client: Client, arguments: Namespace) -> dict[str, str]:
    """Reads back what was written; returns what each PV has instead."""
    if not written:
        return {}
    try:
        found = read_all(client, [change.uri for change in written], arguments.timeout)
    except K2EGError as error:
        return {change.uri: f"was written, but not read back: {error}" for change in written}
    different: dict[str, str] = {}
    for change in written:
        result = found[change.uri]
        if result.data is None:
            different[change.uri] = f"was written, but not read back: {result.error}"
        elif not is_same(change.value, result.data, arguments.tolerance):
            has = saved(change.uri, result.data).value
            different[change.uri] = f"{shown(change.value)} was written, but it has {shown(has)}"
    return different


def _report(
    written: Sequence[Change], failed: Mapping[str, str], rest: Sequence[Change], different: Mapping[str, str]
) -> None:
    for uri, reason in [*failed.items(), *different.items()]:
        print_note(f"{uri}: {reason}")
    for change in rest:
        print_note(f"{change.uri}: not written")
    print_lines(f"{len(written)} written, {len(written) - len(different)} of them verified")

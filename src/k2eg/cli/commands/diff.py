"""``k2eg diff``: compares a file of saved values with another one, or with the PVs.

Thread safety: main thread only.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from reactivex import operators as ops

from k2eg.cli.environment import settings_for
from k2eg.cli.output import print_lines, print_note
from k2eg.cli.printing.columns import aligned
from k2eg.cli.printing.formatting import jsonable
from k2eg.cli.printing.progress import progress
from k2eg.cli.session import cause_of, open_connected_client
from k2eg.cli.values.restoring import Tolerance, fitting, is_same
from k2eg.cli.values.saved_values import SavedValue, read_saved, saved
from k2eg_rx import Client, GetResult, OperationTimeout, first
from k2eg_rx.texts import shown


@dataclass(frozen=True, slots=True)
class Difference:
    """A PV whose values differ.

    Attributes:
        uri: The PV.
        saved: The value of the first file.
        other: The present value, or that of the second file.
        units: Engineering units.
        reason: Why they cannot be compared; empty if they can.
    """

    uri: str
    saved: object
    other: object
    units: str = ""
    reason: str = ""


def diff(arguments: Namespace) -> int:
    """Prints the differences; returns 1 if there are any.

    Raises:
        ValueError: A file is malformed.
    """
    entries = read_saved(arguments.files[0])
    if len(arguments.files) == 2:
        others = {entry.record: entry for entry in read_saved(arguments.files[1])}
        differences = between_files(entries, others, arguments.tolerance)
    else:
        with open_connected_client(settings_for(arguments), arguments) as client:
            found = read_all(client, [entry.uri for entry in entries], arguments.timeout)
        differences = [
            difference
            for entry in entries
            if (difference := with_present(entry, found[entry.uri], arguments.tolerance)) is not None
        ]
    other = "other" if len(arguments.files) == 2 else "now"
    print_differences(differences, as_json=arguments.json, headings=("PV", "saved", other))
    if not differences and not arguments.json:
        print_note(f"{len(entries)} PVs, no difference")
    return 1 if differences else 0


def read_all(client: Client, uris: Sequence[str], timeout: float) -> Mapping[str, GetResult]:
    """Returns the result of each PV, by URI; all are read at once.

    Raises:
        K2EGError: Kafka is away.
    """
    with progress(lambda: f"reading {len(uris)} PVs"):
        results = first(client.get_many_stream(uris, timeout).pipe(ops.to_list()))
    for result in results:
        if isinstance(result.error, OperationTimeout) and (cause := cause_of(result.error, client)) is not result.error:
            raise cause
    return {result.uri: result for result in results}


def with_present(entry: SavedValue, result: GetResult, tolerance: Tolerance) -> Difference | None:
    """Returns the difference of a saved value from the present one; None if they are the same."""
    if result.data is None:
        return Difference(entry.uri, entry.value, None, entry.units, f"not read: {result.error}")
    present = saved(entry.uri, result.data)
    try:
        wanted = fitting(entry, result.data)
    except ValueError as error:
        return Difference(entry.uri, entry.value, present.value, present.units, str(error))
    if is_same(wanted, result.data, tolerance):
        return None
    return Difference(entry.uri, wanted, present.value, present.units)


def between_files(
    entries: Sequence[SavedValue], others: Mapping[str, SavedValue], tolerance: Tolerance
) -> list[Difference]:
    """Returns the differences of two files."""
    found: list[Difference] = []
    for entry in entries:
        other = others.get(entry.record)
        if other is None:
            found.append(Difference(entry.uri, entry.value, None, entry.units, "only in the first file"))
            continue
        ours, theirs = _plain(entry), _plain(other)
        if not _is_same_plain(ours, theirs, tolerance):
            found.append(Difference(entry.uri, ours, theirs, entry.units))
    known = {entry.record for entry in entries}
    for record, other in others.items():
        if record not in known:
            found.append(Difference(other.uri, None, other.value, other.units, "only in the second file"))
    return found


def _plain(entry: SavedValue) -> object:
    """Returns a saved value without regard to its PV: the number or array that the text of a cell is, if it is one."""
    if not entry.has_value:
        return None
    if not entry.is_text or not isinstance(entry.value, str):
        return entry.value
    try:
        value: object = json.loads(entry.value)
    except (ValueError, RecursionError):
        return entry.value
    return entry.value if isinstance(value, str) else value


def _is_same_plain(ours: object, theirs: object, tolerance: Tolerance) -> bool:
    numbers = [one for one in (ours, theirs) if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) == 2:
        return tolerance.includes(*numbers)
    return ours == theirs


def print_differences(differences: Sequence[Difference], *, as_json: bool, headings: tuple[str, str, str]) -> None:
    """Prints a row for each difference."""
    if as_json:
        for one in differences:
            found = {"pv": one.uri, "saved": jsonable(one.saved), headings[2]: jsonable(one.other), "units": one.units}
            print_lines(json.dumps(found | {"reason": one.reason}))
        return
    if differences:
        rows = [(*headings, "units", "")]
        rows += [(one.uri, _shown(one.saved), _shown(one.other), one.units, one.reason) for one in differences]
        print_lines("\n".join(aligned(rows, right={1, 2})))


def _shown(value: object) -> str:
    if value is None or isinstance(value, str):
        return "-" if value is None else value or "''"
    count = f" ({len(cast('list[object]', value))} values)" if isinstance(value, list) else ""
    return shown(cast("object", value)) + count

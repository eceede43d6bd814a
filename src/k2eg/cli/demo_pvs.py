"""The PVs of ``k2eg demo``: those that it shows, and a list of all with what can be done with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

PVS = (
    "pva://demo:setpoint1",
    "pva://demo:setpoint2",
    "pva://demo:sum",
    "ca://demo:mode",
    "pva://demo:message",
    "pva://demo:table",
    "pva://demo:temperature",
    "pva://demo:quad",
    "pva://demo:quad:readback",
    "pva://demo:beamsize",
    "pva://demo:loss",
    "pva://demo:bpm10",
    "pva://demo:waveform",
    "pva://demo:ramp1",
    "ca://demo:ramp10",
    "pva://demo:ramp100",
    "pva://demo:sine1",
    "pva://demo:sine10",
    "pva://demo:sine100",
)
"""PVs of both protocols that the demo shows."""

CATALOGUE = (
    ("demo:setpoint1, demo:setpoint2, demo:sum", "two magnets to write, with alarm limits, and their sum"),
    ("demo:mode, demo:message", "an enum and a string to write"),
    ("demo:table", "a table to write (pva only)"),
    ("demo:quad, demo:quad:readback", "a quadrupole to write; its current takes a second to follow"),
    ("demo:beamsize, demo:camera", "size of the beam, smallest at 8 A of it; its image (camera: pva only)"),
    ("demo:corrector", "an orbit corrector to write"),
    ("demo:bpm1 ... demo:bpm20", "the orbit, 10 Hz, all with the pulse id of the shot"),
    ("demo:loss", "beam loss, with alarms that come and go"),
    ("demo:temperature", "goes through all alarm severities in 10 s"),
    ("demo:ramp1, demo:ramp10, demo:ramp100", "ramps of 1, 10 and 100 Hz; demo:sine1 ... likewise"),
    ("demo:waveform", "an array: the last second of demo:sine100"),
)
"""Names and what they are."""

_RECORD = re.compile(r"""^\s*g?record\s*\(\s*(\w+)\s*,\s*"?([^\s")]+)"?\s*\)""", re.MULTILINE)


def records_of(databases: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yields name and type of each record of database files."""
    for database in databases:
        for kind, name in _RECORD.findall(database.read_text(errors="replace")):
            yield name, kind


def catalogue_lines(databases: Sequence[Path] = ()) -> list[str]:
    """Returns a line for each group of the demo's PVs, and for each record of the user's databases."""
    entries = [*CATALOGUE, *((name, f"{kind} of your database") for name, kind in records_of(databases))]
    return ["PVs of the demo, by pva:// and ca://", *(f"  {names:41} {what}" for names, what in entries)]

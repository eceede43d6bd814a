"""The border to the terminal: what the command line prints, escaped.

Thread safety: any thread; a line is printed by one call.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from k2eg_rx.texts import printable

if TYPE_CHECKING:
    from k2eg.cli.printing.formatting import Formatter
    from k2eg_rx import PVData

_COLOURS = {"MINOR": "33", "MAJOR": "1;31", "INVALID": "1;35", "UNDEFINED": "35"}


def print_lines(text: str, file: TextIO | None = None) -> None:
    """Prints lines, by default to standard output. Control characters within them are escaped."""
    lines = (printable(line, None) for line in text.split("\n"))
    print("\n".join(lines), file=file or sys.stdout, flush=True)


def print_value(formatter: Formatter, data: PVData) -> None:
    """Prints a PV's value; its alarm is coloured on a terminal."""
    text = formatter.pv(data)
    if formatter.is_separated:
        print(text, flush=True)
        return
    alarm = "" if formatter.json or formatter.csv or formatter.terse else formatter.alarm(data)
    code = _COLOURS.get(data.severity.name)
    if not alarm or code is None or not has_colours():
        print_lines(text)
        return
    first, *others = (printable(line, None) for line in text.split("\n"))
    before, found, after = first.rpartition(alarm)
    if found:
        first = f"{before}\x1b[{code}m{found}\x1b[0m{after}"
    print("\n".join([first, *others]), flush=True)


def print_spans(lines: Iterable[Iterable[tuple[str, str]]]) -> None:
    """Prints lines of spans, a text and the code of its colour each; the colours on a terminal only."""
    coloured = has_colours()
    for line in lines:
        spans = [(printable(text, None), code if coloured else "") for text, code in line]
        print("".join(f"\x1b[{code}m{text}\x1b[0m" if code else text for text, code in spans).rstrip())
    sys.stdout.flush()


def has_colours() -> bool:
    """Returns whether standard output is a terminal that shows colours, and NO_COLOR is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def terminal_columns() -> int | None:
    """Returns the present width of the terminal; None if standard output is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):  # no terminal; a stream without a file
        return None


def print_note(text: str) -> None:
    """Prints a remark or an error of one line to standard error, where scripts do not read it."""
    with suppress(OSError):  # the terminal was closed
        print(f"k2eg: {printable(text)}", file=sys.stderr, flush=True)


def escape_what_encodings_lack() -> None:
    """Makes standard output escape characters that its encoding lacks, as standard error does."""
    out: object = sys.stdout
    if isinstance(out, io.TextIOWrapper):  # tests replace it
        out.reconfigure(errors="backslashreplace")

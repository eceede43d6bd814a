"""The border to the terminal: what the command line prints, escaped.

Thread safety: any thread; a line is printed by one call.
"""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from typing import TextIO

from k2eg_rx.texts import printable


def print_lines(text: str, file: TextIO | None = None) -> None:
    """Prints lines, by default to standard output. Control characters within them are escaped."""
    lines = (printable(line, None) for line in text.split("\n"))
    print("\n".join(lines), file=file or sys.stdout, flush=True)


def print_note(text: str) -> None:
    """Prints a remark or an error of one line to standard error, where scripts do not read it."""
    with suppress(OSError):  # the terminal was closed
        print(f"k2eg: {printable(text)}", file=sys.stderr, flush=True)


def escape_what_encodings_lack() -> None:
    """Makes standard output escape characters that its encoding lacks, as standard error does."""
    out: object = sys.stdout
    if isinstance(out, io.TextIOWrapper):  # tests replace it
        out.reconfigure(errors="backslashreplace")

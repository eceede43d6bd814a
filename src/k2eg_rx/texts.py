"""Text from outside in errors, logs, HTML and on terminals: escaped, so that it steers none of them, and bounded.

Names, labels, units, messages and errors come from PVs, gateways and callers. Each may contain control characters that
clear a terminal, forge a line of a log or reverse the direction of text.

Thread safety: any thread; there is no state.
"""

from __future__ import annotations

import json
import logging
import reprlib
import traceback
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType

_LONGEST = 2000  # characters of a text in a log or an error: more than any message of a gateway
_LONGEST_VALUE = 100  # characters of a value in an error
_LONGEST_TRACEBACK = 200  # lines
_LONGEST_CELL = 200  # characters in a cell of a table: what fits into a line of a wide screen

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = _LONGEST_VALUE


def printable(text: str, longest: int | None = _LONGEST) -> str:
    """Returns a text in one line: control characters are escaped, and what is beyond `longest` is cut off.

    Control characters are those of C0 and C1, line and paragraph separators, those that set the direction of text, and
    single surrogates: all that `str.isprintable` excludes.
    """
    rest = 0 if longest is None else max(0, len(text) - longest)
    shown = text[:longest] if rest else text
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)
    return f"{shown}... ({rest} more characters)" if rest else shown


def shown(value: object) -> str:
    """Returns a value as errors show it: its repr in one line, shortened. Never raises."""
    try:
        text = repr(value[:_LONGEST_VALUE]) if isinstance(value, bytes | bytearray) else _repr.repr(value)
    except Exception:  # of a caller's class, or an integer of thousands of digits
        text = f"<{type(value).__name__}>"
    return printable(text, _LONGEST_VALUE)


def traceback_text(error: BaseException) -> str:
    """Returns a traceback whose lines are escaped and indented, so that none looks like a line of the log."""
    text = "".join(traceback.format_exception(error))
    return "\n".join(f"  {printable(line)}" for line in text.splitlines()[-_LONGEST_TRACEBACK:])


def html_escaped(text: str, longest: int = _LONGEST_CELL) -> str:
    """Returns a text as HTML shows it, in one line, without a meaning of its own, and bounded."""
    from html import escape  # noqa: PLC0415 - its table of entities is large, and few programs need it

    return escape(printable(text, longest))


Cell = str | tuple[str, str]
"""A text, or a text and the CSS of its cell."""


def html_table(rows: Iterable[Sequence[Cell]], header: Sequence[str] = (), caption: str = "") -> str:
    """Returns a table as HTML. All texts are escaped; the CSS is not, as it never comes from outside."""

    def cell(content: Cell) -> str:
        text, style = (content, "") if isinstance(content, str) else content
        return f'<td style="text-align:left;{style}">{html_escaped(text)}</td>'

    parts = ["<table>"]
    if caption:
        parts.append(f'<caption style="text-align:left">{html_escaped(caption)}</caption>')
    if header:
        names = "".join(f'<th style="text-align:left">{html_escaped(name)}</th>' for name in header)
        parts.append(f"<thead><tr>{names}</tr></thead>")
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return "".join([*parts, f"<tbody>{body}</tbody></table>"])


class _Argument:
    """An argument of a log line, escaped when it is formatted."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return printable(str(self._value))

    def __repr__(self) -> str:
        return shown(self._value)


def _escaped(value: object) -> object:
    is_safe_text = isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST
    return value if is_safe_text or isinstance(value, int | float) else _Argument(value)


class _EscapingFilter(logging.Filter):
    """Escapes the arguments and the traceback of each record, whatever handlers and formatters the program has."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.args:  # of a single mapping, logging makes the arguments themselves
            arguments = record.args if isinstance(record.args, tuple) else (record.args,)
            record.args = tuple(map(_escaped, arguments))
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = traceback_text(record.exc_info[1])
        return True


_FILTER = _EscapingFilter()


def get_logger(name: str) -> logging.Logger:
    """Returns a logger whose records are escaped; every module of this project logs by one."""
    logger = logging.getLogger(name)
    logger.addFilter(_FILTER)  # once: it is the same filter
    return logger


class LineFormatter(logging.Formatter):
    """Formats the log of a program, records of other libraries included: one line, escaped, and indented tracebacks."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Returns the line of a record."""
        return printable(super().formatMessage(record))

    def formatException(  # noqa: N802 - logging's name
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """Returns the traceback of a record."""
        return traceback_text(ei[1]) if ei[1] is not None else ""


_MAIN_PROCESS = "MainProcess"  # the name that multiprocessing gives to it


class ServiceFormatter(LineFormatter):
    """Formats the log of a service: one line per event, traceback included, and the process if it is one of several."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record; the lines of a traceback follow the message, separated by ``|``."""
        line = " | ".join(line.strip() for line in super().format(record).splitlines() if line.strip())
        return line if record.processName in {None, _MAIN_PROCESS} else f"{record.processName}: {line}"


class JsonFormatter(LineFormatter):
    """Formats the log of a service: a JSON object per line.

    It has time (UTC), level, logger, message, the process if it is one of several, and the traceback if there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": printable(record.name),
            "message": printable(record.getMessage()),
        }
        if record.processName is not None and record.processName != _MAIN_PROCESS:
            line["process"] = record.processName
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(line)

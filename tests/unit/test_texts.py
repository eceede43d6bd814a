"""Text from outside: escaped and bounded in values of errors, in logs of the library and of programs."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from k2eg_rx import K2EGError, OperationError, OperationTimeout, TransportError, WireError
from k2eg_rx.operators import MissingFieldError
from k2eg_rx.texts import LineFormatter, get_logger, printable, shown

HOSTILE = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202eb\n2026-01-01 00:00:00,000 CRITICAL forged\r\u2028\ud800\0"
FORMAT = "%(levelname)s %(name)s: %(message)s"


def is_safe(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


def kind_of(value: object) -> str:
    return type(value).__name__


class Evil:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain °C µ übung", "plain °C µ übung"),
        ("a\tb\n", "a\\tb\\n"),
        ("\x1b[2J\x07\x7f\x9b\0", "\\x1b[2J\\x07\\x7f\\x9b\\x00"),
        ("\u202e\u2066\u200f\u2028\ud800", "\\u202e\\u2066\\u200f\\u2028\\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, printed: str) -> None:
    assert printable(text) == printed


def test_long_texts_are_cut() -> None:
    assert printable("x" * 30, 10) == "x" * 10 + "... (20 more characters)"
    assert len(printable("\n" * 1_000_000)) < 5000
    assert len(printable("x" * 1_000_000, None)) == 1_000_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        (None, "None"),
        (-1.5, "-1.5"),
        (["a", 1], "['a', 1]"),
        (10**5000, "<int>"),
    ],
    ids=kind_of,
)
def test_a_value_is_shown_by_its_repr(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    "value",
    [
        Evil(),
        [Evil()],
        "x" * 10**6,
        b"x" * 10**6,
        10**400,
        list(range(10**6)),
        {"a" * 10**6: 1},
        HOSTILE,
        [[[["x" * 99] * 9] * 9]],
    ],
    ids=kind_of,
)
def test_a_shown_value_is_short_and_safe(value: object) -> None:
    assert len(shown(value)) < 150
    assert shown(value).isprintable()


@pytest.mark.parametrize(
    "error",
    [
        K2EGError(HOSTILE),
        OperationError(-1, HOSTILE, "get", HOSTILE),
        OperationTimeout("get", HOSTILE, 1.0, HOSTILE),
        TransportError(HOSTILE),
        WireError("shape", HOSTILE),
        MissingFieldError(HOSTILE, HOSTILE, HOSTILE),
    ],
)
def test_texts_of_errors_are_one_safe_line(error: K2EGError) -> None:
    assert str(error).isprintable()
    assert "owned" in str(error)


@pytest.fixture(params=[logging.Formatter, LineFormatter])
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """The log of a program with its own handler, with logging's formatter and with that of the command line."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(request.param(FORMAT))
    logging.getLogger().addHandler(handler)
    yield out
    logging.getLogger().removeHandler(handler)


def test_logs_of_the_library_are_escaped_for_every_handler(log: io.StringIO) -> None:
    logger = get_logger("k2eg_rx.some.module")
    logger.warning("event: pv=%s error=%s count=%d rate=%.1f", HOSTILE, ValueError(HOSTILE), 7, 0.5)
    logger.warning("metrics=%s", {HOSTILE: HOSTILE})
    assert "WARNING k2eg_rx.some.module: event: pv=a\\x1b[2J" in log.getvalue()
    assert "count=7 rate=0.5" in log.getvalue()
    assert is_safe(log.getvalue())
    assert log.getvalue().count("\n") == 2


def test_no_line_of_a_traceback_looks_like_one_of_the_log(log: io.StringIO) -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        get_logger("k2eg_rx.some.module").exception("failed: pv=%s", HOSTILE)
    first, *rest = log.getvalue().splitlines()
    assert first.startswith("ERROR k2eg_rx.some.module: failed: pv=a\\x1b")
    assert "CRITICAL forged" in log.getvalue()
    assert all(line.startswith("  ") for line in rest)
    assert is_safe(log.getvalue())


def test_a_program_escapes_logs_of_other_libraries() -> None:
    record = logging.LogRecord("other", logging.ERROR, __file__, 1, "%s", (HOSTILE,), None)
    assert LineFormatter(FORMAT).format(record).isprintable()


def test_a_logger_has_its_filter_once() -> None:
    assert get_logger("k2eg_rx.some.module").filters == get_logger("k2eg_rx.some.module").filters
    assert len(get_logger("k2eg_rx.some.module").filters) == 1


def test_arguments_without_control_characters_stay_what_they_are() -> None:
    record = logging.LogRecord("own", logging.ERROR, __file__, 1, "%s %d", ("FAIL", 7), None)
    assert get_logger("k2eg_rx.some.module").filter(record)
    assert record.args == ("FAIL", 7)

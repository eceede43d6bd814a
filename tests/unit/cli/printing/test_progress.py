"""The line that says how far a command is."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from k2eg.cli.printing.progress import progress

SECONDS = 60.0


class Terminal:
    """A standard error that is a terminal, or is none."""

    def __init__(self, *, is_terminal: bool) -> None:
        self.text = ""
        self.lines = threading.Semaphore(0)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        self.text += text
        if len(text) > len("\r\x1b[K"):
            self.lines.release()
        return len(text)

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        return 2


def patched(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Makes a terminal standard error; not in a fixture, after which pytest replaces standard error."""
    terminal = Terminal(is_terminal=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((12, 24)))
    return terminal


def test_it_is_one_line_that_fits_and_is_erased_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = patched(monkeypatch)
    done = iter(range(100))
    with progress(lambda: f"{next(done)} of 100\x1b PVs are read", patience=0.0):
        assert terminal.lines.acquire(timeout=SECONDS)
        assert terminal.lines.acquire(timeout=SECONDS)
    shown = terminal.text.split("\r\x1b[K")
    assert shown[:3] == ["", "0 of 100\\x1", "1 of 100\\x1"]
    assert shown[-1] == ""
    assert "\n" not in terminal.text


def test_a_command_that_is_done_soon_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = patched(monkeypatch)
    with progress(lambda: "reading", patience=SECONDS):
        pass
    assert terminal.text == ""


def test_it_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = patched(monkeypatch)

    def fail() -> None:
        with progress(lambda: "reading", patience=0.0):
            assert terminal.lines.acquire(timeout=SECONDS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert terminal.text.endswith("\r\x1b[K")
    assert "k2eg-progress" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(("is_terminal", "term"), [(False, "xterm"), (True, "dumb"), (True, "")])
def test_what_is_no_terminal_gets_nothing(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, term: str) -> None:
    terminal = Terminal(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", term)
    with progress(lambda: "reading", patience=0.0):
        assert "k2eg-progress" not in {thread.name for thread in threading.enumerate()}
    assert terminal.text == ""

"""A terminal for tests of the command line: a pseudo-terminal with a process in its foreground."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from typing import Self

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# A move of the cursor with its row and column, another sequence of the terminal, or text without line ends, which
# textual follows with a move.
_PART = re.compile(r"\x1b\[(\d+);(\d+)H|\x1b\[[0-9;?>]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|([^\x00-\x1f]+)|.", re.DOTALL)

# Makes the terminal on standard input the controlling one, so that Ctrl-C typed there sends SIGINT.
_ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "k2eg.cli", *sys.argv[1:]])
"""


class Terminal:
    """A terminal and the command line on it.

    Args:
        variables: The process environment.
        words: The arguments.
        size: Rows and columns.
        piped: Whether standard output is a pipe, not the terminal.

    Attributes:
        modes: The modes before the process has started.
        text: The output so far.
        process: The process.
    """

    def __init__(
        self, variables: Mapping[str, str], *words: str, size: tuple[int, int] = (30, 100), piped: bool = False
    ) -> None:
        self._master, self._slave = os.openpty()
        termios.tcsetwinsize(self._slave, size)
        self._rows, self._columns = size
        self.modes = termios.tcgetattr(self._slave)
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end within a character
        sized = {name: value for name, value in variables.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *words],
            stdin=self._slave,
            stdout=subprocess.PIPE if piped else self._slave,
            stderr=self._slave,
            env=sized,
            start_new_session=True,
        )

    def read_until(self, pattern: str, seconds: float, *, start: int = 0) -> None:
        """Reads until the pattern is in the output after `start`, colours removed."""
        self._read_while(lambda: not re.search(pattern, COLOUR.sub("", self.text[start:])), seconds, f"no {pattern!r}")

    def screen(self) -> str:
        """Returns what the terminal shows of an application of textual, without blanks at the ends of lines."""
        cells = [[" "] * self._columns for _ in range(self._rows)]
        row = column = 0
        for found in _PART.finditer(self.text):
            if found[1]:
                row, column = int(found[1]) - 1, int(found[2]) - 1
            for character in found[3] or "":
                if row < self._rows and column < self._columns:
                    cells[row][column] = character
                column += 1
        return "\n".join("".join(line).rstrip() for line in cells)

    def read_until_screen(self, expected: str, seconds: float, masked: Callable[[str], str]) -> None:
        """Reads until the screen, masked, is as expected."""
        deadline = time.monotonic() + seconds
        while (found := masked(self.screen())) != expected:
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{expected}\nbut:\n{found}\n{self.screen()}"
            select.select([self._master], [], [], 0.2)
            self._read()

    def type(self, keys: str) -> None:
        """Types keys."""
        os.write(self._master, keys.encode())

    def press_ctrl_c(self) -> None:
        """Types Ctrl-C."""
        self.type("\x03")

    def resize(self, rows: int, columns: int) -> None:
        """Changes the size, of which the terminal informs the process."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, rows.to_bytes(2, "little") + columns.to_bytes(6, "little"))

    def modes_now(self) -> list[object]:
        """Returns the modes."""
        return termios.tcgetattr(self._slave)

    def wait_until_stopped(self, seconds: float) -> None:
        """Waits until the process is stopped, as by Ctrl-Z."""
        self._read_while(lambda: self._state() != "T", seconds, "the process does not stop")
        self._read()

    def go_on(self) -> None:
        """Continues the process, as `fg` does."""
        self.process.send_signal(signal.SIGCONT)

    def wait(self, seconds: float) -> int:
        """Waits for the process to end while reading its output, so that it does not block; returns its exit code."""
        self._read_while(lambda: self.process.poll() is None, seconds, "the process does not end")
        self._read()
        return self.process.wait()

    def _state(self) -> str:
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0]

    def _read_while(self, holds: Callable[[], bool], seconds: float, failure: str) -> None:
        deadline = time.monotonic() + seconds
        while holds():
            assert time.monotonic() < deadline, f"{failure} within {seconds} s: {self.text[-3000:]!r}"
            select.select([self._master], [], [], 0.05)
            self._read()

    def _read(self) -> None:
        while select.select([self._master], [], [], 0)[0]:
            self.text += self._decoder.decode(os.read(self._master, 65536))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._master)

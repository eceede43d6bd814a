"""Says on standard error how far a command is that takes longer than a second.

Only on a terminal that can erase a line. It is one line of plain text: a bar of rich would hide the cursor, which a
program that is suspended by Ctrl-Z could not show again, and its import takes longer than most commands.

Thread safety: a thread of its own writes; it ends with the block.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from k2eg_rx.texts import printable

_PATIENCE = 1.0  # seconds until the first line
_INTERVAL = 0.25  # seconds between lines
_ERASED = "\r\x1b[K"


@contextmanager
def progress(text: Callable[[], str], *, patience: float = _PATIENCE) -> Generator[None]:
    """Shows a line while its body runs, which must print nothing, and erases it at the end.

    Args:
        text: Returns the present text; called on another thread.
        patience: Seconds until it is shown.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM", "") in {"", "dumb"}:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(text, ended, patience), name="k2eg-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show(text: Callable[[], str], ended: threading.Event, patience: float) -> None:
    if ended.wait(patience):
        return
    with suppress(OSError):  # the terminal was closed
        while True:
            width = _columns() - 1  # the last column would begin a new line
            print(f"{_ERASED}{printable(text())[:width]}", end="", file=sys.stderr, flush=True)
            if ended.wait(_INTERVAL):
                break
        print(_ERASED, end="", file=sys.stderr, flush=True)


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80

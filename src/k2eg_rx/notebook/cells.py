"""The cell that runs, and what is to stop when it runs again.

A front end names its cells (``cellId``); one that does not is served by the text of the cell.

Thread safety: the table belongs to `_lock`; what is stopped is called without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

from k2eg_rx.errors import require_extra

_lock = threading.Lock()
_stops: dict[object, str] = {}  # what ends each running view, and the cell that it is in


def _shell() -> Any:
    from IPython.core.getipython import get_ipython  # noqa: PLC0415 - an extra

    return get_ipython()


def require_notebook(what: str) -> None:
    """Checks that the code runs in a notebook's kernel.

    Raises:
        ModuleNotFoundError: IPython is not installed.
        RuntimeError: There is no kernel, or it is a terminal's.
    """
    require_extra("notebook", ["IPython"], what)
    shell = _shell()
    if shell is None or type(shell).__name__ == "TerminalInteractiveShell":
        raise RuntimeError(f"{what} needs a notebook's kernel: in a terminal use 'k2eg top' or 'k2eg strip'")


def _current_cell(shell: Any) -> str | None:
    """Returns the id of the cell that runs, or its text; None where a kernel tells neither."""
    parent: Mapping[str, Any] = shell.get_parent() if hasattr(shell, "get_parent") else {}
    about: Mapping[str, Any] = parent.get("metadata") or {}
    content: Mapping[str, Any] = parent.get("content") or {}
    return about.get("cellId") or content.get("code")


def _before_cell(info: Any) -> None:
    """Stops what the cell that is about to run has started before; IPython calls it."""
    cells = {getattr(info, "cell_id", None), getattr(info, "raw_cell", None)} - {None}
    with _lock:
        stopped = [stop for stop, cell in _stops.items() if cell in cells]
    for stop in stopped:
        cast("Callable[[], None]", stop)()


def stop_with_cell(stop: Callable[[], None]) -> None:
    """Calls `stop` when the current cell is run again, until `forget`."""
    shell = _shell()
    cell = _current_cell(shell)
    if cell is None:
        return
    with _lock:
        _stops[stop] = cell
    shell.events.register("pre_run_cell", _before_cell)  # once: IPython ignores one that it has


def forget(stop: Callable[[], None]) -> None:
    """Undoes `stop_with_cell`."""
    with _lock:
        _stops.pop(stop, None)

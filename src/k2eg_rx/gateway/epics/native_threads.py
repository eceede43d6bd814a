"""Keeps the Python thread state of native threads between callbacks.

A thread that an EPICS library started gets a new Python thread state for each callback and loses it afterwards, which
maps and unmaps memory: more work than most callbacks do, and an interruption of all other threads. In CPython, a state
created by `PyGILState_Ensure` lives until the last `PyGILState_Release`.
"""

from __future__ import annotations

import ctypes
import threading

_kept = threading.local()  # belongs to the thread state, so it vanishes with it


def keep_thread_state() -> None:
    """Keeps the calling thread's Python state until the process ends. No effect on threads that Python started.

    For long-lived threads only: the state of a thread that ends is not freed.
    """
    if not hasattr(_kept, "state"):
        _kept.state = ctypes.pythonapi.PyGILState_Ensure()  # never released

"""Python's state of a thread that it did not start, kept from one callback to the next.

In: calls from callbacks on the threads of EPICS's libraries. Such a thread gets its Python state with each callback
and loses it at the end of it, and with it some memory that is mapped and unmapped: more work than a callback does, and
an interruption of all other threads. (CPython, "Initialization, Finalization, and Threads": a state belongs to
`PyGILState_Ensure`, and goes with the last `PyGILState_Release`.)
"""

from __future__ import annotations

import ctypes
import threading

_kept = threading.local()  # is a thread's, and goes with its state


def keep_thread_state() -> None:
    """Has the calling thread keep its Python state until the process ends. A thread of Python's own does so anyway.

    For threads that live long: the state of one that ends is not freed.
    """
    if not hasattr(_kept, "state"):
        # never released: that is what keeps it
        _kept.state = ctypes.pythonapi.PyGILState_Ensure()

"""How long is long on this machine now: limits that hold where nothing else runs, stretched where much else does.

In: seconds. Out: seconds. Pure but for a look at the system's load; any thread.
"""

from __future__ import annotations

import os


def stretched(seconds: float) -> float:
    """Returns a time limit that allows for the processes that wait for a processor at the moment."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

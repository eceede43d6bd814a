"""Time limits scaled by the system's load.

Thread safety: may be called from any thread.
"""

from __future__ import annotations

import os


def scaled_by_load(seconds: float) -> float:
    """Returns the limit of an idle machine times the number of runnable processes per processor."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))

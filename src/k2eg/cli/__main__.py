"""The program ``k2eg``, also run as ``python -m k2eg.cli``.

Thread safety: main thread only.
"""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

from k2eg.cli import main


def run() -> NoReturn:
    """Runs the command line and exits.

    The garbage collector pauses until the command begins, which enables it, and need not look at what exists when the
    program exits: together a third of the processor time of ``k2eg get``.
    """
    gc.disable()
    code = main()
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    run()

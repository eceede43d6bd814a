"""This project's gateway as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager

# It ends with its input, also when the tests are killed.
_GATEWAY = """
import sys, threading
from k2eg_rx.gateway.service import run_gateway
from k2eg_rx.settings import load_settings
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
sys.exit(run_gateway(load_settings("site", "gateway"), stop, ready=lambda: print("ready", flush=True)))
"""


@contextmanager
def own_gateway(variables: Mapping[str, str]) -> Generator[None]:
    """Runs a gateway of the environment `site`, with environment variables."""
    process = subprocess.Popen(
        [sys.executable, "-c", _GATEWAY], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:  # leaving it closes the gateway's input, which ends it
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield

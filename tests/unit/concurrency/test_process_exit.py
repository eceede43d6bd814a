"""`process_exit`: in processes of its own, as their ends are what is tested."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from k2eg_rx.concurrency import join

_SCRIPT = """
import threading, time
from k2eg_rx.concurrency import await_at_exit, close_at_exit, join

closing = threading.Event()


class Client:
    def close(self, timeout):
        closing.set()
        join(thread, 0.0)


def end():
    closing.wait()
    time.sleep(0.2)
    print("ended", flush=True)


thread = threading.Thread(target=end, daemon=True)
thread.start()
client = Client()
{last}
"""


@pytest.mark.parametrize(
    ("last", "printed"),
    [
        pytest.param("close_at_exit(client)", "ended\n", id="closed at the exit"),
        pytest.param("client.close(1.0)", "ended\n", id="closed before"),
        pytest.param("closing.set(); await_at_exit(thread)", "ended\n", id="a thread that ends by itself"),
        pytest.param("del client", "", id="neither"),
    ],
)
def test_the_exit_waits_for_threads_that_end(last: str, printed: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(last=last)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, printed, "")


def test_join_of_a_thread_that_was_not_started_and_of_its_own_thread_does_nothing() -> None:
    join(threading.Thread(), 0.0)
    join(threading.current_thread(), 0.0)

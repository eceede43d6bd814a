"""The embedded stack: start, settings and cleanup."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from k2eg_rx import Client, first, load_settings
from k2eg_rx.embedded import DEMO_DATABASE, EmbeddedStack
from k2eg_rx.embedded import stack as stack_module
from k2eg_rx.embedded.ioc import IocError
from k2eg_rx.embedded.loopback import ServerPorts, without_epics
from k2eg_rx.operators import align
from k2eg_rx.settings import DEMO_BROKER_VARIABLE, shipped_folder


def children() -> set[str]:
    """Returns the ids of the child processes."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found |= set((task / "children").read_text().split())
    return found


class Recorder(EmbeddedStack):
    """A stack whose parts record that they are closed; one fails, one hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[str] = []
        self.release = threading.Event()

    def _start(self) -> None:
        self._add_part("first", lambda: self.closed.append("first"))
        self._add_part("hangs", self.release.wait)
        self._add_part("fails", self.fail)
        self._add_part("last", lambda: self.closed.append("last"))

    def fail(self) -> None:
        self.closed.append("fails")
        raise OSError("cannot close")


def test_parts_are_closed_in_reverse_even_if_some_fail_or_hang(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stack_module, "_CLOSE_SECONDS", 0.2)
    recorder = Recorder().start()
    recorder.close()
    assert recorder.closed == ["last", "fails", "first"]
    assert "closing a part failed: part=fails" in caplog.text
    assert "closing a part timed out: part=hangs" in caplog.text
    recorder.close()
    assert len(recorder.closed) == 3
    recorder.release.set()


def test_a_failed_start_stops_the_parts_started_before(tmp_path: Path) -> None:
    database = tmp_path / "bad.db"
    database.write_text('record(ai, "x") { field(NOPE, "1") }')
    before, variables = children(), dict(os.environ)
    stack = EmbeddedStack(database, ports=ServerPorts.free())  # the session's stack uses the ports of this process
    with pytest.raises(IocError):
        stack.start()
    assert children() == before
    assert dict(os.environ) == variables


def test_a_stack_has_no_address_before_start() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        EmbeddedStack().settings("app")


def test_settings_equal_those_of_environment_demo(
    stack: EmbeddedStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broker").write_text(stack.broker_address)
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(tmp_path / "broker"))
    shipped, own = load_settings("demo", "app", shipped_folder()), stack.settings("app")
    for name in ("environment_id", "broker_url", "command_topic", "reply_topic", "kafka"):
        assert getattr(shipped, name) == getattr(own, name)


def test_the_process_environment_is_restored(stack: EmbeddedStack) -> None:
    assert stack.client_environment["EPICS_PVA_ADDR_LIST"] != os.environ.get("EPICS_PVA_ADDR_LIST")
    assert "EPICS_CA_REPEATER_PORT" not in os.environ


def test_every_record_of_the_demo_has_a_description(client: Client) -> None:
    names = [line.split('"')[1] for line in DEMO_DATABASE.read_text().splitlines() if line.startswith("record(")]
    assert len(names) > 15
    snapshot = first(client.snapshot_stream([f"pva://{name}" for name in names], duration=1.0))
    for name in names:
        assert snapshot.data[name]["display"]["description"], name


def test_a_second_stack_is_rejected_without_affecting_the_first(stack: EmbeddedStack, client: Client) -> None:
    with pytest.raises(RuntimeError, match="one at a time"):
        EmbeddedStack().start()
    assert first(client.get_stream("ca://demo:sum")).units == "A"


def test_a_stack_after_another_serves_both_protocols() -> None:
    program = """
import os
from k2eg_rx import Client, first
from k2eg_rx.embedded import EmbeddedStack
for value in (7.5, 6.5):
    with EmbeddedStack() as stack, Client("demo", "app", settings=stack.settings("app")) as client:
        assert first(client.get_stream("ca://demo:setpoint1")).value == 1.5
        first(client.put_stream("ca://demo:setpoint1", value))
        print(first(client.get_stream("pva://demo:setpoint1")).value)
print(sorted(name for name in os.environ if name.startswith("EPICS_")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=without_epics(),
        capture_output=True,
        text=True,
        timeout=50.0,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("7.5\n6.5\n[]\n", "")


@pytest.mark.parametrize(
    ("uri", "rate"), [("pva://demo:ramp1", 1.0), ("pva://demo:sine10", 10.0), ("pva://demo:sine100", 100.0)]
)
def test_update_rates_match_the_pv_names(client: Client, uri: str, rate: float) -> None:
    from reactivex import operators as ops

    count = int(rate) * 2 + 1
    stamps = first(
        client.monitor_stream(uri).pipe(
            ops.map(lambda update: update.timestamp), ops.distinct_until_changed(), ops.take(count), ops.to_list()
        )
    )
    intervals = [(later or 0) - (earlier or 0) for earlier, later in pairwise(stamps)]
    # the median: a busy machine holds single scans of the IOC up, and one that is late shortens the next interval
    assert 1e9 / median(intervals) == pytest.approx(rate, rel=0.05)


def test_the_shots_of_the_beam_line_have_pulse_ids(client: Client) -> None:
    from reactivex import operators as ops

    monitors = ["pva://demo:bpm1", "ca://demo:bpm20", "pva://demo:quad:readback", "pva://demo:loss"]
    shots = first(
        client.monitor_many_stream(monitors).pipe(align(monitors, on="pulse_id"), ops.take(10), ops.to_list())
    )
    pulses = [shot.pulse_id or 0 for shot in shots]
    assert pulses == list(range(pulses[0], pulses[0] + 10))


def test_the_camera_shows_the_size_of_the_beam(client: Client) -> None:
    from reactivex import operators as ops

    def light(current: float) -> float:
        first(client.put_stream("pva://demo:quad", current))
        frames = client.monitor_stream("pva://demo:camera").pipe(ops.map(lambda frame: float(frame.array.mean())))
        return first(frames.pipe(ops.first(lambda mean: mean > 40.0 if current > 10.0 else mean < 20.0)))

    assert light(16.0) > light(10.0)

"""The embedded stack itself: what it starts, what it says of itself, and that it leaves nothing behind."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from k2eg_rx import Client, PvAddress, first, load_settings
from k2eg_rx.embedded import DEMO_DATABASE, EmbeddedStack
from k2eg_rx.embedded import stack as stack_module
from k2eg_rx.embedded.ioc import IocError
from k2eg_rx.settings import DEMO_BROKER_VARIABLE, shipped_folder


def children() -> set[str]:
    """The child processes of this one, by id."""
    return {child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()}


class Recorder(EmbeddedStack):
    """A stack whose parts only tell that they are closed; one may fail or hang."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[str] = []
        self.release = threading.Event()

    def _start(self) -> None:
        self._runs("first", lambda: self.closed.append("first"))
        self._runs("hangs", self.release.wait)
        self._runs("fails", self.fail)
        self._runs("last", lambda: self.closed.append("last"))

    def fail(self) -> None:
        self.closed.append("fails")
        raise OSError("cannot close")


def test_parts_are_closed_in_reverse_and_one_that_fails_or_hangs_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stack_module, "_CLOSE_SECONDS", 0.2)
    recorder = Recorder().start()
    recorder.close()
    assert recorder.closed == ["last", "fails", "first"]
    assert "fails did not close properly" in caplog.text
    assert "hangs did not close within" in caplog.text
    recorder.close()
    assert len(recorder.closed) == 3
    recorder.release.set()


def test_a_start_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    database = tmp_path / "bad.db"
    database.write_text('record(ai, "x") { field(NOPE, "1") }')
    before, variables = children(), dict(os.environ)
    stack = EmbeddedStack(database)
    with pytest.raises(IocError):
        stack.start()
    assert children() == before
    assert dict(os.environ) == variables


def test_before_its_start_it_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        EmbeddedStack().settings("app")


def test_its_settings_are_those_of_environment_demo(
    stack: EmbeddedStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broker").write_text(stack.broker_address)
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(tmp_path / "broker"))
    shipped, own = load_settings("demo", "app", shipped_folder()), stack.settings("app")
    for name in ("environment_id", "broker_url", "command_topic", "reply_topic", "kafka"):
        assert getattr(shipped, name) == getattr(own, name)


def test_the_process_environment_is_as_it_was(stack: EmbeddedStack) -> None:
    assert stack.client_environment["EPICS_CA_ADDR_LIST"] != os.environ.get("EPICS_CA_ADDR_LIST")
    assert "EPICS_CA_REPEATER_PORT" not in os.environ


def test_every_record_of_the_demo_says_what_it_is(client: Client) -> None:
    names = [line.split('"')[1] for line in DEMO_DATABASE.read_text().splitlines() if line.startswith("record(")]
    assert len(names) > 15
    snapshot = first(client.snapshot_stream([f"pva://{name}" for name in names], time_window=1.0))
    for name in names:
        assert snapshot.data[name]["display"]["description"], name


def test_two_stacks_serve_side_by_side(stack: EmbeddedStack, client: Client) -> None:
    other = EmbeddedStack()
    try:
        other.start()
        assert other.broker_address != stack.broker_address
        with Client("demo", "other", settings=other.settings("other")) as second:
            for uri in ("pva://demo:setpoint1", "ca://demo:setpoint1"):
                first(second.put_stream(uri, 7.5))
                assert first(second.get_stream(uri)).value == 7.5
                assert first(client.get_stream(uri)).value != 7.5
    finally:
        other.close()
    assert first(client.get_stream("ca://demo:sum")).name == PvAddress.parse("ca://demo:sum").name


@pytest.mark.parametrize(
    ("uri", "rate"), [("pva://demo:ramp1", 1.0), ("pva://demo:sine10", 10.0), ("pva://demo:sine100", 100.0)]
)
def test_the_rates_are_what_the_names_say(client: Client, uri: str, rate: float) -> None:
    from reactivex import operators as ops

    count = int(rate) * 2 + 1
    updates = first(client.monitor_stream(uri).pipe(ops.skip(1), ops.take(count), ops.to_list()))
    stamps = [update.timestamp for update in updates]
    assert stamps[0] is not None
    assert stamps[-1] is not None
    assert (count - 1) / ((stamps[-1] - stamps[0]) / 1e9) == pytest.approx(rate, rel=0.05)

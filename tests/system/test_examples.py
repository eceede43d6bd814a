"""Runs the examples and the code of the README against the embedded stack."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, PVUpdate, first
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.recording import positions, recover, replay_file
from k2eg_rx.settings import DEMO_BROKER_VARIABLE

ROOT = Path(__file__).parents[2]
ENDS_WITHIN = 50.0  # seconds, on a busy machine
CORRECTOR = "pva://demo:corrector"

Run = Callable[..., str]


@pytest.fixture
def environment(stack: EmbeddedStack, tmp_path: Path) -> dict[str, str]:
    """Returns the environment of a process that uses the stack as its demo."""
    broker = tmp_path / "broker"
    broker.write_text(stack.broker_address)
    environment = {**os.environ, DEMO_BROKER_VARIABLE: str(broker)}
    environment.pop("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", None)
    return environment


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """Returns a function that runs a script to its end and returns its output."""

    def run(script: Path, *arguments: object, typed: str = "", may_log: str | tuple[str, ...] = "no line") -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", script, *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            input=typed,
            capture_output=True,
            text=True,
            timeout=ENDS_WITHIN,
            check=False,
        )
        errors = [line for line in done.stderr.splitlines() if not line.startswith(may_log)]
        assert (done.returncode, errors) == (0, []), done.stdout + done.stderr
        return done.stdout

    return run


def test_callbacks(run: Run) -> None:
    lines = run(ROOT / "examples/callbacks.py", "--steps", 2).splitlines()
    assert re.fullmatch(r"pva://demo:setpoint1 is -?\d+\.\d{3}", lines[0])
    assert len([line for line in lines if re.fullmatch(r"demo:sum = -?\d+\.\d{3} A, severity \d", line)]) >= 2


def test_moving_average(run: Run) -> None:
    printed = run(ROOT / "examples/moving_average.py", "--seconds", 12, "--window", 3)
    assert len(re.findall(r"^average of 3: +-?\d+\.\d+ ", printed, re.MULTILINE)) >= 3
    assert re.search(r"^alarm: \w+ -> \w+ at", printed, re.MULTILINE)


def test_connections(run: Run) -> None:
    *lines, last = run(ROOT / "examples/connections.py", "--count", 3).splitlines()
    states = {line.split()[1]: line.split()[2] for line in lines}
    demo = {"pva://demo:sine1": "connected", "ca://demo:sum": "connected"}
    assert states == {**demo, "pva://demo:missing": "never_connected"}
    assert last == "2 of 3 connected; not connected: pva://demo:missing"


def test_correlate(run: Run) -> None:
    lines = run(ROOT / "examples/correlate.py", "--count", 3).splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"pva://demo:setpoint2 <- -?\d+\.\d{4}", line) for line in lines)


def test_snapshot_to_csv(run: Run, tmp_path: Path) -> None:
    assert run(ROOT / "examples/snapshot_to_csv.py", "out.csv", "--lines", 3, "--every", 200) == "3 lines in out.csv\n"
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["time", "iteration", "pva://demo:sine1", "pva://demo:sine10", "ca://demo:sum"]
    assert [row[1] for row in rows] == ["1", "2", "3"]
    assert all(float(cell) is not None for row in rows for cell in row[2:])


def is_png(file: Path) -> bool:
    """Whether a program has written a PNG file."""
    return file.read_bytes().startswith(b"\x89PNG")


def test_orbit(run: Run, tmp_path: Path) -> None:
    # On a busy machine the monitors of twenty PVs begin more than a second apart.
    script = ROOT / "examples/orbit.py"
    printed = run(script, "orbit.png", "--pulses", 20, "--every", 10, may_log="align gives up an instant")
    assert re.findall(r"^(\d+) pulses, RMS 0\.\d{3} mm, orbit\.png$", printed, re.MULTILINE) == ["10", "20"]
    assert re.search(r"^updates that belong to no complete pulse: \d+$", printed, re.MULTILINE)
    assert is_png(tmp_path / "orbit.png")


@pytest.fixture
def magnets(client: Client) -> Iterator[dict[str, float]]:
    """Returns the currents of the magnets that examples change; restores them."""
    currents = {CORRECTOR: 0.0, "pva://demo:setpoint1": 1.5, "pva://demo:quad": 10.0}
    client.put_many(currents)
    yield currents
    client.put_many(currents)


def test_feedback_in_a_dry_run_writes_nothing(run: Run, client: Client, magnets: dict[str, float]) -> None:
    state, *lines = run(ROOT / "examples/feedback.py", "--count", 2).splitlines()
    assert state == "loop closed"
    assert len(lines) == 2
    assert all(re.fullmatch(rf"{CORRECTOR}: dry_run -?\d\.\d{{4}} A", line) for line in lines)
    assert client.get(CORRECTOR).value == magnets[CORRECTOR]


def test_feedback_writes_nothing_in_another_mode(run: Run, client: Client, magnets: dict[str, float]) -> None:
    client.put("pva://demo:mode", "Standby")
    arguments = ("--write", "--permit", "pva://demo:mode", "--count", 2)
    lines = run(ROOT / "examples/feedback.py", *arguments, may_log=("put refused", "loop open")).splitlines()
    assert any(line.startswith("loop open permit ") for line in lines)
    assert [line.split()[1] for line in lines if line.startswith(CORRECTOR)] == ["refused", "refused"]
    assert client.get(CORRECTOR).value == magnets[CORRECTOR]


def test_feedback_moves_the_beam_to_zero(run: Run, client: Client, magnets: dict[str, float]) -> None:
    lines = run(ROOT / "examples/feedback.py", "--write", "--count", 6).splitlines()
    written = [float(line.split()[-2]) for line in lines if ": written " in line]
    assert len(written) == 6
    assert client.get(CORRECTOR).value == pytest.approx(written[-1], abs=1e-4)
    assert -2.5 < written[-1] < -0.8  # -1.5 A undo the magnet's kick; a tenth remains, and noise


def test_quadrupole_scan(run: Run, client: Client, magnets: dict[str, float], tmp_path: Path) -> None:
    printed = run(ROOT / "examples/quadrupole_scan.py", "scan.png", "--currents", 7, 8, 9)
    [size, current] = re.findall(r"^smallest beam, (\S+) mm, at (\S+) A$", printed, re.MULTILINE)[0]
    assert float(size) == pytest.approx(0.2, abs=0.02)
    assert float(current) == pytest.approx(8.0, abs=0.2)
    assert client.get("pva://demo:quad").value == magnets["pva://demo:quad"]
    assert is_png(tmp_path / "scan.png")


def test_correlation(run: Run, client: Client, tmp_path: Path) -> None:
    pvs = ["pva://demo:bpm1", "pva://demo:bpm6"]  # half a betatron oscillation apart
    several = [client.monitor_stream(pv).pipe(ops.take(40), ops.to_list()) for pv in pvs]
    first(rx.zip(*several))  # Kafka keeps what was monitored
    printed = run(ROOT / "examples/correlation.py", "out.png", *(f"--pv={pv}" for pv in pvs))
    rows = dict(re.findall(r"^demo:(bpm\d) +\S+ +(\S+)$", printed, re.MULTILINE))
    assert float(rows["bpm1"]) < -0.5
    assert float(rows["bpm6"]) == 1.0
    assert is_png(tmp_path / "out.png")


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def archive_until_killed(environment: dict[str, str], folder: Path) -> None:
    """Runs the archiver until a period of the ramp is in its files, and kills it."""
    command = [sys.executable, "-W", "error", ROOT / "examples/archiver.py", "pvs.txt", "data", "--every", "2"]
    with subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True) as archiver:
        try:
            assert archiver.stdout is not None
            size: int | None = None  # of the files when the archiver has received a period, most of it not yet written
            while size is None or size_of(folder / "data") == size:
                line = re.fullmatch(r"(\d+) updates of 2 PVs, 0\.\d MB, lag \d+\n", archiver.stdout.readline())
                assert line is not None
                if size is None and int(line[1]) >= 150:
                    size = size_of(folder / "data")
        finally:
            archiver.kill()


def test_archiver_goes_on_where_it_has_ended(
    run: Run, environment: dict[str, str], client: Client, tmp_path: Path
) -> None:
    (tmp_path / "pvs.txt").write_text("pva://demo:ramp100\npva://demo:sine10\n")
    recorded: set[str] = set()
    runs = 0
    while runs < 2 or len(recorded) < 2:  # topics; a busy machine may read what Kafka has of one of them first
        archive_until_killed(environment, tmp_path)
        recorded = {topic for topic, _ in positions(tmp_path / "data/archive.parquet").next}
        runs += 1
    recover(tmp_path / "data")
    to_list: Callable[[Observable[PVUpdate]], Observable[list[PVUpdate]]] = ops.to_list()
    ramp = [
        update.record.offset for update in first(replay_file(tmp_path / "data", pvs=["demo:ramp100"]).pipe(to_list))
    ]
    published = first(client.replay_stream(["pva://demo:ramp100"], timedelta(minutes=10)).pipe(to_list))
    offsets = [update.record.offset for update in published if ramp[0] <= update.record.offset <= ramp[-1]]
    assert len(ramp) > 100
    assert offsets, "the broker keeps less of the PV than the archiver has run"
    assert [offset for offset in ramp if offset >= offsets[0]] == offsets
    printed = run(ROOT / "examples/query_recording.py", "data/*.parquet")
    assert re.search(rf"^ *demo:ramp100 +{len(ramp)} +0 +99\.0+$", printed, re.MULTILINE)
    assert re.search(r"┆ demo:ramp100 +┆ demo:sine10 +│", printed)


def test_alarm_notifier(run: Run) -> None:
    arguments = ("--pv=pva://demo:temperature", "--pv=pva://demo:nowhere", "--every", 6, "--count", 3)
    lines = run(ROOT / "examples/alarm_notifier.py", *arguments).splitlines()
    assert [line for line in lines if line.startswith("demo:nowhere: silent after ")]
    assert [line for line in lines if re.fullmatch(r"demo:temperature: \w+ -> \w+, \S+ degC", line)]


def test_save_restore(run: Run, client: Client, magnets: dict[str, float]) -> None:
    script, quad = ROOT / "examples/save_restore.py", "pva://demo:quad"
    client.put("pva://demo:mode", "Standby")
    run(script, "save", "settings.json")
    assert run(script, "compare", "settings.json") == "0 settings differ\n"
    client.put_many({quad: 9.0, "pva://demo:mode": "Ramping"})
    shown = f"{quad}: 10.0 saved, now 9.0\npva://demo:mode: Standby saved, now Ramping\n"
    assert run(script, "compare", "settings.json") == f"{shown}2 settings differ\n"
    assert run(script, "restore", "settings.json", typed="n\n").endswith("2 settings differ\n")
    assert client.get(quad).value == 9.0
    assert run(script, "restore", "settings.json", typed="y\n").endswith("written\n0 settings differ\n")
    assert client.get(quad).value == magnets[quad]
    assert client.get("pva://demo:mode").label == "Standby"


def leave_at_once(address: str) -> None:
    """Sends a request to a URL's server and resets the connection."""
    server = urllib.parse.urlsplit(address)
    with socket.create_connection((server.hostname, server.port)) as browser:
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        browser.sendall(b"GET / HTTP/1.0\r\n\r\n")


def test_web_service(environment: dict[str, str]) -> None:
    command = [sys.executable, "-W", "error", ROOT / "examples/web_service.py"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as service:
        try:
            assert service.stdout is not None
            address = service.stdout.readline().split()[1]
            deadline, values = time.monotonic() + ENDS_WITHIN, dict[str, Any]()
            while len(values) < 20:
                assert time.monotonic() < deadline, values
                with urllib.request.urlopen(address + "values", timeout=ENDS_WITHIN) as response:
                    values = json.load(response)
                time.sleep(0.1)  # the service has no event to wait for
            with urllib.request.urlopen(address, timeout=ENDS_WITHIN) as response:
                assert "<h1>Orbit</h1>" in response.read().decode()
            with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                urllib.request.urlopen(address + "else", timeout=ENDS_WITHIN)
            refused.value.close()
            for _ in range(20):  # browsers that do not wait for the answer
                leave_at_once(address)
            service.send_signal(signal.SIGINT)
            _, errors = service.communicate(timeout=ENDS_WITHIN)
        finally:
            service.kill()
    assert (service.returncode, errors) == (0, "")
    assert list(values) == [f"demo:bpm{number}" for number in range(1, 21)]
    assert values["demo:bpm1"].keys() == {"value", "units", "severity"}


def test_alarm_digest(run: Run) -> None:
    arguments = ("--pv", "pva://demo:temperature", "--pv", "pva://demo:message", "--every", 3, "--count", 4)
    printed = run(ROOT / "examples/alarm_digest.py", *arguments)
    assert len(re.findall(r"^\d\d:\d\d:\d\d UTC, [01] in alarm$", printed, re.MULTILINE)) == 4
    rows = re.findall(r"^  demo:(\S+) +raised +(\d+) +in alarm +([\d.]+) s +worst (\w+) ", printed, re.MULTILINE)
    assert {name for name, *_ in rows} == {"temperature"}  # passes through all severities within 10 s
    assert sum(int(raised) for _, raised, _, _ in rows) >= 1
    assert sum(float(seconds) for _, _, seconds, _ in rows) >= 0.5  # at least part of a step
    assert {worst for *_, worst in rows} & {"MAJOR", "INVALID"}


def test_record_and_replay(run: Run, tmp_path: Path) -> None:
    script = ROOT / "examples/record_and_replay.py"
    lines = run(script, "run.parquet", "--seconds", 6).splitlines()
    [recorded] = re.findall(r"^recorded (\d+) updates in run\.parquet$", lines[1])
    [replayed] = re.findall(r"^replayed (\d+) updates in [\d.]+ s$", lines[-1])
    windows = [line for line in lines if " mean " in line]
    assert int(recorded) == int(replayed) == sum(int(line.split()[-1]) for line in windows)
    assert {line.split()[1] for line in windows} == {"demo:temperature", "demo:sine10", "demo:bpm1"}
    again = run(script, "run.parquet", "--replay").splitlines()
    assert sorted(again[1:-1]) == sorted(windows)


def test_plot(run: Run, tmp_path: Path) -> None:
    pvs = ("pva://demo:sine10", "pva://demo:temperature", "ca://demo:bpm1")
    printed = run(ROOT / "examples/plot.py", *(f"--pv={pv}" for pv in pvs), "--seconds", 6)
    counts = dict(re.findall(r"^(demo:\w+) +(\d+)\.0 ", printed, re.MULTILINE))
    assert counts.keys() == {"demo:sine10", "demo:temperature", "demo:bpm1"}
    assert f"{sum(map(int, counts.values()))} updates of 3 PVs in pvs.png" in printed
    picture = (tmp_path / "pvs.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) == (1080, 900)  # three units, so three panels


@pytest.fixture
def setpoints(client: Client) -> Iterator[dict[str, float]]:
    """Returns the fields of the set points that an example changes; restores them."""
    magnets = ("ca://demo:setpoint1", "ca://demo:setpoint2")
    fields = [f"{magnet}{field}" for magnet in magnets for field in ("", ".LOLO", ".LOW", ".HIGH", ".HIHI")]
    before = {uri: float(first(client.get_stream(uri)).value) for uri in fields}
    yield before
    for uri, value in before.items():
        first(client.put_stream(uri, value))


def test_inference_loop(run: Run, client: Client, setpoints: dict[str, float]) -> None:
    script, fast = ROOT / "examples/inference_loop.py", ("--timeout", 20, "--period", 0.1)
    dry = run(script, *fast, "--cycles", 1)
    assert dry.startswith("cycle 1: would write ca://demo:setpoint1 = ")
    assert {uri: first(client.get_stream(uri)).value for uri in setpoints} == setpoints
    assert run(script, *fast, "--cycles", 2, "--write") == "".join(
        f"cycle {number}: wrote all 10 outputs\n" for number in (1, 2)
    )
    written = {uri: float(first(client.get_stream(uri)).value) for uri in setpoints}
    assert len(written) == 10
    assert written["ca://demo:setpoint1.HIHI"] == pytest.approx(written["ca://demo:setpoint1"] + 2)
    assert written["ca://demo:setpoint1"] != setpoints["ca://demo:setpoint1"]


def test_inference_loop_writes_nothing_without_all_inputs(
    run: Run, client: Client, setpoints: dict[str, float]
) -> None:
    options = ("--input", "pva://demo:nowhere", "--attempts", 2, "--timeout", 1, "--cycles", 1, "--write")
    printed = run(ROOT / "examples/inference_loop.py", *options)
    assert printed.startswith("cycle 1: wrote nothing: ")
    assert "pva://demo:nowhere: " in printed
    assert {uri: first(client.get_stream(uri)).value for uri in setpoints} == setpoints


def test_setpoint_threads(run: Run, client: Client, setpoints: dict[str, float]) -> None:
    lines = run(ROOT / "examples/setpoint_threads.py", "--steps", 5).splitlines()
    assert lines[0] == "20 threads: 100 values written, 0 failed"
    assert {line.split(":")[1] for line in lines[1:]} <= {"setpoint1", "setpoint2", "sum"}
    assert first(client.get_stream("ca://demo:setpoint2")).value == setpoints["ca://demo:setpoint2"]


def test_save_machine_state(run: Run, tmp_path: Path) -> None:
    script = ROOT / "examples/save_machine_state.py"
    printed = run(script, "states.jsonl", "--timeout", 20, "--every", 0.1, "--saves", 2)
    assert printed.count(" saved 25 PVs, 0 of them defaults\n") == 2
    printed = run(script, "states.jsonl", "--pv", "pva://demo:nowhere", "--timeout", 5, "--saves", 1)
    assert printed.endswith(" saved 26 PVs, 1 of them defaults\n")
    *_, saved, partial = map(json.loads, (tmp_path / "states.jsonl").read_text().splitlines())
    assert partial["values"].keys() == {*saved["values"], "pva://demo:nowhere"}
    assert list(partial["failed"]) == ["pva://demo:nowhere"]
    assert partial["values"]["pva://demo:nowhere"] is None
    assert isinstance(saved["values"]["pva://demo:mode"], str)
    assert isinstance(saved["values"]["pva://demo:bpm20"], float)


@pytest.fixture
def table(client: Client) -> Iterator[str]:
    """Returns the demo's table; restores it."""
    uri = "pva://demo:table"
    before = first(client.get_stream(uri)).table
    yield uri
    first(client.put_stream(uri, before))


def test_resampled_table(run: Run, client: Client, table: str) -> None:
    pvs = ("pva://demo:ramp100", "pva://demo:sine100", "pva://demo:bpm1")
    options = (*(f"--pv={pv}" for pv in pvs), "--minutes", 2 / 60, "--every", 1, "--results", 2)
    lines = run(ROOT / "examples/resampled_table.py", *options, "--snapshot", "test-resampled").splitlines()
    assert len(lines) == 2
    points = [int(line.split()[0]) for line in lines]
    assert points[1] == 240  # two whole seconds; the first one begins with the first sample
    assert 120 < points[0] <= 240
    assert all(" of 3 PVs; since the start " in line for line in lines)
    written = first(client.get_stream(table)).table
    assert written["element"] == ["demo:ramp100", "demo:sine100", "demo:bpm1"]
    assert 20 < written["s"][0] < 80  # the mean of ramps from 0 to 99
    assert 20 < written["length"][0] < 35  # their standard deviation
    assert written["length"][1] == pytest.approx(10 / math.sqrt(2), rel=0.3)  # of a sine


@pytest.mark.parametrize(
    ("words", "begun"),
    [
        (("save_machine_state.py", "states.jsonl"), " saved "),
        (("inference_loop.py",), "cycle 1: "),
        (
            ("resampled_table.py", "--pv=pva://demo:bpm1", "--minutes=0.017", "--every=1", "--snapshot=ctrl-c"),
            " points",
        ),
    ],
)
def test_ctrl_c_ends_an_example(
    environment: dict[str, str], tmp_path: Path, table: str, words: tuple[str, ...], begun: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", ROOT / "examples" / words[0], *words[1:]],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            assert begun in program.stdout.readline()
            program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=ENDS_WITHIN)
        finally:
            program.kill()
    assert (program.returncode, errors) == (0, "")


def report_of_all_monitors(address: str) -> dict[str, Any]:
    """Returns the report of the service once all monitors have an update."""
    deadline = time.monotonic() + ENDS_WITHIN
    while True:
        with urllib.request.urlopen(address, timeout=ENDS_WITHIN) as response:
            report: dict[str, Any] = json.load(response)
        if report["monitors"] == 8:
            return report
        assert time.monotonic() < deadline, report
        time.sleep(0.1)  # the service has no event to wait for


def test_service(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", ROOT / "examples/service.py"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            assert service.stdout is not None
            address = service.stdout.readline().split()[1]
            report = report_of_all_monitors(address)
            with socket.create_connection(("127.0.0.1", int(address.strip("/").rsplit(":")[-1]))):  # sends no request
                # The reply to the next request shows that the idle connection was accepted: asyncio leaks a connection
                # that arrives while a server closes.
                with pytest.raises(urllib.error.HTTPError, match="404") as refused:
                    urllib.request.urlopen(address + "else", timeout=ENDS_WITHIN)
                refused.value.close()
                service.send_signal(signal.SIGTERM)
                printed, errors = service.communicate(timeout=ENDS_WITHIN)
        finally:
            service.kill()
    assert (service.returncode, printed, errors) == (0, "stopped\n", "")
    positions = report["positions_mm"].values()
    assert report["rms_mm"] == pytest.approx(math.sqrt(statistics.fmean(position**2 for position in positions)))


def code_of_readme() -> list[str]:
    """Returns the Python blocks of the README."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("number", "printed"), [(0, r"demo:sine10 9\.\d+"), (1, r"demo:sine1 ")])
def test_the_code_of_the_readme_runs(run: Run, tmp_path: Path, number: int, printed: str) -> None:
    script = tmp_path / "readme.py"
    # in place of a reader who presses Enter: waits for the expected output
    code = code_of_readme()[number]
    waiting = "import re, sys, time\nseen = []\n"
    waiting += (
        "def print(*words):\n    seen.append(' '.join(map(str, words)))\n    sys.stdout.write(seen[-1] + '\\n')\n"
    )
    waiting += (
        f"def input(_):\n    while not any(re.search({printed!r}, line) for line in seen):\n        time.sleep(0.1)\n"
    )
    script.write_text(waiting + code)
    assert re.search(printed, run(script))

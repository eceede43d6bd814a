"""The command line on terminals: signals, sizes, and terminals that can little."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from k2eg_rx import Client, first

from .conftest import ENDS_WITHIN, Start
from .terminal import COLOUR, Terminal

SCREENS = Path(__file__).parents[1] / "data" / "screens"  # `masked`
VIEWS = [["top", "demo:ramp10", "demo:sum"], ["strip", "demo:ramp10", "demo:sum", "--since", "1m"]]
ENTERS, LEAVES = "\x1b[?1049h", "\x1b[?1049l"  # the alternate screen


def masked(screen: str) -> str:
    """Returns a screen with all that changes in one form: numbers and times, curves, the width of columns, the axes."""
    text = re.sub(r"[\u2800-\u28ff]", " ", screen)  # of curves
    text = re.sub(r"[\u2581-\u2588]+", "~", text)  # of trends
    text = re.sub(r"(?m)^ *[-\d.]* ([│┤]).*$", "│", text)
    text = re.sub(r"(?m)^ *└[─┬]*$", "└", text)
    text = re.sub(r"(?<![:\w])[-+]?\d[\d.:]*", "N", text)
    text = re.sub(r"(?m)^ *N( +N)+$", "  N", text)  # below the time axis
    text = re.sub(r"N (min|h)\b", "N s", text)  # ages
    text = re.sub(r"(?m)^(demo:sum.*)  N Hz", r"\1", text)  # others may change what it adds
    text = re.sub(r"lag N(, replaced N)?", "lag N", text)
    return re.sub(r"  +", "  ", text)


@pytest.fixture
def variables(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"TERM": "xterm-256color", "COLORTERM": ""}


@pytest.mark.parametrize("words", VIEWS, ids=["top", "strip"])
def test_a_view_is_suspended_resized_and_left(variables: dict[str, str], words: list[str]) -> None:
    with Terminal(variables, *words, size=(24, 140)) as terminal:
        terminal.read_until("demo:ramp10", ENDS_WITHIN)
        assert ENTERS in terminal.text
        screen = (SCREENS / f"{words[0]}.txt").read_text(encoding="utf-8").rstrip("\n")
        terminal.read_until_screen(screen, ENDS_WITHIN, masked)
        assert terminal.modes_now() != terminal.modes
        terminal.type("\x1a")
        terminal.wait_until_stopped(ENDS_WITHIN)
        assert terminal.text.rindex(LEAVES) > terminal.text.rindex(ENTERS)
        assert terminal.modes_now() == terminal.modes
        stopped = len(terminal.text)
        terminal.go_on()
        terminal.read_until("demo:ramp10", ENDS_WITHIN, start=stopped)
        assert terminal.text.rindex(ENTERS) >= stopped
        resized = len(terminal.text)
        terminal.resize(20, 40)
        # the whole screen is drawn anew, to its new last line
        terminal.read_until(r"\x1b\[20;1H", ENDS_WITHIN, start=resized)
        terminal.press_ctrl_c()
        assert terminal.wait(ENDS_WITHIN) == 0
        assert terminal.modes_now() == terminal.modes
        assert terminal.text.rindex(LEAVES) > terminal.text.rindex(ENTERS)
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize(
    ("words", "number"), [(VIEWS[0], signal.SIGTERM), (VIEWS[1], signal.SIGTERM), (VIEWS[1], signal.SIGHUP)]
)
def test_a_view_that_is_ended_leaves_the_terminal_as_it_was(
    variables: dict[str, str], words: list[str], number: signal.Signals
) -> None:
    with Terminal(variables, *words) as terminal:
        terminal.read_until("demo:ramp10", ENDS_WITHIN)
        terminal.process.send_signal(number)
        assert terminal.wait(ENDS_WITHIN) == 0
        assert terminal.modes_now() == terminal.modes
        assert terminal.text.rindex(LEAVES) > terminal.text.rindex(ENTERS)
        assert "Traceback" not in terminal.text


def test_a_monitor_is_stopped_continued_and_hung_up(variables: dict[str, str]) -> None:
    with Terminal(variables, "monitor", "demo:ramp10", size=(24, 40)) as terminal:
        terminal.read_until("demo:ramp10", ENDS_WITHIN)
        # Ctrl-Z typed stops no process whose shell is not in its session, as here
        terminal.process.send_signal(signal.SIGSTOP)
        terminal.wait_until_stopped(ENDS_WITHIN)
        stopped = len(terminal.text)
        terminal.go_on()
        terminal.read_until("demo:ramp10.*\n.*demo:ramp10", ENDS_WITHIN, start=stopped)
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.wait(ENDS_WITHIN) == 0
        lines = COLOUR.sub("", terminal.text).splitlines()
        assert all(len(line) <= 40 for line in lines if line.startswith("demo:ramp10"))
        assert terminal.modes_now() == terminal.modes


@pytest.mark.parametrize("words", [["top", "demo:sum"], ["strip", "demo:sum"]], ids=["top", "strip"])
def test_a_view_without_a_terminal_says_what_to_use(start: Start, words: list[str]) -> None:
    with start(*words) as process:
        out, err = process.communicate(timeout=ENDS_WITHIN)
    assert (process.returncode, out) == (2, "")
    assert "needs a terminal" in err


def test_a_dumb_terminal_gets_no_escape_sequences(variables: dict[str, str], client: Client) -> None:
    first(client.get_stream("pva://demo:sum"))
    for words in (["get", "demo:sum", "demo:mode"], ["history", "demo:sum", "--since", "1m"], ["info", "demo:sum"]):
        with Terminal(variables | {"TERM": "dumb"}, *words, size=(24, 40)) as terminal:
            assert terminal.wait(ENDS_WITHIN) in {0, 1}  # 1: no client has monitored it yet
            assert "demo:sum" in terminal.text
            assert "\x1b" not in terminal.text


@pytest.mark.parametrize("size", [(24, 40), (0, 0)], ids=["40 columns", "no size"])
def test_the_value_is_what_a_narrow_terminal_keeps(variables: dict[str, str], size: tuple[int, int]) -> None:
    with Terminal(variables, "get", "-f", "3", "demo:setpoint1", size=size) as terminal:
        assert terminal.wait(ENDS_WITHIN) == 0
    (line,) = terminal.text.splitlines()
    assert re.search(r"\d\.\d{3} A", line)
    assert size == (0, 0) or len(line) <= 40


def test_head_ends_a_monitor_without_a_word(environment: dict[str, str], tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    script = f"{sys.executable} -m k2eg.cli monitor demo:ramp100 2>{errors} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=ENDS_WITHIN, check=False
    )
    lines = done.stdout.splitlines()
    assert (len(lines), lines[1:], errors.read_text()) == (2, ["0"], "")
    assert lines[0].startswith("demo:ramp100")


def test_a_terminal_that_is_gone_ends_a_monitor(variables: dict[str, str]) -> None:
    ours, theirs = os.openpty()
    words = [sys.executable, "-m", "k2eg.cli", "monitor", "demo:ramp100"]
    with subprocess.Popen(
        words, env=variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        text = b""
        while b"demo:ramp100" not in text:
            text += os.read(ours, 4096)
        os.close(ours)
        assert process.wait(ENDS_WITHIN) == 0


def test_a_command_that_takes_long_says_so_on_a_terminal_only(variables: dict[str, str], start: Start) -> None:
    words = "snapshot", "--window", "3000", "pva://demo:sum", "pva://demo:nowhere"
    with Terminal(variables, *words) as terminal:
        terminal.read_until("acquiring 2 PVs", ENDS_WITHIN)
        assert terminal.wait(ENDS_WITHIN) == 1
        assert terminal.text.rindex("\r\x1b[K") > terminal.text.rindex("acquiring")
    with start(*words) as process:
        _, err = process.communicate(timeout=ENDS_WITHIN)
    assert "acquiring" not in err

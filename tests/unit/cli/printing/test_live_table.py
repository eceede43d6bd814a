import io
from typing import Any

import msgpack
from rich.console import Console

from k2eg.cli.commands.demo import PVS, heading
from k2eg.cli.printing.live_rows import LiveRow, LiveRows
from k2eg.cli.printing.live_table import live_table
from k2eg_rx import PVAddress, PVUpdate
from k2eg_rx.transport.interfaces import Record

NOW = 1_700_000_002 * 10**9


def row(uri: str, structure: dict[str, Any], rate: float = 0.0) -> LiveRow:
    address = PVAddress.parse(uri)
    body = msgpack.packb({address.name: structure})
    headers = [("k2eg-ser-type", b"Msgpack")]
    return LiveRow(address.name, PVUpdate(address, Record("t", 0, 0, None, body, headers=headers)), rate)


def render(rows: dict[str, LiveRow], width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(live_table(["heading"], [PVAddress.parse(uri) for uri in rows], list(rows.values()), NOW))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text.splitlines()


def test_a_row_has_value_units_severity_age_and_rate() -> None:
    structure = {
        "value": 95.12,
        "alarm": {"severity": 2, "status": 1, "message": "HIHI"},
        "timeStamp": {"secondsPastEpoch": 1_700_000_000, "nanoseconds": 500_000_000, "userTag": 0},
        "display": {"units": "degC", "precision": 1},
    }
    lines = render({"pva://demo:temperature": row("pva://demo:temperature", structure, 2.0)})
    assert lines[0].strip() == "heading"
    assert lines[1].split() == ["PV", "value", "units", "severity", "age", "rate"]
    assert lines[2].split() == ["pva://demo:temperature", "95.1", "degC", "MAJOR", "1.5", "s", "2.0", "Hz"]


def test_a_waveform_is_a_sparkline() -> None:
    lines = render({"pva://w": row("pva://w", {"value": [float(number) for number in range(100)]})})
    assert "▁▁▂▂▂▂▃▃▃▃" in lines[2]


def test_a_pv_without_update_is_shown_as_waiting() -> None:
    assert "waiting ..." in render({"pva://w": LiveRow("w", None, 0.0)})[2]


def test_the_demo_fits_a_terminal_of_80_by_24() -> None:
    rows = LiveRows(PVAddress.parse(uri).name for uri in PVS).rows(0.0)
    console = Console(file=io.StringIO(), width=80, color_system=None)
    lines = heading("127.0.0.1:65535")
    console.print(live_table(lines, [PVAddress.parse(uri) for uri in PVS], rows, NOW))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    drawn_lines = text.splitlines()
    assert len(drawn_lines) <= 24
    assert all(uri in text for uri in PVS)
    assert all(len(line) <= 80 for line in lines)

"""Words of the command line, as values for PVs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k2eg.cli.values.put_values import check_value, parse_tolerance, value_of
from k2eg_rx import PVData

TABLE = {"labels": ["n", "x"], "value": {"n": ["a"], "x": [0.5]}}
GAIN = {"value": {"index": 0, "choices": ["1", "2", "5", "10"]}}


@pytest.mark.parametrize(
    ("words", "structure", "value"),
    [
        (["2.5"], {"value": 1.0}, 2.5),
        (["0x1F"], {"value": 1}, 31),
        (["-0x10"], {"value": 1}, -16),
        (["true"], {"value": False}, True),
        (["0x1F"], {"value": "text"}, "0x1F"),
        (["5"], {"value": "text"}, "5"),
        (["alarm=high"], {"value": "text", "alarm": {}}, "alarm=high"),
        (["@home.json"], {"value": "text"}, "@home.json"),
        (["2"], GAIN, "2"),
        (["3"], GAIN, 3),
        (["1", "2", "3"], {"value": [0.5]}, [1, 2, 3]),
        (["1,2.5,0x3"], {"value": [0.5]}, [1, 2.5, 3]),
        (["[1, 2]"], {"value": [0.5]}, [1, 2]),
        (["7"], {"value": [0.5]}, [7]),
        (["7"], {"value": []}, [7]),
        (["hello"], {"value": [104, 0]}, "hello"),
        (["a", "b"], {"value": ["x"]}, ["a", "b"]),
        (["a,b"], {"value": ["x"]}, ["a,b"]),
        (["value=3"], {"value": 1.0}, {"value": 3}),
        (["value=3", "display.limitLow=0"], {"value": 1.0, "display": {}}, {"value": 3, "display": {"limitLow": 0}}),
        (["Beam"], {"value": 1.0}, "Beam"),
    ],
)
def test_words_mean_what_the_pv_takes(words: list[str], structure: dict[str, Any], value: object) -> None:
    found = value_of(words, PVData("x", structure))
    assert found == value
    assert type(found) is type(value)


def test_options_choose_between_text_and_number() -> None:
    assert value_of(["2"], PVData("x", GAIN), is_number=True) == 2
    assert value_of(["123"], PVData("x", {"value": [104, 0]}), is_text=True) == "123"
    assert value_of(["1", "2"], PVData("x", {"value": ["a"]}), is_text=True) == ["1", "2"]
    assert value_of(["5"], PVData("x", {"value": 1.0}), is_text=True) == "5"


@pytest.mark.parametrize(("words", "value"), [(["hello", "world"], "text"), (["1", "2"], 1.0)])
def test_one_value_is_one_word(words: list[str], value: object) -> None:
    with pytest.raises(ValueError, match="x takes one value, got 2"):
        value_of(words, PVData("x", {"value": value}))


def test_files_have_arrays_and_tables(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "w.npy", np.array([1.5, 2.5]))
    (tmp_path / "w.csv").write_text("1,2\n3.5,0x10\n")
    (tmp_path / "t.csv").write_text("n, x\nq,1\nr,2.5\n")
    (tmp_path / "v.json").write_text('{"value": [1]}')
    wave = PVData("w", {"value": [0.5]})
    assert value_of([f"@{tmp_path}/w.npy"], wave) == [1.5, 2.5]
    assert value_of([f"@{tmp_path}/w.csv"], wave) == [1, 2, 3.5, 16]
    assert value_of([f"@{tmp_path}/v.json"], wave) == {"value": [1]}
    assert value_of([f"@{tmp_path}/t.csv"], PVData("t", TABLE)) == {"n": ["q", "r"], "x": [1, 2.5]}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("w.csv", "1,x\n", "an array's file must have numbers only, got 'x'"),
        ("w.csv", None, "cannot be read"),
        ("w.json", "[1", "cannot be read"),
        ("w.npy", "not numpy", "cannot be read|magic|pickle"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, name: str, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=reason):
        value_of([f"@{tmp_path}/{name}"], PVData("w", {"value": [0.5]}))


def test_a_value_is_checked_against_the_pv() -> None:
    check_value("text", PVData("x", {"value": [104, 0]}), "pva://x")
    with pytest.raises(ValueError, match="pva://x"):
        check_value("Beam", PVData("x", {"value": 1.0}), "pva://x")


@pytest.mark.parametrize(("text", "tolerance"), [("0.5", (0.5, False)), ("1%", (0.01, True)), ("0", (0.0, False))])
def test_a_tolerance_is_absolute_or_relative(text: str, tolerance: tuple[float, bool]) -> None:
    assert parse_tolerance(text) == tolerance


@pytest.mark.parametrize("text", ["-1", "x", "nan", "", "%", "true"])
def test_a_tolerance_is_a_number(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number of 0 or more"):
        parse_tolerance(text)

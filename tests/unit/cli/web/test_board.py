"""The arrays, images and tables of the page."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from k2eg.cli.values.pv_names import Target
from k2eg.cli.web.board import Board, shape_of
from k2eg_rx import PVUpdate
from k2eg_rx.testing import update


def split(message: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack_from(">I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def head(item: PVUpdate) -> dict[str, Any]:
    return split(shape_of(0, item))[0]


def test_arrays_have_index_and_value_and_gaps() -> None:
    found = head(update("x", [1.0, float("nan"), 3.0], units="V"))
    assert found == {"pv": 0, "kind": "array", "text": "3 values V", "x": [0, 1, 2], "y": [1.0, None, 3.0]}
    assert len(head(update("x", [float(number) for number in range(100_000)]))["x"]) <= 2000


def test_images_have_pixels_behind_the_head() -> None:
    fields = {"value": {"ushortValue": [0, 500, 1000, 250]}, "dimension": [{"size": 2}, {"size": 2}]}
    found, pixels = split(shape_of(3, update("x", fields=fields)))
    assert found == {
        "pv": 3,
        "kind": "image",
        "text": "2 x 2, 0 to 1000",
        "width": 2,
        "height": 2,
        "channels": 1,
    }
    assert pixels == bytes([0, 128, 255, 64])


def test_large_images_are_reduced() -> None:
    fields = {"value": {"ubyteValue": bytes(1000 * 1000)}, "dimension": [{"size": 1000}, {"size": 1000}]}
    _, pixels = split(shape_of(0, update("x", fields=fields)))
    assert len(pixels) == 360 * 360


def test_images_that_cannot_be_shown_say_why() -> None:
    fields = {"value": {"ubyteValue": [1]}, "dimension": [{"size": 9}], "codec": {"name": "jpeg"}}
    found = head(update("x", fields=fields))
    assert (found["kind"], found["text"]) == (
        "none",
        "the image is compressed by jpeg: it cannot be shown",
    )


def test_tables_have_texts_without_control_characters() -> None:
    found = head(update("x", {"a\x1b": ["<b>\x1b[0m", "x" * 1000], "b": [1.5, float("nan")]}))
    assert found["kind"] == "table"
    assert found["names"] == [r"a\x1b", "b"]
    assert found["columns"][0][0] == r"<b>\x1b[0m"
    assert len(found["columns"][0][1]) == 200
    assert found["columns"][1] == ["1.5", '"NaN"']


def test_other_values_have_no_shape() -> None:
    assert head(update("x", ["a", "b"]))["kind"] == "none"


def test_a_value_that_cannot_be_shown_says_so_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:  # as for values in too many levels, which depend on how deep the stack is
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr("k2eg.cli.web.board.columns_of", fail)
    shown = board()
    shown.take(update("x", [1.0]))
    (message,) = shown.shapes({})
    assert split(message)[0] == {"pv": 0, "kind": "none", "text": "cannot be shown: maximum recursion depth exceeded"}


def board() -> Board:
    return Board([Target("x", "pva://x"), Target("y", "pva://y")], lambda: "", lambda: 0.0)


def test_only_the_newest_shape_of_each_pv_is_sent_and_once() -> None:
    shown, seen = board(), dict[int, int]()
    for number in range(100):
        shown.take(update("x", [float(number)]))
    shown.take(update("y", 1.0))
    (message,) = shown.shapes(seen)
    assert split(message)[0]["y"] == [99.0]
    assert shown.shapes(seen) == []
    assert shown.shapes({})[0] is message  # made once, whatever the number of browsers

"""Images as pictures."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg.cli.charts.canvas import plain
from k2eg.cli.charts.pictures import is_image, picture_lines, picture_of


def image(sizes: list[int], values: Any, kind: str = "ubyteValue", **fields: Any) -> dict[str, Any]:
    return {"value": {kind: values}, "dimension": [{"size": size} for size in sizes]} | fields


def mode(number: int) -> list[dict[str, Any]]:
    return [{"name": "ColorMode", "value": {"intValue": number}}]


def test_grey_values_are_scaled_to_their_range() -> None:
    picture = picture_of(image([2, 2], [-1.0, 0.0, 1.0, 3.0], "doubleValue"), 10, 10)
    assert (picture.width, picture.height, picture.channels) == (2, 2, 1)
    assert (picture.pixels, picture.low, picture.high) == (bytes([0, 64, 128, 255]), -1.0, 3.0)


def test_large_images_are_reduced_and_small_ones_grow_when_asked() -> None:
    large = image([400, 200], list(range(200)) * 400)
    reduced = picture_of(large, 100, 100)
    assert (reduced.width, reduced.height, reduced.size) == (100, 50, (400, 200))
    small = picture_of(image([2, 1], bytes([0, 255])), 4, 4, grow=True)
    assert (small.width, small.height, small.pixels) == (4, 2, bytes([0, 0, 255, 255] * 2))


@pytest.mark.parametrize(
    ("sizes", "values", "colour_mode"),
    [
        ([3, 2, 1], [1, 2, 3, 4, 5, 6], 2),
        ([2, 3, 1], [1, 4, 2, 5, 3, 6], 3),
        ([2, 1, 3], [1, 4, 2, 5, 3, 6], 4),
    ],
)
def test_colours_of_the_three_layouts(sizes: list[int], values: list[int], colour_mode: int) -> None:
    picture = picture_of(image(sizes, values, attribute=mode(colour_mode)), 10, 10)
    assert (picture.width, picture.height, picture.channels) == (2, 1, 3)
    assert picture.pixels == bytes([1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (image([2, 2], [1, 2, 3]), "an image of 2 x 2 with 3 values"),
        (image([2], [1, 2]), "an image of 2 with 2 values"),
        (image([0, 2], []), "no pixels"),
        (image([2, 2], [1, 2, 3, 4], codec={"name": "jpeg"}), "compressed by jpeg"),
        (image([2, 1], ["a", 1], "stringValue"), "no numbers"),
        ({"value": {}, "dimension": [{"size": 2}]}, "no pixels"),
        ({"value": {"ubyteValue": "text"}, "dimension": [{"size": 2}]}, "no pixels"),
    ],
)
def test_images_that_cannot_be_shown(structure: dict[str, Any], reason: str) -> None:
    assert is_image(structure)
    with pytest.raises(ValueError, match=reason):
        picture_of(structure, 10, 10)


@pytest.mark.parametrize(
    "values", [[float("nan")] * 4, [5.0] * 4, [float("inf"), 1.0, 1.0, 1.0], [1e308, -1e308, 0.0, 0.0]]
)
def test_images_without_a_range_are_shown(values: list[float]) -> None:
    assert len(picture_of(image([2, 2], values, "doubleValue"), 10, 10).pixels) == 4


@pytest.mark.parametrize("structure", [{"value": 1.0}, {"value": [1]}, {"value": {"a": [1]}}, {}])
def test_what_is_no_image(structure: dict[str, Any]) -> None:
    assert not is_image(structure)


def test_an_image_as_dots_is_denser_where_it_is_brighter() -> None:
    (line,) = picture_lines(image([4, 1], [0, 85, 170, 255]), 8, 4, coloured=False)
    assert plain(line) == "  ⠕⠅⢝⢽⣿⣿"


def test_an_image_in_colours_has_two_pixels_in_a_character() -> None:
    assert picture_lines(image([2, 2], [0, 0, 255, 255]), 2, 1, coloured=True) == [[("▀▀", "38;5;232;48;5;255")]]
    red = image([3, 1, 1], [255, 0, 0])
    assert picture_lines(red, 1, 1, coloured=True) == [[("▀", "38;5;196")]]

"""Images of PVs (NTNDArray) as pictures of eight bits, and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from k2eg.cli.charts.canvas import DOTS_ACROSS, DOTS_DOWN, Canvas, Line

_COLOURS = 3
_CHANNEL_AXES = {2: 0, 3: 1, 4: 2}  # of areaDetector's ColorMode RGB1, RGB2, RGB3
_BYTES = "ubyteValue"
_GREYS = 24  # of terminals of 256 colours, from 232 on
_THRESHOLDS = ((0, 8, 2, 10), (12, 4, 14, 6), (3, 11, 1, 9), (15, 7, 13, 5))  # of an ordered dither, in sixteenths


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture.

    Attributes:
        width: Columns of pixels.
        height: Rows of pixels.
        channels: 1 for grey, 3 for red, green and blue.
        pixels: A byte for each channel of each pixel, from the top left on.
        low: The value that is black.
        high: The value that is white.
        size: Width and height of the image, which the picture may show smaller.
    """

    width: int
    height: int
    channels: int
    pixels: bytes
    low: float
    high: float
    size: tuple[int, int]


def is_image(structure: Mapping[str, Any]) -> bool:
    """Returns whether a structure is an image."""
    value = structure.get("value")
    return isinstance(structure.get("dimension"), list) and isinstance(value, dict)


def picture_of(structure: Mapping[str, Any], width: int, height: int, *, grow: bool = False) -> Picture:
    """Returns the picture of an image, reduced to a size by leaving out pixels; its proportions stay.

    Args:
        structure: Of an image, see `is_image`.
        width: Pixels at most.
        height: Likewise.
        grow: Whether a smaller image becomes larger.

    Raises:
        ValueError: The image is compressed, or its pixels are no numbers or do not fill its dimensions.
    """
    sizes, kind, values = _parts(structure)
    axis = _channel_axis(structure, sizes)
    steps = [math.prod(sizes[:number]) for number in range(len(sizes))]
    places = [number for number in range(len(sizes)) if number != axis]
    if len(places) != 2 or math.prod(sizes) != len(values) or not values:
        raise ValueError(f"an image of {' x '.join(map(str, sizes))} with {len(values)} values cannot be shown")
    (across, down), channels = (sizes[place] for place in places), 1 if axis is None else _COLOURS
    factor = min(width / across, height / down)
    factor = factor if grow or factor < 1 else 1.0
    columns, rows = max(int(across * factor), 1), max(int(down * factor), 1)
    offsets = [column * across // columns * steps[places[0]] for column in range(columns)]
    if axis is not None:
        offsets = [offset + channel * steps[axis] for offset in offsets for channel in range(channels)]
    starts = [row * down // rows * steps[places[1]] for row in range(rows)]
    chosen = [values[start + offset] for start in starts for offset in offsets]
    if not all(isinstance(each, int | float) for each in cast("list[object]", chosen)):
        raise ValueError("the pixels of the image are no numbers")
    low, high = (0, 255) if axis is not None and kind == _BYTES else _range(chosen)
    return Picture(columns, rows, channels, _scaled(chosen, low, high), low, high, (across, down))


def _parts(structure: Mapping[str, Any]) -> tuple[list[int], str, Sequence[float]]:
    """Returns the sizes of an image, the fastest first, the type of its pixels, and these."""
    codec: object = structure.get("codec")
    name = cast("Mapping[str, Any]", codec).get("name") if isinstance(codec, dict) else ""
    if name:
        raise ValueError(f"the image is compressed by {name}: it cannot be shown")
    items = list(cast("Mapping[str, Any]", structure["value"]).items())
    kind, values = items[0] if len(items) == 1 else ("", None)
    found = [cast("Mapping[str, Any]", each).get("size") for each in structure["dimension"] if isinstance(each, dict)]
    sizes = [size for size in found if isinstance(size, int) and size > 0]
    if not isinstance(values, list | bytes) or len(sizes) != len(structure["dimension"]):
        raise ValueError("the image has no pixels")
    return sizes, kind, cast("Sequence[float]", values)


def _channel_axis(structure: Mapping[str, Any], sizes: Sequence[int]) -> int | None:
    """Returns which dimension has the colours; None for grey."""
    if len(sizes) != 3:
        return None
    attributes: object = structure.get("attribute")
    mode: object = None
    for each in cast("Sequence[Any]", attributes) if isinstance(attributes, list) else ():
        if isinstance(each, dict) and cast("Mapping[str, Any]", each).get("name") == "ColorMode":
            mode = cast("Mapping[str, Any]", each).get("value")
            mode = next(iter(cast("Mapping[str, Any]", mode).values()), None) if isinstance(mode, dict) else mode
    axis = _CHANNEL_AXES.get(mode) if isinstance(mode, int) else None
    if axis is not None and sizes[axis] == _COLOURS:
        return axis
    return sizes.index(_COLOURS) if _COLOURS in sizes else None


def _range(values: Sequence[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (0.0, 0.0)


def _scaled(values: Sequence[float], low: float, high: float) -> bytes:
    if low == 0 and high == 255 and isinstance(values[0], int):
        return bytes(map(int, values))
    base, span = low / 2, (high / 2 - low / 2) or 1.0  # halves: the range of all floats is no float
    return bytes(round((value / 2 - base) / span * 255) if math.isfinite(value) else 0 for value in values)


def picture_lines(structure: Mapping[str, Any], columns: int, rows: int, *, coloured: bool) -> list[Line]:
    """Returns the lines that show an image on a terminal.

    Args:
        structure: Of an image, see `is_image`.
        columns: Width of the terminal.
        rows: Its height.
        coloured: Whether to use colours: two pixels in each character. The spans have the codes of terminals for them.
            Otherwise there are dots, two by four in each character, more of them where it is brighter.

    Raises:
        ValueError: As of `picture_of`.
    """
    if not coloured:
        picture = picture_of(structure, columns * DOTS_ACROSS, rows * DOTS_DOWN, grow=True)
        canvas = Canvas(-(-picture.width // DOTS_ACROSS), -(-picture.height // DOTS_DOWN))
        for y in range(picture.height):
            for x in range(picture.width):
                if _mean(picture, x, y) * 17 / 256 > _THRESHOLDS[y % 4][x % 4] + 1:
                    canvas.dot(x, y)
        return canvas.lines()
    picture = picture_of(structure, columns, rows * 2, grow=True)
    lines: list[Line] = []
    for y in range(0, picture.height, 2):
        codes = [_code(picture, x, y) for x in range(picture.width)]
        lines.append([("▀" * len(list(group)), code) for code, group in groupby(codes)])
    return lines


def _mean(picture: Picture, x: int, y: int) -> float:
    first = (y * picture.width + x) * picture.channels
    return sum(picture.pixels[first : first + picture.channels]) / picture.channels


def _code(picture: Picture, x: int, y: int) -> str:
    """Returns the code for a pixel above and the one below it."""
    upper = f"38;5;{_colour(picture, x, y)}"
    return f"{upper};48;5;{_colour(picture, x, y + 1)}" if y + 1 < picture.height else upper


def _colour(picture: Picture, x: int, y: int) -> int:
    """Returns a pixel's colour of 256: a grey, or one of a cube of six reds, greens and blues."""
    first = (y * picture.width + x) * picture.channels
    if picture.channels == 1:
        return 232 + picture.pixels[first] * _GREYS // 256
    red, green, blue = (part * 6 // 256 for part in picture.pixels[first : first + _COLOURS])
    return 16 + 36 * red + 6 * green + blue

"""How values are written: digits, hexadecimal, labels or indices of enums, elements of arrays, images in short."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from k2eg_rx.protocol import format_number

IN_LINE = 8  # elements of an array in one line: about 60 characters, the rest of a line after name and time
_IN_BLOCK = 100  # elements of an array in several lines: half a terminal
_BLOCK_WIDTH = 76  # columns of such a line


@dataclass(frozen=True, slots=True)
class ValueStyle:
    """How values are written.

    Attributes:
        digits: Form and number of digits of floats, such as ``("f", 3)``; None for those that the PV declares.
        is_hexadecimal: Whether whole numbers are hexadecimal.
        enums: Whether an enum is label and index, or one of them.
        is_text: Whether an array of characters is text.
        elements: How many elements of an array are shown; None for as many as fit, 0 for all.
    """

    digits: tuple[str, int] | None = None
    is_hexadecimal: bool = False
    enums: Literal["both", "label", "index"] = "both"
    is_text: bool = False
    elements: int | None = None

    def number(self, value: float, precision: int | None = None) -> str:
        """Returns a number."""
        if self.is_hexadecimal and not isinstance(value, bool) and math.isfinite(value) and value == int(value):
            return f"{int(value):#x}"
        if self.digits is not None and isinstance(value, float):
            form, digits = self.digits
            return f"{value:.{digits}{form}}"
        return format_number(value, precision)

    def text_of(self, elements: Sequence[object]) -> str | None:
        """Returns the text that an array of characters holds, up to its first zero; None if it is none to show."""
        if not self.is_text or not elements:
            return None
        try:
            raw = bytes(cast("Sequence[int]", [int(cast("int", element)) & 0xFF for element in elements]))
        except (TypeError, ValueError):
            return None
        return raw.partition(b"\0")[0].decode("utf-8", "replace")

    def shown(self, count: int, default: int) -> int:
        """Returns how many of an array's elements are shown, by default at most `default`."""
        return count if self.elements == 0 else min(count, default if self.elements is None else self.elements)


def block_lines(elements: Sequence[str], count: int) -> Iterator[str]:
    """Yields the lines of an array: aligned columns, each line with the index of its first element.

    Args:
        elements: The elements that are shown.
        count: How many there are.
    """
    width = max(map(len, elements), default=1)
    head = len(f"[{max(len(elements) - 1, 0)}]")
    by_line = max(1, (_BLOCK_WIDTH - head) // (width + 2))
    for start in range(0, len(elements), by_line):
        row = "  ".join(element.rjust(width) for element in elements[start : start + by_line])
        yield f"{f'[{start}]'.rjust(head)}  {row}"
    if count > len(elements):
        yield f"... {count - len(elements)} more (all: -# 0)"


def in_block(style: ValueStyle, count: int) -> int:
    """Returns how many elements of an array are shown in several lines; 0 if it fits into one."""
    return 0 if count <= IN_LINE else style.shown(count, _IN_BLOCK)


def image_text(structure: Mapping[str, Any]) -> str | None:
    """Returns shape, type and statistics of an image (NTNDArray); None for another PV."""
    dimensions, value = structure.get("dimension"), structure.get("value")
    if not isinstance(dimensions, list) or not isinstance(value, dict) or not dimensions:
        return None
    (name, pixels), *others = cast("Mapping[str, Any]", value).items()
    if others or not isinstance(pixels, list | bytes):
        return None
    sizes = [cast("Mapping[str, Any]", each).get("size", "?") for each in cast("list[object]", dimensions)]
    numbers = [each for each in cast("Sequence[Any]", pixels) if isinstance(each, int | float) and math.isfinite(each)]
    about = f"image {' x '.join(map(str, sizes))}, {name.removesuffix('Value')}"
    if not numbers:
        return f"{about}, {len(cast('Sequence[Any]', pixels))} pixels"
    mean = math.fsum(numbers) / len(numbers)
    return f"{about}, min {min(numbers):g}, mean {mean:.6g}, max {max(numbers):g}"


def picked(structure: Mapping[str, Any], path: str) -> Any:
    """Returns the field at a path such as ``alarm.severity``; None if there is none."""
    value: Any = structure
    for name in path.split("."):
        value = cast("Mapping[str, Any]", value).get(name) if isinstance(value, Mapping) else None
    return value


def field_paths(text: str) -> tuple[str, ...]:
    """Returns the paths of fields in a request: ``value,alarm.severity``, or ``field(value,alarm)`` as for pvget."""
    inner = text.strip()
    if inner.startswith("field(") and inner.endswith(")"):
        inner = inner[len("field(") : -1]
    paths = tuple(part.strip() for part in inner.split(",") if part.strip())
    if not paths or any(not name.isidentifier() for path in paths for name in path.split(".")):
        raise ValueError(f"must be fields such as value,alarm.severity, got {text!r}")
    return paths

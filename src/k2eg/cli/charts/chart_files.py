"""Reads the PVs of files of other strip charts: StripTool's ``.stp`` and the ``.plt`` of Phoebus' Data Browser."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".stp", ".plt")

_CURVE = re.compile(r"Strip\.Curve\.(\d+)\.(Name|Min|Max|Scale|PlotStatus)\s+(.+)", re.ASCII)
_SCHEMES = ("pva", "ca")


@dataclass(frozen=True, slots=True)
class FileCurve:
    """A PV of a file.

    Attributes:
        name: Its name or URI.
        extent: The range of its axis; None for that of its values.
        is_log: Whether its axis is logarithmic.
    """

    name: str
    extent: tuple[float, float] | None = None
    is_log: bool = False


def is_chart_file(name: str) -> bool:
    """Returns whether a file is of another strip chart, by its name."""
    return name.lower().endswith(SUFFIXES)


def read_chart_file(name: str) -> list[FileCurve]:
    """Returns the visible PVs of a file, without formulas and simulated or local PVs.

    Raises:
        ValueError: It cannot be read, or names no PV.
    """
    try:
        text = Path(name).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None
    found = list(_striptool(text) if name.lower().endswith(".stp") else _phoebus(text, name))
    if not found:
        raise ValueError(f"{name} names no visible PV of pva or ca")
    return found


def _striptool(text: str) -> Iterator[FileCurve]:
    curves: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        entry = _CURVE.fullmatch(line.strip())
        if entry is not None:
            curves.setdefault(int(entry[1]), {})[entry[2]] = entry[3]
    for _, curve in sorted(curves.items()):
        if "Name" in curve and curve.get("PlotStatus") != "0":
            extent = _extent(curve.get("Min"), curve.get("Max"))
            yield FileCurve(curve["Name"], extent, is_log=curve.get("Scale") == "1")


def _phoebus(text: str, name: str) -> Iterator[FileCurve]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # which may make gigabytes of a line
        raise ValueError(f"{name} declares a document type, which no file of the Data Browser does")
    try:
        root = ET.fromstring(text)  # noqa: S314 - without entities, see above
    except ET.ParseError as error:
        raise ValueError(f"{name} is not valid XML: {error}") from None
    axes = [
        (
            None if axis.findtext("autoscale") == "true" else _extent(axis.findtext("min"), axis.findtext("max")),
            axis.findtext("log_scale") == "true",
        )
        for axis in root.iterfind("axes/axis")
    ]
    for pv in root.iterfind("pvlist/pv"):
        uri = (pv.findtext("name") or "").strip()
        scheme, separator, _ = uri.partition("://")
        if not uri or uri.startswith("=") or pv.findtext("visible") == "false":
            continue
        if separator and scheme not in _SCHEMES:
            continue
        number = pv.findtext("axis") or ""
        extent, is_log = axes[int(number)] if number.isdecimal() and int(number) < len(axes) else (None, False)
        yield FileCurve(uri, extent, is_log)


def _extent(low: str | None, high: str | None) -> tuple[float, float] | None:
    """Returns a range; None if it is none that can be shown."""
    try:
        first, last = float(low or ""), float(high or "")
    except ValueError:
        return None
    return (first, last) if math.isfinite(last - first) and first < last else None

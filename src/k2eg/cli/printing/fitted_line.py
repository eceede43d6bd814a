"""The line of a PV, made to fit into a narrow terminal."""

from __future__ import annotations

_LEAST_NAME = 8  # characters of a name on a narrow terminal
_DATE, _FRACTION = len("2026-11-29 "), len("2026-11-29 06:30:00")


def fitted_line(name: str, time: str, value: str, alarm: str, *, name_width: int, width: int | None) -> str:
    """Returns the line of a PV: name, time, value, alarm. What does not fit is left out, the value never.

    First the date goes, then fractions of seconds, the time, and the middle of the name.

    Args:
        name: The PV's name.
        time: Its time; may be empty, as the others.
        value: Its value with units.
        alarm: Its alarm.
        name_width: Width of the column of names.
        width: Width of the terminal; None without one.
    """
    line = _joined(name.ljust(name_width), time, value, alarm)
    if width is None or len(line) <= width:
        return line
    for shorter in (time[_DATE:], time[_DATE:_FRACTION], ""):
        line = _joined(name, shorter, value, alarm)
        if len(line) <= width:
            return line
    rest = max(width - len(_joined(" ", value, alarm)) + 1, _LEAST_NAME)
    return _joined(_without_middle(name, rest), value, alarm)


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)


def _without_middle(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    end = (width - 2) // 2
    return f"{text[: width - 2 - end]}..{text[len(text) - end :]}"

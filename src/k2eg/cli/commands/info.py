"""``k2eg info``: what a PV is, as cainfo and pvinfo show it: type, size, units, limits, labels, alarm, topic.

Thread safety: main thread only.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, cast

from reactivex import operators as ops

from k2eg.cli.commands.reading import Answer, answers, failure_of, fallback_note
from k2eg.cli.output import print_lines, print_note
from k2eg.cli.printing.formatting import format_alarm, format_value, jsonable, local_time, pv_object
from k2eg.cli.printing.value_style import image_text, picked
from k2eg.cli.session import open_connected_client
from k2eg.cli.values.pv_names import targets_of
from k2eg_rx import PVData, Settings, first
from k2eg_rx.protocol import columns_of
from k2eg_rx.pv import PVAddress, monitor_topic

_RANGES = ("display", "control", "alarm", "warning")


def info(arguments: Namespace, settings: Settings) -> None:
    """Prints what is known of PVs.

    Raises:
        CommandError: PVs could not be read; the other PVs are printed first.
    """
    targets = targets_of(arguments.names, arguments, settings)
    with open_connected_client(settings, arguments) as client:
        found = first(answers(client, targets, arguments.timeout).pipe(ops.to_list()))
        by_target = {answer.target: answer for answer in found}
        for target in targets:
            answer = by_target[target]
            if answer.data is not None:
                print_lines(_text(answer, answer.data, is_json=arguments.json))
        if note := fallback_note(found):
            print_note(note)
        if failure := failure_of(found, client):
            raise failure


def _text(answer: Answer, data: PVData, *, is_json: bool) -> str:
    about = about_pv(answer.uri, data)
    if is_json:
        return json.dumps(pv_object(data) | jsonable_map(about))
    width = max(map(len, about))
    return "\n".join([data.name, *(f"  {name.ljust(width)}  {value}" for name, value in about.items() if value)])


def jsonable_map(about: Mapping[str, str]) -> dict[str, object]:
    """Returns what is known of a PV for JSON, beside the keys of each value."""
    own = {"value", "units", "severity", "time"}  # in other forms there
    return {name.replace(" ", "_"): jsonable(value) for name, value in about.items() if name not in own}


def about_pv(uri: str, data: PVData) -> dict[str, str]:
    """Returns what is known of a PV, by name; empty texts for what it does not declare."""
    limits, choices = data.limits, data.choices
    ranges = {name: getattr(limits, name) if limits is not None else None for name in _RANGES}
    precision = data.precision
    return {
        "uri": uri,
        "type": kind_of(data),
        "value": format_value(data),
        "units": data.units,
        "precision": "" if precision is None else str(precision),
        "description": str(picked(data.data, "display.description") or ""),
        **{f"{name} limits": "" if ends is None else f"{ends[0]:g} to {ends[1]:g}" for name, ends in ranges.items()},
        "labels": "" if choices is None else ", ".join(f"{index} {label}" for index, label in enumerate(choices)),
        "severity": format_alarm(data) or "NO_ALARM",
        "time": local_time(data.timestamp).strip(),
        "fields": ", ".join(data.data),
        "topic": monitor_topic(PVAddress.parse(uri).name),
    }


def kind_of(data: PVData) -> str:
    """Returns what kind of value a PV has, as far as the value shows it."""
    value: object = data.value
    if data.choices is not None:
        return f"enum of {len(data.choices)} labels"
    if (columns := columns_of(data.data)) is not None:
        return f"table of {len(columns)} columns, {max(map(len, columns.values()), default=0)} rows"
    if (image := image_text(data.data)) is not None:
        return image.partition(", min ")[0]
    if isinstance(value, list | bytes):
        elements = cast("list[Any] | bytes", value)
        return f"array of {len(elements)} {_plural(elements[0]) if elements else 'elements'}"
    return _plural(value).removesuffix("s")


def _plural(value: object) -> str:
    kinds: dict[type, str] = {bool: "booleans", int: "whole numbers", float: "floats", str: "texts"}
    return kinds.get(type(value), "structures")

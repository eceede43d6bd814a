"""The options for how ``get`` and ``monitor`` show values, named as those of caget, camonitor and pvget."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from k2eg.cli.arguments import Parser

if TYPE_CHECKING:
    from k2eg.cli.printing.formatting import Formatter

TIME_KINDS = ("server", "client", "kafka", "relative", "delta")


class _Digits(argparse.Action):
    """Takes digits for ``-e 3`` and ``-f 3``; another word is what the option means elsewhere."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        form = (option_string or "-g")[1]
        if values.isascii() and values.isdecimal() and len(values) <= 2:
            namespace.digits = (form, int(values))
        elif form == "e":
            namespace.environment = values
        elif form == "f":
            namespace.file = [*namespace.file, values]
        else:
            parser.error(f"argument {option_string}: must be a number of digits, got {values!r}")


def _elements(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"must be a number of elements, 0 for all, got {text!r}")
    return int(text)


def _fields(text: str) -> tuple[str, ...]:
    from k2eg.cli.printing.value_style import field_paths  # noqa: PLC0415 - not for help

    try:
        return field_paths(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_display(parser: Parser) -> None:
    """Adds the options for how values are shown."""
    group = parser.add_argument_group("how values are shown")
    add = group.add_argument
    add("-t", "--terse", action="store_true", help="the value only")
    add("-a", "--wide", action="store_true", help="severity, status and message of every value")
    add("-n", "--number", action="store_true", help="an enum's index")
    add("-s", "--label", action="store_true", help="an enum's label only")
    add("-S", "--text", action="store_true", help="an array of characters as text")
    for form in "gef":
        help_ = {"g": "", "e": "; with a word, the environment", "f": "; with a word, a list of PVs"}[form]
        add(f"-{form}", action=_Digits, dest="digits", metavar="DIGITS", help=f"floats as %%.DIGITS{form}{help_}")
    add("-x", "--hex", action="store_true", help="whole numbers in hexadecimal")
    add("-#", dest="elements", type=_elements, metavar="N", help="N elements of an array; 0 for all")
    add("-F", dest="separator", metavar="TEXT", help="between fields and elements, without alignment")
    add("-r", "--fields", type=_fields, default=(), metavar="FIELDS", help="these fields: value,alarm.severity")
    add("--timestamp", choices=TIME_KINDS, default="server", help="which time is shown (default: %(default)s)")
    add("--csv", action="store_true", help="comma-separated values, with a line of names above")


def display_of(arguments: argparse.Namespace, uris: Iterable[str]) -> Formatter:
    """Returns the formatter that the options ask for."""
    from dataclasses import replace  # noqa: PLC0415 - not for help

    from k2eg.cli.printing.times import TimeColumn  # noqa: PLC0415
    from k2eg.cli.printing.value_style import ValueStyle  # noqa: PLC0415
    from k2eg.cli.session import formatter_for  # noqa: PLC0415

    style = ValueStyle(
        digits=arguments.digits,
        is_hexadecimal=arguments.hex,
        enums="index" if arguments.number else "label" if arguments.label else "both",
        is_text=arguments.text,
        elements=arguments.elements,
    )
    return replace(
        formatter_for(arguments, uris),
        wide=arguments.wide,
        csv=arguments.csv,
        fields=arguments.fields,
        separator=arguments.separator,
        style=style,
        time_text=TimeColumn(arguments.timestamp).text,
    )

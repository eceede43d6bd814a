"""Reads what p4p's values print but do not return.

- Texts that are not UTF-8: EPICS strings are bytes without a declared encoding. p4p raises UnicodeDecodeError for them;
  here they get a replacement character for each invalid part.
- The selected members of unions in arrays: a server sends only what they hold, which prints with its type.

Printing a value takes long if it has large arrays; both are rare.

Thread safety: functions are pure.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from typing import Any

# The names of types as values print them, by p4p.Type letters.
_NAMES = {
    "?": "bool",
    "b": "int8_t",
    "B": "uint8_t",
    "h": "int16_t",
    "H": "uint16_t",
    "i": "int32_t",
    "I": "uint32_t",
    "l": "int64_t",
    "L": "uint64_t",
    "f": "float",
    "d": "double",
    "s": "string",
}
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_escape_decode: Any = getattr(codecs, "escape_decode")  # noqa: B009 - missing in the type stubs


def _texts(printed: str) -> list[str]:
    """Returns the texts in a line."""
    return [_escape_decode(text.encode())[0].decode("utf-8", "replace") for text in _QUOTED.findall(printed)]


def _found(value: Any, pattern: str) -> str:
    found = re.search(pattern, value.tostr(0), re.MULTILINE)
    if found is None:
        raise ValueError("a value does not print as expected")
    return found[1]


def elements(value: Any, name: str) -> list[str]:
    """Returns one line per element of an array of unions or variants, the field `name` of a value: ``double = 1``."""
    printed = _found(value, rf"^    (?:union|any)\[\] {re.escape(name)} = \{{\d+\}}\[\n((?:     .*\n)*)    \]$")
    lines = [line[8:] for line in printed.splitlines()]
    return [line for line in lines if line[0] not in " }]"]  # without the insides of structures


def text(value: Any, name: str) -> tuple[str, str | list[str]]:
    """Returns the text, or array of texts, in the field `name` of a value, and the member of a union that holds it.

    The field is a string, an array of strings, or a union or variant that holds one of them.
    """
    escaped = re.escape(name)
    field = rf"string(?:\[\])? {escaped}|(?:union|any) {escaped}(?:\.\S+)? string(?:\[\])?"
    printed = _found(value, rf"^    ((?:{field}) = .*)$")
    head, _, rest = printed.partition(" = ")
    member = re.search(rf" {escaped}\.(\S+) string", head)
    found = _texts(rest)
    return member[1] if member else "", found if "[]" in head else found[0]


def text_of_element(line: str) -> str | list[str] | None:
    """Returns the text or texts of one of the `elements`; None if it is of another type."""
    kind = line.partition(" = ")[0].rpartition(" ")[2]
    return _texts(line) if kind == "string[]" else _texts(line)[0] if kind == "string" else None


def selected(line: str, members: Mapping[str, Any]) -> str | None:
    """Returns the selected member of one of the `elements`; None if there is none, or several have the printed type."""
    fitting = [name for name, spec in members.items() if line.startswith((_beginning(spec), f"union.{name} "))]
    return fitting[0] if len(fitting) == 1 else None


def _beginning(spec: Any) -> str:
    """Returns how an element of a type begins."""
    code = spec if isinstance(spec, str) else str(spec[0])
    if code == "S":
        return "struct {" if spec[1] == "structure" else f'struct "{spec[1]}" {{'
    name = _NAMES.get(code[-1], {"v": "any", "U": "union"}.get(code[-1], "struct"))
    return f"{name}[] = " if len(code) > 1 else f"{name} = " if code in _NAMES else f"{name} "

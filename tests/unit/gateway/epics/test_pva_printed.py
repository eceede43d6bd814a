"""The members of unions in arrays, from what a value that a server has sent prints."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg_rx.gateway.epics.pva_printed import elements, selected, text_of_element

PRINTED = """struct {
    union[] value = {4}[
        double = 1
        struct "mine" {
            double x = 1
            string[] names = {1}["]"]
        }
        struct[] = {1}[
            struct {
                double x = 1
            }
        ]
        string[] = {2}["]", "a \\xb0\\n"]
    ]
    any[] others = {1}[
        any double = 1
    ]
}
"""


class Printing:
    def tostr(self, _limit: int) -> str:
        return PRINTED


MEMBERS: dict[str, Any] = {
    "d": "d",
    "f": "f",
    "ad": "ad",
    "as": "as",
    "mine": ("S", "mine", [("x", "d"), ("names", "as")]),
    "other": ("S", "structure", [("x", "d")]),
    "list": ("aS", "structure", [("x", "d")]),
}


def test_each_element_is_one_line() -> None:
    lines = elements(Printing(), "value")
    assert [line.split(" = ")[0].split(" {")[0] for line in lines] == [
        "double",
        'struct "mine"',
        "struct[]",
        "string[]",
    ]
    assert [selected(line, MEMBERS) for line in lines] == ["d", "mine", "list", "as"]
    assert [text_of_element(line) for line in lines] == [None, None, None, ["]", "a \ufffd\n"]]
    assert elements(Printing(), "others") == ["any double = 1"]


@pytest.mark.parametrize(
    ("line", "member"), [("double = 1", None), ("union.b double = 1", "b"), ("any double = 1", "v")]
)
def test_a_member_of_several_with_one_type_is_known_only_if_it_is_printed(line: str, member: str | None) -> None:
    assert selected(line, {"a": "d", "b": "d", "v": "v"}) == member

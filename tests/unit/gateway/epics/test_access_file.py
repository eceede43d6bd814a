"""The file of the option `access`; compared with p4p's engine where that has the same meaning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from p4p.asLib import Engine

from k2eg_rx.gateway.epics.access_file import AccessFile

ACF = """
# who is who
UAG(operators) {anna, "control.room"}
UAG(physics) {anna, bert}
HAG(consoles) {localhost}
ASG(DEFAULT) {
    RULE(1, READ)
    RULE(0, WRITE, TRAPWRITE) { UAG(operators) }
}
ASG(BOTH) {
    RULE(1, WRITE) { UAG(operators) UAG(physics) }
}
ASG(HOST) {
    RULE(1, READ) { UAG(physics) }
    RULE(1, WRITE) { HAG(consoles) }
}
ASG(FORMULA) {
    INPA(a:pv)
    RULE(1, WRITE) { CALC("A==0") }
}
ASG(NOBODY)
# the end"""


@pytest.fixture
def access(tmp_path: Path) -> Callable[[str], AccessFile]:
    def make(text: str) -> AccessFile:
        (tmp_path / "site.acf").write_text(text)
        return AccessFile(str(tmp_path / "site.acf"))

    return make


CASES = [
    ("anonymous", "DEFAULT", 1, "read"),
    ("anonymous", "UNKNOWN", 1, "read"),  # as in EPICS, DEFAULT holds for groups that are not defined
    ("anna", "DEFAULT", 0, "read write"),
    ("anna", "DEFAULT", 1, "read"),
    ("control.room", "DEFAULT", 0, "read write"),
    ("bert", "DEFAULT", 0, "read"),
    ("anna", "BOTH", 1, "read write"),
    ("anna", "BOTH", 2, ""),
    ("bert", "BOTH", 0, ""),
    ("control.room", "BOTH", 0, ""),
    ("bert", "HOST", 0, "read"),
    ("anonymous", "HOST", 0, ""),
    ("anna", "FORMULA", 0, ""),
    ("anna", "NOBODY", 0, ""),
]


@pytest.mark.parametrize(("principal", "group", "level", "may"), CASES)
def test_rules(access: Callable[[str], AccessFile], principal: str, group: str, level: int, may: str) -> None:
    rules = access(ACF)
    denials = {verb: rules.denial(principal, group, level, is_put=verb == "write") for verb in ("read", "write")}
    assert " ".join(verb for verb, denial in denials.items() if not denial) == may
    asked = "DEFAULT" if group == "UNKNOWN" else group
    for verb, text in denials.items():
        assert text in ("", f"no rule of ASG({asked}) lets {principal!r} {verb} PVs of level {level}")


class Granted:
    """What p4p's engine grants."""

    name = "pv"
    put = False

    def access(self, *, put: bool, **_: Any) -> None:
        self.put = put


@pytest.mark.parametrize("principal", ["anonymous", "anna", "bert", "control.room"])
@pytest.mark.parametrize("group", ["DEFAULT", "BOTH", "NOBODY", "UNKNOWN"])
def test_puts_to_pvs_of_level_0_are_those_that_p4ps_engine_allows(
    access: Callable[[str], AccessFile], principal: str, group: str
) -> None:
    text = ACF.replace("ASG(NOBODY)", "ASG(NOBODY) { RULE(1, NONE) }")
    granted = Granted()
    Engine(f"{text}\n").create(granted, group, principal, "", 0)
    assert granted.put == (access(text).denial(principal, group, 0, is_put=True) == "")


def test_rules_that_grant_nothing_are_logged(
    access: Callable[[str], AccessFile], caplog: pytest.LogCaptureFixture
) -> None:
    access(ACF)
    assert [record.getMessage().partition(" group=")[2] for record in caplog.records] == [
        "HOST reason=HAG has no meaning here",
        "FORMULA reason=CALC has no meaning here",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ASG(DEFAULT) { RULE(1, WRIT) }", "ASG(DEFAULT): RULE must grant NONE, READ or WRITE, got 'WRIT'"),
        ("ASG(DEFAULT) { RULE(1, WRITE) { UAG(ops) } }", "ASG(DEFAULT): UAG(ops) must be defined in the file"),
        ("ASG(DEFAULT) {", "it ends within a definition"),
        ("ASG(DEFAULT) }", "Syntax error on line 1"),
        ("=", "Illegal char"),
    ],
)
def test_what_cannot_be_used_is_an_error(access: Callable[[str], AccessFile], text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\[gateway\] access '.*site.acf'") as raised:
        access(text)
    assert words in str(raised.value)

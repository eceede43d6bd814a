"""The order of checks, and the remedies in the texts of errors."""

from __future__ import annotations

import pytest

from k2eg.cli.diagnosis.doctor_checks import Checks, Finding, Result, failure
from k2eg_rx import TransportError


def fails() -> Finding:
    raise TransportError("the broker b cannot be reached: check that it runs")


def passes() -> Finding:
    return Finding("x", Result.OK, "well")


def test_a_check_that_needs_a_failed_one_is_not_made() -> None:
    found: list[Finding] = []
    checks = Checks(found.append)
    checks.run("broker", (), fails)
    checks.run("topic", ["broker"], passes)
    checks.run("gateway", ["topic"], passes)
    checks.run("x", (), passes)
    assert [(each.check, each.result.value, each.text) for each in found] == [
        ("broker", "failed", "the broker b cannot be reached"),
        ("topic", "not checked", "because of: broker"),
        ("gateway", "not checked", "because of: broker"),
        ("x", "ok", "well"),
    ]
    assert found[0].remedy == "check that it runs"
    assert checks.failures == 1
    assert [checks.passed(name) for name in ("broker", "topic", "x")] == [False, False, True]


def test_a_warning_holds_nothing_up() -> None:
    found: list[Finding] = []
    checks = Checks(found.append)
    checks.run("a", (), lambda: [Finding("a", Result.WARNING, "late", "hurry"), passes()])
    checks.run("b", ["a"], passes)
    assert [each.result for each in found] == [Result.WARNING, Result.OK, Result.OK]
    assert checks.failures == 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x is wrong: did you mean y?", ("x is wrong", "did you mean y?")),
        ("t does not exist; to create it: kafka-topics.sh", ("t does not exist", "to create it: kafka-topics.sh")),
        ("no permission: ask for ACLs (READ)", ("no permission", "ask for ACLs (READ)")),
        ("it failed", ("it failed", "")),
    ],
)
def test_the_remedy_is_the_advice_of_an_error(text: str, parts: tuple[str, str]) -> None:
    found = failure("check", text)
    assert (found.text, found.remedy) == parts

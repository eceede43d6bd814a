"""Parses conditions on a PV, such as ``> 5`` or ``>= 1 and < 3 or severity >= MAJOR``, and tests values with them.

Nothing is evaluated as Python: a condition is a tree of comparisons.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from k2eg.cli.values.value_parser import parse_value
from k2eg_rx import PVData, Severity

Test = Callable[[PVData], bool | None]  # None: not known, since the value means nothing

_TOKEN = re.compile(
    r"""\s*(?: (?P<operator><=|>=|==|!=|=|<|>|\(|\)) | "(?P<double>[^"]*)" | '(?P<single>[^']*)'
        | (?P<word>[^\s<>=!()"']+) )""",
    re.VERBOSE,
)
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
}
_EQUALITIES = ("==", "=", "!=")
_SUBJECTS = ("value", "severity")
_FORM = "such as '> 5', '>= 1 and < 3', '== On' or 'severity < MAJOR'"
_DEEPEST = 50  # parentheses and negations: far below Python's limit of recursion

_MEANINGLESS = (Severity.INVALID, Severity.UNDEFINED)


class ConditionError(Exception):
    """A PV's value cannot be compared as the condition says."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a PV.

    Attributes:
        text: As it was given.
        test: Returns whether a value fulfils it; None if that is not known.
    """

    text: str
    test: Test

    def holds(self, data: PVData) -> bool:
        """Returns whether a value fulfils the condition.

        A value with severity INVALID or UNDEFINED, whose number means nothing, fulfils no comparison of the value, nor
        the negation of one.

        Raises:
            ConditionError: They cannot be compared.
        """
        return self.test(data) is True


def parse_condition(text: str) -> Condition:
    """Returns a condition.

    Raises:
        ValueError: It is malformed; the text says where.
    """
    return Condition(text, _Parser(text).whole())


class _Parser:
    """Descends recursively: alternatives, conjunctions, negations, comparisons."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split(text)
        self._next = 0
        self._depth = 0

    def _split(self, text: str) -> list[tuple[str, str]]:
        tokens: list[tuple[str, str]] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            found = _TOKEN.match(text, position)
            if found is None:
                self._fail(f"{text[position:].strip()[:20]!r} is not understood")
            kind = found.lastgroup or ""
            tokens.append(("text" if kind in ("double", "single") else kind, found[kind]))
            position = found.end()
        return tokens

    def _fail(self, reason: str) -> NoReturn:
        raise ValueError(f"condition {self._text!r}: {reason}; it must be {_FORM}")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def _take(self, *wanted: tuple[str, str]) -> bool:
        if self._peek() in wanted:
            self._next += 1
            return True
        return False

    def whole(self) -> Test:
        test = self._alternatives()
        if self._peek()[0] != "end":
            self._fail(f"{self._peek()[1]!r} comes after its end; a text of several words needs quotes")
        return test

    def _alternatives(self) -> Test:
        tests = [self._conjunction()]
        while self._take(("word", "or")):
            tests.append(self._conjunction())
        return tests[0] if len(tests) == 1 else lambda data: _joined((test(data) for test in tests), decisive=True)

    def _conjunction(self) -> Test:
        tests = [self._negation()]
        while self._take(("word", "and")):
            tests.append(self._negation())
        return tests[0] if len(tests) == 1 else lambda data: _joined((test(data) for test in tests), decisive=False)

    def _negation(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail(f"it is nested more than {_DEEPEST} deep")
        try:
            if self._take(("word", "not")):
                test = self._negation()
                return lambda data: None if (found := test(data)) is None else not found
            if self._take(("operator", "(")):
                test = self._alternatives()
                if not self._take(("operator", ")")):
                    self._fail("a ')' is missing")
                return test
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Test:
        subject = "value"
        if self._peek()[0] == "word" and self._peek()[1] in _SUBJECTS:
            subject = self._peek()[1]
            self._next += 1
        kind, sign = self._peek()
        if kind != "operator" or sign not in _COMPARISONS:
            self._fail(f"a comparison (<, <=, >, >=, ==, !=) must come {f'before {sign!r}' if sign else 'next'}")
        self._next += 1
        kind, word = self._peek()
        if kind not in ("word", "text"):
            self._fail(f"a number or text must come after {sign!r}")
        self._next += 1
        if subject == "severity":
            return self._severity(sign, word)
        return _value_test(sign, word, is_text=kind == "text")

    def _severity(self, sign: str, word: str) -> Test:
        severity = Severity.__members__.get(word.upper())
        if severity is None:
            self._fail(f"a severity is one of {', '.join(Severity.__members__)}, not {word!r}")
        compare = _COMPARISONS[sign]
        return lambda data: compare(data.severity, severity)


def _joined(found: Iterable[bool | None], *, decisive: bool) -> bool | None:
    """Returns the decisive value if one is it, else None if one is not known."""
    every = list(found)
    if decisive in every:
        return decisive
    return None if None in every else not decisive


def _value_test(sign: str, word: str, *, is_text: bool) -> Test:
    wanted = word if is_text else parse_value(word)
    compare = _COMPARISONS[sign]

    def test(data: PVData) -> bool | None:
        if data.severity in _MEANINGLESS:
            return None
        found, other = _operands(data, word, wanted, is_text=is_text)
        if sign not in _EQUALITIES and not (isinstance(found, int | float) and isinstance(other, int | float)):
            raise ConditionError(f"{sign} needs numbers, got {found!r} and {other!r}")
        return compare(found, other)

    return test


def _operands(data: PVData, word: str, wanted: object, *, is_text: bool) -> tuple[object, object]:
    """Returns what to compare: of an enum the label if the condition names one, otherwise the index."""
    if data.choices is not None:
        if word in data.choices:
            return int(data), data.choices.index(word)
        if is_text or not isinstance(wanted, int | float):
            raise ConditionError(f"it has no label {word!r}, only {', '.join(map(repr, data.choices))}")
        return int(data), wanted
    value = data.value
    if isinstance(value, str):
        return value, word
    if not isinstance(value, int | float):
        raise ConditionError("a condition needs a number, a text or an enum, not an array or a structure")
    if is_text or not isinstance(wanted, int | float):
        raise ConditionError(f"its value is a number, {value!r}, which {word!r} is not")
    return value, wanted

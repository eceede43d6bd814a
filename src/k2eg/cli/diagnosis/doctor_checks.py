"""Checks of ``k2eg doctor`` and what they find.

Thread safety: main thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from k2eg_rx.errors import K2EGError

# Where the advice begins in the texts of errors.
_ADVICE = re.compile(
    r"[:;,] ((?:check|ask for|put|have|reach|give|set|start|to create it|did you mean|known are)\b.*)$"
)


class Result(StrEnum):
    """What a check found. Only FAILED makes `k2eg doctor` fail."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        check: The check.
        result: The result.
        text: What it found.
        remedy: What to do about it; empty if nothing is wrong.
    """

    check: str
    result: Result
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as a JSON object."""
        return {**asdict(self), "result": self.result.value}


class Checks:
    """Runs checks in order, leaves out those that need one that has failed, and reports each finding at once.

    Args:
        report: Called with each finding.

    Attributes:
        failures: The number of findings that are failures.
    """

    def __init__(self, report: Callable[[Finding], object]) -> None:
        self._report = report
        self._blocked: dict[str, str] = {}  # a check that has failed or was left out, and the one that has failed
        self.failures = 0

    def passed(self, check: str) -> bool:
        """Returns whether a check was made and has not failed."""
        return check not in self._blocked

    def run(self, check: str, needs: Iterable[str], look: Callable[[], Finding | Iterable[Finding]]) -> None:
        """Runs a check.

        Args:
            check: Its name.
            needs: The checks without which it makes no sense.
            look: Returns what it finds. An error of this library, or ValueError, is a failure.
        """
        cause = next((self._blocked[name] for name in needs if name in self._blocked), None)
        if cause is not None:
            self._blocked[check] = cause
            self._report(Finding(check, Result.NOT_CHECKED, f"because of: {cause}"))
            return
        try:
            found = look()
        except (K2EGError, ValueError) as error:
            found = failure(check, str(error))
        for finding in [found] if isinstance(found, Finding) else found:
            if finding.result is Result.FAILED:
                self.failures += 1
                self._blocked.setdefault(check, check)
            self._report(finding)


def failure(check: str, text: str, remedy: str = "") -> Finding:
    """Returns the finding of a failure; without a remedy, it is taken from the text of an error."""
    text = " ".join(text.split())
    advice = None if remedy else _ADVICE.search(text)
    if advice is not None:
        text, remedy = text[: advice.start()], advice[1]
    return Finding(check, Result.FAILED, text, remedy)

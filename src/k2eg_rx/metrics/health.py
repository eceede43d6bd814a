"""Answers to the question whether a process is well, with reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping

from k2eg_rx.metrics.server import Page

Check = str
"""What is wrong; an empty string if nothing is."""

_OK = 200
_UNAVAILABLE = 503


def health_page(checks: Mapping[str, Check], *, is_well: bool | None = None) -> Page:
    """Returns the answer: 200 if all is well, else 503; in JSON, with the reason for each check.

    Args:
        checks: What is wrong with each part.
        is_well: Whether all is well; by default, if no check fails.
    """
    if is_well is None:
        is_well = not any(checks.values())
    body = {"status": "ok" if is_well else "failed", "checks": {name: text or "ok" for name, text in checks.items()}}
    return Page(_OK if is_well else _UNAVAILABLE, "application/json", json.dumps(body).encode() + b"\n")

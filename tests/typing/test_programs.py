"""Typical programs type-check in strict mode, and typical mistakes do not."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
ROOT = Path(__file__).parents[2]


@cache
def diagnostics() -> list[dict[str, Any]]:
    """Returns the type checker's diagnostics for all programs, from one run."""
    command = [
        sys.executable,
        "-m",
        "basedpyright",
        "--outputjson",
        "--pythonpath",
        sys.executable,
        *map(str, PROGRAMS),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(PROGRAMS)
    return report["generalDiagnostics"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_type_checks(program: Path) -> None:
    found = [one for one in diagnostics() if Path(one["file"]) == program]
    assert [f"line {one['range']['start']['line'] + 1}: {one['message']}" for one in found] == []

"""Typical programs type-check in strict mode, by basedpyright and by mypy, and typical mistakes do not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TUTORIAL = ROOT / "docs" / "tutorial.md"

_PYTHON_BLOCK = re.compile(r"^```python\n(?:# (\w+)\.py\n)?(.*?)^```$", re.MULTILINE | re.DOTALL)


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


def write_tutorial(folder: Path) -> None:
    """Writes the programs of the tutorial: its blocks as one, and each file of its own except tests."""
    programs: dict[str, str] = {}
    for name, code in _PYTHON_BLOCK.findall(TUTORIAL.read_text()):
        programs[name or "tutorial"] = programs.get(name or "tutorial", "") + code
    for name, code in programs.items():
        if not name.startswith("test_"):
            (folder / f"{name}.py").write_text(code)


def test_mypy_accepts_examples_and_tutorial(tmp_path: Path) -> None:
    write_tutorial(tmp_path)
    programs = [*EXAMPLES.glob("*.py"), *tmp_path.glob("*.py")]
    assert {program.name for program in programs} >= {"orbit.py", "tutorial.py", "follow.py", "service.py"}
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"]
    for folder in (EXAMPLES, tmp_path):  # both have a service.py
        own = [program for program in programs if program.parent == folder]
        done = subprocess.run([*command, *own], cwd=folder, capture_output=True, text=True, check=False)
        assert done.stdout == f"Success: no issues found in {len(own)} source files\n", done.stdout + done.stderr
    assert [program.name for program in programs if "type: ignore" in program.read_text()] == []

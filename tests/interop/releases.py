"""Installs released clients from PyPI, each to be run by a Python of its own.

Their import name is `k2eg`, as that of the client under test, and they need an older confluent-kafka: see the group
`released-clients` in pyproject.toml. Therefore what they need is in a virtual environment, and each release is in a
folder that is put before it. Both are kept in the cache folder of the tests.

Thread safety: may be called from any thread and process.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from environments import PROJECT, environment, locked, pip

_GROUP = "released-clients"


@dataclass(frozen=True, slots=True)
class Release:
    """A released client.

    Attributes:
        python: The Python to run it with.
        path: The folder to put before its modules.
    """

    python: Path
    path: Path


def install(versions: Sequence[str]) -> dict[str, Release]:
    """Returns releases by their version, after installing what is missing.

    Raises:
        Unavailable: The package index cannot be reached, or has them no longer.
    """
    needed: list[str] = tomllib.loads(PROJECT.read_text())["dependency-groups"][_GROUP]
    python = environment(_GROUP, needed)
    folder = python.parents[2]
    with locked(folder):
        for version in versions:
            if not (folder / version / "complete").exists():
                pip("install", "--no-deps", "--upgrade", "--target", str(folder / version), f"k2eg=={version}")
                (folder / version / "complete").touch()
    return {version: Release(python, folder / version) for version in versions}

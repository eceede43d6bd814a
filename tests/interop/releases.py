"""Installs released clients from PyPI, each to be run by a Python of its own.

Their import name is `k2eg`, as that of the client under test, and they need an older confluent-kafka: see the group
`released-clients` in pyproject.toml. Therefore what they need is in a virtual environment, and each release is in a
folder that is put before it. Both are kept in the cache folder of the tests.

Thread safety: may be called from any thread and process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kafka_distribution import cache_folder

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_GROUP = "released-clients"
_SECONDS = 300.0  # 20 MB; about 10 s


class Unavailable(Exception):
    """The releases cannot be installed. The text is one line with the reason and the remedy."""


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
    needed: list[str] = tomllib.loads(_PROJECT.read_text())["dependency-groups"][_GROUP]
    mark = hashlib.sha256("\n".join([sys.version, *needed]).encode()).hexdigest()[:16]
    folder = cache_folder() / f"released-clients-{mark}"
    folder.mkdir(parents=True, exist_ok=True)
    environment = folder / "environment"
    python = environment / "bin" / "python"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (environment / "complete").exists():
            venv.create(environment, clear=True)
            _pip("--python", str(python), "install", *needed)
            (environment / "complete").touch()
        for version in versions:
            if not (folder / version / "complete").exists():
                _pip("install", "--no-deps", "--upgrade", "--target", str(folder / version), f"k2eg=={version}")
                (folder / version / "complete").touch()
    return {version: Release(python, folder / version) for version in versions}


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        last = str(failure.stderr or failure).strip().splitlines()[-1]
        raise Unavailable(f"no released client: {last}; pip has to reach a package index with k2eg") from None

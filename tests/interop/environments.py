"""Makes virtual environments for packages that cannot be beside those of the tests, and keeps them.

They are in the cache folder of the tests, one for each list of requirements and Python.

Thread safety: may be called from any thread and process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kafka_distribution import cache_folder

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_SECONDS = 300.0  # 20 MB; about 10 s


class Unavailable(Exception):
    """The packages cannot be installed. The text is one line with the reason and the remedy."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes and threads from changing a folder."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def environment(name: str, needed: Sequence[str]) -> Path:
    """Returns the Python of an environment with packages, after installing them if it is not there yet.

    Args:
        name: Begins the name of its folder.
        needed: The requirements, as pip takes them.

    Raises:
        Unavailable: The package index cannot be reached, or does not have them.
    """
    mark = hashlib.sha256("\n".join([sys.version, *needed]).encode()).hexdigest()[:16]
    folder = cache_folder() / f"{name}-{mark}"
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "environment"
    python = place / "bin" / "python"
    with locked(folder):
        if not (place / "complete").exists():
            venv.create(place, clear=True)
            pip("--python", str(python), "install", *needed)
            (place / "complete").touch()
    return python


def pip(*arguments: str) -> None:
    """Runs pip.

    Raises:
        Unavailable: It failed.
    """
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        last = str(failure.stderr or failure).strip().splitlines()[-1]
        raise Unavailable(f"no environment: {last}; pip has to reach a package index") from None

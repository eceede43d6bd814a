"""Apache Kafka out of Maven Central: its class path, looked up once for each version of pom.xml beside this file.

In: ``java`` and ``mvn`` of this machine. Out: what a broker is started with. The jars stay in Maven's own repository;
what is found out is kept in a cache folder outside the checkout. Any thread and any process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_POM = Path(__file__).with_name("pom.xml")
_LEAST_JAVA = 17  # the broker's classes are made for it
_FETCH_SECONDS = 900.0  # 60 MB; about 20 s from a mirror nearby

_VERSION = re.compile(r'version "(\d+)')
_HOW_TO_GET = (
    f"install Java {_LEAST_JAVA} or newer and Maven (openjdk-{_LEAST_JAVA}-jre-headless and maven on Debian),"
    " or set K2EG_TEST_KAFKA=host:port to a broker of your own"
)


class Unavailable(Exception):
    """Apache Kafka is not to be had here. The text is one line that says why, and how to get it."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a broker is started with.

    Attributes:
        java: The path of ``java``.
        class_path: Of all jars.
        class_archive: Where the classes are kept as this ``java`` loads them fastest; made by the first broker.
    """

    java: str
    class_path: str
    class_archive: Path


def find_distribution(fetching: Callable[[], object] = lambda: None) -> Distribution:
    """Returns Apache Kafka; the first time it is fetched.

    Args:
        fetching: Called if it has to be fetched, which takes a while.

    Raises:
        Unavailable: It is not to be had here.
    """
    java, version = _find_java()
    folder = _cache_folder() / hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "class_path"
    class_path = _read(stored)
    if class_path is None:
        with _locked(folder / "lock"):
            class_path = _read(stored)  # another test run may have been first
            if class_path is None:
                fetching()
                class_path = _resolve(stored)
    return Distribution(java, class_path, folder / f"{hashlib.sha256(version.encode()).hexdigest()[:16]}.jsa")


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k2eg-tests"


def _find_java() -> tuple[str, str]:
    """Returns the path of ``java``, and what it says of itself."""
    java = shutil.which("java")
    if java is None:
        raise Unavailable(f"no Apache Kafka: java is not found; {_HOW_TO_GET}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = _VERSION.search(said)
    if version is None or int(version[1]) < _LEAST_JAVA:
        raise Unavailable(f"no Apache Kafka: java is {version[1] if version else 'unknown'}; {_HOW_TO_GET}")
    return java, said


def _read(stored: Path) -> str | None:
    """Returns the stored class path, if all its jars are still there."""
    try:
        class_path = stored.read_text()
    except FileNotFoundError:
        return None
    return class_path if all(map(os.path.exists, class_path.split(os.pathsep))) else None


def _resolve(stored: Path) -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable(f"no Apache Kafka: mvn is not found; {_HOW_TO_GET}")
    fresh = stored.with_suffix(".new")
    goal = ["dependency:build-classpath", f"-Dmdep.outputFile={fresh}"]
    try:
        subprocess.run(
            [maven, "--batch-mode", "--quiet", "--file", _POM, *goal],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_FETCH_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"no Apache Kafka: mvn was not done in {_FETCH_SECONDS:g} s; {_HOW_TO_GET}") from None
    except subprocess.CalledProcessError as failure:
        first = next((line for line in failure.stdout.splitlines() if "ERROR" in line), f"code {failure.returncode}")
        raise Unavailable(f"no Apache Kafka: mvn could not fetch it: {first}; {_HOW_TO_GET}") from None
    fresh.replace(stored)
    for archive in stored.parent.glob("*.jsa"):
        archive.unlink()  # made from other jars; java would leave it aside without a word
    return stored.read_text()


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Waits until no other process is here; the lock is gone with the process that has it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""Fetches Apache Kafka from Maven Central and resolves its class path.

Uses ``java`` and ``mvn`` of the machine. The jars stay in Maven's repository; the class path is resolved once for each
content of pom.xml, and kept in a cache folder outside the checkout.

Thread safety: may be called from any thread and process.
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
_MIN_JAVA = 17  # the broker's classes are compiled for it
_FETCH_SECONDS = 900.0  # 60 MB; about 20 s from a nearby mirror

_VERSION = re.compile(r'version "(\d+)')
_ADVICE = (
    f"install Java {_MIN_JAVA} or newer and Maven (openjdk-{_MIN_JAVA}-jre-headless and maven on Debian),"
    " or set K2EG_TEST_KAFKA=host:port to a running broker"
)


class Unavailable(Exception):
    """Apache Kafka cannot run on this machine. The text is one line with the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What starting a broker needs.

    Attributes:
        java: The path of ``java``.
        class_path: The class path of all jars.
        class_archive: The path of the class data archive for this ``java``; the first broker writes the file.
    """

    java: str
    class_path: str
    class_archive: Path


def find_distribution(fetching: Callable[[], object] = lambda: None) -> Distribution:
    """Returns Apache Kafka, after fetching it if necessary.

    Args:
        fetching: Called before a download, which may take minutes.

    Raises:
        Unavailable: Java or Maven is missing, too old, or failed.
    """
    java, version = _find_java()
    folder = cache_folder() / hashlib.sha256(_POM.read_bytes()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "class_path"
    class_path = _read(stored)
    if class_path is None:
        with _locked(folder / "lock"):
            class_path = _read(stored)  # another test run may have stored it meanwhile
            if class_path is None:
                fetching()
                class_path = _resolve(stored)
    return Distribution(java, class_path, folder / f"{hashlib.sha256(version.encode()).hexdigest()[:16]}.jsa")


def cache_folder() -> Path:
    """Returns the folder in which the tests keep what they fetch."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k2eg-tests"


def _find_java() -> tuple[str, str]:
    """Returns the path of ``java`` and the text of ``java -version``."""
    java = shutil.which("java")
    if java is None:
        raise Unavailable(f"no Apache Kafka: java is not found; {_ADVICE}")
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = _VERSION.search(text)
    if version is None or int(version[1]) < _MIN_JAVA:
        raise Unavailable(f"no Apache Kafka: java is {version[1] if version else 'unknown'}; {_ADVICE}")
    return java, text


def _read(stored: Path) -> str | None:
    """Returns the stored class path; None if a jar is missing."""
    try:
        class_path = stored.read_text()
    except FileNotFoundError:
        return None
    return class_path if all(map(os.path.exists, class_path.split(os.pathsep))) else None


def _resolve(stored: Path) -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable(f"no Apache Kafka: mvn is not found; {_ADVICE}")
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
        raise Unavailable(f"no Apache Kafka: mvn did not finish within {_FETCH_SECONDS:g} s; {_ADVICE}") from None
    except subprocess.CalledProcessError as failure:
        first = next((line for line in failure.stdout.splitlines() if "ERROR" in line), f"code {failure.returncode}")
        raise Unavailable(f"no Apache Kafka: mvn could not fetch it: {first}; {_ADVICE}") from None
    fresh.replace(stored)
    for archive in stored.parent.glob("*.jsa"):
        archive.unlink()  # made from other jars: java would ignore it silently, and no new one would be made
    return stored.read_text()


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Holds a file lock, which the kernel releases if the process is killed."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

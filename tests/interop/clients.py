"""Runs operations.py with the client under test and with released ones, and collects what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from releases import Release

HERE = Path(__file__).parent
SECONDS = 240.0  # a run takes about 40 s


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation of a client came to; `seen` is the reason of a failure."""

    passed: bool
    seen: str


class ClientRun:
    """A client that carries out all operations from the construction on; `outcomes` waits for its end.

    Args:
        release: The released client; None for the one under test.
        application: The client's name.
        prefix: The beginning of its PVs' names.
        environments: The folder of ``site.ini``.
        log: The file for its log.
    """

    def __init__(self, release: Release | None, application: str, prefix: str, environments: Path, log: Path) -> None:
        python, path = (
            (sys.executable, os.environ.get("PYTHONPATH", ""))
            if release is None
            else (str(release.python), str(release.path))
        )
        variables = os.environ | {"K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(environments), "PYTHONPATH": path}
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [python, "-P", str(HERE / "operations.py"), application, prefix],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines, self._log.with_suffix(".jsonl").open("w", buffering=1) as kept:
            for line in lines:
                kept.write(line)
                self._lines.append(line)

    def outcomes(self) -> Mapping[str, Outcome]:
        """Waits for the end of the run; returns the outcome of each operation by its name."""
        try:
            self._process.wait(SECONDS)
        finally:
            self.close()
        self._reader.join()
        assert self._process.returncode == 0, "\n".join(self._log.read_text().splitlines()[-20:])
        reports: list[dict[str, Any]] = [json.loads(line) for line in self._lines]
        return {report["operation"]: Outcome(report["passed"], report["seen"]) for report in reports}

    def close(self) -> None:
        """Ends the client, if it still runs. Idempotent."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()

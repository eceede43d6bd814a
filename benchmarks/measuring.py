"""Shared by all benchmarks: rows of figures with baselines, tables, and the machine's description.

A row holds a figure per round and, where there is one, the baseline of the same round. Its ratio is the median of the
rounds' ratios, so that a temporarily slow machine affects both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_ROOT / "tests" / "kafka"))  # the test suite's broker

_MEMORY = Path("/dev/shm")
_ROOM = 8 << 30  # bytes; `throughput` produces 100 MB twice per round and deletes its topics at the end

LEAST_ROUNDS = 5
_PACKAGES = ("k2eg", "reactivex", "confluent-kafka", "msgpack", "msgspec", "p4p", "aioca", "numpy")


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a ratio; without a baseline, of the figure itself."""

    bound: float
    at_least: bool

    def is_met(self, figure: float) -> bool:
        """Whether a figure meets the target."""
        return figure >= self.bound if self.at_least else figure <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


def at_least(bound: float) -> Target:
    """Returns a lower limit."""
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    """Returns an upper limit."""
    return Target(bound, at_least=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: What is measured.
        unit: The unit of the figures.
        ours: A figure per round.
        baseline: The baseline's figure of the same rounds; empty if there is none.
        against: What the baseline is.
        target: What the ratio, or the figure, is to be; None states it only.
        note: What else belongs to it, such as what was dropped.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    baseline: tuple[float, ...] = ()
    against: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The median over rounds of the ratio to the baseline."""
        if not self.baseline:
            return None
        return statistics.median(a / b for a, b in zip(self.ours, self.baseline, strict=True))

    @property
    def result(self) -> str:
        """Whether the target is met; an empty string if there is none."""
        if self.target is None:
            return ""
        figure = self.ratio if self.ratio is not None else statistics.median(self.ours)
        return "met" if self.target.is_met(figure) else "NOT MET"

    def raw(self) -> dict[str, Any]:
        """Returns the row as a JSON object."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": list(self.ours),
            "baseline": list(self.baseline),
            "against": self.against,
            "ratio": self.ratio,
            "target": str(self.target) if self.target else None,
            "verdict": self.result,
            "note": self.note,
        }


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.3g}"


def _heading(title: str) -> str:
    return f"{title:52}{'ours':>10}{'baseline':>10} {'unit':14}{'ratio':>7}  {'target':9}{'':9}baseline / note"


def _line(row: Row) -> str:
    """Returns a row as a line of the table: medians, ratio, target."""
    ratio = row.ratio
    base = _number(statistics.median(row.baseline)) if row.baseline else ""
    target = str(row.target) if row.target else ""
    return (
        f"{row.name:52}{_number(statistics.median(row.ours)):>10}{base:>10} {row.unit:14}"
        f"{f'{ratio:.2f}' if ratio is not None else '':>7}  {target:9}{row.result:9}"
        f"{'; '.join(text for text in (row.against, row.note) if text)}".rstrip()
    )


def table(title: str, rows: Sequence[Row]) -> str:
    """Returns rows as a table."""
    return "\n".join([_heading(title), *map(_line, rows)])


def _output(*command: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=_ROOT, check=True).stdout.strip()
    return ""


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield package, version(package)


def machine() -> dict[str, Any]:
    """Returns the machine, its load, the versions and the commit."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_1_5_15_min": os.getloadavg(),
        "python": platform.python_version(),
        "packages": dict(_versions()),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "changed_since": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
    }


def _folder() -> Path | None:
    """Returns the folder for the broker's files: in memory if there is room, since disks of shared machines vary."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM else None


@contextlib.contextmanager
def kafka(address: str | None = None) -> Iterator[str]:
    """Yields the address of an Apache Kafka: the given one, or one that runs within the context."""
    if address:
        yield address
        return
    with apache_kafka() as broker:
        yield broker.address


@contextlib.contextmanager
def apache_kafka() -> Iterator[Any]:
    """Yields an Apache Kafka that runs within the context."""
    from apache_kafka import ApacheKafka
    from kafka_distribution import find_distribution

    with tempfile.TemporaryDirectory(prefix="k2eg-benchmark-", dir=_folder()) as folder:
        broker = ApacheKafka(
            find_distribution(),
            Path(folder),
            # what is deleted is gone, and with it its memory maps: the system allows a process 65,530
            {"log.segment.delete.delay.ms": "1000"},
            # as in production: with the compiler that the tests' broker disables
            java_options=("-XX:TieredStopAtLevel=4", "-Xmx1g"),
        )
        with broker:
            yield broker.start()


Benchmark = Callable[[str, int], Iterable[Row]]


def run(title: str, benchmark: Benchmark, arguments: Sequence[str] | None = None) -> None:
    """Runs one benchmark as a program: ``[--rounds N] [--kafka HOST:PORT] [--json FILE]``."""
    main({title: benchmark}, title, arguments)


def main(benchmarks: Mapping[str, Benchmark], description: str, arguments: Sequence[str] | None = None) -> None:
    """Runs benchmarks one by one, and writes all raw figures to one file; see `execute`."""
    parser = options_parser(description)
    if len(benchmarks) > 1:
        parser.add_argument("--only", action="append", choices=sorted(benchmarks), help="leave the others out")
    options = parser.parse_args(arguments)
    chosen = getattr(options, "only", None) or benchmarks
    execute({name: benchmarks[name] for name in chosen}, options)


def options_parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser of the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="of each measurement (default %(default)s)")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a broker that runs already; else one is started")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the raw figures")
    return parser


def execute(benchmarks: Mapping[str, Benchmark], options: argparse.Namespace) -> None:
    """Runs benchmarks with the options of `options_parser`; prints each row of their tables when it is known."""
    described = machine()
    print(json.dumps(described, indent=1))
    raw: dict[str, list[dict[str, Any]]] = {}
    with kafka(options.kafka) as address:
        for name, benchmark in benchmarks.items():
            print("\n" + _heading(name), flush=True)
            raw[name] = []
            for row in benchmark(address, options.rounds):
                print(_line(row), flush=True)
                raw[name].append(row.raw())
    if options.json:
        options.json.write_text(json.dumps({"machine": described, "rounds": options.rounds, "figures": raw}, indent=1))

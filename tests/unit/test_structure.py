"""Rules of the source tree that import-linter cannot express."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
CALLERS = [*SOURCES, *sorted((ROOT / "examples").rglob("*.py"))]

# Modules that need an extra: their packages cannot name them in `__init__`, so they are public themselves.
PUBLIC_MODULES = {
    "k2eg_rx.errors",
    "k2eg_rx.gateway.epics.ca_provider",
    "k2eg_rx.gateway.epics.pva_provider",
    "k2eg_rx.gateway.service",
    "k2eg_rx.gateway.supervisor",
    "k2eg_rx.metrics.exposition",
    "k2eg_rx.protocol.column_decoder",
    "k2eg_rx.protocol.value_arrays",
    "k2eg_rx.testing.fixtures",
}


def imports(path: Path) -> Iterator[str]:
    """Yields the absolute names of the modules that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(module: str) -> str | None:
    """Returns the package below `k2eg_rx` that a module is in, if it is in one."""
    parts = module.split(".")
    is_room = len(parts) > 1 and parts[0] == "k2eg_rx" and (ROOT / "src" / "k2eg_rx" / parts[1]).is_dir()
    return parts[1] if is_room else None


@pytest.mark.parametrize("path", CALLERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_use_what_other_packages_name_in_init(path: Path) -> None:
    own = room(".".join(path.relative_to(ROOT / "src").parts)) if path.is_relative_to(ROOT / "src") else None
    private = [
        module
        for module in imports(path)
        if (there := room(module)) is not None
        and there != own
        and module.count(".") > 1
        and module not in PUBLIC_MODULES
    ]
    assert private == [], "import from the package, which names its public objects in __init__"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_private_parts_of_a_dependency(path: Path) -> None:
    private = [
        module
        for module in imports(path)
        if not module.startswith("k2eg")
        and any(part == "internal" or (part.startswith("_") and part != "__future__") for part in module.split("."))
    ]
    assert private == []


def test_the_architecture_page_shows_the_rows_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == ["k2eg_rx"])
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = re.search(r"^\| packages \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table is not None
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table[1].splitlines()]
    assert rows == [re.split(r" [|:] ", layer) for layer in layers]


def test_the_architecture_page_names_files_that_exist() -> None:
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 10
    assert [
        name for name in named if not (ROOT / "src" / "k2eg_rx" / name).exists() and not (ROOT / name).exists()
    ] == []


# Unit tests that are about a package or the project as a whole, not about one module.
ABOUT_PACKAGES = {
    "cli/test_main.py",
    "k2eg/test_documented_example.py",
    "k2eg/test_imports.py",
    "operators/test_docstrings.py",
    "operators/test_package.py",
    "operators/test_with_client.py",
    "protocol/test_golden.py",
    "test_deploy.py",
    "test_documentation.py",
    "test_extras_missing.py",
    "test_public_api.py",
    "test_soak_check.py",  # of benchmarks
    "test_structure.py",
}


def test_unit_tests_mirror_the_sources() -> None:
    unit = ROOT / "tests" / "unit"
    lost: list[str] = []
    for path in unit.rglob("test_*.py"):
        name = str(path.relative_to(unit))
        if name in ABOUT_PACKAGES:
            continue
        parts = path.relative_to(unit).parts[:-1]
        base = ROOT / "src" / ("k2eg" if parts[:1] in {("k2eg",), ("cli",)} else "k2eg_rx")
        folder = base.joinpath(*(part for part in parts if part != "k2eg"))
        subject = path.stem.removeprefix("test_")
        modules = {module.stem for module in folder.glob("*.py")}
        # a module may have several test files: test_align.py, test_align_properties.py
        if not any(subject == module or subject.startswith(f"{module}_") for module in modules):
            lost.append(name)
    assert lost == [], "each unit test stands where its module stands, with its name"


def test_every_module_logs_by_the_logger_that_escapes() -> None:
    own = {"src/k2eg_rx/texts.py", "src/k2eg/cli/__init__.py"}  # which make the loggers, and the program's handler
    raw = [
        name
        for path in SOURCES
        if "getLogger(" in path.read_text() and (name := str(path.relative_to(ROOT))) not in own
    ]
    assert raw == [], "use k2eg_rx.texts.get_logger"


# Words that hide the subject of a sentence; CONTRIBUTING.md says how docstrings are written here.
VAGUE = re.compile(
    r"(?i:\b(somebody|someone|nobody|anybody|everybody|whoever|is told|are told|gets? to know|takes? note)\b)"
    r"|^\s*(\"\"\"|#)?\s*In: |\bOut: "
)
WRITTEN = [
    path
    for folder in ("src", "examples", "benchmarks", "docs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".md"}
]


@pytest.mark.parametrize("path", [*WRITTEN, *ROOT.glob("*.md")], ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_have_a_subject(path: Path) -> None:
    if path == Path(__file__):
        return
    lines = path.read_text().splitlines()
    assert [f"{number}: {line.strip()}" for number, line in enumerate(lines, 1) if VAGUE.search(line)] == []

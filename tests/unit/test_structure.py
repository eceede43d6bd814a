"""Rules of the source tree that import-linter cannot express."""

from __future__ import annotations

import ast
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

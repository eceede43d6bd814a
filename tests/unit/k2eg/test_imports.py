"""The documented imports, in every order: `k2eg.dml` is a class and a module."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import k2eg
import k2eg.broker
import k2eg.serialization
import k2eg_rx

IMPORTS = ["import k2eg", "import k2eg.dml", "from k2eg.dml import dml", "from k2eg import OperationTimeout"]

CHECK = """
import k2eg, sys
assert isinstance(k2eg.dml, type), k2eg.dml
assert k2eg.dml is sys.modules["k2eg.dml"].dml
try:
    k2eg.dml("no such environment", "app")
except ValueError as error:
    assert "no such environment" in str(error)
"""


@pytest.mark.parametrize("first", IMPORTS)
def test_dml_is_the_class_in_any_order_of_imports(first: str) -> None:
    script = "\n".join([first, CHECK, *IMPORTS, CHECK])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_documented_names_exist() -> None:
    assert k2eg.__all__ == sorted(k2eg.__all__)
    assert set(k2eg.__all__) >= {"OperationError", "OperationTimeout", "dml"}
    assert k2eg.broker.__all__ == ["Broker", "SnapshotProperties", "SnapshotType"]
    assert k2eg.serialization.__all__ == ["Generic", "MessagePackSerializable", "NTTable", "Scalar", "Vector"]
    for module in (k2eg, k2eg.broker, k2eg.serialization):
        assert all(hasattr(module, name) for name in module.__all__)


def test_the_documented_names_are_those_of_k2eg_rx() -> None:
    assert k2eg.OperationTimeout is k2eg_rx.OperationTimeout
    assert k2eg.broker.SnapshotProperties is k2eg_rx.SnapshotProperties
    assert k2eg.serialization.Scalar is k2eg_rx.Scalar


@pytest.mark.parametrize("package", ["k2eg", "k2eg_rx"])
def test_public_names_are_imported_when_they_are_used(package: str) -> None:
    """What `dir`, `from ... import *`, `import k2eg.dml` and names give, as if all were imported."""
    script = f"""
import sys, {package} as package
assert "k2eg_rx.client" not in sys.modules
assert set(dir(package)) >= set(package.__all__)
assert "k2eg_rx.client" not in sys.modules
assert package.K2EGError is package.K2EGError
star = dict()
exec("from {package} import *", star)
assert all(star[name] is getattr(package, name) for name in package.__all__)
assert hasattr(package, "absent") is False
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_modules_are_attributes_without_an_import_of_their_own() -> None:
    script = "import k2eg_rx; print(k2eg_rx.errors.K2EGError is k2eg_rx.K2EGError, k2eg_rx.kafka.__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "True k2eg_rx.kafka\n", done.stderr


@pytest.mark.parametrize("package", ["k2eg_rx", "k2eg_rx.kafka", "k2eg_rx.protocol"])
def test_the_lazily_imported_names_are_those_of_the_type_checkers_imports(package: str) -> None:
    module = importlib.import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    checked = {
        (node.module, alias.name) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert {name for _, name in checked} == {name for names in module._LATER.values() for name in names}
    assert not hasattr(module, "absent")
    for origin, name in checked:
        assert getattr(importlib.import_module(str(origin)), name) is getattr(module, name)


def test_a_program_that_reads_pvs_imports_nothing_that_only_puts_and_gateways_need() -> None:
    script = "import k2eg.cli.commands.get, k2eg_rx.client, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    imported = set(done.stdout.split())
    assert "k2eg_rx.client" in imported, done.stderr
    protocol = ("field_types", "gateway_reports", "parse", "put_conversion")
    assert imported.isdisjoint({f"k2eg_rx.protocol.{name}" for name in protocol})
    assert imported.isdisjoint({"k2eg_rx.kafka.metadata.inspection", "k2eg_rx.kafka.metadata.topic_admin"})
    assert imported.isdisjoint({"numpy", "rich", "textual", "k2eg_rx.gateway", "k2eg_rx.operators"})

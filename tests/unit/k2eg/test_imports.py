"""The documented imports, in every order: `k2eg.dml` is a class and a module."""

from __future__ import annotations

import subprocess
import sys

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

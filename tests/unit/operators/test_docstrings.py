"""The examples in the operators' docstrings run, and every operator has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import k2eg_rx.operators

MODULES = sorted(module.name for module in pkgutil.iter_modules(k2eg_rx.operators.__path__))
OPERATORS = [name for name in k2eg_rx.operators.__all__ if inspect.isfunction(getattr(k2eg_rx.operators, name))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    module = importlib.import_module(f"k2eg_rx.operators.{name}")
    failures, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS, raise_on_error=False)
    assert failures == 0


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_has_an_example(name: str) -> None:
    text = inspect.getdoc(getattr(k2eg_rx.operators, name)) or ""
    assert "Example:" in text
    assert ">>> " in text

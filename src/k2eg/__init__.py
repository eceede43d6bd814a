"""The documented K2EG client API with callbacks, built on the streams of `k2eg_rx`.

`k2eg.dml` is the class, not the module, whichever is imported first. Names are imported when they are used first, so
that the command line does not pay for what a command does not use.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2eg.dml import dml
    from k2eg_rx import ClientClosedError, K2EGError, OperationError, OperationTimeout, TransportError

__all__ = [
    "ClientClosedError",
    "K2EGError",
    "OperationError",
    "OperationTimeout",
    "TransportError",
    "dml",
]


class _Package(ModuleType):
    """The class of this package: its attribute `dml` stays the class when the import system sets the module to it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "dml" and isinstance(value, ModuleType):
            value = value.dml
        super().__setattr__(name, value)


if not TYPE_CHECKING:
    sys.modules[__name__].__class__ = _Package

    def __getattr__(name: str) -> object:
        if name == "listeners":
            return import_module("k2eg.listeners")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "dml":
            return import_module("k2eg.dml").dml  # the import sets the attribute
        value = getattr(import_module("k2eg_rx"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

"""Names of a package that are imported when they are used first (PEP 562), so that programs pay only for what they use.

Thread safety: any thread; an import that two threads need at the same time is made once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module


def lazy_names(package: str, modules: Mapping[str, Collection[str]]) -> Callable[[str], object]:
    """Returns a package's ``__getattr__``, which imports names from its modules and keeps them.

    Args:
        package: The package's name.
        modules: The names in each module, by the module's name in the package.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get

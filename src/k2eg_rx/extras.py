"""Optional packages: whether they are installed, and how to get them.

In: names. Out: nothing, or the error that says what to install. Pure; any thread; imports none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec


def require_extra(extra: str, modules: Iterable[str], what: str) -> None:
    """Returns if the packages of an extra are there.

    Args:
        extra: The extra's name in ``k2eg[...]``.
        modules: The packages that are needed of it.
        what: What needs them, for the error.

    Raises:
        ModuleNotFoundError: One of them is missing; the text says what to install.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        packages = ", ".join(missing)
        raise ModuleNotFoundError(
            f"{what} needs {packages}, not installed here: pip install 'k2eg[{extra}]'", name=missing[0]
        )

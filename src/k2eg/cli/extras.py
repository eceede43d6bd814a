"""Optional parts of the package, and how to get them.

In: the name of an extra. Out: nothing if it is there. Any thread; looks for modules without importing them.
"""

from __future__ import annotations

from importlib.util import find_spec

# The modules that an extra brings and the command imports.
_MODULES = {
    "gateway": ("p4p", "aioca", "numpy"),
    "demo": ("p4p", "aioca", "numpy", "pvxslibs", "rich"),
}


class MissingExtraError(Exception):
    """An optional part is not installed; the text says how to install it."""


def require_extra(extra: str) -> None:
    """Makes sure that an extra is installed.

    Raises:
        MissingExtraError: It is not, or not all of it.
    """
    missing = [module for module in _MODULES[extra] if find_spec(module) is None]
    if missing:
        raise MissingExtraError(
            f"`k2eg {extra}` needs {', '.join(missing)}, not installed here: pip install 'k2eg[{extra}]'"
        )

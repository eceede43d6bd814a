"""Checks of call arguments: each function returns the checked value or raises ValueError naming the argument."""

from __future__ import annotations

import math
from collections.abc import Iterable

from k2eg_rx.pv import PVAddress


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def positive(value: float, name: str) -> float:
    """Returns a finite number above 0, as a float.

    Raises:
        ValueError: It is not one; the text names the argument.
    """
    if not (_is_number(value) and 0 < value < math.inf):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)


def non_negative(value: float, name: str) -> float:
    """Returns a finite number of 0 or more, as a float.

    Raises:
        ValueError: It is not one; the text names the argument.
    """
    if not (_is_number(value) and 0 <= value < math.inf):
        raise ValueError(f"{name} must be a finite number of 0 or more, got {value!r}")
    return float(value)


def at_least_one(value: int, name: str) -> int:
    """Returns a whole number of 1 or more.

    Raises:
        ValueError: It is not one; the text names the argument.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


def named(name: str) -> str:
    """Returns a snapshot's name.

    Raises:
        ValueError: It is not a string, or is empty.
    """
    if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a snapshot's name must be a string that is not empty, got {name!r}")
    return name


def addressed(uris: Iterable[str]) -> list[PVAddress]:
    """Returns the addresses of PVs, at least one.

    Raises:
        ValueError: The list is empty, or an item is not a PV's URI.
    """
    if isinstance(uris, str) or not isinstance(uris, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a list of PV URIs is required, got {uris!r}")
    addresses = [PVAddress.parse(uri) for uri in uris]
    if not addresses:
        raise ValueError("the list of PV URIs must not be empty")
    return addresses


def check_one_protocol(addresses: Iterable[PVAddress], what: str) -> None:
    """Checks that no PV is requested over both protocols, where the protocol of K2EG cannot tell them apart.

    Args:
        addresses: The PVs.
        what: What is by the PVs' names, for the error.

    Raises:
        ValueError: A PV is requested over both.
    """
    seen: dict[str, PVAddress] = {}
    for address in addresses:
        first = seen.setdefault(address.name, address)
        if first != address:
            raise ValueError(f"{first} and {address} cannot be requested together: {what} are by the PV's name")

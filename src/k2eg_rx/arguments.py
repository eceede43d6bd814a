"""Arguments of calls, checked before anything is sent.

In: what a caller gave. Out: the same, checked and parsed, or a ValueError that names it. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from k2eg_rx.pv import PVAddress


def positive(seconds: float, name: str) -> float:
    """Returns a duration in seconds.

    Raises:
        ValueError: It is not a number above 0.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} is a number of seconds above 0, not {seconds!r}")
    return float(seconds)


def named(name: str) -> str:
    """Returns a snapshot's name.

    Raises:
        ValueError: It is not a string, or empty.
    """
    if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a snapshot's name is a string that is not empty, not {name!r}")
    return name


def addressed(uris: Iterable[str]) -> list[PVAddress]:
    """Returns the addresses of PVs, at least one.

    Raises:
        ValueError: There is none, or one of them is wrong.
    """
    if isinstance(uris, str) or not isinstance(uris, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a list of PV URIs is expected, not {uris!r}")
    addresses = [PVAddress.parse(uri) for uri in uris]
    if not addresses:
        raise ValueError("the list of PV URIs is empty")
    return addresses

"""Checks of call arguments: each function returns the checked value or raises ValueError naming the argument.

The texts say what must hold and show what was given, shortened. numpy's numbers count as numbers, booleans do not.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, cast

from k2eg_rx.pv import PVAddress, has_control, is_topic_name, pv_name_of
from k2eg_rx.texts import shown

_T = TypeVar("_T")

# Seconds, 23 days: librdkafka counts milliseconds in 32 bits, and no wait for a reply is meant to take that long.
LONGEST_TIMEOUT = 2_000_000.0
# Seconds, 31 years: what all clocks and timers can add to the present time.
LONGEST_DURATION = 1e9
SHORTEST_DURATION = 1e-6  # seconds, the resolution of schedulers: a shorter timer would be due again at once
_LONGEST_PATH, _LONGEST_PART = 4000, 200  # characters: less than on all platforms, with room for our endings
_LONGEST_NAME = 4096  # characters, as of a PV URI
LARGEST_COUNT = 2**31 - 1  # of what is held in memory, or counted by librdkafka


def _finite(value: object) -> float | None:
    """Returns a number as a float; None for anything else, and for one that is not finite."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def positive(value: float, name: str, most: float = LONGEST_DURATION, least: float = SHORTEST_DURATION) -> float:
    """Returns a finite number from `least`, above 0, to `most`, as a float.

    Raises:
        ValueError: It is not one; the text names the argument.
    """
    number = _finite(value)
    if number is None or not least <= number <= most:
        limit = "" if number is None or number <= 0 else f", {least:g} to {most:g}"
        raise ValueError(f"{name} must be a finite number above 0{limit}, got {shown(value)}")
    return number


def non_negative(value: float, name: str, most: float = math.inf) -> float:
    """Returns a finite number of 0 or more, at most `most`, as a float.

    Raises:
        ValueError: It is not one; the text names the argument.
    """
    number = _finite(value)
    if number is None or not 0 <= number <= most:
        limit = "" if number is None or number <= most else f", at most {most:g}"
        raise ValueError(f"{name} must be a finite number of 0 or more{limit}, got {shown(value)}")
    return number


def timeout_of(value: float, name: str = "timeout") -> float:
    """Returns the seconds of a timeout.

    Raises:
        ValueError: It is not above 0, or longer than `LONGEST_TIMEOUT`.
    """
    return positive(value, name, LONGEST_TIMEOUT)


def period_of(rate: float, name: str = "rate") -> float:
    """Returns the seconds between two events of a rate in hertz.

    Raises:
        ValueError: The rate is not above 0, or the period not between `SHORTEST_DURATION` and `LONGEST_DURATION`.
    """
    return 1.0 / positive(rate, name, 1 / SHORTEST_DURATION, 1 / LONGEST_DURATION)


def whole(value: int, name: str, least: int, most: int = LARGEST_COUNT) -> int:
    """Returns a whole number from `least` to `most`.

    Raises:
        ValueError: It is not one; the text names the argument.
    """
    number = None
    if not isinstance(value, bool) and isinstance(value, Integral):
        number = operator.index(cast("Any", value))
    if number is None or not least <= number <= most:
        limit = "" if number is None or number <= most else f", at most {most}"
        raise ValueError(f"{name} must be a whole number of at least {least}{limit}, got {shown(value)}")
    return number


def at_least_one(value: int, name: str) -> int:
    """Returns a whole number of 1 or more.

    Raises:
        ValueError: It is not one; the text names the argument.
    """
    return whole(value, name, 1)


def flag(value: bool, name: str) -> bool:
    """Returns a boolean.

    Raises:
        ValueError: It is not one: a text such as "no" would count as true.
    """
    if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return value


def one_of(value: _T, name: str, options: Iterable[_T]) -> _T:
    """Returns a value that is one of some texts.

    Raises:
        ValueError: It is not one of them.
    """
    known = list(options)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be {' or '.join(map(repr, map(str, known)))}, got {shown(value)}")
    return known[known.index(value)]


def instance(value: object, name: str, kind: type[_T] | tuple[type[_T], ...], what: str) -> _T:
    """Returns an object of a type.

    Args:
        value: The object.
        name: The argument's name.
        kind: Its type or types.
        what: Describes the type in the error.

    Raises:
        ValueError: It is of another type.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return value


def function(value: Callable[..., _T] | None, name: str) -> Callable[..., _T] | None:
    """Returns a callable, or None.

    Raises:
        ValueError: It is neither.
    """
    if value is not None and not callable(value):  # pyright: ignore[reportUnnecessaryComparison]
        raise ValueError(f"{name} must be callable, got {shown(value)}")
    return value


def callback(value: Callable[..., _T], name: str, *parameters: str) -> Callable[..., _T]:
    """Returns a callable that can be called with some positional arguments.

    A callable that does not show its signature, as some that are written in C, is taken as it is.

    Args:
        value: The callable.
        name: Describes it in the error.
        parameters: The arguments' names, for the error.

    Raises:
        ValueError: It is not callable, takes other arguments, or is a coroutine function, which nothing would await.
    """
    if not callable(value):  # pyright: ignore[reportUnnecessaryComparison]
        raise ValueError(f"{name} must be callable, got {shown(value)}")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise ValueError(f"{name} must be a plain function, not a coroutine function, got {shown(value)}")
    try:
        signature = inspect.signature(value, follow_wrapped=False)  # a decorator may change it
    except (TypeError, ValueError):
        return value
    try:
        signature.bind(*parameters)
    except TypeError:
        wanted = f"{len(parameters)} argument{'s' if len(parameters) > 1 else ''}, {' and '.join(parameters)}"
        raise ValueError(
            f"{name} must take {wanted}; got {shown(value)}, which takes {shown(str(signature))}"
        ) from None
    return value


def mapping(value: Mapping[Any, _T], name: str, what: str = "a mapping") -> dict[Any, _T]:
    """Returns a mapping as a dict.

    Raises:
        ValueError: It is not one.
    """
    if not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return dict(value)


def text(value: str, name: str, most: int = 255) -> str:
    """Returns a text that is not empty.

    Raises:
        ValueError: It is not one, or is longer than `most` characters.
    """
    if not isinstance(value, str) or not 0 < len(value) <= most or has_control(value):  # pyright: ignore[reportUnnecessaryIsInstance]
        must = f"a string of 1 to {most} characters without control characters"
        raise ValueError(f"{name} must be {must}, got {shown(value)}")
    return value


def topic_name(value: str, name: str = "topic") -> str:
    """Returns the name of a topic.

    Raises:
        ValueError: Kafka does not accept it.
    """
    if not is_topic_name(text(value, name)):
        raise ValueError(
            f"{name} must be a name that Kafka accepts, of A-Z, a-z, 0-9, '.', '_', '-', got {shown(value)}"
        )
    return value


def text_of(value: object, name: str) -> str:
    """Returns an object's text, as `str` makes it.

    Raises:
        ValueError: It has none.
    """
    try:
        return str(value)
    except Exception:
        raise ValueError(f"{name} must be an object that has a text, got {shown(value)}") from None


def file_path(value: str | Path, name: str) -> Path:
    """Returns a path.

    Raises:
        ValueError: It is neither a string nor a path, or longer than file systems allow.
    """
    if not isinstance(value, str | Path) or "\0" in str(value):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be a path, got {shown(value)}")
    path = Path(value)
    if len(str(path)) > _LONGEST_PATH or any(len(part) > _LONGEST_PART for part in path.parts):
        raise ValueError(f"{name} must be a path that file systems allow, got {shown(str(value))}")
    return path


def named(name: str) -> str:
    """Returns a snapshot's name.

    Raises:
        ValueError: It is not a string, or is empty.
    """
    if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a snapshot's name must be a string that is not empty, got {shown(name)}")
    return text(name, "a snapshot's name", _LONGEST_NAME)


def items_of(values: Iterable[_T], name: str, what: str) -> list[_T]:
    """Returns the items of an iterable that is no text.

    Raises:
        ValueError: It is a text, or cannot be iterated over.
    """
    if isinstance(values, str | bytes | bytearray) or not isinstance(values, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"{name} must be {what}, got {shown(values)}")
    return list(values)


def addressed(uris: Iterable[str]) -> list[PVAddress]:
    """Returns the addresses of PVs, at least one.

    Raises:
        ValueError: The list is empty, or an item is not a PV's URI.
    """
    addresses = [PVAddress.parse(uri) for uri in items_of(uris, "uris", "a list of PV URIs")]
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


def pv_names(pvs: Iterable[str], name: str = "pvs", least: int = 0) -> tuple[str, ...]:
    """Returns the names of PVs that are given by name or URI, each once.

    Raises:
        ValueError: It is not a list of texts, a URI is malformed, or there are fewer than `least`.
    """
    names = dict.fromkeys(
        pv_name_of(text(pv, f"an item of {name}", 4096)) for pv in items_of(pvs, name, "a list of PVs")
    )
    if len(names) < least:
        raise ValueError(f"{name} must name at least one PV, got {shown(list(names))}")
    return tuple(names)

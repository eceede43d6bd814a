"""The file of the option `pvlist`: which PVs commands may name, and which PV EPICS is asked for under an alias.

The syntax is that of ca-gateway and pvagw, read by p4p's `asLib`. What has no meaning here, or another one than it
seems to have, is an error at the start: `DENY FROM` a host, and two lines with the same pattern, of which p4p ignores
one.

Patterns match the whole name, with the field. A line that denies a record also denies its fields, which p4p would not.

Thread safety: lookups on any thread.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from k2eg_rx.gateway.epics.provider import Provider, ProviderError, PVReading, Subscription, problem_of
from k2eg_rx.protocol import Structure
from k2eg_rx.pv import PVAddress

_CACHED = 10_000  # names; a lookup compares a name with each line
_ALL = "(?:.*) ALLOW"
_BACK_REFERENCE = re.compile(r"(?<!\\)(?:\\\\)*\\[1-9]|\(\?P=|\(\?\(")
_COMMANDS = ("ALLOW", "ALIAS", "DENY")


class PVEntry(NamedTuple):
    """What a list says of a PV that may be named.

    Attributes:
        real: The PV that EPICS is asked for.
        group: Its access security group.
        level: Its access security level.
    """

    real: PVAddress
    group: str = "DEFAULT"
    level: int = 0


class PVDeniedError(Exception):
    """A PV must not be named; the text is the rule."""


class PVList:
    """The lines of a file.

    Args:
        path: The file.

    Raises:
        ValueError: It cannot be read or used; the text names file and line.
    """

    def __init__(self, path: str) -> None:
        self._parse: Callable[[str], Any] = importlib.import_module("p4p.asLib.pvlist").PVList
        text = read_rules("pvlist", path)
        self._lines = {
            number: line
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip() and not line.strip().startswith("#")
        }
        self._check(path)
        denials = [line for line in self._lines.values() if _is_denial(line)]
        try:
            self._all = self._parse("\n".join(self._lines.values()) or "(?!) ALLOW")
            self._denials = self._parse("\n".join([*denials, _ALL]))
        except Exception as error:
            raise ValueError(f"[gateway] pvlist {path!r}: its patterns do not go together: {error}") from None
        self.entry = functools.lru_cache(_CACHED)(self._look_up)

    def _check(self, path: str) -> None:
        patterns: dict[str, int] = {}
        for number, line in self._lines.items():
            where = f"[gateway] pvlist {path!r}, line {number}"
            words = line.split()
            if words[0] == "EVALUATION":
                if "".join(words[2:]) != "ALLOW,DENY":
                    raise ValueError(f"{where}: the order must be 'ALLOW, DENY', so that lines that deny decide")
                continue
            if len(words) < 2 or words[1].upper() not in _COMMANDS:
                raise ValueError(f"{where} must be a pattern and ALLOW, ALIAS or DENY, got {line.strip()!r}")
            if words[1].upper() == "DENY" and len(words) > 2:
                raise ValueError(f"{where}: DENY FROM names hosts, which commands from Kafka do not have; use access")
            if words[1].upper() == "ALIAS" and len(words) < 3:
                raise ValueError(f"{where}: the name that the alias stands for is missing")
            other = patterns.setdefault(words[0], number)
            if other != number:
                raise ValueError(f"{where} has the pattern of line {other}, which would have no effect; remove one")
            if _BACK_REFERENCE.search(words[0]):  # p4p joins all patterns to one, with other numbers of groups
                raise ValueError(f"{where}: the pattern must not refer to its own groups, got {words[0]!r}")
            try:
                self._parse(line)
            except Exception as error:
                reason = str(error).removeprefix("Error on line 1: ")
                raise ValueError(f"{where}: {reason}") from None

    def _look_up(self, address: PVAddress) -> PVEntry:
        """Returns what the list says of a PV.

        Raises:
            PVDeniedError: It must not be named.
        """
        name = f"{address.pv_name}.{address.field}" if address.field else address.pv_name
        for denied in (name, address.pv_name):
            if self._denials.compute(denied.encode(), "")[0] is None:
                raise PVDeniedError(f"line {self._denying(denied)} of the list denies it")
        real, group, level = self._all.compute(name.encode(), "")
        if real is None:
            raise PVDeniedError("no line of the list allows it")
        if real == name:
            return PVEntry(address, group, level)
        if address.base != address.pv_name:  # the fields of real PVs begin at the first dot
            raise PVDeniedError("the list has an alias for it, and aliases are for names without '..'")
        try:
            return PVEntry(PVAddress.parse(f"{address.protocol}://{real}"), group, level)
        except ValueError as error:
            raise PVDeniedError(f"the list has an alias for it that is none: {error}") from None

    def _denying(self, name: str) -> int:
        for number, line in self._lines.items():
            if _is_denial(line) and self._parse(f"{line}\n{_ALL}").compute(name.encode(), "")[0] is None:
                return number
        raise AssertionError(name)


def read_rules(option: str, path: str) -> str:
    """Returns the text of a file that an option of `[gateway]` names.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"[gateway] {option} must be a file that can be read, got {path!r}: {error}") from None


def _is_denial(line: str) -> bool:
    return line.split()[1].upper() == "DENY"


class ListedProvider:
    """A provider that asks EPICS for the real PVs of aliases, and for none that the list denies.

    Args:
        provider: The provider.
        pvs: The list.
    """

    def __init__(self, provider: Provider, pvs: PVList) -> None:
        self._provider = provider
        self._pvs = pvs

    def real(self, address: PVAddress) -> PVAddress:
        """Returns the PV that EPICS is asked for.

        Raises:
            ProviderError: The list denies it.
        """
        try:
            return self._pvs.entry(address).real
        except PVDeniedError as denied:
            raise ProviderError(f"{denied} ([gateway] pvlist)") from None

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        """Reads a PV; see `Provider.get`."""
        return self._provider.get(self.real(address), timeout)

    def put(
        self,
        address: PVAddress,
        fields: Mapping[str, Any],
        timeout: float,
        *,
        wait: bool = False,
        on_written: Callable[[], None] = lambda: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Future[None]:
        """Writes a PV; see `Provider.put`."""
        return self._provider.put(
            self.real(address), fields, timeout, wait=wait, on_written=on_written, may_send=may_send
        )

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> Subscription:
        """Subscribes to a PV; see `Provider.subscribe`."""
        return self._provider.subscribe(self.real(address), on_update, on_connection, on_unreadable)

    def problem(self) -> str:
        """Returns what is wrong with the provider; see `problem_of`."""
        return problem_of(self._provider)

    def close(self) -> None:
        """Closes the provider."""
        self._provider.close()

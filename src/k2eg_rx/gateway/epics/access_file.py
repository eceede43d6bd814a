"""The file of the option `access`: what each principal may do with the PVs of an access security group.

An EPICS access security file (ACF), parsed by p4p's `asLib`. Its engine is not used: it has no permission to read, and
ignores the levels of rules. As in EPICS, a rule holds for PVs of its level and below, and what no rule grants is
denied.

The only conditions are user access groups (UAG), whose members are principals. A rule with another condition grants
nothing: commands have no host (HAG), and calculations (CALC) would need values of PVs.

Thread safety: immutable.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from k2eg_rx.gateway.epics.pv_list import read_rules
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

_READ = frozenset({"READ", "WRITE", "PUT"})
_WRITE = frozenset({"WRITE", "PUT"})
_PERMISSIONS = _READ | _WRITE | {"NONE", "RPC", "UNCACHED"}
_DEFAULT = "DEFAULT"


class _Rule(NamedTuple):
    """A rule of a group.

    Attributes:
        level: The highest level of PVs for which it holds.
        permission: What it grants.
        users: The principals that it is for, who must be in each; empty for all.
    """

    level: int
    permission: str
    users: tuple[frozenset[str], ...]


class AccessFile:
    """The rules of a file.

    Args:
        path: The file.

    Raises:
        ValueError: It cannot be read or used.
    """

    def __init__(self, path: str) -> None:
        parse: Callable[[str], Any] = importlib.import_module("p4p.asLib").parse
        text = read_rules("access", path)
        self._path = path
        try:
            nodes: list[Any] = parse(f"{text}\n") or []
        except Exception as error:  # an unexpected end is an AttributeError
            raise ValueError(f"[gateway] access {path!r}: {_reason(error)}") from None
        members = {name: frozenset[str](users or ()) for kind, name, users in nodes if kind == "UAG"}
        self._groups: dict[str, list[_Rule]] = {}
        for kind, name, items in nodes:
            if kind == "ASG":
                rules = self._groups.setdefault(name, [])
                rules.extend(rule for item in items or () if (rule := self._rule(name, item, members)) is not None)

    def _rule(self, group: str, item: tuple[Any, ...], members: dict[str, frozenset[str]]) -> _Rule | None:
        if item[0] != "RULE":  # INP, an input of calculations
            return None
        _, level, permission, _trap, conditions = item
        where = f"[gateway] access {self._path!r}, ASG({group})"
        if permission not in _PERMISSIONS:
            raise ValueError(f"{where}: RULE must grant NONE, READ or WRITE, got {permission!r}")
        users: list[frozenset[str]] = []
        for kind, names in conditions or ():
            if kind != "UAG":
                _log.warning(
                    "rule grants nothing: file=%s group=%s reason=%s has no meaning here", self._path, group, kind
                )
                return None
            unknown = [name for name in names if name not in members]
            if unknown:
                raise ValueError(f"{where}: UAG({unknown[0]}) must be defined in the file")
            users.append(frozenset(user for name in names for user in members[name]))
        return _Rule(level, permission, tuple(users))

    def denial(self, principal: str, group: str, level: int, *, is_put: bool) -> str:
        """Returns why a principal must not read, or write, a PV of a group and level; an empty string if it may."""
        name = group if group in self._groups else _DEFAULT
        for rule in self._groups.get(name, ()):
            grants = rule.permission in (_WRITE if is_put else _READ)
            if grants and rule.level >= level and all(principal in users for users in rule.users):
                return ""
        return f"no rule of ASG({name}) lets {principal!r} {'write' if is_put else 'read'} PVs of level {level}"


def _reason(error: Exception) -> str:
    return "it ends within a definition" if isinstance(error, AttributeError) else str(error)

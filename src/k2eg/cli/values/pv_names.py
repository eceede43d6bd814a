"""The PVs of a command: names and URIs from its arguments, from files and from standard input.

A name without a protocol gets the default one, of ``-p``, of K2EG_DEFAULT_PROTOCOL or of the environment's file;
without a default it may be found over either, see `k2eg.cli.commands.reading`.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from k2eg.cli.arguments import PROTOCOL_VARIABLE
from k2eg_rx import Settings
from k2eg_rx.pv import Protocol, PVAddress
from k2eg_rx.texts import shown

_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?\}")
_GROUP = re.compile(r"\[\s*([^\[\]]+?)\s*\]")
_PROTOCOLS = ("pva", "ca")
_MOST = 100_000  # more are a mistake in a range; a gateway monitors some ten thousand PVs


@dataclass(frozen=True, slots=True)
class Target:
    """A PV of a command.

    Attributes:
        text: The name or URI as given.
        uri: The PV; over PVAccess where the protocol is open.
        is_open: Whether it may be found over Channel Access, too, since nothing names its protocol.
    """

    text: str
    uri: str
    is_open: bool = False

    @property
    def name(self) -> str:
        """The PV's name, with its field and without the protocol."""
        return PVAddress.parse(self.uri).name

    @property
    def other(self) -> str:
        """The URI over Channel Access."""
        return f"ca://{self.name}"


def check_name(text: str) -> None:
    """Raises ValueError if a text is neither a PV's URI nor a name."""
    PVAddress.parse(text if "://" in text else f"pva://{text}")


def expand(text: str) -> Iterator[str]:
    """Yields the names that a text with ranges stands for: ``Q:{1..3}``, ``Q:{01..20}``, ``Q:{1..9..2}``.

    Other braces are part of the name, as at sites that use them.
    """
    parts: list[Sequence[str]] = []
    start = 0
    for found in _RANGE.finditer(text):
        parts += [(text[start : found.start()],), _numbers(*found.groups(), text=text)]
        start = found.end()
    parts.append((text[start:],))
    count = 1
    for part in parts:
        count *= len(part)
    if count > _MOST:
        raise ValueError(f"{shown(text)} stands for {count} PVs, at most {_MOST} are allowed")
    yield from ("".join(words) for words in itertools.product(*parts))


def _numbers(first: str, last: str, step: str | None, *, text: str) -> Sequence[str]:
    start, stop, width = int(first), int(last), 0
    if any(len(word.lstrip("-")) > 1 and word.lstrip("-").startswith("0") for word in (first, last)):
        width = max(len(first), len(last))  # as in shells, a leading zero asks for numbers of one width
    by = int(step or 1)
    if by == 0:
        raise ValueError(f"the step of a range must be above 0, got {shown(text)}")
    if abs(stop - start) // by >= _MOST:
        raise ValueError(f"{shown(text)} has a range of more than {_MOST} numbers")
    numbers = range(start, stop + 1, by) if start <= stop else range(start, stop - 1, -by)
    return [f"{number:0{width}d}" for number in numbers]


def names_in(lines: Iterable[str], origin: str, group: str | None = None) -> Iterator[str]:
    """Yields the names of a list of PVs.

    A line has one name or several with blanks between them; ``#`` at its start or after a blank begins a comment, and
    ``[name]`` begins a group.

    Raises:
        ValueError: A line has no valid name, or the group is not there; the text says where.
    """
    current, groups = "", list[str]()
    for number, line in enumerate(lines, 1):
        words = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].split()
        heading = _GROUP.fullmatch(" ".join(words))
        if heading is not None:
            current = heading[1]
            groups.append(current)
            continue
        for word in words:
            try:
                names = list(expand(word))
                for name in names:
                    check_name(name)
            except ValueError as error:
                raise ValueError(f"{origin}, line {number}: {error}") from None
            if group in (None, current):
                yield from names
    if group is not None and group not in groups:
        raise ValueError(f"{origin} has no group {shown(group)}; it has {', '.join(groups) or 'none'}")


def collect(words: Iterable[str], files: Iterable[str] = (), group: str | None = None) -> list[str]:
    """Returns the names of a command, each once, in the given order.

    Args:
        words: Names, URIs, and ``-`` for standard input.
        files: Files with lists of PVs, ``-`` for standard input.
        group: The group of the files to take; None for all.

    Raises:
        ValueError: There is none, one is not valid, or a file cannot be read.
    """
    names: dict[str, None] = {}
    for word in words:
        if word == "-":
            names |= dict.fromkeys(names_in(sys.stdin, "standard input", group))
            continue
        for name in expand(word):
            check_name(name)
            names[name] = None
    for file in files:
        if file == "-":
            names |= dict.fromkeys(names_in(sys.stdin, "standard input", group))
            continue
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read: {error}") from None
        names |= dict.fromkeys(names_in(text.splitlines(), file, group))
    if not names:
        raise ValueError("no PV is given: name one, or a list of PVs with -f FILE or -")
    if len(names) > _MOST:
        raise ValueError(f"at most {_MOST} PVs are allowed, got {len(names)}")
    return list(names)


def default_protocol(arguments: Namespace, settings: Settings) -> Protocol | None:
    """Returns the protocol of names without one: of -p, the variable or the environment's file; None for either.

    Raises:
        ValueError: The variable or the file has another one.
    """
    given = {
        "-p": getattr(arguments, "protocol", None) or "",
        PROTOCOL_VARIABLE: os.environ.get(PROTOCOL_VARIABLE, ""),
        f"{settings.source}: [cli] protocol": settings.section("cli").get("protocol", ""),
    }
    for origin, protocol in given.items():
        if protocol and protocol not in _PROTOCOLS:
            raise ValueError(f"{origin} must be pva or ca, got {shown(protocol)}")
        if protocol:
            return cast("Protocol", protocol)
    return None


def targets_of(names: Iterable[str], arguments: Namespace, settings: Settings) -> list[Target]:
    """Returns the PVs that names and URIs stand for, each once.

    Raises:
        ValueError: The default protocol is not valid.
    """
    default = default_protocol(arguments, settings)
    targets: dict[str, Target] = {}
    for name in names:
        if "://" in name:
            target = Target(name, PVAddress.parse(name).uri)
        else:
            target = Target(name, f"{default or 'pva'}://{name}", is_open=default is None)
        targets.setdefault(target.uri, target)
    return list(targets.values())


def complete_uris(arguments: Namespace, settings: Settings) -> None:
    """Makes URIs of the names of commands that do not search for PVs over either protocol: by default over PVAccess.

    Raises:
        ValueError: The default protocol is not valid.
    """
    names: list[str] = [*getattr(arguments, "uris", ()), *([arguments.uri] if hasattr(arguments, "uri") else ())]
    if all("://" in name for name in names):
        return
    default = default_protocol(arguments, settings) or "pva"

    def uri(name: str) -> str:
        return name if "://" in name else f"{default}://{name}"

    if hasattr(arguments, "uris"):
        arguments.uris = [uri(name) for name in arguments.uris]
    if hasattr(arguments, "uri"):
        arguments.uri = uri(arguments.uri)

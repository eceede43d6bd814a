"""Reads options of the deployed gateway from its file, from the environment, and from words of the command line.

The text of a line is never part of an error: it may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from k2eg_rx.gateway.runtime.deployed_options import REPEATABLE

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_PREFIX = "EPICS_K2EG_"  # also EPICS_k2eg_
FILE_NAME = "conf-file-name"


class Entry(NamedTuple):
    """An option as given.

    Attributes:
        name: Its name, with hyphens.
        value: Its text.
        origin: Where it stands: ``FILE:LINE``, a variable's name, or ``--set``.
    """

    name: str
    value: str
    origin: str


def entries_of_file(path: Path) -> list[Entry]:
    """Returns the options of a configuration file; a ``#`` begins a comment.

    Raises:
        ValueError: The file cannot be read, or a line is not ``name=value``; the text names file and line.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{path}: the configuration file cannot be read: {reason}") from None
    entries: list[Entry] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            entries.append(_entry(text, f"{path}:{number}"))
    return _without_repetitions(entries)


def entries_of_environment(variables: Mapping[str, str]) -> list[Entry]:
    """Returns the options among environment variables.

    Raises:
        ValueError: Two variables are the same option.
    """
    entries = [
        Entry(name[len(_PREFIX) :].lower().replace("_", "-"), value.strip(), name)
        for name, value in sorted(variables.items())
        if name.upper().startswith(_PREFIX) and len(name) > len(_PREFIX)
    ]
    return _without_repetitions(entries)


def entries_of_words(words: Iterable[str]) -> list[Entry]:
    """Returns the options of words ``NAME=VALUE`` of the command line.

    Raises:
        ValueError: A word has another form.
    """
    return _without_repetitions([_entry(word, "--set") for word in words])


def _entry(text: str, origin: str) -> Entry:
    name, equals, value = text.partition("=")
    name = name.strip()
    if text.startswith("["):
        raise ValueError(f"{origin}: must be NAME=VALUE: an environment file, with sections, is named by -e")
    if not equals or not _NAME.fullmatch(name):
        raise ValueError(f"{origin}: must be NAME=VALUE, with letters, digits and hyphens in NAME")
    return Entry(name, value.strip(), origin)


def _without_repetitions(entries: list[Entry]) -> list[Entry]:
    origins: dict[str, str] = {}
    for entry in entries:
        if entry.name in origins and entry.name not in REPEATABLE:
            raise ValueError(f"{entry.origin}: {entry.name} is given already, at {origins[entry.name]}: remove one")
        origins[entry.name] = entry.origin
    return entries

"""Remembers the PVs that commands have named, for the completion of shells.

The file has a name per line, the latest last. It is read by shells, so it has no name with a character that a shell
gives a meaning.

Thread safety: main thread; of two programs that write at a time, the names of one may be lost.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import cast

_MOST = 2000
_NAME = re.compile(r"[A-Za-z0-9_:./<>\[\]+#{}@%^,=-]{1,200}")
_ARGUMENTS = "names", "uris", "uri"  # those of commands that name PVs


SEEN_VARIABLE = "K2EG_CLI_SEEN_PVS"


def seen_file() -> Path | None:
    """Returns the file that K2EG_CLI_SEEN_PVS names, by default one of the user's cache; None if it is empty."""
    named = os.environ.get(SEEN_VARIABLE)
    if named is not None:
        return Path(named) if named else None
    folder = os.environ.get("XDG_CACHE_HOME")
    return (Path(folder) if folder else Path.home() / ".cache") / "k2eg" / "pvs"


def remember(arguments: Namespace) -> None:
    """Adds the PVs of a command that has succeeded. Does nothing where the file cannot be written."""
    named: list[str] = []
    for argument in _ARGUMENTS:
        value = getattr(arguments, argument, None)
        given = [value] if isinstance(value, str) else cast("list[object]", value) if isinstance(value, list) else []
        named += [name for name in given if isinstance(name, str) and _NAME.fullmatch(name)]
    if named:
        with suppress(OSError, UnicodeError, RuntimeError):  # RuntimeError: there is no home
            _add(named)


def _add(named: list[str]) -> None:
    path = seen_file()
    if path is None:
        return
    known = dict.fromkeys(path.read_text().splitlines()) if path.exists() else {}
    if all(name in known for name in named):
        return
    lines = list(known | dict.fromkeys(named))[-_MOST:]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # its owner's
        file.write("\n".join(lines) + "\n")
    temporary.replace(path)

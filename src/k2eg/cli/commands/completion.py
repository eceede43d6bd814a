"""``k2eg completion``: prints the script by which a shell completes commands, options, environments and PVs.

Names of environments and PVs come from files when the key is pressed, without starting Python.

Thread safety: main thread.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Iterator
from typing import Any, cast

from k2eg.cli.arguments import Parser, build_parser
from k2eg_rx.errors import require_extra
from k2eg_rx.settings import FOLDER_VARIABLE, environments, shipped_folder

SHELLS = "bash", "zsh", "fish"

_SEEN = "${K2EG_CLI_SEEN_PVS-${XDG_CACHE_HOME:-$HOME/.cache}/k2eg/pvs}"
_BASH = """\
COMP_WORDBREAKS=${{COMP_WORDBREAKS//:/}}  # names of PVs have colons
_k2eg_lines() {{ local line; while IFS= read -r line; do [[ $line == "$1"* ]] && printf '%s\\n' "$line"; done; true; }}
_k2eg_pvs() {{ [ -r "{seen}" ] && _k2eg_lines "$1" < "{seen}"; }}
_k2eg_environments() {{
  {{ printf '%s\\n' {shipped}
    local file
    for file in "${folder}"/*.ini; do [ -e "$file" ] && file=${{file##*/}} && printf '%s\\n' "${{file%.ini}}"; done
  }} | _k2eg_lines "$1"
}}
"""
_ZSH = """\
_k2eg_pvs() {{ [[ -r "{seen}" ]] && compadd -- "${{(@f)$(<"{seen}")}}" }}
_k2eg_environments() {{ compadd -- {shipped} ${{{folder}:+${folder}/*.ini(N:t:r)}} }}
"""
_FISH = """\
function _k2eg_pvs
  set -l cache $XDG_CACHE_HOME
  test -n "$cache"; or set cache $HOME/.cache
  set -l seen $cache/k2eg/pvs
  set -q K2EG_CLI_SEEN_PVS; and set seen "$K2EG_CLI_SEEN_PVS"
  test -r "$seen"; and cat "$seen"
end
function _k2eg_environments
  printf '%s\\n' {shipped}
  for file in ${folder}/*.ini
    basename $file .ini
  end
end
"""
_PREAMBLES = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def add_arguments(parser: Parser) -> None:
    """Adds the arguments of ``completion``."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def completion(arguments: Namespace) -> int:
    """Prints the script.

    Raises:
        ModuleNotFoundError: The extra ``cli`` is not installed.
    """
    print(script(arguments.shell))
    return 0


def script(shell: str) -> str:
    """Returns the script for a shell.

    Raises:
        ModuleNotFoundError: The extra ``cli`` is not installed.
    """
    require_extra("cli", ["shtab"], "`k2eg completion`")
    import shtab  # noqa: PLC0415 - an extra

    parser = build_parser(complete=True)
    for action in _actions(parser):
        source = _source(action)
        if source:
            action.complete = dict.fromkeys(SHELLS, source) | {"fish": f"({source})"}
    shipped = " ".join(environments(shipped_folder()))
    preamble = _PREAMBLES[shell].format(seen=_SEEN, shipped=shipped, folder=FOLDER_VARIABLE)
    preambles: Any = {shell: preamble}  # typed as a text there
    return shtab.complete(parser, shell, preamble=preambles)


def _source(action: argparse.Action) -> str:
    """Returns the function of the shell that lists what an argument may be; empty for others."""
    if action.metavar == "ENV" and action.dest in ("environment", "name", "names"):
        return "_k2eg_environments"
    is_positional = not action.option_strings
    names_pvs = str(action.metavar).partition(" ")[0] in ("PV", "URI")
    return "_k2eg_pvs" if is_positional and names_pvs else ""


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """Yields the arguments of a parser and of its commands."""
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage] - argparse has no other way
        yield action
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage] - likewise
            for each in cast("dict[str, argparse.ArgumentParser]", action.choices).values():
                yield from _actions(each)

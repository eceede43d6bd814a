"""Writes the manual page and the reference page of the command line from its parsers: ``python -m k2eg.cli.reference``.

The texts do not depend on the release of Python or the width of the terminal, unlike those of argparse.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from k2eg.cli.arguments import build_parser

MANUAL, PAGE = Path("docs/k2eg.1"), Path("docs/command-line.md")

_HEAD = """\
# Command line

`k2eg COMMAND [options]`. This page and the manual page `k2eg(1)` are made from the program by
`python -m k2eg.cli.reference`. Global options stand before or after the command.
"""
_COMPLETION = """\
## Completion

    k2eg completion bash > ~/.local/share/bash-completion/completions/k2eg
    k2eg completion zsh > ~/.zfunc/_k2eg              # a folder of $fpath
    k2eg completion fish > ~/.config/fish/completions/k2eg.fish

completes commands, options, environments, and the PVs that commands have named before (extra `cli`). Those are kept in
`~/.cache/k2eg/pvs`, or the file that `K2EG_CLI_SEEN_PVS` names; if that is empty, none are kept.
"""


class _Argument(NamedTuple):
    name: str
    help: str


class _Command(NamedTuple):
    """A command as it is documented."""

    words: str
    help: str
    positional: list[_Argument]
    options: list[_Argument]


def _argument(action: argparse.Action) -> _Argument:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if not metavar and action.choices is not None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    metavar = metavar or (action.dest if not action.option_strings else "")
    names = ", ".join(action.option_strings)
    text = (action.help or "") % {"default": action.default, "prog": "k2eg"}
    return _Argument(f"{names} {metavar}".strip() if action.nargs != 0 else names, text)


def _documented(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage] - argparse has no other way
        if action.help is not argparse.SUPPRESS and "--help" not in action.option_strings:
            yield action


def _commands(parser: argparse.ArgumentParser, words: str, text: str, without: frozenset[str]) -> Iterator[_Command]:
    """Yields a parser's command and those below it; options of the whole program are left out below."""
    positional: list[_Argument] = []
    options: list[_Argument] = []
    below: list[_Command] = []
    for action in _documented(parser):
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage] - likewise
            parsers = cast("dict[str, argparse.ArgumentParser]", action.choices)
            helps = {each.dest: each.help or "" for each in action._choices_actions}  # pyright: ignore[reportPrivateUsage]
            for name, each in parsers.items():
                below += _commands(each, f"{words} {name}", helps.get(name, ""), without | _options(parser))
        elif not action.option_strings:
            positional.append(_argument(action))
        elif not without & set(action.option_strings):
            options.append(_argument(action))
    yield _Command(words, text, positional, options)
    yield from below


def _options(parser: argparse.ArgumentParser) -> frozenset[str]:
    """Returns the long options of a parser."""
    named = (name for action in _documented(parser) for name in action.option_strings)
    return frozenset(name for name in named if name.startswith("--"))


def _all() -> tuple[argparse.ArgumentParser, list[_Command]]:
    parser = build_parser(complete=True)
    return parser, list(_commands(parser, "k2eg", parser.description or "", frozenset()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def reference_page() -> str:
    """Returns the reference page, in Markdown."""
    parser, commands = _all()
    parts = [_HEAD]
    for command in commands:
        title = "Global options" if command.words == "k2eg" else f"`{command.words}`"
        parts.append(f"## {title}\n")
        if command.words != "k2eg":
            parts.append(f"{command.help[:1].upper()}{command.help[1:]}.\n")
        rows = [f"| `{_cell(each.name)}` | {_cell(each.help)} |" for each in (*command.positional, *command.options)]
        if rows:
            parts.append("\n".join(["| argument | meaning |", "|---|---|", *rows]) + "\n")
    parts += [
        _COMPLETION,
        f"## Environment variables and exit status\n\n```console\n{(parser.epilog or '').strip()}\n```\n",
    ]
    return "\n".join(parts)


def _escaped(text: str) -> str:
    """Returns a text for troff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def manual_page() -> str:
    """Returns the manual page, for man(1)."""
    parser, commands = _all()
    lines = [
        '.TH K2EG 1 "" "K2EG for Python" "User Commands"',
        ".SH NAME",
        f"k2eg \\- {_escaped(parser.description or '')}",
    ]
    lines += [".SH SYNOPSIS", ".B k2eg", ".I COMMAND", "[options]", ".SH OPTIONS"]
    for command in commands:
        if command.words != "k2eg":
            lines += [f".SS {_escaped(command.words)}", _escaped(command.help)]
        for each in (*command.positional, *command.options):
            lines += [".TP", f".B {_escaped(each.name)}", _escaped(each.help)]
        if command.words == "k2eg":
            lines.append(".SH COMMANDS")
    lines += [".SH ENVIRONMENT AND EXIT STATUS", ".nf", _escaped((parser.epilog or "").strip()), ".fi"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes both pages below the present folder."""
    MANUAL.write_text(manual_page())
    PAGE.write_text(reference_page())
    print(f"{MANUAL} {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()

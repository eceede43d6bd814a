"""``k2eg env``: lists, shows, makes and checks environments.

Thread safety: main thread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from argparse import Namespace
from configparser import ConfigParser
from pathlib import Path

from k2eg.cli.arguments import ENVIRONMENT_VARIABLE, Parser, broker
from k2eg.cli.diagnosis.environment_files import environment_faults
from k2eg.cli.output import print_lines
from k2eg.cli.printing.columns import aligned
from k2eg_rx.pv import is_topic_name
from k2eg_rx.settings import (
    FOLDER_VARIABLE,
    configuration_folder,
    environment_file,
    environments,
    is_secret,
    unset_variables,
)

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_VARIABLE = re.compile(r"\$\{\w+\}")
_MASK = "***"
_TEMPLATE = """\
[DEFAULT]
kafka_broker_url={broker}
k2eg_cmd_topic={topic}
reply_topic={{app_name}}-reply

; any property of librdkafka; ${{VAR}} is replaced by the environment variable, so that no password stands here
[kafka]
"""
_SECURED = """\
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.username=${K2EG_KAFKA_USER}
sasl.password=${K2EG_KAFKA_PASSWORD}
"""


def add_arguments(parser: Parser) -> None:
    """Adds the arguments of ``env``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    listed = actions.add_parser("list", help="list the environments, with their files and what is wrong with them")
    listed.set_defaults(do=_list)
    show = actions.add_parser("show", help="print the file of an environment without its secrets")
    show.add_argument("name", nargs="?", metavar="ENV", help="the environment (default: that of -e)")
    show.set_defaults(do=_show)
    new = actions.add_parser("new", help="write the file of a new environment")
    new.add_argument("name", metavar="ENV", help="the name: letters, digits, '.', '_' and '-'")
    new.add_argument("--broker", required=True, type=broker, metavar="HOST:PORT", help="Kafka's brokers")
    text = "the command topic (default: %(default)s)"
    new.add_argument("--commands", default="cmd-in-topic", metavar="TOPIC", help=text)
    new.add_argument("--secured", action="store_true", help="with the properties for TLS and a password")
    new.set_defaults(do=_new)
    check = actions.add_parser("check", help="look for unknown names and unset variables; exit with 1 if there are any")
    check.add_argument("names", nargs="*", metavar="ENV", help="the environments (default: that of -e, else all)")
    check.set_defaults(do=_check)
    for action in (listed, check):
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="a JSON object per line")


def env(arguments: Namespace) -> int:
    """Runs an action on environments; returns the exit code.

    Raises:
        ValueError: There is no such environment, or a new one exists already.
    """
    return arguments.do(arguments)


def _list(arguments: Namespace) -> int:
    rows: list[dict[str, str]] = []
    for name in environments():
        path = environment_file(name)
        marks = ["default"] if name == arguments.environment else []
        faults = _faults(path)
        marks += [f"{len(faults)} faults"] if faults else []
        rows.append({"name": name, "file": str(path), "state": ", ".join(marks)})
    if arguments.json:
        print_lines("\n".join(json.dumps(row) for row in rows))
        return 0
    is_set = "is" if os.environ.get(FOLDER_VARIABLE) else "is not"
    print_lines(f"{configuration_folder()} ({FOLDER_VARIABLE} {is_set} set)")
    if rows:
        print_lines("\n".join(aligned([[row["name"], row["file"], row["state"]] for row in rows])))
    return 0


def _show(arguments: Namespace) -> int:
    path = environment_file(_name(arguments))
    parser = ConfigParser(interpolation=None, default_section="")
    environment_faults(path)  # for the text if it cannot be read
    parser.read_string(path.read_text())
    lines = [f"; {path}"]
    for section in parser.sections():
        lines.append(f"[{section}]")
        lines += [f"{key}={_shown(key, value)}" for key, value in parser.items(section)]
    print_lines("\n".join(lines))
    return 0


def _shown(key: str, value: str) -> str:
    """Returns a value; of a secret, only the variables that it is made of."""
    return value if not is_secret(key) or _VARIABLE.fullmatch(value) else _MASK


def _name(arguments: Namespace) -> str:
    name = arguments.name or arguments.environment
    if name is None:
        raise ValueError(f"no environment is named: give its name, or set {ENVIRONMENT_VARIABLE}")
    return name


def _new(arguments: Namespace) -> int:
    if not os.environ.get(FOLDER_VARIABLE):
        raise ValueError(f"{FOLDER_VARIABLE} must name the folder of your environments, and is not set")
    if not _NAME.fullmatch(arguments.name) or arguments.name.startswith("."):
        raise ValueError(f"the name must consist of letters, digits, '.', '_' and '-', got {arguments.name!r}")
    if not is_topic_name(arguments.commands):
        raise ValueError(f"--commands must be the name of a Kafka topic, got {arguments.commands!r}")
    path = configuration_folder() / f"{arguments.name}.ini"
    text = _TEMPLATE.format(broker=arguments.broker, topic=arguments.commands)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # a password may be written into it
    except FileExistsError:
        raise ValueError(f"{path} exists: remove it, or give another name") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text + (_SECURED if arguments.secured else ""))
    print_lines(f"{path}\ncheck it: k2eg -e {arguments.name} doctor")
    return 0


def _check(arguments: Namespace) -> int:
    named = [arguments.environment] if arguments.environment else environments()
    code = 0
    for name in arguments.names or named:
        path = environment_file(name)
        faults = _faults(path)
        code = code or int(bool(faults))
        if arguments.json:
            print_lines(json.dumps({"name": name, "file": str(path), "faults": faults}))
        else:
            print_lines("\n".join(faults) or f"{path}: ok")
    return code


def _faults(path: Path) -> list[str]:
    try:
        return [*environment_faults(path), *unset_variables(path)]
    except ValueError as error:
        return [str(error)]

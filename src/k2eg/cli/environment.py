"""Finds the settings of the environment that the command line names."""

from __future__ import annotations

from argparse import Namespace
from typing import NoReturn

from k2eg.cli.arguments import ENVIRONMENT_VARIABLE
from k2eg.cli.demo_registry import require_running_demo
from k2eg.cli.output import print_note
from k2eg_rx.settings import (
    FOLDER_VARIABLE,
    Settings,
    configuration_folder,
    demo_broker_file,
    environment_file,
    environments,
    load_settings,
)

_USAGE = 2


def settings_for(arguments: Namespace) -> Settings:
    """Returns the settings of the environment that the arguments name.

    Raises:
        SystemExit: The environment is missing or unknown (code 2); standard error lists those that exist.
        ValueError: An entry of its file is missing or wrong.
        DemoError: It is the demo's environment, and no demo is running.
    """
    folder = configuration_folder()
    known = environments(folder)
    available = f"{folder} has {', '.join(known) or 'none'} (set {FOLDER_VARIABLE} to use another folder)"
    if arguments.environment is None:
        running = "; a demo is running: -e demo" if demo_broker_file().exists() else ""
        _refuse(f"no environment: give -e ENV or set {ENVIRONMENT_VARIABLE}; {available}{running}")
    try:
        _ = environment_file(arguments.environment)
    except ValueError:
        _refuse(f"no environment {arguments.environment!r}: {available}")
    settings = load_settings(arguments.environment, arguments.app)
    require_running_demo(settings)
    return settings


def _refuse(text: str) -> NoReturn:
    print_note(text)
    raise SystemExit(_USAGE)

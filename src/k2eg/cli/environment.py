"""The environment that a command runs in.

In: the arguments. Out: its settings, or a line that says how to name one.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import NoReturn

from k2eg.cli.announcement import require_demo
from k2eg.cli.arguments import ENVIRONMENT_VARIABLE
from k2eg_rx.settings import (
    FOLDER_VARIABLE,
    Settings,
    configuration_folder,
    demo_broker_file,
    environments,
    load_settings,
)

_USAGE = 2


def settings_for(arguments: Namespace) -> Settings:
    """Returns the settings of the environment that the arguments name.

    Raises:
        SystemExit: None is named, or there is none of that name (2); a line on standard error says how to name one.
        ValueError: Something in its file is missing or wrong.
        DemoError: It is the demo's, and no demo is running.
    """
    folder = configuration_folder()
    known = environments(folder)
    there_is = f"in {folder} there is {', '.join(known) or 'none'} (set {FOLDER_VARIABLE} to look elsewhere)"
    if arguments.environment is None:
        running = "; a demo is running: -e demo" if "demo" in known and demo_broker_file().exists() else ""
        _refuse(f"no environment: give -e ENV or set {ENVIRONMENT_VARIABLE}; {there_is}{running}")
    if arguments.environment not in known:
        _refuse(f"no environment {arguments.environment!r}: {there_is}")
    settings = load_settings(arguments.environment, arguments.app, folder)
    require_demo(settings)
    return settings


def _refuse(text: str) -> NoReturn:
    print(f"k2eg: {text}", file=sys.stderr)
    raise SystemExit(_USAGE)

"""The commands of the command line, one line each; what a command needs is imported when it is used.

A command has two functions, named as ``module:function`` within `k2eg.cli.commands`. One adds its arguments to a
`k2eg.cli.arguments.Parser`. The other runs it, with the arguments, and the settings if it needs an environment; it
returns the exit code, or None for success.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A command of the command line.

    Attributes:
        help: What it does, in the list of commands.
        arguments: The function that adds its arguments.
        run: The function that runs it.
        has_environment: Whether it is run with the settings of the environment that its arguments name.
        has_logs: Whether it configures its logs itself.
    """

    help: str
    arguments: str
    run: str
    has_environment: bool = True
    has_logs: bool = False


COMMANDS = {
    "get": Command("read PVs", "pv_arguments:add_get", "get:get"),
    "put": Command("write a PV", "pv_arguments:add_put", "put:put"),
    "monitor": Command("print updates until Ctrl-C", "pv_arguments:add_monitor", "monitor:monitor"),
    "info": Command("show what PVs are: type, units, limits, labels", "pv_arguments:add_info", "info:info"),
    "snapshot": Command("acquire PVs together", "snapshot:add_arguments", "snapshot:snapshot"),
    "trigger": Command("trigger a recurring snapshot", "view_arguments:add_trigger", "recurring:trigger"),
    "stop": Command("stop a recurring snapshot", "view_arguments:add_stop", "recurring:stop"),
    "history": Command("print what Kafka keeps of PVs", "view_arguments:add_history", "history:history"),
    "strip": Command("draw PVs over time, beginning with the past", "view_arguments:add_strip", "strip:strip"),
    "top": Command("show a live table of PVs", "view_arguments:add_top", "top:top"),
    "web": Command("show PVs on a page in a browser", "chart_arguments:add_web", "web:web"),
    "plot": Command("draw an array or an image once", "chart_arguments:add_plot", "plot:plot"),
    "wait": Command("wait until a PV fulfils a condition", "view_arguments:add_wait", "wait:wait"),
    "record": Command("record PVs to a file until Ctrl-C", "view_arguments:add_record", "record:record"),
    "replay": Command(
        "print what a file has recorded", "view_arguments:add_replay", "record:replay", has_environment=False
    ),
    "diff": Command(
        "compare saved values with PVs or each other", "view_arguments:add_diff", "diff:diff", has_environment=False
    ),
    "restore": Command("write saved values to PVs", "view_arguments:add_restore", "restore:restore"),
    "doctor": Command(
        "find out what is wrong, and what to do", "doctor:add_arguments", "doctor:doctor", has_environment=False
    ),
    "env": Command("list, show, make or check environments", "env:add_arguments", "env:env", has_environment=False),
    "gateway": Command(
        "run a gateway, or print the status of those that run",
        "gateway:add_arguments",
        "gateway:gateway",
        has_environment=False,
        has_logs=True,
    ),
    "completion": Command(
        "print a script that completes commands, options and PVs",
        "completion:add_arguments",
        "completion:completion",
        has_environment=False,
    ),
    "monitors": Command("list the PVs that gateways keep active", "gateways:add_monitors", "gateways:monitors"),
    "demo": Command(
        "run a broker, an IOC and a gateway, and show live PVs",
        "demo:add_arguments",
        "demo:demo",
        has_environment=False,
    ),
}


def load(function: str) -> Callable[..., Any]:
    """Imports a function, given as ``module:function``, and returns it."""
    module, _, name = function.partition(":")
    return getattr(import_module(f"k2eg.cli.commands.{module}"), name)

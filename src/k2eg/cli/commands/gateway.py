"""``k2eg gateway``: finds the gateway's configuration, prints it or sets up the logs, and runs the gateway.

Thread safety: main thread only.
"""

from __future__ import annotations

import logging
import os
import threading
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from k2eg.cli.arguments import Parser, port, positive, seconds
from k2eg.cli.environment import settings_for
from k2eg.cli.output import print_lines
from k2eg_rx.errors import require_extra
from k2eg_rx.gateway import OptionFinding, configuration_text, load_deployed_configuration, uses_variables
from k2eg_rx.settings import Settings
from k2eg_rx.texts import JsonFormatter, ServiceFormatter, get_logger, printable

_log = get_logger(__name__)

# Options of the command line that override those of `[gateway]`, which have the same names.
_OVERRIDES = ("processes", "log_level", "log_format", "metrics_port", "metrics_host")


@dataclass(frozen=True, slots=True)
class _Configuration:
    settings: Settings
    findings: Sequence[OptionFinding] = ()
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])


def gateway(arguments: Namespace) -> int:
    """Runs a gateway until SIGTERM or Ctrl-C, or prints its configuration; returns the exit code.

    Raises:
        SystemExit: The environment is missing or unknown.
        ValueError: The configuration is invalid.
        ModuleNotFoundError: The extra ``gateway`` is not installed.
    """
    if arguments.action == "status":
        from k2eg.cli.commands.gateways import status  # noqa: PLC0415 - a gateway needs no client

        return status(arguments)
    configuration = _with_overrides(_configuration(arguments), arguments)
    settings = configuration.settings
    if arguments.print_config:
        print_lines(configuration_text(settings, configuration.origins))
        for finding in configuration.findings:
            if finding.verdict != "used":
                print_lines(f"; {finding.name} ({finding.origin}): {finding.verdict}: {finding.detail}")
        return 0
    require_extra("gateway", ("p4p", "aioca", "numpy"), "`k2eg gateway`")
    from k2eg_rx.gateway.supervisor import run_gateways  # noqa: PLC0415 - an extra

    options = settings.section("gateway")
    level = "debug" if arguments.debug else options.get("log_level", "info")
    configure = partial(configure_service_logs, level, options.get("log_format", "text"))
    configure()
    _report(configuration)
    return run_gateways(settings, configure)


def _configuration(arguments: Namespace) -> _Configuration:
    """Returns the configuration that the arguments select: the deployed gateway's, or an environment's."""
    given: str | None = arguments.config
    if given is not None or (arguments.environment is None and uses_variables(os.environ)):
        path = None if given is None else Path(given)
        found = load_deployed_configuration(path, os.environ, arguments.set or (), arguments.app)
        return _Configuration(found.settings, found.findings, found.origins)
    if arguments.set:
        raise ValueError("--set is for options of the deployed gateway, with --config; others stand in [gateway]")
    return _Configuration(settings_for(arguments))


def _with_overrides(configuration: _Configuration, arguments: Namespace) -> _Configuration:
    settings, origins = configuration.settings, dict(configuration.origins)
    options = dict(settings.section("gateway"))
    for name in _OVERRIDES:
        value = getattr(arguments, name)
        if value is not None:
            options[name] = str(value)
            origins["gateway", name] = f"--{name.replace('_', '-')}"
    settings = replace(settings, sections={**settings.sections, "gateway": options})
    return replace(configuration, settings=settings, origins=origins)


def _report(configuration: _Configuration) -> None:
    """Logs a line for each option of the deployed gateway."""
    for finding in configuration.findings:
        level = logging.WARNING if finding.verdict == "unknown" else logging.INFO
        what = (finding.verdict, finding.name, finding.origin, finding.detail)
        _log.log(level, "option %s: name=%s origin=%s detail=%s", *what)
    if not configuration.origins and uses_variables(os.environ):
        _log.warning("variables of the deployed gateway ignored: reason=an environment is named, by -e or its variable")


def configure_service_logs(level: str, form: str) -> None:
    """Sends the logs of a service to standard error, one line per event, warnings and uncaught exceptions included.

    Args:
        level: The least level, such as ``info``.
        form: ``text``, or ``json`` for a JSON object per line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else ServiceFormatter())
    known = logging.getLevelNamesMapping()
    logging.basicConfig(level=known.get(level.upper(), logging.INFO), handlers=[handler])
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_uncaught


def _log_uncaught(arguments: threading.ExceptHookArgs) -> None:
    name = arguments.thread.name if arguments.thread is not None else ""
    error = arguments.exc_value or arguments.exc_type()
    _log.error("uncaught exception: thread=%s", printable(name), exc_info=error)


def add_arguments(parser: Parser) -> None:
    """Adds the arguments of ``gateway``."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=("status",),
        help="print the status of running gateways instead",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the deployed gateway's configuration, name=value lines, instead of an environment; its variables"
        " EPICS_K2EG_... are read too, and alone if neither FILE nor ENV is given",
    )
    parser.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="an option of the deployed gateway; overrides the others"
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the effective configuration as an environment file, without secrets, and exit",
    )
    parser.add_argument(
        "--processes",
        type=positive,
        metavar="N",
        help="run N gateways of the group, each in a process of its own, and start them again (default: 1)",
    )
    parser.add_argument("--log-format", choices=("text", "json"), help="how logs are written (default: text)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), help="the least level (default: info)"
    )
    parser.add_argument(
        "--metrics-port",
        type=port,
        metavar="N",
        help="serve metrics and health over HTTP: /metrics, /healthz, /readyz (0: not, the default)",
    )
    parser.add_argument("--metrics-host", metavar="H", help="the address to serve them on (default: 127.0.0.1)")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=2.0,
        metavar="SECONDS",
        help="with status: how long answers are collected (default: %(default)g)",
    )
    parser.set_defaults(check=_check)


def _check(arguments: Namespace) -> None:
    """Raises ValueError for options that do not fit."""
    if arguments.config is not None and arguments.environment is not None:
        raise ValueError("give -e ENV or --config FILE, not both")

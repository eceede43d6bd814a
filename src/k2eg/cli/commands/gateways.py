"""``k2eg gateway status`` and ``k2eg monitors``: what the gateways of a command topic do.

Thread safety: main thread.
"""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase

from reactivex import operators as ops

from k2eg.cli.arguments import Parser, seconds
from k2eg.cli.environment import settings_for
from k2eg.cli.output import print_lines, print_note
from k2eg.cli.printing.columns import aligned
from k2eg.cli.printing.live_rows import format_age, format_rate
from k2eg.cli.session import ExitCode, cause_of, open_connected_client
from k2eg_rx import GatewayReport, OperationTimeout, Settings, first
from k2eg_rx.kafka import GroupFinding, KafkaInspection

_WAIT = 2.0  # seconds for which answers are collected; a gateway answers within milliseconds
_TITLES = "GATEWAY", "VERSION", "GROUP", "UP", "KAFKA", "CONNECTED", "LOST", "NEVER", "MONITORS", "SNAPSHOTS"
_RATE_TITLES = "UPDATES", "RECORDS", "DROPPED", "WAITING"
_NUMBERS = frozenset(range(5, len(_TITLES) + len(_RATE_TITLES)))


def add_wait(parser: Parser) -> None:
    """Adds the option for the time in which gateways answer."""
    text = "how long answers are collected (default: %(default)g)"
    parser.add_argument("--timeout", type=seconds, default=_WAIT, metavar="SECONDS", help=text)


def add_monitors(parser: Parser) -> None:
    """Adds the arguments of ``monitors``."""
    parser.add_argument("patterns", nargs="*", metavar="PV", help="names or URIs, with * and ?; all if none is given")
    parser.add_argument("--groups", action="store_true", help="ask Kafka which consumer groups read their topics")
    add_wait(parser)


def _reports(arguments: Namespace, settings: Settings, *, monitors: bool) -> Sequence[GatewayReport]:
    with open_connected_client(settings, arguments) as client:
        try:
            first(client.ready_stream())  # the time for answers begins when one can be received
            reports = client.gateways_stream(arguments.timeout, monitors=monitors)
            return sorted(first(reports.pipe(ops.to_list())), key=lambda report: (report.group, report.gateway))
        except OperationTimeout as error:
            raise cause_of(error, client) from error


def status(arguments: Namespace) -> int:
    """Prints the status of each gateway; returns an exit code, which is 1 if one of a fleet does not answer.

    Raises:
        K2EGError: No gateway answers, or it is of a kind that has no status.
    """
    if not arguments.debug:
        logging.basicConfig(handlers=[logging.NullHandler()])
    reports = _reports(arguments, settings_for(arguments), monitors=False)
    if arguments.json:
        print_lines("\n".join(json.dumps(asdict(report)) for report in reports))
    else:
        print_lines("\n".join(aligned([[*_TITLES, *_RATE_TITLES], *map(_row, reports)], _NUMBERS)))
    for report in reports:
        for problem in filter(None, (report.reason, report.problem, *report.providers.values())):
            print_note(f"{report.gateway}: {problem}")
    missing = sorted({name for each in reports for name in each.members} - {each.member for each in reports})
    if missing:
        names = ", ".join(missing)
        print_note(f"gateways that share the PVs and did not answer: {names}; look at their processes and logs")
    return ExitCode.FAILED if missing else 0


def _row(report: GatewayReport) -> list[str]:
    counts = report.connected, report.disconnected, report.never_connected, report.monitors, report.snapshots
    rates = (format_rate(rate) or "0 Hz" for rate in (report.update_rate, report.record_rate))
    losses = (str(sum(figures.values())) for figures in (report.lost, report.waiting))
    about = [report.gateway, report.version, report.group, format_age(report.uptime), report.kafka]
    return [*about, *map(str, counts), *rates, *losses]


def monitors(arguments: Namespace, settings: Settings) -> int:
    """Prints which PVs are kept active, by which gateway, for which applications and consumer groups.

    Raises:
        K2EGError: No gateway answers, or it is of a kind that has no status; or Kafka does not list the groups.
    """
    patterns: Sequence[str] = arguments.patterns
    reports = _reports(arguments, settings, monitors=True)
    found = [
        (report, monitor)
        for report in reports
        for monitor in sorted(report.monitor_list, key=lambda each: each.uri)
        if not patterns or any(_matches(monitor.uri, pattern) for pattern in patterns)
    ]
    groups: Mapping[str, Sequence[GroupFinding]] = {}
    if arguments.groups:
        groups = KafkaInspection(settings).readers({monitor.topic for _, monitor in found}) or {}
    rows: list[list[str]] = []
    for report, monitor in found:
        readers = [group.name for group in groups.get(monitor.topic, ())]
        if arguments.json:
            about = {"gateway": report.gateway, **asdict(monitor)}
            print_lines(json.dumps({**about, "groups": readers} if arguments.groups else about))
            continue
        applications = ", ".join(name.removesuffix("-reply") for name in monitor.applications)
        state = monitor.state.replace("_", " ") or "searched for"
        row = [monitor.uri, state, monitor.host, report.gateway, applications]
        rows.append([*row, ", ".join(readers)] if arguments.groups else row)
    if not arguments.json:
        titles = ["PV", "STATE", "HOST", "GATEWAY", "APPLICATIONS", *(["GROUPS"] if arguments.groups else [])]
        print_lines("\n".join(aligned([titles, *rows])) if rows else "no monitors")
    return 0


def _matches(uri: str, pattern: str) -> bool:
    return fnmatchcase(uri if "://" in pattern else uri.partition("://")[2], pattern)

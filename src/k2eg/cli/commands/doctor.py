"""``k2eg doctor``: finds out what is wrong between here and the PVs, and says what to do.

Thread safety: main thread; one check after the other.
"""

from __future__ import annotations

import argparse
import json
import os
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path

from k2eg.cli.arguments import ENVIRONMENT_VARIABLE, Parser, add_timeout_option
from k2eg.cli.diagnosis.doctor_checks import Checks, Finding, Result, failure
from k2eg.cli.diagnosis.environment_files import environment_faults
from k2eg.cli.output import print_lines
from k2eg_rx.pv import PVAddress
from k2eg_rx.settings import FOLDER_VARIABLE, environment_file, environments, load_settings, unset_variables

_MARKS = {Result.OK: "ok", Result.WARNING: "warning", Result.FAILED: "FAILED", Result.NOT_CHECKED: "-"}
_INDENT = " " * 26


def _uri(text: str) -> str:
    try:
        return PVAddress.parse(text if "://" in text else f"pva://{text}").uri
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_arguments(parser: Parser) -> None:
    """Adds the arguments of ``doctor``."""
    parser.add_argument("uris", nargs="*", type=_uri, metavar="PV", help="a PV to look at: its URI or name")
    add_timeout_option(parser)


def doctor(arguments: Namespace) -> int:
    """Checks everything in order, prints each finding, and returns the exit code: 1 if something is wrong."""

    def report(finding: Finding) -> None:
        if arguments.json:
            print_lines(json.dumps(finding.as_dict()))
            return
        text = finding.text if finding.result is not Result.NOT_CHECKED else f"not checked {finding.text}"
        print_lines(f"{_MARKS[finding.result]:7}  {finding.check:16} {text}")
        if finding.remedy:
            print_lines(f"{_INDENT}do: {finding.remedy}")

    checks = Checks(report)
    with ExitStack() as stack:
        _check_environment(checks, arguments)
        # Imported here: without a usable environment neither Kafka nor a client is needed.
        from k2eg.cli.diagnosis.doctor_gateway import GatewayChecks  # noqa: PLC0415
        from k2eg.cli.diagnosis.doctor_kafka import KafkaChecks  # noqa: PLC0415

        kafka = KafkaChecks(checks, arguments, stack)
        kafka.run()
        GatewayChecks(checks, arguments, kafka).run()
    return 1 if checks.failures else 0


def _check_environment(checks: Checks, arguments: Namespace) -> None:
    file = Path()

    def environment() -> Finding:
        nonlocal file
        known = ", ".join(environments()) or "none"
        if arguments.environment is None:
            text = f"no environment is named; known are {known}"
            return failure("environment", text, f"give -e ENV, or set {ENVIRONMENT_VARIABLE}")
        try:
            file = environment_file(arguments.environment)
        except ValueError:
            text = f"there is no environment {arguments.environment!r}; known are {known}"
            return failure("environment", text, f"correct the name, or set {FOLDER_VARIABLE} to the folder of its file")
        why = f"the folder is that of {FOLDER_VARIABLE}" if os.environ.get(FOLDER_VARIABLE) else "part of the package"
        return Finding("environment", Result.OK, f"{arguments.environment}: {file} ({why})")

    def names() -> list[Finding]:
        faults = environment_faults(file)
        found = [failure("names in the file", fault) for fault in faults]
        return found or [Finding("names in the file", Result.OK, "all sections and keys are known")]

    def variables() -> list[Finding]:
        found = [failure("variables", text, "set it, in the shell or the service") for text in unset_variables(file)]
        return found or [Finding("variables", Result.OK, "all variables that the file uses are set")]

    def settings() -> Finding:
        loaded = load_settings(arguments.environment, arguments.app)
        topics = f"commands to {loaded.command_topic}, replies from {loaded.reply_topic}"
        return Finding("settings", Result.OK, f"brokers {loaded.broker_url}, {topics}")

    checks.run("environment", (), environment)
    checks.run("names in the file", ["environment"], names)
    checks.run("variables", ["environment"], variables)
    checks.run("settings", ["names in the file", "variables"], settings)

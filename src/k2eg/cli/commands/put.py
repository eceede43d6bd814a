"""``k2eg put``: writes PVs, one after the other, after all values have been checked.

A put is sent once, to the PV that answered a read, and never to another one. Nothing is sent if any PV cannot be read
or any value does not fit. A put that fails, or whose value is not there with --verify, is the last one.

Thread safety: main thread only.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reactivex import operators as ops

from k2eg.cli.commands.reading import answers, failure_of, fallback_note
from k2eg.cli.output import print_lines, print_note
from k2eg.cli.printing.formatting import Formatter, format_exactly
from k2eg.cli.printing.progress import progress
from k2eg.cli.session import CommandError, ExitCode, cause_of, formatter_for, open_connected_client
from k2eg.cli.values.put_values import check_value, value_of
from k2eg.cli.values.pv_names import Target, targets_of
from k2eg.cli.values.value_parser import parse_value
from k2eg.cli.values.verification import is_written
from k2eg_rx import Client, K2EGError, OperationTimeout, PVData, Settings, first
from k2eg_rx.texts import shown


@dataclass(frozen=True, slots=True)
class _Put:
    """A put that has been checked.

    Attributes:
        uri: The PV that answered.
        value: The value to send.
        before: The PV before; None if it was not read.
    """

    uri: str
    value: object
    before: PVData | None


def put(arguments: Namespace, settings: Settings) -> None:
    """Writes PVs, and prints the old and the new value of each.

    Raises:
        CommandError: Nothing was written, a put failed or was not confirmed, or a PV has another value.
        ValueError: A value does not fit its PV, or the protocol is open and must not be.
    """
    words = {target: arguments.values[target.text] for target in targets_of(arguments.values, arguments, settings)}
    if len(words) != len(arguments.values):
        raise ValueError("each PV may be given once")
    formatter = formatter_for(arguments, [target.uri for target in words])
    with open_connected_client(settings, arguments) as client:
        puts = _unchecked(words) if arguments.no_check else _checked(words, client, arguments)
        if arguments.dry_run:
            for each in puts:
                print_lines(formatter.intention(each.uri, each.before, shown(each.value)))
            return
        for number, each in enumerate(puts):
            try:
                _write(each, client, formatter, arguments)
            except CommandError as error:
                rest = ", ".join(put.uri for put in puts[number + 1 :])
                raise CommandError(f"{error}\nnot sent: {rest}" if rest else str(error), error.code) from error


def _unchecked(words: Mapping[Target, Sequence[str]]) -> list[_Put]:
    for target, given in words.items():
        if target.is_open:
            raise ValueError(f"--no-check needs the protocol of {target.text}: pva://{target.text}, or -p")
        if len(given) > 1:
            raise ValueError(f"--no-check takes one value, got {len(given)}: arrays are JSON, such as '[1, 2]'")
    return [_Put(target.uri, parse_value(given[0]), None) for target, given in words.items()]


def _checked(words: Mapping[Target, Sequence[str]], client: Client, arguments: Namespace) -> list[_Put]:
    """Returns the puts, after reading all PVs and checking all values."""
    with progress(lambda: f"reading {len(words)} PVs"):
        found = first(answers(client, list(words), arguments.timeout).pipe(ops.to_list()))
    if failure := failure_of(found, client):
        raise CommandError(f"nothing was written: {failure}", failure.code)
    if note := fallback_note(found):
        print_note(note)
    answered = {answer.target: answer for answer in found}
    puts: list[_Put] = []
    for target, given in words.items():
        answer = answered[target]
        assert answer.data is not None  # noqa: S101 - there is no failure
        value = value_of(given, answer.data, is_text=arguments.string, is_number=arguments.number)
        check_value(value, answer.data, answer.uri)
        puts.append(_Put(answer.uri, value, answer.data))
    return puts


def _write(each: _Put, client: Client, formatter: Formatter, arguments: Namespace) -> None:
    """Sends a put and prints the old and the new value.

    Raises:
        CommandError: The put failed, the PV could not be read afterwards, or it has another value.
    """
    check = not arguments.no_check
    try:
        reply = first(client.put_stream(each.uri, each.value, arguments.timeout, wait=arguments.wait, check=check))
    except (K2EGError, ValueError) as error:
        cause = cause_of(error, client) if isinstance(error, OperationTimeout) else error
        text = str(cause) if each.uri in str(cause) else f"put of {each.uri}: {cause}"
        if cause is not error:
            text += "; whether it was written, or will be, is not known"
        raise CommandError(text, ExitCode.of(cause)) from error
    if arguments.wait and not reply.completed:
        print_note("this gateway does not wait: whether the record has completed is not known")
    after = _read_back(each, client, arguments)
    print_lines(formatter.change(each.uri, each.before, after, is_completed=reply.completed))
    if arguments.verify and not is_written(each.value, after, arguments.tolerance):
        sent, read = shown(each.value), format_exactly(after)
        text = f"put of {each.uri}: sent {sent}, but read {read}: the PV has another value"
        raise CommandError(text, ExitCode.NOT_VERIFIED)


def _read_back(each: _Put, client: Client, arguments: Namespace) -> PVData:
    try:
        return first(client.get_stream(each.uri, arguments.timeout))
    except K2EGError as error:
        cause = cause_of(error, client) if isinstance(error, OperationTimeout) else error
        code = ExitCode.NOT_VERIFIED if arguments.verify else ExitCode.FAILED
        raise CommandError(f"{each.uri}: the value was written, but could not be read back: {cause}", code) from error

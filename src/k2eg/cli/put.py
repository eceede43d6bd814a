"""``k2eg put``: writes PVs.

Thread safety: main thread only.
"""

from __future__ import annotations

from argparse import Namespace

from k2eg.cli.formatting import Formatter, format_exactly
from k2eg.cli.output import print_lines, print_note
from k2eg.cli.session import CommandError, cause_of, formatter_for, open_client
from k2eg.cli.value_parser import parse_value
from k2eg.cli.verification import is_written
from k2eg_rx import Client, K2EGError, OperationError, OperationTimeout, PVData, Settings, first
from k2eg_rx.protocol import GetCommand
from k2eg_rx.texts import shown


def _as_label(text: str, data: PVData) -> str | None:
    """Returns the label that a text is, or None: labels may look like numbers, and come first, as for caput."""
    labels = data.choices or []
    return next((word for word in (text, text.strip()) if word in labels), None)


def put(arguments: Namespace, settings: Settings) -> None:
    """Writes a PV and prints the gateway's reply.

    Raises:
        K2EGError: The put failed or was not confirmed.
        CommandError: The PV's type or its value afterwards could not be read, or the PV has another value.
        ValueError: The value does not fit the PV.
    """
    value = arguments.value if arguments.string else parse_value(arguments.value)
    formatter = formatter_for(arguments, [arguments.uri])
    with open_client(settings, arguments) as client:
        try:
            if not isinstance(value, str) and not arguments.no_check:
                value = _as_label(arguments.value, first(client.get_stream(arguments.uri, arguments.timeout))) or value
            sent = client.put_stream(
                arguments.uri, value, arguments.timeout, wait=arguments.wait, check=not arguments.no_check
            )
            reply = first(sent)
            print_lines(formatter.reply(arguments.uri, reply))
            if arguments.wait and not reply.completed:
                print_note("this gateway does not wait: whether the record has completed is not known")
            if arguments.verify:
                _verify(value, formatter, client, arguments)
        except OperationTimeout as error:
            reason = cause_of(error, client)
            if error.operation != GetCommand.operation or reason is not error:
                raise reason from error
            raise _type_not_known(arguments, error) from error
        except OperationError as error:
            if error.operation != GetCommand.operation:
                raise
            raise _type_not_known(arguments, error) from error
        except ValueError as error:
            if isinstance(value, str) or "(string)" not in str(error):
                raise
            raise CommandError(f"{error}; use --string to send {arguments.value!r} as text") from error


def _type_not_known(arguments: Namespace, error: K2EGError) -> CommandError:
    return CommandError(f"put of {arguments.uri}: nothing was sent, its type is not known: {error}")


def _verify(value: object, formatter: Formatter, client: Client, arguments: Namespace) -> None:
    """Reads a PV back, prints it, and compares it with the value that was sent.

    Raises:
        CommandError: It differs, or could not be read.
    """
    uri: str = arguments.uri
    try:
        read = first(client.get_stream(uri, arguments.timeout))
    except K2EGError as error:
        reason = cause_of(error, client) if isinstance(error, OperationTimeout) else error
        raise CommandError(f"put of {uri}: the value was sent, but could not be read back: {reason}") from error
    print_lines(formatter.pv(read))
    if not is_written(value, read):
        sent = shown(value)
        raise CommandError(f"put of {uri}: sent {sent}, but read {format_exactly(read)}: the PV has another value")

"""``k2eg web``: PVs as a page in a browser, a chart that begins with the past and a live table.

Thread safety: the client's threads add updates to the board, the server's threads read it; the main thread waits.
"""

from __future__ import annotations

import secrets
import socket
from argparse import Namespace
from datetime import UTC, datetime

from k2eg.cli.output import print_lines
from k2eg.cli.printing.status_text import status_text
from k2eg.cli.printing.stream_printer import StreamPrinter
from k2eg.cli.session import CommandError, open_client, until_signal
from k2eg.cli.values.pv_names import targets_of
from k2eg.cli.web.access import Access, is_loopback
from k2eg.cli.web.board import Board
from k2eg.cli.web.feed import Feed
from k2eg_rx import Settings
from k2eg_rx.errors import require_extra

_ALL_ADDRESSES = ("", "0.0.0.0", "::")  # noqa: S104 - for those that ask for them, with a token
_TOKEN_BYTES = 16  # nothing that can be guessed


def web(arguments: Namespace, settings: Settings) -> None:
    """Serves the page until Ctrl-C, and prints its URL.

    Raises:
        K2EGError: The monitor was refused.
        CommandError: The port is in use.
        ModuleNotFoundError: websockets is not installed.
    """
    require_extra("cli", ["websockets"], "`k2eg web`")
    from k2eg.cli.web.server import WebServer, listening_socket  # noqa: PLC0415 - an extra

    targets = targets_of(arguments.names, arguments, settings)
    span = (datetime.now(UTC) - arguments.since).total_seconds()
    host = arguments.host
    token = arguments.token or (None if is_loopback(host) else secrets.token_urlsafe(_TOKEN_BYTES))
    with until_signal():
        try:
            listening = listening_socket(host, arguments.port)
        except OSError as error:
            raise CommandError(str(error)) from None
        with listening, open_client(settings, arguments) as client:
            board = Board(targets, lambda: status_text(client.status))
            printer = StreamPrinter(board.take, None)
            uris = [target.uri for target in targets]
            server = WebServer(listening, Access(host, token), lambda: Feed(board, span))
            subscriptions = [
                # the newest values come at once, whatever the history takes
                client.monitor_many_stream(uris, connection=True).subscribe(board.take, printer.end),
                client.monitor_many_stream(uris, since=arguments.since).subscribe(board.book.take, printer.end),
                client.connection_stream(uris, overflow="latest").subscribe(board.book.take, printer.end),
            ]
            try:
                print_lines(url_of(host, listening.getsockname()[1], token))
                printer.wait()
            finally:
                for subscription in subscriptions:
                    subscription.dispose()
                server.close()


def url_of(host: str, port: int, token: str | None) -> str:
    """Returns the URL of the page; for all addresses of this machine, with its name."""
    name = socket.gethostname() if host in _ALL_ADDRESSES else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")

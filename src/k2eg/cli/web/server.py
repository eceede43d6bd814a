"""The server of the page: its files over HTTP, and one websocket for each browser.

Thread safety: a thread of its own accepts connections, each of which has a thread; all of them end with the process. A
browser that reads slowly holds back its own thread only.
"""

from __future__ import annotations

import errno
import http
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import resources
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from k2eg.cli.web.access import UPDATES, Access
from k2eg.cli.web.feed import Feed

_STEP_SECONDS = 0.1  # between two messages: as fast as a chart can be followed
_MOST_CONNECTIONS = 16  # each has a thread
_MOST_BYTES = 1000  # of a message from a browser
_STUCK_SECONDS = 60  # until a browser that takes nothing is disconnected
_CLOSE_SECONDS = 1.0

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
_HEADERS = {
    # No script but ours, nothing from elsewhere, and no text that becomes markup (require-trusted-types-for).
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def page_files() -> Mapping[str, tuple[str, bytes]]:
    """Returns type and content of the files of the page, by their paths."""
    folder = resources.files("k2eg.cli.web").joinpath("page")
    found = {
        f"/{file.name}": (kind, file.read_bytes())
        for file in folder.iterdir()
        if (kind := _TYPES.get(f".{file.name.rpartition('.')[2]}")) is not None
    }
    return found | {"/": found["/index.html"]}


def listening_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that listens.

    Raises:
        OSError: The port is in use, or there is no such address; the text says so.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family)  # pyright: ignore[reportArgumentType] - of both families
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} of {host} is in use: take another one, --port 0 for any that is free") from None
        raise OSError(f"cannot listen at {host}, port {port}: {error.strerror}") from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STUCK_SECONDS * 1000)
    return listening


class WebServer:
    """Serves the page until it is closed.

    Args:
        listening: The socket.
        access: Which requests to answer.
        make_feed: Returns what to send to a new browser.
    """

    def __init__(self, listening: socket.socket, access: Access, make_feed: Callable[[], Feed]) -> None:
        self._access, self._make_feed = access, make_feed
        self._files = page_files()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[ServerConnection] = set()
        self._server = serve(
            self._run,
            sock=listening,
            process_request=self._answer,
            compression=None,  # on loopback it costs more than it saves
            server_header=None,
            max_size=_MOST_BYTES,
            close_timeout=_CLOSE_SECONDS,
        )
        # the threads of connections are daemons as this one is: the process does not wait for a browser
        threading.Thread(target=self._server.serve_forever, name="k2eg-web", daemon=True).start()

    def close(self) -> None:
        """Ends all connections. Idempotent."""
        if self._closing.is_set():
            return
        self._closing.set()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _shut(connection.socket)
        ending = threading.Thread(target=self._server.shutdown, name="k2eg-web-end", daemon=True)
        ending.start()
        ending.join(_CLOSE_SECONDS)

    def _answer(self, _: ServerConnection, request: Request) -> Response | None:
        """Returns the response to a request; None for a websocket."""
        origins, hosts = request.headers.get_all("Origin"), request.headers.get_all("Host")
        refusal = self._access.refusal(request.path, hosts, origins)
        if refusal is not None:
            return _response(refusal[0], _TYPES[".txt"], f"{refusal[1]}\n".encode())
        path = urlsplit(request.path).path
        if path == UPDATES:
            with self._lock:
                is_full = len(self._connections) >= _MOST_CONNECTIONS
            return _response(503, _TYPES[".txt"], b"too many browsers are connected\n") if is_full else None
        if path not in self._files:
            return _response(404, _TYPES[".txt"], b"there is no such page\n")
        return _response(200, *self._files[path])

    def _run(self, connection: ServerConnection) -> None:
        with self._lock:
            self._connections.add(connection)
        try:
            feed = self._make_feed()
            connection.send(feed.hello())
            while not self._closing.is_set():
                self._step(connection, feed)
        except (ConnectionClosed, OSError):
            pass  # the browser has left
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _step(self, connection: ServerConnection, feed: Feed) -> None:
        until = time.monotonic() + _STEP_SECONDS
        for message in feed.step(time.time_ns()):
            connection.send(message)  # waits while the browser does not read
        while (left := until - time.monotonic()) > 0:
            try:
                answer = feed.answer(connection.recv(left))
            except TimeoutError:
                return
            if answer is not None:
                connection.send(answer)


def _response(status: int, kind: str, body: bytes) -> Response:
    headers = Headers(_HEADERS)
    headers["Content-Type"] = kind
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    return Response(status, http.HTTPStatus(status).phrase, headers, body)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # closed already
        connection.shutdown(socket.SHUT_RDWR)

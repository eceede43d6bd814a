"""A small HTTP server for metrics and health, which no client can slow down or fill.

It answers GET and HEAD of fixed paths, closes each connection after its answer and after at most five seconds, and
keeps a bounded number of connections: a new one replaces the oldest. Answers repeat nothing of a request, and are never
compressed.

Thread safety: one daemon thread, ``k2eg-metrics``, does everything; `MetricsServer.close` may be called on any thread.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, Self

from k2eg_rx.arguments import whole
from k2eg_rx.texts import get_logger, shown

_log = get_logger(__name__)

_MAX_CONNECTIONS = 32  # Prometheus and two probes have one each, for milliseconds
_MAX_REQUEST = 8 * 1024  # bytes; a scrape has some 300
_MAX_DISCARDED = 64 * 1024  # bytes that a client may go on to send after its request
_DEADLINE = 5.0  # seconds for request and answer; Prometheus gives up after 10 s
_REUSE = 0.25  # seconds for which an answer is given again, so that a flood of requests costs little
_RETRY = 0.1  # seconds until connections are accepted again, after the process has run out of file descriptors
_JOIN = 2.0  # seconds; closing takes microseconds
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([^ \r\n]+) HTTP/1\.[01]\r?\n")
_END_OF_REQUEST = re.compile(rb"\r?\n\r?\n")
_NOT_ALLOWED = 405
_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    _NOT_ALLOWED: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Page(NamedTuple):
    """An answer.

    Attributes:
        status: 200, or 503 if the process is not well.
        content_type: The type of the body.
        body: The body.
    """

    status: int
    content_type: str
    body: bytes


def _plain(status: int) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{status} {_PHRASES[status]}\n".encode())


def _response(page: Page, *, has_body: bool) -> bytes:
    allowed = "Allow: GET, HEAD\r\n" if page.status == _NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {page.status} {_PHRASES[page.status]}\r\n"
        f"Content-Type: {page.content_type}\r\nContent-Length: {len(page.body)}\r\n{allowed}"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (page.body if has_body else b"")


def _listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket; port 0 is a free one.

    Raises:
        OSError: The address cannot be used; the text says what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=_MAX_CONNECTIONS)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number and number > 0 else str(error)
        raise OSError(
            number or 0,
            f"cannot serve metrics on port {port} of {shown(host)}: {reason}: choose a free port"
            " and an address of this machine",
        ) from error


class _Connection:
    """A client's connection: first a request is read, then the answer is written, then its end is awaited."""

    __slots__ = ("deadline", "discarded", "is_answered", "received", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.deadline = time.monotonic() + _DEADLINE
        self.received = b""
        self.unsent = memoryview(b"")
        self.is_answered = False
        self.discarded = 0


class MetricsServer:
    """Serves pages over HTTP from construction to `close`; a context manager.

    Args:
        pages: What makes the page of each path, such as ``/metrics``. Called on the server's thread.
        port: The port; 0 is a free one.
        host: The address to listen on.

    Attributes:
        port: The port.

    Raises:
        ValueError: The port is not between 0 and 65535.
        OSError: The address cannot be used.
    """

    def __init__(self, pages: Mapping[str, Callable[[], Page]], port: int, host: str = "127.0.0.1") -> None:
        self._pages = pages
        self._listener = _listen(host, whole(port, "port", 0, 65535))
        self.port: int = self._listener.getsockname()[1]
        self._rendered: dict[str, tuple[float, Page]] = {}
        self._connections: dict[_Connection, None] = {}  # the oldest first
        self._closing = False
        self._waker, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for sock in (self._listener, self._woken):
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="k2eg-metrics", daemon=True)
        self._thread.start()
        _log.info("metrics served: host=%s port=%d paths=%s", host, self.port, ", ".join(pages))

    def close(self) -> None:
        """Ends the connections and the thread. Idempotent."""
        if not self._closing:
            self._closing = True
            with suppress(OSError):  # the thread has ended: a client woke it first
                self._waker.send(b"x")
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closing:
            try:
                self._step()
            except Exception:
                _log.exception("metrics server failed; it goes on")
                time.sleep(_RETRY)
        for connection in list(self._connections):
            self._end(connection)
        self._selector.close()
        for sock in (self._listener, self._waker, self._woken):
            sock.close()

    def _step(self) -> None:
        oldest = next(iter(self._connections), None)
        wait = None if oldest is None else max(oldest.deadline - time.monotonic(), 0.0)
        for key, _ in self._selector.select(wait):
            if isinstance(key.data, _Connection):
                self._serve(key.data)
            elif key.fileobj is self._listener:
                self._accept()
        now = time.monotonic()
        while (oldest := next(iter(self._connections), None)) is not None and oldest.deadline <= now:
            self._end(oldest)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it has gone already
            return
        if len(self._connections) >= _MAX_CONNECTIONS:
            self._end(next(iter(self._connections)))
        sock.setblocking(False)
        connection = _Connection(sock)
        self._connections[connection] = None
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _serve(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return  # replaced in this step
        try:
            if connection.unsent:
                self._send(connection)
            else:
                self._receive(connection)
        except BlockingIOError:
            pass
        except OSError:  # the client has gone
            self._end(connection)

    def _receive(self, connection: _Connection) -> None:
        data = connection.sock.recv(_MAX_REQUEST)
        connection.discarded += len(data) if connection.is_answered else 0
        if not data or connection.discarded > _MAX_DISCARDED:
            self._end(connection)
        elif not connection.is_answered:
            connection.received += data
            page, has_body = self._answer(connection.received)
            if page is not None:
                connection.unsent = memoryview(_response(page, has_body=has_body))
                self._selector.modify(connection.sock, selectors.EVENT_WRITE, connection)
                self._send(connection)

    def _send(self, connection: _Connection) -> None:
        connection.unsent = connection.unsent[connection.sock.send(connection.unsent) :]
        if not connection.unsent:
            connection.is_answered = True
            # Closing at once would discard the answer if more of the request were on its way.
            connection.sock.shutdown(socket.SHUT_WR)
            self._selector.modify(connection.sock, selectors.EVENT_READ, connection)

    def _answer(self, request: bytes) -> tuple[Page | None, bool]:
        """Returns the page for a request, None while it is not complete; and whether its body is wanted."""
        if len(request) > _MAX_REQUEST:
            return _plain(431), True
        if _END_OF_REQUEST.search(request) is None:
            return None, True
        line = _REQUEST_LINE.match(request)
        if line is None:
            return _plain(400), True
        method, target = line.groups()
        path = target.split(b"?", 1)[0].decode("ascii", "replace")
        if path not in self._pages:
            return _plain(404), method != b"HEAD"
        if method not in {b"GET", b"HEAD"}:
            return _plain(_NOT_ALLOWED), True
        return self._render(path), method == b"GET"

    def _render(self, path: str) -> Page:
        now = time.monotonic()
        at, page = self._rendered.get(path, (0.0, None))
        if page is None or now - at > _REUSE:
            try:
                page = self._pages[path]()
            except Exception:
                _log.exception("page failed: path=%s", path)
                page = _plain(500)
            self._rendered[path] = now, page
        return page

    def _end(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)
        with suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()

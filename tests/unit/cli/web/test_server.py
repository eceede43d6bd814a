"""The server of the page with real connections."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from k2eg.cli.values.pv_names import Target
from k2eg.cli.web.access import Access
from k2eg.cli.web.board import Board
from k2eg.cli.web.feed import Feed
from k2eg.cli.web.server import WebServer, listening_socket, page_files
from k2eg_rx.testing import update

TIMEOUT = 60.0
PAGE = Path(__file__).parents[4] / "src" / "k2eg" / "cli" / "web" / "page"


@pytest.fixture
def board() -> Board:
    return Board([Target("x", "pva://x")], lambda: "lag 0")


@pytest.fixture
def port(board: Board) -> Iterator[int]:
    with listening_socket("127.0.0.1", 0) as listening:
        server = WebServer(listening, Access("127.0.0.1"), lambda: Feed(board, 60.0))
        yield listening.getsockname()[1]
        server.close()


def got(port: int, path: str, host: str = "localhost") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    connection.request("GET", path, headers={"Host": host})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), body


def connected(port: int, origin: str | None = None) -> ClientConnection:
    return connect(
        f"ws://localhost:{port}/updates", origin=Origin(origin or f"http://localhost:{port}"), open_timeout=TIMEOUT
    )


def received(connection: ClientConnection, until: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    while not until(message := json.loads(connection.recv(TIMEOUT))):
        pass
    return message


def test_files_of_the_page_have_types_and_a_strict_policy(port: int) -> None:
    for path in ("/", "/main.js", "/style.css", "/uPlot.iife.min.js", "/uPlot.LICENSE.txt"):
        status, headers, body = got(port, path)
        assert (status, body) == (200, page_files()[path][1])
        policy = headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'"} <= set(policy)
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/none", "/../server.py", "//main.js", "/page/main.js", "/%2e%2e/server.py"])
def test_nothing_else_is_served(port: int, path: str) -> None:
    assert got(port, path)[0] == 404


def test_other_names_and_origins_are_refused(port: int) -> None:
    assert got(port, "/", host="evil.example")[0] == 403
    with pytest.raises(InvalidStatus) as caught, connected(port, "http://evil.example"):
        pass
    assert caught.value.response.status_code == 403


def test_a_browser_gets_the_past_then_what_is_new(board: Board, port: int) -> None:
    board.book.take(update("x", 1.0))
    with connected(port) as browser:
        assert json.loads(browser.recv(TIMEOUT)) == {"names": ["x"], "span": 60.0}
        assert received(browser, lambda message: "points" in message)["points"][0]["v"] == [1.0]
        board.book.take(update("x", 2.0))
        assert received(browser, lambda message: "points" in message)["points"][0]["v"] == [2.0]
        board.take(update("x", [1.0]))
        while not isinstance(message := browser.recv(TIMEOUT), bytes):
            pass
        assert b'"kind": "array"' in message
        browser.send("nonsense")
        browser.send(json.dumps({"from": 0, "to": 9e9}))
        while "detail" not in str(message := browser.recv(TIMEOUT)):
            pass


def test_a_browser_that_sends_too_much_is_disconnected_and_others_are_not(board: Board, port: int) -> None:
    with connected(port) as one, connected(port) as other:
        one.send("x" * 100_000)
        with pytest.raises(ConnectionClosed):
            received(one, lambda _: False)
        board.book.take(update("x", 1.0))
        assert received(other, lambda message: "points" in message)


def test_browsers_are_limited(port: int) -> None:
    with ExitStack() as browsers:
        for _ in range(16):
            browsers.enter_context(connected(port)).recv(TIMEOUT)
        with pytest.raises(InvalidStatus) as caught, connected(port):
            pass
        assert caught.value.response.status_code == 503


def test_closing_does_not_wait_for_a_browser_that_reads_nothing(board: Board) -> None:
    with listening_socket("127.0.0.1", 0) as listening:
        server = WebServer(listening, Access("127.0.0.1"), lambda: Feed(board, 60.0))
        address = listening.getsockname()
        with socket.create_connection(address, TIMEOUT) as stuck:
            stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            head = "Host: localhost\r\nOrigin: http://localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            key = "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"
            stuck.sendall(f"GET /updates HTTP/1.1\r\n{head}{key}\r\n".encode())
            assert stuck.recv(100).startswith(b"HTTP/1.1 101")
            server.close()
            while stuck.recv(100_000):
                pass  # up to the end


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with listening_socket("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is in use: take another one"):
            listening_socket("127.0.0.1", port)
    with pytest.raises(OSError, match=r"cannot listen at 203\.0\.113\.1, port 0"):
        listening_socket("203.0.113.1", 0)


def test_the_scripts_of_the_page_make_no_markup_of_texts() -> None:
    own = [path for path in PAGE.glob("*.js") if not path.name.startswith("uPlot")]
    assert len(own) == 4
    for path in own:
        text = path.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", 'setAttribute("on'):
            assert word not in text, path.name

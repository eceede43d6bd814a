"""The HTTP server of metrics and health: answers, and clients that do not behave."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator

import pytest

from k2eg_rx.metrics import server as module
from k2eg_rx.metrics.server import MetricsServer, Page

BODY = b"x 1\n" * 50
PATIENCE = 20.0


def broken() -> Page:
    raise RuntimeError("boom")


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    pages = {
        "/metrics": lambda: Page(200, "text/plain", BODY),
        "/readyz": lambda: Page(503, "application/json", b"{}"),
        "/broken": broken,
    }
    with MetricsServer(pages, 0) as running:
        yield running


def ask(server: MetricsServer, method: str = "GET", path: str = "/metrics") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.request(method, path)
    return connection.getresponse()


def raw(server: MetricsServer, *parts: bytes) -> bytes:
    """Sends parts of a request and returns all that is answered."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        for part in parts:
            sock.sendall(part)
        answer = b""
        while data := sock.recv(65536):
            answer += data
        return answer


def test_a_page_is_served_with_type_and_length(server: MetricsServer) -> None:
    answer = ask(server)
    assert (answer.status, answer.getheader("Content-Type")) == (200, "text/plain")
    assert answer.getheader("Connection") == "close"
    assert answer.getheader("Content-Encoding") is None
    assert answer.read() == BODY


def test_a_query_is_ignored(server: MetricsServer) -> None:
    assert ask(server, path="/metrics?name=x").read() == BODY


def test_head_has_the_length_and_no_body(server: MetricsServer) -> None:
    answer = raw(server, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: %d\r\n" % len(BODY) in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/../metrics", 404),
        ("HEAD", "/no", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/metrics", 405),
        ("GET", "/readyz", 503),
        ("GET", "/broken", 500),
    ],
)
def test_other_requests_have_fixed_answers(server: MetricsServer, method: str, path: str, status: int) -> None:
    answer = ask(server, method, path)
    assert answer.status == status
    assert b"boom" not in answer.read()
    assert answer.getheader("Allow") == ("GET, HEAD" if status == 405 else None)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"hostile\r\n\r\n", 400),
        (b"GET <script>alert(1)</script> HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics HTTP/9.9\r\n\r\n", 400),
        (b"get /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 9000, 431),
        (b"GET " + b"/" * 9000, 431),
        (b"GET /metrics HTTP/1.1\nHost: x\n\n", 200),
    ],
)
def test_hostile_requests_are_refused_and_not_repeated(server: MetricsServer, request_: bytes, status: int) -> None:
    answer = raw(server, request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"hostile" not in answer
    assert b"script" not in answer
    assert ask(server).status == 200


def test_a_request_may_come_in_parts(server: MetricsServer) -> None:
    assert raw(server, *(bytes([byte]) for byte in b"GET /metrics HTTP/1.1\r\n\r\n")).endswith(BODY)


def test_what_follows_a_request_does_not_cost_its_answer(server: MetricsServer) -> None:
    assert raw(server, b"GET /metrics HTTP/1.1\r\nContent-Length: 9999\r\n\r\n" + b"b" * 9999).endswith(BODY)


def send_without_end(sock: socket.socket) -> None:
    while True:
        sock.sendall(b"b" * 65536)


def test_a_client_that_sends_without_end_is_cut_off(server: MetricsServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionError):
            send_without_end(sock)


def test_clients_that_never_read_or_never_ask_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CONNECTIONS", 4)
    huge = b"x" * 16 * 1024 * 1024  # more than the buffers of two sockets
    with MetricsServer({"/metrics": lambda: Page(200, "text/plain", huge), "/ok": lambda: Page(200, "", b"")}, 0) as at:
        address = ("127.0.0.1", at.port)
        held = [socket.create_connection(address, PATIENCE) for _ in range(12)]
        for sock in held[::2]:
            with contextlib.suppress(OSError):  # it was replaced
                sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert ask(at, path="/ok").status == 200
        assert len(at._connections) <= 4
        for sock in held:
            sock.close()


def test_a_connection_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DEADLINE", 0.05)
    with MetricsServer({}, 0) as server:
        assert raw(server, b"GET /metr") == b""


def test_a_page_is_made_once_for_requests_that_follow_each_other_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REUSE", 1000.0)
    made: list[None] = []

    def make() -> Page:
        made.append(None)
        return Page(200, "text/plain", b"")

    with MetricsServer({"/metrics": make}, 0) as server:
        for _ in range(5):
            assert ask(server).status == 200
    assert len(made) == 1


def test_a_port_in_use_is_an_error_that_says_so(server: MetricsServer) -> None:
    text = rf"cannot serve metrics on port {server.port} of '127\.0\.0\.1': Address already in use: choose a free port"
    with pytest.raises(OSError, match=text):
        MetricsServer({}, server.port)


@pytest.mark.parametrize("host", ["203.0.113.77", "no such host", "a" * 300])
def test_an_address_of_another_machine_is_an_error_that_names_it(host: str) -> None:
    with pytest.raises(OSError, match="cannot serve metrics on port 0 of "):
        MetricsServer({}, 0, host)


@pytest.mark.parametrize("port", [-1, 65536, 1.5, "80"])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="port must be"):
        MetricsServer({}, port)


def test_closing_ends_thread_and_connections_and_frees_the_port() -> None:
    server = MetricsServer({}, 0)
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as sock:
        server.close()
        server.close()
        assert sock.recv(1) == b""
    assert "k2eg-metrics" not in {thread.name for thread in threading.enumerate()}
    MetricsServer({}, server.port).close()


def test_closing_a_server_that_a_client_wakes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MetricsServer({}, 0)
    waker = server._waker  # closed by the thread

    class Late:
        def send(self, data: bytes) -> int:
            server._waker = waker
            raw(server)
            server._thread.join(PATIENCE)
            return waker.send(data)

    monkeypatch.setattr(server, "_waker", Late())
    server.close()
    assert not server._thread.is_alive()

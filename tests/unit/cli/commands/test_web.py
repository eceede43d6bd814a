"""``k2eg web`` up to the point where it serves; tests/system and tests/browser have the rest."""

from __future__ import annotations

import socket
import sys

import pytest

from k2eg.cli import main
from k2eg.cli.arguments import parse_arguments
from k2eg.cli.commands.web import url_of
from k2eg_rx.testing import ScriptedGateway


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of the package."""
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")


def test_a_port_in_use_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedGateway(), socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        assert main(["web", "my:current", "--port", str(port)]) == 1
    text = f"k2eg: port {port} of 127.0.0.1 is in use: take another one, --port 0 for any that is free\n"
    assert capsys.readouterr() == ("", text)


def test_it_needs_websockets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "websockets", None)
    assert main(["web", "my:current"]) == 1
    assert capsys.readouterr().err == "k2eg: `k2eg web` needs websockets, not installed here: pip install 'k2eg[cli]'\n"


@pytest.mark.parametrize(
    "words",
    [[], ["x", "--port", "70000"], ["x", "--token", "short"], ["x", "--token", "blank in it"], ["x", "--since", "y"]],
)
def test_arguments_that_are_none(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["web", *words])
    assert caught.value.code == 2


def test_the_url_can_be_opened() -> None:
    assert url_of("127.0.0.1", 8000, None) == "http://127.0.0.1:8000/"
    assert url_of("::1", 8000, "secret-token") == "http://[::1]:8000/?token=secret-token"
    assert url_of("0.0.0.0", 8000, "secret-token") == f"http://{socket.gethostname()}:8000/?token=secret-token"

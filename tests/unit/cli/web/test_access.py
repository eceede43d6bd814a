"""Which requests the server of the page answers."""

from __future__ import annotations

import pytest

from k2eg.cli.web.access import UPDATES, Access, is_loopback

LOCAL = Access("127.0.0.1")
OPEN = Access("0.0.0.0", "a-long-token")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "control-room", ""])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9000", "localhost", "[::1]:8000"])
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert LOCAL.refusal("/", [host], []) is None
    assert LOCAL.refusal(UPDATES, [host], [f"http://{host}"]) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example:8000", "", "[", "127.0.0.1@evil.example"],
)
@pytest.mark.parametrize("path", ["/", "/main.js", UPDATES])
def test_other_names_are_refused(path: str, host: str) -> None:
    refusal = LOCAL.refusal(path, [host], [f"http://{host}"])
    assert refusal is not None
    assert refusal[0] == 403


@pytest.mark.parametrize("hosts", [[], ["localhost", "evil.example"]])
def test_one_host_is_needed(hosts: list[str]) -> None:
    refusal = LOCAL.refusal("/", hosts, [])
    assert refusal is not None
    assert refusal[0] == 400


@pytest.mark.parametrize(
    "origins",
    [
        [],
        ["null"],
        ["http://evil.example"],
        ["http://localhost:8001"],
        ["http://localhost:8000", "http://evil.example"],
        ["http://localhost:8000.evil.example"],
    ],
)
@pytest.mark.parametrize("access", [LOCAL, OPEN])
def test_only_the_page_may_connect(access: Access, origins: list[str]) -> None:
    refusal = access.refusal(f"{UPDATES}?token=a-long-token", ["localhost:8000"], origins)
    assert refusal == (403, "only the page of this server may connect")


@pytest.mark.parametrize(
    "query", ["", "?token=", "?token=wrong", "?token=a-long-token2", "?token=%C3%A9", "?other=a-long-token"]
)
@pytest.mark.parametrize("path", ["/", UPDATES])
def test_the_token_is_demanded(path: str, query: str) -> None:
    refusal = OPEN.refusal(path + query, ["server:8000"], ["http://server:8000"])
    assert refusal is not None
    assert refusal[0] == 403
    assert "token" in refusal[1]


def test_with_the_token_every_name_is_answered() -> None:
    assert OPEN.refusal("/?token=a-long-token", ["server:8000"], []) is None
    assert OPEN.refusal(f"{UPDATES}?token=a-long-token", ["server:8000"], ["http://server:8000"]) is None
    assert OPEN.refusal(f"{UPDATES}?token=a-long-token", ["server"], ["https://server"]) is None
    assert OPEN.refusal("/main.js", ["server:8000"], []) is None

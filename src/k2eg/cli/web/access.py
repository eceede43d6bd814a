"""Which requests the server answers: those of its own page, and with the token where one is demanded."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

UPDATES = "/updates"  # where the websocket is
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_GUARDED = ("/", UPDATES)  # the rest is the page's program, which is public


def is_loopback(host: str) -> bool:
    """Returns whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Access:
    """Rules for requests.

    Attributes:
        host: The address that the server listens at.
        token: What requests must contain; None for nothing.
    """

    host: str
    token: str | None = None

    def refusal(self, path: str, hosts: Sequence[str], origins: Sequence[str]) -> tuple[int, str] | None:
        """Returns the status and the reason for a request that is refused; None for one that is allowed.

        Without a token, a page of another origin must not reach the server by a name of its own that leads to this
        machine (DNS rebinding): the name must be one of this machine's.

        Args:
            path: Path and query of the request.
            hosts: Its headers ``Host``.
            origins: Its headers ``Origin``.
        """
        if len(hosts) != 1:
            return 400, "one Host header is needed"
        url = urlsplit(path)
        if self.token is None and _name_of(hosts[0]) not in (*_LOCAL_NAMES, self.host):
            return 403, "the server answers by the names of this machine only: localhost, 127.0.0.1"
        if self.token is not None and url.path in _GUARDED:
            given = parse_qs(url.query).get("token", [""])[0]
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return 403, "the token is missing or wrong: open the URL that `k2eg web` has printed"
        if url.path == UPDATES and list(origins) not in ([f"http://{hosts[0]}"], [f"https://{hosts[0]}"]):
            return 403, "only the page of this server may connect"
        return None


def _name_of(host: str) -> str:
    """Returns the name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

"""What exactly is wrong with a broker's certificate: librdkafka says no more than that it was not accepted.

In: librdkafka's error, and the properties by which it judged. Out: a sentence. Asks the broker, by a handshake of its
own that sends nothing but the begin of one; on the thread of `OffsetResolver`.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

_TIMEOUT = 2.0  # seconds for a handshake, which has just taken librdkafka some 10 ms
_BROKER = re.compile(r"ssl://(?P<host>\[[^]]+\]|[^:/]+):(?P<port>\d+)")

# OpenSSL's X509_V_ERR_*
_EXPIRED, _TOO_EARLY = 10, 9
_OTHER_NAME = frozenset({62, 64})
_OTHER_AUTHORITY = frozenset({18, 19, 20, 21})


class TLSDiagnosis:
    """Looks at brokers' certificates as librdkafka does.

    Args:
        properties: The environment's ``[kafka]`` section.
    """

    def __init__(self, properties: Mapping[str, str]) -> None:
        self._properties = properties

    def diagnose(self, error: str) -> str:
        """Returns what is wrong with the certificate of the broker that an error names; empty if that is not clear."""
        broker = _BROKER.search(error)
        if broker is None:
            return ""
        host = broker["host"].strip("[]")
        try:
            context = self._context()
            with (
                socket.create_connection((host, int(broker["port"])), _TIMEOUT) as connection,
                context.wrap_socket(connection, server_hostname=host),
            ):
                return ""
        except ssl.SSLCertVerificationError as refusal:
            return _sentence(refusal.verify_code, f"{host}:{broker['port']}") or refusal.verify_message
        except (OSError, ValueError):  # it is gone, or the authority's file is of no use: librdkafka has said so
            return ""

    def _context(self) -> ssl.SSLContext:
        location, text = self._properties.get("ssl.ca.location"), self._properties.get("ssl.ca.pem")
        if text:
            return ssl.create_default_context(cadata=text)
        if not location or location == "probe":
            return ssl.create_default_context()
        if Path(location).is_dir():
            return ssl.create_default_context(capath=location)
        return ssl.create_default_context(cafile=location)


def _sentence(code: int, broker: str) -> str:
    if code == _EXPIRED:
        return f"the certificate of the broker {broker} has expired: have it renewed"
    if code == _TOO_EARLY:
        return f"the certificate of the broker {broker} is not valid yet: check the clock of this host"
    if code in _OTHER_NAME:
        return (
            f"the certificate of the broker {broker} is for another host name: reach it by the name in its certificate"
            " (kafka_broker_url, and advertised.listeners of the broker)"
        )
    if code in _OTHER_AUTHORITY:
        return (
            f"the certificate of the broker {broker} is not signed by an authority that is trusted here: put that"
            " authority's certificate into the file that ssl.ca.location in [kafka] names"
        )
    return ""

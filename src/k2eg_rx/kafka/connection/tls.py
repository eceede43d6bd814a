"""Finds out why librdkafka rejected a broker's certificate.

librdkafka reports "certificate verify failed" for every reason. `TLSDiagnosis` repeats the handshake with Python's ssl
module, which names the reason. See decision 0014.
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
_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_NAME = frozenset({62, 64})
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})


class TLSDiagnosis:
    """Verifies brokers' certificates by the same rules as librdkafka.

    Args:
        properties: The environment's ``[kafka]`` section.
    """

    def __init__(self, properties: Mapping[str, str]) -> None:
        self._properties = properties

    def diagnose(self, error: str) -> str:
        """Returns why a broker's certificate is rejected; empty if this cannot be found out.

        Connects to the broker, for at most two seconds per step, and sends nothing but a TLS handshake.

        Args:
            error: librdkafka's text, which names the broker.
        """
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
            return _advice(refusal.verify_code, f"{host}:{broker['port']}") or refusal.verify_message
        except (OSError, ValueError):  # the broker is away, or the CA file is invalid, which librdkafka reports
            return ""

    def _context(self) -> ssl.SSLContext:
        context = self._trusting()
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # a default of Python 3.13, which librdkafka does not have
        context.check_hostname = self._properties.get("ssl.endpoint.identification.algorithm", "https") != "none"
        return context

    def _trusting(self) -> ssl.SSLContext:
        location, text = self._properties.get("ssl.ca.location"), self._properties.get("ssl.ca.pem")
        if text:
            return ssl.create_default_context(cadata=text)
        if not location or location == "probe":
            return ssl.create_default_context()
        if Path(location).is_dir():
            return ssl.create_default_context(capath=location)
        return ssl.create_default_context(cafile=location)


def _advice(code: int, broker: str) -> str:
    if code == _EXPIRED:
        return f"the certificate of the broker {broker} has expired: have it renewed"
    if code == _NOT_YET_VALID:
        return f"the certificate of the broker {broker} is not valid yet: check the clock of this host"
    if code in _OTHER_NAME:
        return (
            f"the certificate of the broker {broker} is for another host name: reach it by the name in its certificate"
            " (kafka_broker_url, and advertised.listeners of the broker)"
        )
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"the certificate of the broker {broker} is not signed by a trusted authority: put that authority's"
            " certificate into the file that ssl.ca.location in [kafka] names"
        )
    return ""

"""Default librdkafka properties and shipped environments: none of them weakens security."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from k2eg_rx.kafka.connection import configuration
from k2eg_rx.settings import Settings, environments, load_settings, shipped_folder

# librdkafka lists its effective properties without a broker, in the log of "conf".
SECTION = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "debug": "conf"}
SETTINGS = Settings("site", "127.0.0.1:1", "commands", "app-reply", kafka=SECTION | {"sasl.password": "secret"})

ROLES: dict[str, tuple[Callable[..., object], dict[str, object]]] = {
    "admin": (AdminClient, configuration.admin_properties(SETTINGS)),
    "creator": (AdminClient, configuration.admin_properties(SETTINGS, create_topics=True)),
    "replies": (Consumer, configuration.replies_properties(SETTINGS)),
    "events": (Consumer, configuration.events_properties(SETTINGS)),
    "group": (Consumer, configuration.group_properties(SETTINGS, "group")),
    "presence": (Consumer, configuration.presence_properties(SETTINGS, "app")),
    "sink": (Producer, configuration.sink_properties(SETTINGS)),
}
_SECURITY = re.compile(r"^(ssl\.|sasl\.|security\.|enable\.ssl|enable\.sasl|https\.)")


@pytest.mark.parametrize("role", ROLES)
def test_security_properties_come_from_the_kafka_section_only(role: str) -> None:
    _, properties = ROLES[role]
    added = {name for name in properties if _SECURITY.match(name) and name not in SETTINGS.kafka}
    assert not added
    assert {name: properties[name] for name in SETTINGS.kafka} == SETTINGS.kafka


@pytest.mark.parametrize("role", ROLES)
def test_librdkafka_verifies_certificates_and_host_names(role: str) -> None:
    effective = _effective(*ROLES[role])
    assert effective["security.protocol"] == "sasl_ssl"
    assert effective.get("enable.ssl.certificate.verification", "true") == "true"
    assert effective.get("ssl.endpoint.identification.algorithm", "https") == "https"
    assert effective["sasl.password"] == "[redacted]"


def test_effective_properties_show_a_weakened_one() -> None:
    maker, properties = ROLES["sink"]
    weak = _effective(maker, {**properties, "ssl.endpoint.identification.algorithm": "none"})
    assert weak["ssl.endpoint.identification.algorithm"] == "none"


def _effective(make: Callable[..., object], properties: dict[str, object]) -> dict[str, str]:
    """Returns the properties that differ from librdkafka's defaults, which it logs at its start."""
    lines: list[str] = []
    logger = logging.Logger("effective", logging.DEBUG)
    logger.addHandler(_LogCollector(lines))
    client: Any = make(properties, logger=logger)
    client.poll(0.2)  # delivers the log
    if isinstance(client, Consumer):
        client.close()
    return {found[1]: found[2] for line in lines if (found := re.search(r"\]:\s+([a-z.]+) = (.*)$", line))}


class _LogCollector(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


@pytest.mark.parametrize("name", environments(shipped_folder()))
def test_shipped_environments_weaken_nothing_and_hold_no_password(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("K2EG_KAFKA_USER", "user-of-the-test")
    monkeypatch.setenv("K2EG_KAFKA_PASSWORD", "password-of-the-test")
    monkeypatch.setenv("K2EG_DEMO_BROKER_FILE", str(shipped_folder() / "demo.ini"))  # any existing file
    section = load_settings(name, "app", shipped_folder()).kafka
    assert "enable.ssl.certificate.verification" not in section
    assert "ssl.endpoint.identification.algorithm" not in section
    assert all(value.endswith("-of-the-test") for key, value in section.items() if "password" in key)

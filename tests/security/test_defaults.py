"""What this project adds to librdkafka's properties weakens nothing: the check of the broker's name least of all."""

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

# A handshake needs a broker; what one would be checked by does not.
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
def test_no_property_of_security_is_set_that_the_section_does_not_set(role: str) -> None:
    _, properties = ROLES[role]
    added = {name for name in properties if _SECURITY.match(name) and name not in SETTINGS.kafka}
    assert not added
    assert {name: properties[name] for name in SETTINGS.kafka} == SETTINGS.kafka


@pytest.mark.parametrize("role", ROLES)
def test_librdkafka_itself_says_that_it_checks_certificates_and_names(role: str) -> None:
    effective = _effective(*ROLES[role])
    assert effective["security.protocol"] == "sasl_ssl"
    assert effective.get("enable.ssl.certificate.verification", "true") == "true"
    assert effective.get("ssl.endpoint.identification.algorithm", "https") == "https"
    assert effective["sasl.password"] == "[redacted]"


def test_the_look_at_the_effective_properties_sees_what_is_weakened() -> None:
    maker, properties = ROLES["sink"]
    weak = _effective(maker, {**properties, "ssl.endpoint.identification.algorithm": "none"})
    assert weak["ssl.endpoint.identification.algorithm"] == "none"


def _effective(make: Callable[..., object], properties: dict[str, object]) -> dict[str, str]:
    """The properties that are not librdkafka's defaults, as it lists them itself when it is made."""
    said: list[str] = []
    logger = logging.Logger("effective", logging.DEBUG)
    logger.addHandler(_Keeping(said))
    client: Any = make(properties, logger=logger)
    client.poll(0.2)  # which delivers the log
    if isinstance(client, Consumer):
        client.close()
    return {found[1]: found[2] for line in said if (found := re.search(r"\]:\s+([a-z.]+) = (.*)$", line))}


class _Keeping(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


@pytest.mark.parametrize("name", environments(shipped_folder()))
def test_the_environments_that_come_along_weaken_nothing_and_hold_no_password(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("K2EG_KAFKA_USER", "user-of-the-test")
    monkeypatch.setenv("K2EG_KAFKA_PASSWORD", "password-of-the-test")
    monkeypatch.setenv("K2EG_DEMO_BROKER_FILE", str(shipped_folder() / "demo.ini"))  # any file will do
    section = load_settings(name, "app", shipped_folder()).kafka
    assert "enable.ssl.certificate.verification" not in section
    assert "ssl.endpoint.identification.algorithm" not in section
    assert all(value.endswith("-of-the-test") for key, value in section.items() if "password" in key)

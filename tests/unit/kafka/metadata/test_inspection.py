"""Questions about a cluster that need no broker."""

from __future__ import annotations

import pytest

from k2eg_rx import Settings, TransportError
from k2eg_rx.kafka.metadata.inspection import KafkaInspection, bootstrap_addresses, resolution_failure

SITE = Settings("site", "127.0.0.1:1", "commands", "app-reply")


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("a:1", [("a", 1)]),
        ("a:1, b:2,", [("a", 1), ("b", 2)]),
        ("SASL_SSL://a.example.org:9094", [("a.example.org", 9094)]),
        ("[::1]:9092", [("::1", 9092)]),
        ("a", [("a", 9092)]),
    ],
)
def test_the_addresses_are_those_of_the_environment(url: str, addresses: list[tuple[str, int]]) -> None:
    assert bootstrap_addresses(Settings("site", url, "commands", "app-reply")) == addresses


def test_a_host_name_that_cannot_be_one_has_no_address() -> None:
    assert resolution_failure("127.0.0.1") == ""
    assert resolution_failure("a" * 300)


def test_the_command_that_creates_the_command_topic_lets_kafka_set_time_stamps() -> None:
    inspection = KafkaInspection(SITE)
    assert "message.timestamp.type=LogAppendTime" in inspection.create_command("commands")
    assert "message.timestamp.type" not in inspection.create_command("app-reply")


def test_a_property_that_is_not_known_is_named() -> None:
    with pytest.raises(TransportError, match=r"security\.protocl"):
        KafkaInspection(Settings("site", "127.0.0.1:1", "commands", "app-reply", kafka={"security.protocl": "ssl"}))

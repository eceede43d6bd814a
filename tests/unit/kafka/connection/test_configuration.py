"""librdkafka properties of each client type."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka.connection.configuration import (
    admin_properties,
    check_settings,
    events_properties,
    group_properties,
    presence_group,
    presence_properties,
    replies_properties,
    sink_properties,
)
from k2eg_rx.kafka.transport import KafkaTransport
from k2eg_rx.settings import Settings, check_group_name


def settings(**kafka: str) -> Settings:
    properties = {name.replace("_", "."): value for name, value in kafka.items()}
    return Settings("test", "broker:9092", "commands", "replies", properties)


def all_roles(environment: Settings) -> dict[str, dict[str, object]]:
    return {
        "admin": admin_properties(environment),
        "replies": replies_properties(environment),
        "events": events_properties(environment),
        "group": group_properties(environment, "a-group"),
        "presence": presence_properties(environment, "app"),
        "sink": sink_properties(environment),
    }


def test_every_role_uses_the_brokers_of_the_environment():
    environment = settings(bootstrap_servers="elsewhere:1")
    assert {role["bootstrap.servers"] for role in all_roles(environment).values()} == {"broker:9092"}


def test_the_environment_overrides_defaults():
    environment = settings(fetch_wait_max_ms="5", linger_ms="20", enable_idempotence="false", client_id="mine")
    assert events_properties(environment)["fetch.wait.max.ms"] == "5"
    assert sink_properties(environment)["linger.ms"] == sink_properties(environment, 0.005)["linger.ms"] == "20"
    assert (sink_properties(settings())["linger.ms"], sink_properties(settings(), 0.005)["linger.ms"]) == (0, 5.0)
    assert sink_properties(environment)["enable.idempotence"] == "false"
    assert {role["client.id"] for role in all_roles(environment).values()} == {"mine"}


def test_every_role_gets_the_security_properties():
    environment = settings(security_protocol="SASL_SSL", sasl_password="secret")
    for role in all_roles(environment).values():
        assert (role["security.protocol"], role["sasl.password"]) == ("SASL_SSL", "secret")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable.auto.offset.store", "true"),
        ("auto.offset.reset", "latest"),
        ("group.protocol", "consumer"),
        ("isolation.level", "read_uncommitted"),
        ("partition.assignment.strategy", "range"),
        ("group.id", "another"),
    ],
)
def test_fixed_properties_override_the_environment_with_a_warning(name, value, caplog):
    environment = Settings("test", "broker:9092", "commands", "replies", {name: value})
    with caplog.at_level(logging.WARNING):
        properties = group_properties(environment, "a-group")
    assert properties[name] not in (value, value == "true")
    assert f"[kafka] {name} is not used" in caplog.text


def test_a_fixed_property_with_the_same_value_gives_no_warning(caplog):
    environment = Settings(
        "test", "broker:9092", "c", "r", {"enable.auto.commit": "FALSE", "group.protocol": "classic"}
    )
    with caplog.at_level(logging.WARNING):
        events_properties(environment)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("stats_cb", "print", "a function of a program"),
        ("on_delivery", "print", "a function of a program"),
        ("transactional.id", "mine", "sent singly"),
        ("acks", "1", "must be all, got 1"),
        ("request.required.acks", "0", "must be all, got 0"),
    ],
)
def test_a_property_that_no_client_can_have_is_one_error_with_its_name(name, value, words):
    with pytest.raises(TransportError, match=rf"\[kafka\] {name} .*{words}"):
        KafkaTransport(Settings("test", "127.0.0.1:1", "commands", "replies", {name: value}))


def test_acks_of_all_replicas_may_be_set():
    check_settings(settings(acks="all", request_required_acks="-1"))


def test_producers_and_consumers_have_properties_of_their_own_over_the_shared_ones():
    environment = replace(
        settings(statistics_interval_ms="1", socket_timeout_ms="7000"),
        producer={"statistics.interval.ms": "2", "sasl.password": "of-producers"},
        consumer={"statistics.interval.ms": "3"},
    )
    for properties in (sink_properties(environment), admin_properties(environment)):
        assert (properties["statistics.interval.ms"], properties["sasl.password"]) == ("2", "of-producers")
    for properties in (replies_properties(environment), presence_properties(environment, "app")):
        assert properties["statistics.interval.ms"] == "3"
        assert "sasl.password" not in properties
        assert properties["socket.timeout.ms"] == "7000"


def test_a_producers_own_acks_are_checked():
    with pytest.raises(TransportError, match=r"acks must be all, got 1"):
        check_settings(replace(settings(), producer={"acks": "1"}))


def test_no_static_membership():
    for role in all_roles(settings(group_instance_id="me")).values():
        assert "group.instance.id" not in role


def test_consumers_without_a_group_do_not_commit():
    for properties in (replies_properties(settings()), events_properties(settings())):
        assert properties["enable.auto.commit"] is False


def test_the_unused_group_id_can_be_set_for_acls():
    assert events_properties(settings(group_id="allowed"))["group.id"] == "allowed"


def test_message_max_bytes_is_not_passed_to_consumers():
    """librdkafka rejects a consumer whose fetch.max.bytes is below message.max.bytes."""
    environment = settings(message_max_bytes="50000000")
    assert sink_properties(environment)["message.max.bytes"] == "50000000"
    assert "message.max.bytes" not in events_properties(environment)


@pytest.mark.parametrize("name", ["", "k2eg", "my-k2eg-app", "K2EG", "xK2eGx"])
def test_a_group_name_that_gateways_ignore_is_rejected(name):
    with pytest.raises(ValueError, match="group_name"):
        check_group_name(name)


@given(st.text("kK2eEgG-x"))
def test_gateways_do_not_ignore_presence_groups(app_name):
    assert "k2eg" not in presence_group(app_name).lower()


def test_a_presence_group_has_the_application_name():
    assert presence_group("orbit") == "orbit-presence"
    assert presence_group("my-K2EG-app") == "my-kg-app-presence"


@pytest.mark.parametrize(
    "url",
    [
        *("", " ", ",", "kafka://", "kafka://broker:9092", "http://broker:9092", "broker:", "broker:port", ":9092"),
        *(
            "broker:0",
            "broker:99999",
            "broker 9092",
            "broker:9092/",
            "a:9092;b:9092",
            "a:9092,kafka://",
            "[::1",
            "a:b:1",
        ),
    ],
)
def test_a_broker_url_that_is_none_is_one_error_that_says_what_it_must_be(url):
    with pytest.raises(TransportError) as caught:
        KafkaTransport(Settings("test", url, "commands", "replies"))
    text = str(caught.value)
    assert text.startswith("kafka_broker_url must be host:port, or several separated by commas, got ")
    assert (repr(url) if url.strip(", ") else "nothing") in text


@pytest.mark.parametrize(
    "url",
    [
        *("broker", "broker:9092", "a:9092,b:9093", "a:9092, b:9093,", "10.0.0.1:9092", "[::1]:9092", "[fe80::1]"),
        *("PLAINTEXT://a:9092", "SASL_SSL://a:9092,SASL_SSL://b:9092", "my_host-1.lab.example:65535"),
    ],
)
def test_what_librdkafka_accepts_is_a_broker_url(url):
    check_settings(replace(settings(), broker_url=url))

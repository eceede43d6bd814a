"""Missing permissions: errors name the topic or group, and clients recover once a permission is granted."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
from confluent_kafka.admin import ResourceType
from reactivex import operators as ops
from timeouts import scaled_by_load

from k2eg_rx import Client, OperationTimeout, TransportError, first
from k2eg_rx.embedded.loopback import without_epics
from k2eg_rx.kafka.connection.configuration import presence_group
from k2eg_rx.pv import monitor_topic
from k2eg_rx.settings import Settings

LIMIT = 10.0  # seconds in which a missing permission must be reported, on an idle machine
LONG = 600.0  # seconds; so long a timeout that no operation ends by it
APP = "app"


@pytest.fixture
def user(site: Any) -> str:
    """A user without permissions."""
    name = f"guest-{uuid.uuid4().hex[:8]}"
    site.kafka.add_user(name)
    return name


@pytest.fixture
def settings(site: Any, user: str) -> Settings:
    """The settings of that user, whose reply topic exists."""
    app_name = f"app-{user}"
    settings = site.settings("SASL", site.scram(user), app_name)
    site.kafka.create_topics(settings.reply_topic)
    return settings


def _client(settings: Settings, timeout: float = LONG) -> Client:
    return Client("site", settings.reply_topic.removesuffix("-reply"), settings=settings, timeout=timeout)


def _error_of(client: Client, scanner: Any) -> str:
    started = time.monotonic()
    with pytest.raises(TransportError) as caught:
        first(client.get_stream("pva://x"))
    assert time.monotonic() - started < scaled_by_load(LIMIT)
    scanner.add(caught.value)
    return str(caught.value)


def _reason(client: Client, words: str) -> str:
    """Waits for some words in the status reason; returns the reason."""
    started = time.monotonic()
    status = first(client.status_stream().pipe(ops.filter(lambda status: words in status.reason)))
    assert time.monotonic() - started < scaled_by_load(LIMIT)
    return status.reason


def _allow_replies(site: Any, user: str, settings: Settings) -> None:
    site.kafka.allow(user, settings.reply_topic, "READ")


def _allow_presence(site: Any, user: str, settings: Settings) -> None:
    group = presence_group(settings.reply_topic.removesuffix("-reply"))
    site.kafka.allow(user, group, "READ", kind=ResourceType.GROUP)


def test_no_permission_for_the_reply_topic(site: Any, settings: Settings, scanner: Any) -> None:
    with _client(settings) as client:
        text = _error_of(client, scanner)
    assert f"topic {settings.reply_topic!r}" in text
    assert "ask for ACLs (READ" in text


def test_a_reply_topic_with_describe_but_without_read(site: Any, user: str, settings: Settings, scanner: Any) -> None:
    site.kafka.allow(user, settings.reply_topic, "DESCRIBE")
    site.kafka.allow(user, site.commands, "WRITE")
    _allow_presence(site, user, settings)
    with _client(settings) as client:
        text = _error_of(client, scanner)
        assert f"topic {settings.reply_topic!r}" in text
        assert "READ" in text
        assert _error_of(client, scanner) == text, "the second error differs"
        _allow_replies(site, user, settings)
        first(client.status_stream().pipe(ops.filter(lambda status: not status.reason)))
        with pytest.raises(OperationTimeout):  # the command is sent, and not answered
            first(client.get_stream("pva://x", 0.5))


def test_no_permission_to_send_commands(site: Any, user: str, settings: Settings, scanner: Any) -> None:
    _allow_replies(site, user, settings)
    with _client(settings) as client:
        first(client.ready_stream())
        text = _error_of(client, scanner)
    assert repr(site.commands) in text  # Kafka refuses the topic, or before that the producer's id
    assert "ACL" in text
    assert "WRITE" in text


def test_no_permission_for_a_pvs_topic(site: Any, user: str, settings: Settings, scanner: Any) -> None:
    _allow_replies(site, user, settings)
    _allow_presence(site, user, settings)
    site.kafka.allow(user, site.commands, "WRITE")
    visible, hidden = f"visible-{user}", f"hidden-{user}"
    site.kafka.create_topics(monitor_topic(visible), monitor_topic(hidden))
    site.kafka.allow(user, monitor_topic(visible), "DESCRIBE")
    with _client(settings) as client:
        with pytest.raises(TransportError, match=f"topic '{monitor_topic(hidden)}'") as caught:
            first(client.monitor_stream(f"pva://{hidden}"))
        scanner.add(caught.value)
        monitored = client.monitor_stream(f"pva://{visible}").subscribe(on_error=print)
        scanner.add(_reason(client, f"topic '{monitor_topic(visible)}'"))
        with pytest.raises(OperationTimeout):  # gets are sent
            first(client.get_stream("pva://x", 0.5))
        monitored.dispose()
        assert first(client.status_stream().pipe(ops.filter(lambda status: not status.reason))).monitors == 0


def test_no_permission_for_the_presence_group(site: Any, user: str, settings: Settings, scanner: Any) -> None:
    _allow_replies(site, user, settings)
    site.kafka.allow(user, site.commands, "WRITE")
    with _client(settings) as client:
        group = presence_group(client.app_name)
        text = _reason(client, f"group {group!r}")
        assert "READ on the group" in text
        scanner.add(text)
        with pytest.raises(OperationTimeout):  # commands are sent
            first(client.get_stream("pva://x", 0.5))
        _allow_presence(site, user, settings)
        first(client.status_stream().pipe(ops.filter(lambda status: not status.reason)))


def test_no_permission_for_a_group_that_shares_events(site: Any, user: str, settings: Settings, scanner: Any) -> None:
    _allow_replies(site, user, settings)
    _allow_presence(site, user, settings)
    site.kafka.allow(user, site.commands, "WRITE")
    site.kafka.create_topics(monitor_topic(user))
    site.kafka.allow(user, monitor_topic(user), "READ")
    app_name, group = settings.reply_topic.removesuffix("-reply"), f"share-{user}"
    with Client("site", app_name, group_name=group, settings=settings) as client:
        client.monitor_stream(f"pva://{user}").subscribe(on_error=print)
        scanner.add(_reason(client, f"group {group!r}"))


def test_a_gateway_without_permission_for_its_command_topic(site: Any, user: str, scanner: Any) -> None:
    site.write("SASL", site.scram(user))
    site.kafka.allow(user, "epics-gateway", "READ", kind=ResourceType.GROUP)
    site.variables |= without_epics()
    ran = site.run("gateway")
    assert ran.returncode == 1
    assert f"topic {site.commands!r}" in ran.stderr.splitlines()[-1]
    scanner.add(ran.stdout, ran.stderr)


def test_a_gateway_without_permission_for_its_group(site: Any, user: str, scanner: Any) -> None:
    site.write("SASL", site.scram(user))
    site.kafka.allow(user, site.commands, "READ")
    site.variables |= without_epics()
    process = site.start("gateway")
    try:
        for line in process.stderr:
            scanner.add(line)
            if "join the consumer group 'epics-gateway'" in line:
                break
        else:
            pytest.fail("the missing permission is not reported")
    finally:
        process.terminate()
        process.communicate(timeout=LONG)


def _doctor(site: Any, scanner: Any) -> dict[str, dict[str, str]]:
    """Runs `k2eg doctor`; returns its first finding of each check."""
    done = site.run("doctor", "--json", "--timeout", "5")
    scanner.add(done.stdout, done.stderr)
    assert done.returncode == 1
    found: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        finding = json.loads(line)
        found.setdefault(finding["check"], finding)
    return found


def test_the_doctor_names_refused_credentials_and_goes_no_further(site: Any, scanner: Any) -> None:
    site.write("SASL", site.scram(sasl_password="stale-Paper-Clip-17"))
    found = _doctor(site, scanner)
    assert found["brokers"]["result"] == "ok"
    assert "did not accept the credentials" in found["TLS and SASL"]["text"]
    assert found["TLS and SASL"]["remedy"].startswith("check security.protocol, sasl.mechanism")
    assert found["gateway"]["text"] == "because of: TLS and SASL"


def test_the_doctor_names_rights_that_are_missing(site: Any, user: str, scanner: Any) -> None:
    site.write("SASL", site.scram(user))
    site.kafka.allow(user, site.commands, "DESCRIBE")
    site.kafka.allow(user, "app-reply", "DESCRIBE", "READ", "CREATE")
    found = _doctor(site, scanner)
    assert found["TLS and SASL"]["result"] == found["command topic"]["result"].replace("warning", "ok") == "ok"
    assert found["rights"]["text"] == f"this user has no permission to WRITE {site.commands}"
    assert found["rights"]["remedy"] == f"ask for an ACL: WRITE and DESCRIBE on topic {site.commands!r}"
    assert found["gateway"]["text"] == "because of: rights"

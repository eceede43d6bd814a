"""Rights that are missing: each is named, with the topic or the group, and once it is there the same client goes on."""

# pyright: reportPrivateImportUsage=false
# what confluent_kafka.admin documents, but does not list

from __future__ import annotations

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

LIMIT = 10.0  # seconds in which it has to be told, on a machine that has nothing else to do
LONG = 600.0
APP = "app"


@pytest.fixture
def user(site: Any) -> str:
    """Somebody who is let in and may do nothing yet."""
    name = f"guest-{uuid.uuid4().hex[:8]}"
    site.kafka.add_user(name)
    return name


@pytest.fixture
def settings(site: Any, user: str) -> Settings:
    """The guest's environment; there is a reply topic."""
    app_name = f"app-{user}"
    settings = site.settings("SASL", site.scram(user), app_name)
    site.kafka.create_topics(settings.reply_topic)
    return settings


def _client(settings: Settings, timeout: float = LONG) -> Client:
    return Client("site", settings.reply_topic.removesuffix("-reply"), settings=settings, timeout=timeout)


def _told(client: Client, secrecy: Any) -> str:
    before = time.monotonic()
    with pytest.raises(TransportError) as caught:
        first(client.get_stream("pva://x"))
    assert time.monotonic() - before < scaled_by_load(LIMIT)
    secrecy.add(caught.value)
    return str(caught.value)


def _reason(client: Client, words: str) -> str:
    """The reason in the status, as soon as it has some words in it."""
    before = time.monotonic()
    status = first(client.status_stream().pipe(ops.filter(lambda status: words in status.reason)))
    assert time.monotonic() - before < scaled_by_load(LIMIT)
    return status.reason


def _allow_replies(site: Any, user: str, settings: Settings) -> None:
    site.kafka.allow(user, settings.reply_topic, "READ")


def _allow_presence(site: Any, user: str, settings: Settings) -> None:
    group = presence_group(settings.reply_topic.removesuffix("-reply"))
    site.kafka.allow(user, group, "READ", kind=ResourceType.GROUP)


def test_no_right_to_the_reply_topic(site: Any, settings: Settings, secrecy: Any) -> None:
    with _client(settings) as client:
        told = _told(client, secrecy)
    assert f"topic {settings.reply_topic!r}" in told
    assert "have its ACLs extended (READ" in told


def test_a_reply_topic_that_may_be_seen_but_not_read(site: Any, user: str, settings: Settings, secrecy: Any) -> None:
    site.kafka.allow(user, settings.reply_topic, "DESCRIBE")
    site.kafka.allow(user, site.commands, "WRITE")
    _allow_presence(site, user, settings)
    with _client(settings) as client:
        told = _told(client, secrecy)
        assert f"topic {settings.reply_topic!r}" in told
        assert "READ" in told
        assert _told(client, secrecy) == told, "it is not told the second time"
        _allow_replies(site, user, settings)
        first(client.status_stream().pipe(ops.filter(lambda status: not status.reason)))
        with pytest.raises(OperationTimeout):  # nobody answers here; but it was sent
            first(client.get_stream("pva://x", 0.5))


def test_no_right_to_send_commands(site: Any, user: str, settings: Settings, secrecy: Any) -> None:
    _allow_replies(site, user, settings)
    with _client(settings) as client:
        first(client.ready_stream())
        told = _told(client, secrecy)
    assert f"topic {site.commands!r}" in told
    assert "WRITE" in told


def test_no_right_to_a_pvs_topic(site: Any, user: str, settings: Settings, secrecy: Any) -> None:
    _allow_replies(site, user, settings)
    _allow_presence(site, user, settings)
    site.kafka.allow(user, site.commands, "WRITE")
    seen, unseen = f"seen-{user}", f"unseen-{user}"
    site.kafka.create_topics(monitor_topic(seen), monitor_topic(unseen))
    site.kafka.allow(user, monitor_topic(seen), "DESCRIBE")
    with _client(settings) as client:
        with pytest.raises(TransportError, match=f"topic '{monitor_topic(unseen)}'") as caught:
            first(client.monitor_stream(f"pva://{unseen}"))
        secrecy.add(caught.value)
        monitored = client.monitor_stream(f"pva://{seen}").subscribe(on_error=print)
        secrecy.add(_reason(client, f"topic '{monitor_topic(seen)}'"))
        with pytest.raises(OperationTimeout):  # gets go on
            first(client.get_stream("pva://x", 0.5))
        monitored.dispose()
        assert first(client.status_stream().pipe(ops.filter(lambda status: not status.reason))).monitors == 0


def test_no_right_to_be_in_the_group_by_which_gateways_see_who_listens(
    site: Any, user: str, settings: Settings, secrecy: Any
) -> None:
    _allow_replies(site, user, settings)
    site.kafka.allow(user, site.commands, "WRITE")
    with _client(settings) as client:
        group = presence_group(client.app_name)
        told = _reason(client, f"group {group!r}")
        assert "READ on the group" in told
        secrecy.add(told)
        with pytest.raises(OperationTimeout):  # all else goes on
            first(client.get_stream("pva://x", 0.5))
        _allow_presence(site, user, settings)
        first(client.status_stream().pipe(ops.filter(lambda status: not status.reason)))


def test_no_right_to_be_in_the_group_that_shares_events(site: Any, user: str, settings: Settings, secrecy: Any) -> None:
    _allow_replies(site, user, settings)
    _allow_presence(site, user, settings)
    site.kafka.allow(user, site.commands, "WRITE")
    site.kafka.create_topics(monitor_topic(user))
    site.kafka.allow(user, monitor_topic(user), "READ")
    with Client("site", settings.reply_topic.removesuffix("-reply"), f"share-{user}", settings=settings) as client:
        client.monitor_stream(f"pva://{user}").subscribe(on_error=print)
        secrecy.add(_reason(client, f"group 'share-{user}'"))


def test_a_gateway_without_the_right_to_its_commands(site: Any, user: str, secrecy: Any) -> None:
    site.write("SASL", site.scram(user))
    site.kafka.allow(user, "epics-gateway", "READ", kind=ResourceType.GROUP)
    site.variables |= without_epics()
    ran = site.run("gateway")
    assert ran.returncode == 1
    assert f"topic {site.commands!r}" in ran.stderr.splitlines()[-1]
    secrecy.add(ran.stdout, ran.stderr)


def test_a_gateway_without_the_right_to_its_group(site: Any, user: str, secrecy: Any) -> None:
    site.write("SASL", site.scram(user))
    site.kafka.allow(user, site.commands, "READ")
    site.variables |= without_epics()
    process = site.start("gateway")
    try:
        for line in process.stderr:
            secrecy.add(line)
            if "join the consumer group 'epics-gateway'" in line:
                break
        else:
            pytest.fail("it is not told")
    finally:
        process.terminate()
        process.communicate(timeout=LONG)

"""Two applications with command topics of their own, each of which only its user may write to, and one gateway."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import ResourceType

from k2eg_rx import Client, OperationError, TransportError, first
from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.gateway import Gateway, GatewayOptions
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.kafka import KafkaTopicAdmin, KafkaTransport
from k2eg_rx.kafka.connection.configuration import presence_group

DATA = Path(__file__).parents[1] / "data"
LONG = 120.0  # seconds; so long a timeout that no operation ends by it
PVLIST = "t:.* ALLOW\nmagnet:(.*) ALIAS t:\\1 MAGNETS 1\n.*:str DENY\n"
ACF = """
UAG(ops) {operators}
ASG(DEFAULT) { RULE(1, READ) }
ASG(MAGNETS) { RULE(1, READ) RULE(1, WRITE) { UAG(ops) } }
"""


@pytest.fixture
def command_topics(site: Any, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The command topic of each principal, read by a gateway with rules, and a real IOC behind it."""
    mark = uuid.uuid4().hex[:8]
    topics = {name: f"{name}-commands-{mark}" for name in ("operators", "website")}
    site.kafka.create_topics(*topics.values())
    (tmp_path / "pvlist").write_text(PVLIST)
    (tmp_path / "site.acf").write_text(ACF)
    options = GatewayOptions(
        group=f"gateways-{mark}",
        pvlist=str(tmp_path / "pvlist"),
        access=str(tmp_path / "site.acf"),
        command_topics=", ".join(f"{topic}:{name}" for name, topic in topics.items()),
        audit_topic=f"audit-{mark}",
    )
    settings = site.settings("SASL", site.scram("operator"))
    site.kafka.create_topics(options.audit_topic)
    with ExitStack() as stack:
        ioc = stack.enter_context(SoftIoc(DATA / "records.db"))
        provider = PVAccessProvider(ioc.client_environment)
        stack.callback(provider.close)
        transport = KafkaTransport(settings)
        stack.callback(transport.close, 2.0)
        stack.enter_context(
            Gateway(transport, {"pva": provider}, options, settings.command_topic, KafkaTopicAdmin(settings))
        )
        yield topics | {"audit": options.audit_topic}


@pytest.fixture
def clients(site: Any, command_topics: dict[str, str]) -> Iterator[dict[str, Client]]:
    """A client of each principal; its user may write to its own command topic only."""
    with ExitStack() as stack:
        made: dict[str, Client] = {}
        for name, topic in command_topics.items():
            if name == "audit":
                continue
            user = f"{name}-{uuid.uuid4().hex[:8]}"
            site.kafka.add_user(user)
            settings = replace(site.settings("SASL", site.scram(user), user), command_topic=topic)
            site.kafka.create_topics(settings.reply_topic)
            site.kafka.allow(user, settings.reply_topic, "READ")
            site.kafka.allow(user, topic, "WRITE")
            site.kafka.allow(user, presence_group(user), "READ", kind=ResourceType.GROUP)
            made[name] = stack.enter_context(Client("site", user, settings=settings, timeout=LONG))
        yield made


def test_each_principal_may_do_what_the_rules_say_and_cannot_be_the_other(
    site: Any, clients: dict[str, Client], command_topics: dict[str, str], scanner: Any
) -> None:
    first(clients["operators"].put_stream("pva://magnet:ao", 2.5))
    assert first(clients["website"].get_stream("pva://magnet:ao")).value == 2.5
    assert first(clients["operators"].get_stream("pva://t:ao")).value == 2.5  # the PV behind the alias
    with pytest.raises(OperationError, match=r"denied: no rule of ASG\(MAGNETS\) lets 'website' write") as denied:
        first(clients["website"].put_stream("pva://magnet:ao", 7.0))
    assert denied.value.error == -12
    with pytest.raises(OperationError, match=r"denied: line 3 of the list denies it"):
        first(clients["operators"].get_stream("pva://t:str"))
    assert first(clients["operators"].get_stream("pva://t:ao")).value == 2.5
    with pytest.raises(OperationError, match=r"'pva://t:str' denied: line 3 of the list denies it"):
        first(clients["website"].snapshot_stream(["pva://magnet:ao", "pva://t:str"]))

    consumer = Consumer({"bootstrap.servers": site.kafka.broker.address, "group.id": "auditor"})
    consumer.assign([TopicPartition(command_topics["audit"], 0, OFFSET_BEGINNING)])
    message = consumer.poll(LONG)
    assert message is not None
    record = json.loads(message.value() or b"")
    consumer.close()
    assert (record["principal"], record["pv"], record["result"]) == ("operators", "pva://magnet:ao", "ok")
    assert (set(record["old"]), record["new"]) == ({"value"}, {"value": 2.5})

    thief = clients["website"].app_name
    stolen = replace(site.settings("SASL", site.scram(thief), thief), command_topic=command_topics["operators"])
    with Client("site", thief, settings=stolen, timeout=LONG) as client:
        with pytest.raises(TransportError, match="WRITE") as refused:
            first(client.put_stream("pva://magnet:ao", 7.0, check=False))
        scanner.add(refused.value)

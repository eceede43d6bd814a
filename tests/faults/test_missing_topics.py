"""A broker without automatic topic creation, with ACLs that forbid the creation of some topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from apache_kafka import ApacheKafka
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from k2eg_rx import TransportError, first

PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
FORBIDDEN = "forbidden"


def acl(kind: ResourceType, name: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    """An ACL for all users; for topics it applies to a name prefix."""
    pattern = ResourcePatternType.PREFIXED if kind is ResourceType.TOPIC else ResourcePatternType.LITERAL
    return AclBinding(kind, name, pattern, "User:*", "*", operation, permission)


ACLS = [
    # CREATE on the cluster would include all topics, so it is denied; the broker itself needs the other operations.
    acl(ResourceType.BROKER, "kafka-cluster", AclOperation.ALL, AclPermissionType.ALLOW),
    acl(ResourceType.BROKER, "kafka-cluster", AclOperation.CREATE, AclPermissionType.DENY),
    acl(ResourceType.TOPIC, FORBIDDEN, AclOperation.ALL, AclPermissionType.ALLOW),
    acl(ResourceType.TOPIC, FORBIDDEN, AclOperation.CREATE, AclPermissionType.DENY),
]


@pytest.fixture
def strict_site(make_apache_kafka: Callable[..., ApacheKafka], make_site: Callable[[str], Any]) -> Any:
    """A site on a broker with those ACLs."""
    broker = make_apache_kafka(
        {
            "auto.create.topics.enable": "false",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        }
    )
    site = make_site(broker.address)
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.create_topics([NewTopic(f"commands-{site.name}", 1)])[f"commands-{site.name}"].result(PATIENCE)
    for binding in ACLS:
        admin.create_acls([binding])[binding].result(PATIENCE)
    return site


def test_without_automatic_creation_the_client_creates_its_reply_topic(strict_site: Any, collector: Any) -> None:
    gateway = strict_site.gateway()
    client = strict_site.client("allowed")
    (uri,) = strict_site.uris(1)
    assert first(client.get_stream(uri, timeout=PATIENCE)).value == 0
    client.monitor_stream(uri).subscribe(collector.on_next, collector.on_end, collector.on_end)
    collector.wait_until(lambda: bool(collector.values), "the PV, whose topic the gateway creates")
    collector.wait_for_progress()
    collector.wait_for_last_values(gateway.pause())
    assert collector.ends == []
    topics = AdminClient({"bootstrap.servers": strict_site.broker}).list_topics(timeout=PATIENCE).topics
    assert len(topics["allowed-reply"].partitions) == 1

    refused = strict_site.client(FORBIDDEN)
    with pytest.raises(TransportError) as caught:
        first(refused.get_stream(uri, timeout=PATIENCE))
    text = str(caught.value)
    assert f"'{FORBIDDEN}-reply'" in text
    command = f"kafka-topics.sh --bootstrap-server {strict_site.broker} --create --topic {FORBIDDEN}-reply"
    assert command in text

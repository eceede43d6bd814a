"""librdkafka properties of each client: defaults, the ``[kafka]`` section, and fixed properties.

The ``[kafka]`` section of an environment, and over it ``[kafka.producer]`` or ``[kafka.consumer]``, override the
defaults, but not the properties on which exact start offsets, group rebalances and the safety of puts depend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from k2eg_rx.errors import TransportError
from k2eg_rx.settings import Settings
from k2eg_rx.texts import get_logger, shown

Properties = dict[str, Any]

RETENTION_MS = 3_600_000  # an hour, as on the gateway's own topics; no request waits longer for its reply

_log = get_logger(__name__)

_BROKER = re.compile(r"(?:(?:plaintext|ssl|sasl_plaintext|sasl_ssl)://)?(?:[\w.%-]+|\[[\w:.%]+\])(?::(\d{1,5}))?", re.I)

_DEFAULTS: Properties = {
    "client.id": "k2eg-rx",
    "socket.nagle.disable": True,  # commands are a few hundred bytes and latency matters
    "socket.keepalive.enable": True,  # firewalls drop connections that are idle overnight
    "reconnect.backoff.max.ms": 2000,  # the default of 10 s is long for a control panel
    # With sparse connections, librdkafka connects to each further broker 50 ms later, which would delay the first
    # offset, the first command and the first event. Clusters have few brokers, with topics on all of them.
    "enable.sparse.connections": False,
    "log.connection.close": False,  # brokers close idle connections as a matter of course
    "enable.metrics.push": False,  # no telemetry
}

# The prefetch is the memory used, beside the subscriber queues, while the receiver is not ready: 16 MiB holds some
# seconds of the fastest monitors (1 kB each).
_PREFETCH_KBYTES = 16 * 1024
_CONSUMER_DEFAULTS: Properties = {
    "queued.max.messages.kbytes": _PREFETCH_KBYTES,
    "fetch.max.bytes": _PREFETCH_KBYTES * 1024,  # one response exceeds the prefetch by at most this
    "fetch.queue.backoff.ms": 20,  # delay until a full prefetch is filled again; 1 s by default
    "fetch.error.backoff.ms": 50,  # a partition whose leader moves; 500 by default
}

# The broker answers a fetch when records arrive, or after this time. An added topic is part of the next fetch but one:
# while all other topics are silent, the first event of an added PV takes twice this time. Each fetch names all
# partitions: 2,000 silent PVs cost a quarter of a processor with 20 ms and a tenth with 100 ms (benchmarks/idle.py).
# The reply topic is read from the start, so that Kafka's default of 500 ms adds no latency.
_EVENTS_DEFAULTS: Properties = {
    "fetch.wait.max.ms": 100,
    "max.partition.fetch.bytes": 64 * 1024,  # see `k2eg_rx.kafka.consumer.leveling`
}
_HISTORY_DEFAULTS: Properties = {"fetch.wait.max.ms": 20}  # history is read for a short time only

_CONSUMER_RULES: Properties = {
    # Topics are read once they are known to exist: one that librdkafka does not find was deleted, which is reported at
    # once. By default librdkafka waits 30 s for a new topic.
    "topic.metadata.propagation.max.ms": 0,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # the poll loop restarts and logs it; a silent reset could lose or repeat records
    "enable.partition.eof": False,
    "allow.auto.create.topics": False,  # a mistyped name must not create a topic
    "isolation.level": "read_committed",  # what a transaction gave up must lead to no put
    "group.protocol": "classic",  # the new protocol (KIP-848) does not allow assigning partitions
}
_MANUAL_RULES: Properties = {"enable.auto.commit": False}
_GROUP_RULES: Properties = {
    "enable.auto.commit": True,
    # Not "cooperative-sticky": librdkafka's may abort the process while members subscribe to different topics (decision
    # 0011). Not "range": it assigns the first partition of each topic, often the only one in use, to the same member.
    "partition.assignment.strategy": "roundrobin",
}
_GROUP_DEFAULTS: Properties = {
    "auto.commit.interval.ms": 1000,  # the events that are repeated after a crash
    # Members learn of a rebalance within this time, and none reads until all have joined; 3 s by default.
    "heartbeat.interval.ms": 500,
}
_PRESENCE_RULES: Properties = {
    "enable.auto.commit": False,
    "partition.assignment.strategy": "range",  # the assignment is not read, so the simplest assignor suffices
}
# Without end-of-partition events a reader would wait for a last record that retention has removed.
_HISTORY_RULES: Properties = {"enable.partition.eof": True}
_LEAST_PARTITION_FETCH = 16 * 1024  # bytes: ten ordinary events; with less, round trips dominate
_MOST_PARTITION_FETCH = 1024 * 1024  # Kafka's own default
_PRODUCER_DEFAULTS: Properties = {
    "linger.ms": 0,
    "enable.idempotence": True,  # a put that is resent after a lost connection is executed once
    # As the gateway's own timeout; an error is better than a late put. Used by `KafkaSink`, not by librdkafka.
    "message.timeout.ms": 10_000,
    # Before compression; the topic sets the limit. Not more: brokers close the connection at a request of 100 MiB
    # (socket.request.max.bytes), after which the same request would be repeated for ever.
    "message.max.bytes": 64 * 1024 * 1024,
    "queue.buffering.max.messages": 100_000,  # in librdkafka and in `KafkaSink` together
    "queue.buffering.max.kbytes": 64 * 1024,  # in librdkafka, which gets few records at a time; 1 GiB by default
    "compression.type": "snappy",  # as the deployed gateway
}

# Static membership fences the second instance of a program out of its group.
_NEVER = frozenset({"group.instance.id", "group.remote.assignor"})

# Concerns producers; librdkafka refuses a consumer whose fetch size is below it.
_NEVER_OF_A_CONSUMER = _NEVER | {"message.max.bytes"}

UNNAMED_GROUP = "kg-reader"  # librdkafka requires one even without group membership


def check_settings(settings: Settings) -> None:
    """Checks the broker's address, and the ``[kafka...]`` sections for properties that no client can have.

    Raises:
        TransportError: The address is none, or a property must not be there; the text names it and the reason.
    """
    _check_broker_url(settings.broker_url)
    for name, value in (*settings.kafka_of_producers.items(), *settings.kafka_of_consumers.items()):
        if name.endswith("_cb") or name in ("on_commit", "on_delivery", "logger"):
            raise TransportError(f"[kafka] {name} is a function of a program, which a file cannot give: remove it")
        if name == "transactional.id":
            raise TransportError(
                "[kafka] transactional.id must not be set: commands and events are sent singly; remove it"
            )
        if name in ("acks", "request.required.acks") and value.strip().lower() not in ("all", "-1"):
            raise TransportError(
                f"[kafka] {name} must be all, got {value}: a put that is repeated after a lost connection would not be"
                " recognized by the broker, and be carried out twice"
            )


def _check_broker_url(url: str) -> None:
    brokers = [broker.strip() for broker in url.split(",") if broker.strip()]
    found = [_BROKER.fullmatch(broker) for broker in brokers]
    if not found or not all(match is not None and 0 < int(match[1] or 1) <= 65535 for match in found):
        given = shown(url) if brokers else "nothing"
        raise TransportError(
            f"kafka_broker_url must be host:port, or several separated by commas, got {given}: such as"
            " broker.example.org:9092; encryption and passwords belong into [kafka]"
        )


def _properties(
    settings: Settings,
    properties: Mapping[str, str],
    defaults: Mapping[str, Any],
    rules: Mapping[str, Any],
    never: frozenset[str] = _NEVER,
) -> Properties:
    asked = {name: value for name, value in properties.items() if name not in never}
    rules = {"bootstrap.servers": settings.broker_url, **rules}
    for name in sorted(set(rules) & set(asked)):
        if str(rules[name]).lower() != asked[name].lower():
            _log.warning("[kafka] %s is not used: it must be %s here", name, rules[name])
    return {**_DEFAULTS, **defaults, **asked, **rules}


def _consumer_properties(settings: Settings, defaults: Mapping[str, Any], rules: Mapping[str, Any]) -> Properties:
    rules = {**_CONSUMER_RULES, **rules}
    return _properties(settings, settings.kafka_of_consumers, defaults, rules, _NEVER_OF_A_CONSUMER)


def admin_properties(settings: Settings, *, create_topics: bool = False) -> Properties:
    """Returns the properties of the admin client."""
    return _properties(settings, settings.kafka_of_producers, {}, {"allow.auto.create.topics": create_topics})


def replies_properties(settings: Settings) -> Properties:
    """Returns the properties of the consumer of the reply topic."""
    defaults = {"group.id": UNNAMED_GROUP, **_CONSUMER_DEFAULTS}
    return _consumer_properties(settings, defaults, _MANUAL_RULES)


def events_properties(settings: Settings) -> Properties:
    """Returns the properties of an event consumer that receives every record."""
    defaults = {"group.id": UNNAMED_GROUP, **_CONSUMER_DEFAULTS, **_EVENTS_DEFAULTS}
    return _consumer_properties(settings, defaults, _MANUAL_RULES)


def history_properties(settings: Settings, topics: int) -> Properties:
    """Returns the properties of a history consumer.

    The prefetch is divided among the topics: librdkafka discards the records of a partition that is paused.

    Args:
        settings: The environment.
        topics: The number of topics.
    """
    share = _PREFETCH_KBYTES * 1024 // max(1, topics)
    defaults = {
        "group.id": UNNAMED_GROUP,
        **_CONSUMER_DEFAULTS,
        **_HISTORY_DEFAULTS,
        "max.partition.fetch.bytes": min(max(share, _LEAST_PARTITION_FETCH), _MOST_PARTITION_FETCH),
    }
    return _consumer_properties(settings, defaults, {**_MANUAL_RULES, **_HISTORY_RULES})


def group_properties(settings: Settings, group_name: str) -> Properties:
    """Returns the properties of an event consumer that is a member of a group.

    Raises:
        ValueError: The group name is empty.
    """
    if not group_name:
        raise ValueError("group_name must not be empty: leave it out to receive every event")
    defaults = {**_CONSUMER_DEFAULTS, **_EVENTS_DEFAULTS, **_GROUP_DEFAULTS}
    return _consumer_properties(settings, defaults, {**_GROUP_RULES, "group.id": group_name})


def presence_group(app_name: str) -> str:
    """Returns the presence group of an application, without "k2eg": gateways ignore groups with that in the name."""
    name = f"{app_name}-presence"
    while (at := name.lower().find("k2eg")) >= 0:
        name = f"{name[:at]}kg{name[at + 4 :]}"
    return name


def presence_properties(settings: Settings, app_name: str) -> Properties:
    """Returns the properties of the group presence's consumer."""
    return _consumer_properties(settings, {}, {**_PRESENCE_RULES, "group.id": presence_group(app_name)})


def sink_properties(settings: Settings, linger: float = 0.0) -> Properties:
    """Returns the properties of a producer.

    Args:
        settings: The environment.
        linger: Seconds for which records may wait for others of their request.
    """
    defaults = {**_PRODUCER_DEFAULTS, "linger.ms": linger * 1000} if linger else _PRODUCER_DEFAULTS
    return _properties(settings, settings.kafka_of_producers, defaults, {})

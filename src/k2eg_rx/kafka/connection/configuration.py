"""What each of our librdkafka clients is told: the environment's properties, our defaults, and what has to be.

In: `Settings`. Out: property maps, one per role. Pure; any thread.

The environment's ``[kafka]`` section wins over our defaults; it does not over the few that the exact start, the
hand-over in a group or the safety of a put rest on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from k2eg_rx.settings import Settings

Properties = dict[str, Any]

RETENTION_MS = 3_600_000  # an hour: nobody waits longer for a reply; the gateway's own topics have the same

_log = logging.getLogger(__name__)

_DEFAULTS: Properties = {
    "client.id": "k2eg-rx",
    "socket.nagle.disable": True,  # a command is a few hundred bytes and somebody waits for its reply
    "socket.keepalive.enable": True,  # firewalls drop connections that are idle overnight
    "reconnect.backoff.max.ms": 2000,  # the default of 10 s is long for somebody who looks at a control panel
    # librdkafka connects to one broker, and to others no sooner than 50 ms later: that is what the first position, the
    # first command and the first event would wait. A cluster has a few brokers, and topics on all of them anyway.
    "enable.sparse.connections": False,
    "log.connection.close": False,  # brokers close idle connections as a matter of course
    "enable.metrics.push": False,  # nothing is sent that was not asked for
}

# A consumer's prefetch is what lies in memory, outside the subscribers' mailboxes, while the receiver is not ready:
# 16 MiB is some seconds of the fastest monitors (1 kB each) and still nothing on a workstation.
_PREFETCH_KBYTES = 16 * 1024
_CONSUMER_DEFAULTS: Properties = {
    "queued.max.messages.kbytes": _PREFETCH_KBYTES,
    "fetch.max.bytes": _PREFETCH_KBYTES * 1024,  # the most by which one answer can go over it
    "fetch.queue.backoff.ms": 20,  # how long a full prefetch stays unfilled once there is room; 1 s by default
    "fetch.error.backoff.ms": 50,  # a partition whose leader moves; 500 by default
}

# A fetch is answered when something has come, or after this time. One is under way per broker, and the next but one is
# the first that has an added topic: while all others are silent, an added PV's first event comes after twice this time.
# Each fetch names all partitions, so 2,000 silent PVs cost a quarter of a processor with 20 ms and a tenth with 100
# (benchmarks/idle.py). Replies come on one topic that is there from the start, so Kafka's 500 ms cost nothing.
_EVENTS_DEFAULTS: Properties = {"fetch.wait.max.ms": 100}
_HISTORY_DEFAULTS: Properties = {"fetch.wait.max.ms": 20}  # it reads what is there, for a short time

_CONSUMER_RULES: Properties = {
    # Topics are read when they are known to be there: one that librdkafka does not find is gone, and we want to know at
    # once. By default it says nothing for the first 30 s of a topic.
    "topic.metadata.propagation.max.ms": 0,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # we choose where to go on, and say so; silence could lose or repeat records
    "enable.partition.eof": False,
    "allow.auto.create.topics": False,  # a typing error must not become a topic
    "group.protocol": "classic",  # the new protocol (KIP-848) forbids assigning partitions
}
_MANUAL_RULES: Properties = {"enable.auto.commit": False}
_GROUP_RULES: Properties = {
    "enable.auto.commit": True,
    # Not "cooperative-sticky": librdkafka's ends the process at times, where members read different topics for a while.
    # Not "range": it gives the first partition of each topic, often the only one with events, to the same member.
    "partition.assignment.strategy": "roundrobin",
}
_GROUP_DEFAULTS: Properties = {
    "auto.commit.interval.ms": 1000,  # what a crash repeats
    # How soon members hear of a rebalance, and so for how long nobody reads then; 3 s by default.
    "heartbeat.interval.ms": 500,
}
_PRESENCE_RULES: Properties = {
    "enable.auto.commit": False,
    "partition.assignment.strategy": "range",  # it gives all it gets away again, so the simplest will do
}
# The end of a partition is told, or a reader would wait for a last record that retention has removed; for the same
# reason it goes on with the oldest there is.
_HISTORY_RULES: Properties = {"enable.partition.eof": True, "auto.offset.reset": "earliest"}
_LEAST_PARTITION_FETCH = 16 * 1024  # bytes; some ten ordinary events, below that a round trip gives too little
_MOST_PARTITION_FETCH = 1024 * 1024  # Kafka's own default
_PRODUCER_DEFAULTS: Properties = {
    "linger.ms": 0,
    "enable.idempotence": True,  # a put that is sent again after a broken connection is carried out once
    "message.timeout.ms": 10_000,  # the gateway's own patience; an error after that is better than a late put
    "message.max.bytes": 100 * 1024 * 1024,  # before compression: how much is too much is the broker's to say
    "compression.type": "snappy",  # as the deployed gateway
}

# Static membership fences the second instance of a program out of its group.
_NEVER = frozenset({"group.instance.id", "group.remote.assignor"})

# What a producer may send is a matter of the producer; a consumer would refuse to fetch less than that at once.
_NEVER_OF_A_CONSUMER = _NEVER | {"message.max.bytes"}

UNNAMED_GROUP = "kg-reader"  # librdkafka wants a name even from a consumer that joins no group


def _properties(
    settings: Settings, defaults: Mapping[str, Any], rules: Mapping[str, Any], never: frozenset[str] = _NEVER
) -> Properties:
    asked = {name: value for name, value in settings.kafka.items() if name not in never}
    rules = {"bootstrap.servers": settings.broker_url, **rules}
    for name in sorted(set(rules) & set(asked)):
        if str(rules[name]).lower() != asked[name].lower():
            _log.warning("[kafka] %s is not used: it has to be %s here", name, rules[name])
    return {**_DEFAULTS, **defaults, **asked, **rules}


def _consumer_properties(settings: Settings, defaults: Mapping[str, Any], rules: Mapping[str, Any]) -> Properties:
    return _properties(settings, defaults, {**_CONSUMER_RULES, **rules}, _NEVER_OF_A_CONSUMER)


def admin_properties(settings: Settings, *, create_topics: bool = False) -> Properties:
    """Returns the properties of the client that asks the cluster about topics."""
    return _properties(settings, {}, {"allow.auto.create.topics": create_topics})


def replies_properties(settings: Settings) -> Properties:
    """Returns the properties of the consumer of the reply topic."""
    defaults = {"group.id": UNNAMED_GROUP, **_CONSUMER_DEFAULTS}
    return _consumer_properties(settings, defaults, _MANUAL_RULES)


def events_properties(settings: Settings) -> Properties:
    """Returns the properties of a consumer of events that gets them all."""
    defaults = {"group.id": UNNAMED_GROUP, **_CONSUMER_DEFAULTS, **_EVENTS_DEFAULTS}
    return _consumer_properties(settings, defaults, _MANUAL_RULES)


def history_properties(settings: Settings, topics: int) -> Properties:
    """Returns the properties of a consumer that reads the past of so many topics.

    What is fetched of a partition that is then not wanted for a while is thrown away: each gets its share.
    """
    share = _PREFETCH_KBYTES * 1024 // max(1, topics)
    defaults = {
        "group.id": UNNAMED_GROUP,
        **_CONSUMER_DEFAULTS,
        **_HISTORY_DEFAULTS,
        "max.partition.fetch.bytes": min(max(share, _LEAST_PARTITION_FETCH), _MOST_PARTITION_FETCH),
    }
    return _consumer_properties(settings, defaults, {**_MANUAL_RULES, **_HISTORY_RULES})


def check_group_name(group_name: str) -> None:
    """Refuses a name that a group which shares events may not have.

    Raises:
        ValueError: It is empty, or gateways would not count the group.
    """
    if not group_name:
        raise ValueError("group_name is empty: leave it out to get every event")
    if "k2eg" in group_name.lower():
        raise ValueError(
            f"group_name {group_name!r}: may not contain 'k2eg', for gateways leave such groups out when they count who"
            " listens, and would stop the monitors"
        )


def group_properties(settings: Settings, group_name: str) -> Properties:
    """Returns the properties of a consumer that shares events with others.

    Raises:
        ValueError: The group may not be called that.
    """
    check_group_name(group_name)
    defaults = {**_CONSUMER_DEFAULTS, **_EVENTS_DEFAULTS, **_GROUP_DEFAULTS}
    return _consumer_properties(settings, defaults, {**_GROUP_RULES, "group.id": group_name})


def presence_group(app_name: str) -> str:
    """Returns the group in which an application is present; without "k2eg", for gateways do not count such groups."""
    name = f"{app_name}-presence"
    while (at := name.lower().find("k2eg")) >= 0:
        name = f"{name[:at]}kg{name[at + 4 :]}"
    return name


def presence_properties(settings: Settings, app_name: str) -> Properties:
    """Returns the properties of the consumer that is only present."""
    return _consumer_properties(settings, {}, {**_PRESENCE_RULES, "group.id": presence_group(app_name)})


def sink_properties(settings: Settings) -> Properties:
    """Returns the properties of the producer."""
    return _properties(settings, _PRODUCER_DEFAULTS, {})

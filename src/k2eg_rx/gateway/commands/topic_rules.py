"""Checks the topics that commands make a gateway publish to.

A command names its reply topic and, directly or by a PV's or snapshot's name, the topics of monitors and snapshots.
None may be a command topic, that of the starts of gateways or an internal one of Kafka, each has to match the pattern
of its kind, and a topic is of one kind while it is in use.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict

from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.pv import gateway_topic

TOPIC_REFUSED = -11  # the code of replies; unknown to the deployed gateway

_INTERNAL = "__"  # the prefix of Kafka's own topics: __consumer_offsets, __transaction_state
_REMEMBERED = 10_000  # reply topics that count as in use: more applications than a laboratory has


class TopicRules:
    """Checks topics, and knows which ones are in use.

    Args:
        context: The command topics and the patterns.
    """

    def __init__(self, context: GatewayContext) -> None:
        self._command_topics = frozenset(context.command_topics)
        self._start_topics = frozenset(map(gateway_topic, context.command_topics))
        self._state_topic = context.options.state_topic_name
        options = context.options
        self._audit_topic = options.audit_topic or None
        self._patterns = {
            "reply": options.reply_topics,
            "monitor": options.monitor_topics,
            "snapshot": options.snapshot_topics,
        }
        self._reply_topics: OrderedDict[str, None] = OrderedDict()  # the one used last at the end
        self._monitor_topics: dict[str, Counter[str]] = {}  # the applications whose monitors publish to it
        self._snapshot_topics: Counter[str] = Counter()

    def reply_topic(self, topic: str) -> str:
        """Returns why replies to a topic are refused; otherwise notes it as in use and returns ``""``."""
        refusal = self._refusal("reply", topic)
        owners = self._monitor_topics.get(topic)
        if not refusal and topic in self._snapshot_topics:
            refusal = f"topic {topic!r} is a snapshot's"
        if not refusal and owners is not None and topic not in owners:
            refusal = f"topic {topic!r} is a monitor's"
        if not refusal:
            self._reply_topics[topic] = None
            self._reply_topics.move_to_end(topic)
            if len(self._reply_topics) > _REMEMBERED:
                self._reply_topics.popitem(last=False)
        return refusal

    def monitor_topic(self, topic: str, application: str) -> str:
        """Returns why a monitor of an application must not publish to a topic; ``""`` if it may."""
        if topic in self._snapshot_topics:
            return f"topic {topic!r} is a snapshot's"
        if topic in self._reply_topics and topic != application:
            return f"topic {topic!r} is the reply topic of an application"
        return self._refusal("monitor", topic)

    def snapshot_topic(self, topic: str) -> str:
        """Returns why a snapshot must not publish to a topic; ``""`` if it may."""
        if topic in self._monitor_topics:
            return f"topic {topic!r} is a monitor's"
        if topic in self._reply_topics:
            return f"topic {topic!r} is the reply topic of an application"
        return self._refusal("snapshot", topic)

    def may_delete(self, topic: str) -> bool:
        """Returns whether a topic is one that monitors may publish to, and not in use for anything."""
        in_use = topic in self._monitor_topics or topic in self._snapshot_topics or topic in self._reply_topics
        return not in_use and not self._refusal("monitor", topic)

    def _refusal(self, kind: str, topic: str) -> str:
        if topic in self._command_topics:
            return f"topic {topic!r} is {'the' if len(self._command_topics) == 1 else 'a'} command topic"
        if topic in self._start_topics:
            return f"topic {topic!r} is that of the starts of gateways"
        if topic == self._state_topic:
            return f"topic {topic!r} is that of the state of gateways"
        if topic == self._audit_topic:
            return f"topic {topic!r} is the audit topic"
        if topic.startswith(_INTERNAL):
            return f"topic {topic!r} is internal to Kafka"
        pattern = self._patterns[kind]
        if pattern != ".*" and re.fullmatch(pattern, topic) is None:
            return f"topic {topic!r} does not match {pattern!r} ([gateway] {kind}_topics)"
        return ""

    def add_monitor(self, topic: str, application: str) -> None:
        """Notes that a monitor of an application publishes to a topic."""
        self._monitor_topics.setdefault(topic, Counter())[application] += 1

    def remove_monitor(self, topic: str, application: str) -> bool:
        """Notes that it has ended; returns whether it was the last one of its topic."""
        owners = self._monitor_topics[topic]
        owners[application] -= 1
        if not owners[application]:
            del owners[application]
        if not owners:
            del self._monitor_topics[topic]
        return not owners

    def add_snapshot(self, topic: str) -> None:
        """Notes that a snapshot publishes to a topic."""
        self._snapshot_topics[topic] += 1

    def remove_snapshot(self, topic: str) -> None:
        """Notes that it has ended."""
        self._snapshot_topics[topic] -= 1
        if self._snapshot_topics[topic] <= 0:
            del self._snapshot_topics[topic]

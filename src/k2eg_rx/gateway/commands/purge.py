"""Deletes the topics of PVs whose monitors have ended for want of consumers.

A topic is deleted only if nothing can be using it: it has the name of the PV's topic, this gateway has ended its last
monitor there, Kafka has confirmed what it wrote, there are no consumers, nothing was written between two checks, and
no other gateway reads a command topic of this one, since its monitors may be for clients whose consumers are on their
reply topics only.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from k2eg_rx.gateway.commands.topic_rules import TopicRules
from k2eg_rx.gateway.commands.topics import Topics
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.pv import monitor_topic
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)


class TopicPurge:
    """The topics that may be deleted at one of the next checks.

    Args:
        topics: Looks up and deletes topics.
        rules: Knows which topics are in use.
        context: The options and the command topic.

    Attributes:
        unsettled: Returns the topics to which records of this gateway are on their way.
    """

    def __init__(self, topics: Topics, rules: TopicRules, context: GatewayContext) -> None:
        self._topics = topics
        self._rules = rules
        self._command_topics = context.command_topics
        self._is_on = context.options.purge
        self._candidates: dict[str, int | None] = {}  # with the sum of the end offsets at the check before
        self._has_logged_others = False
        self.unsettled: Callable[[], Collection[str]] = set[str]

    def __len__(self) -> int:
        return len(self._candidates)

    def add(self, topic: str, pv_name: str) -> None:
        """Notes that the last monitor on a topic has expired.

        Args:
            topic: The topic. One that a client has chosen is not the gateway's own, and stays.
            pv_name: The PV of that monitor.
        """
        if self._is_on and topic == monitor_topic(pv_name):
            self._candidates[topic] = None

    def check(self, listeners: Mapping[str, int] | None) -> None:
        """Deletes what has been unused since the check before.

        Args:
            listeners: The number of consumers per topic; None if unknown, which deletes nothing.
        """
        self._candidates = {topic: end for topic, end in self._candidates.items() if self._rules.may_delete(topic)}
        if not self._candidates or listeners is None:
            return
        gateways = max(listeners.get(topic, 0) for topic in self._command_topics)
        if gateways != 1:  # 0 while the group rebalances
            self._candidates = dict.fromkeys(self._candidates)
            if gateways and not self._has_logged_others:
                self._has_logged_others = True
                _log.info("topics kept: gateways=%d reason=another gateway may have monitors on them", gateways)
            return
        unsettled = self.unsettled()
        unused = [topic for topic in self._candidates if not listeners.get(topic) and topic not in unsettled]
        self._candidates.update(dict.fromkeys(self._candidates.keys() - set(unused)))
        if unused:
            self._topics.end_offsets(unused, partial(self._on_ends, unused))

    def _on_ends(self, unused: Sequence[str], ends: Mapping[str, int]) -> None:
        """Deletes the topics whose ends have not moved."""
        deleted: list[str] = []
        for topic in unused:
            if topic not in ends:  # it does not exist
                self._candidates.pop(topic, None)
        for topic, end in ends.items():
            before = self._candidates.get(topic)
            if topic not in self._candidates or not self._rules.may_delete(topic):
                continue
            if before is None:
                self._candidates[topic] = end
                continue
            del self._candidates[topic]
            if before == end:
                deleted.append(topic)
            else:
                _log.info("topic kept: topic=%s reason=another program writes to it", topic)
        if deleted:
            self._topics.delete(deleted, self._check_again)

    def _check_again(self, topics: Collection[str]) -> None:
        self._candidates |= {topic: None for topic in topics if self._rules.may_delete(topic)}

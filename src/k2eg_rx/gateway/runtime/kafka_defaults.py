"""A gateway's properties for Kafka: defaults that `[kafka]` overrides, and those it must not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from k2eg_rx.settings import Settings
from k2eg_rx.texts import get_logger

_log = get_logger(__name__)

KAFKA_DEFAULTS = {
    # What is beyond waits in the `Publisher`, which knows what to drop. Half a second of 20,000 events a second.
    "queue.buffering.max.messages": "10000",
    # The remaining gateways take over the commands of one that was killed, or lost its session while the broker was
    # away, when that session expires. 6 s is the least that brokers allow; the default is 45 s.
    "session.timeout.ms": "6000",
    # Commands that were received but not committed are carried out again if this gateway is killed.
    "auto.commit.interval.ms": "200",
}
# Not to be overridden: events exist nowhere else, so they do not expire but are dropped where the `Publisher` has no
# more room. A client's commands, in contrast, expire after seconds, because a late command is unwanted.
_RULES = {"message.timeout.ms": "0"}
_SAME = "delivery.timeout.ms"  # librdkafka's other name of message.timeout.ms


def with_gateway_defaults(settings: Settings) -> Settings:
    """Returns settings with a gateway's properties for Kafka; `settings.kafka` overrides the defaults among them."""
    kafka, producer = _asked(settings.kafka, "kafka"), _asked(settings.producer, "kafka.producer")
    return replace(settings, kafka={**KAFKA_DEFAULTS, **kafka, **_RULES}, producer=producer)


def _asked(properties: Mapping[str, str], section: str) -> Mapping[str, str]:
    ignored = properties.keys() & {*_RULES, _SAME}
    for name in sorted(ignored):
        _log.warning(
            "property ignored: [%s] %s reason=records of a gateway wait for as long as there is room", section, name
        )
    return {name: value for name, value in properties.items() if name not in ignored}

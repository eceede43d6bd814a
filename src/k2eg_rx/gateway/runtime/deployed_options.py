"""The options of the deployed gateway: which ones this gateway uses, as what, and why it does not use the others.

Names are spelled as by the deployed gateway, mistakes included.
"""

from __future__ import annotations

import re

COMMAND_TOPIC = "cmd-input-topic"
PRODUCER_BROKERS, CONSUMER_BROKERS = "pub-server-address", "sub-server-address"
PRODUCER_PROPERTIES, CONSUMER_PROPERTIES = "pub-impl-kv", "sub-impl-kv"
PRODUCER_GROUP, CONSUMER_GROUP = "pub-group-id", "sub-group-id"
EXPIRATION = "nc-monitor-expiration-timeout"
PURGE = "nc-purge-queue-on-exp-timeout"
IGNORED_GROUPS = "nc-monitor-consumer-filterout-regex"
METRICS, METRICS_PORT = "metric-enable", "metric-server-http-port"
LOG_LEVEL = "log-level"
NODE_TYPE = "node-type"

DEFAULT_GROUP = "k2eg-default-group"  # of the deployed gateway: gateways of both kinds then share the commands
DEFAULT_METRICS_PORT = "8080"

USED = frozenset(
    {
        COMMAND_TOPIC,
        PRODUCER_BROKERS,
        CONSUMER_BROKERS,
        PRODUCER_PROPERTIES,
        CONSUMER_PROPERTIES,
        PRODUCER_GROUP,
        CONSUMER_GROUP,
        EXPIRATION,
        PURGE,
        IGNORED_GROUPS,
        METRICS,
        METRICS_PORT,
        LOG_LEVEL,
        NODE_TYPE,
    }
)
REPEATABLE = frozenset({PRODUCER_PROPERTIES, CONSUMER_PROPERTIES, IGNORED_GROUPS})

_AT_ONCE = "commands are taken as they arrive"
_CHECKS = "consumers are looked up every quarter of the expiration, once a minute at least"
_ONE_LOOP = "one event loop serves all recurring snapshots"
_EPICS = "the EPICS libraries call the gateway; nothing is polled"
_RESTART = "nothing is remembered: clients request their monitors again when this gateway has started"
_STDERR = "logs go to standard error, from where the service manager takes them"
WITHOUT_MEANING = {
    "cmd-max-fecth-element": _AT_ONCE,
    "cmd-max-fecth-time-out": _AT_ONCE,
    "pub-flush-trimeout-ms": "records are sent at once, and flushed for two seconds at the end",
    "monitor-worker-cron-schedule": _CHECKS,
    "scheduler-check-delay-seconds": _CHECKS,
    "scheduler-thread-number": _CHECKS,
    "snapshot-repeating-scheduler-thread": _ONE_LOOP,
    "epics-monitor-thread-count": _EPICS,
    "epics-monitor-channel-poll-max": _EPICS,
    "configuration-server-host": _RESTART,
    "configuration-server-port": _RESTART,
    "configuration-reset-on-start": _RESTART,
    "log-on-console": _STDERR,
    "log-on-file": _STDERR,
    "log-file-name": _STDERR,
    "log-file-max-size": _STDERR,
    "log-on-syslog": _STDERR,
    "syslog-server": _STDERR,
    "syslog-port": _STDERR,
    "storage-path": "nothing is stored",
    "conf-file": "the file is named by --config, or by conf-file-name in the environment",
    "conf-file-name": "the file is named by --config, or by conf-file-name in the environment",
}
NAMES = sorted(USED | WITHOUT_MEANING.keys())

_OWN_RULES = "the gateway has its own rule, on which offsets and puts depend"
_NO_EXPIRY = "records wait for as long as there is room"
PROPERTIES_NOT_USED = {
    "acks": "it is all: with less, a put that is repeated after a lost connection would be carried out twice",
    "request.required.acks": "acks is all",
    "bootstrap.servers": f"the brokers are those of {PRODUCER_BROKERS}",
    "metadata.broker.list": f"the brokers are those of {PRODUCER_BROKERS}",
    "group.id": f"the group is that of {CONSUMER_GROUP}",
    "group.instance.id": _OWN_RULES,
    "group.protocol": _OWN_RULES,
    "group.remote.assignor": _OWN_RULES,
    "partition.assignment.strategy": _OWN_RULES,
    "enable.auto.commit": _OWN_RULES,
    "enable.auto.offset.store": _OWN_RULES,
    "enable.partition.eof": _OWN_RULES,
    "auto.offset.reset": _OWN_RULES,
    "allow.auto.create.topics": _OWN_RULES,
    "message.timeout.ms": _NO_EXPIRY,
    "delivery.timeout.ms": _NO_EXPIRY,
    "transactional.id": "commands and events are sent singly",
}
"""librdkafka properties that the deployed gateway may have and this one sets itself, with the reason."""

LOG_LEVELS = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "fatal": "error",
}
NODE_TYPES = ("gateway",)

PROPERTY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

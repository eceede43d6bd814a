"""Options of a gateway: the `[gateway]` section of an environment file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from k2eg_rx.arguments import LONGEST_DURATION, flag, instance, mapping, non_negative, one_of, positive, whole
from k2eg_rx.pv import is_topic_name
from k2eg_rx.settings import MAX_MESSAGE_BYTES, nearest
from k2eg_rx.texts import get_logger, shown

_log = get_logger(__name__)

_MOST = 2**63 - 1  # of bytes and counts
_MOST_PROCESSES = 256
_GROUP = re.compile(r"[A-Za-z0-9._-]+")
_PRINCIPAL = re.compile(r"[A-Za-z0-9._@-]+")
ANONYMOUS = "anonymous"  # the principal of commands from a topic that `command_topics` does not name
_OVERFLOWS = ("latest", "drop_oldest")
_LOG_LEVELS = ("debug", "info", "warning", "error")
_LOG_FORMATS = ("text", "json")
_BOOLEANS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Timeouts, limits and the consumer group of a gateway. Durations are in seconds.

    Attributes:
        group: The consumer group that reads the command topic; the gateways of a group share the commands. A name
            with "k2eg" in it is accepted with a warning.
        processes: How many gateways of the group `k2eg gateway` runs on this machine, each in a process of its own.
        start_timeout: How long a gateway waits for Kafka when it starts; 0 means without limit.
        operation_timeout: How long EPICS may take for a get or a put.
        max_put_age: A put that has waited longer in Kafka is refused.
        max_get_age: A get that has waited longer in Kafka is refused.
        max_pending: Gets and puts that may run at a time. While it is reached, those of applications with less than
            an equal share still start. An application is a reply topic.
        max_pending_per_application: Gets and puts of one application that may run at a time; further ones wait.
        max_waiting: Gets and puts that may wait because of these bounds; further ones are refused.
        max_waiting_per_application: Gets and puts of one application that may wait.
        max_waiting_triggers: Triggers of one recurring snapshot that may wait until its last iteration is published.
        max_names: PV names that one command may have.
        max_pvs: PVs that monitors and snapshots may have, each counted for every monitor and snapshot that has it.
        max_pvs_per_application: PVs that the monitors and snapshots of one application may have.
        max_topics: Topics that monitors and recurring snapshots may publish to.
        max_topics_per_application: Topics that the monitors and recurring snapshots of one application may publish to.
        reply_topics: A regular expression that reply topics have to match as a whole; commands with others are dropped.
        monitor_topics: The same for the topics of monitors; others are refused.
        snapshot_topics: The same for the topics of recurring snapshots.
        read_only: Whether all puts are refused.
        pvlist: A file in the syntax of ca-gateway's and pvagw's ``pvlist``: the PVs that commands may name, and
            aliases; empty for all PVs.
        access: An EPICS access security file (ACF): what principals may do with the PVs of the groups of `pvlist`, or
            with all PVs, which are in the group DEFAULT; empty for everything.
        command_topics: Further topics that commands are read from, each with the name of the principal that may write
            to it: ``TOPIC:NAME, TOPIC:NAME``. Commands of the environment's command topic are those of ``anonymous``,
            unless it is named here, too.
        audit_topic: A topic for a record of each put that is carried out; empty for none. It must exist.
        state: Whether the gateway keeps what it publishes in a topic, which it shares with the other gateways of its
            group: it goes on after a restart, and others go on when it ends. Needs `create_topics`.
        state_topic: The topic; by default the name of the group with "-state" after it.
        state_partitions: The partitions that it is created with: at most as many gateways share the PVs.
        state_replication: The replication factor that it is created with; 0 for the broker's default.
        create_topics: Whether to create the topics of PVs and snapshots, with the deployed gateway's partitions.
        monitor_expiration: A monitor or recurring snapshot ends after this time without consumers; 0 means never.
        purge: Whether the topic of a PV is deleted some time after its last monitor has ended for want of consumers.
        ignored_groups: A regular expression; consumer groups whose whole name matches do not count as consumers.
        first_value_delay: For clients that subscribe to a PV's topic when its monitor is confirmed, as released clients
            do, the current value is published once more after this time, and when the topic is seen to have more
            consumers; 0 means not at all.
        update_buffer: Approximate bytes of EPICS updates that may wait for the event loop.
        snapshot_buffer: Values that one recurring snapshot may buffer.
        outgoing_buffer: Records that may wait for Kafka in an outage.
        outgoing_buffer_bytes: Their approximate memory.
        outgoing_overflow: Which are dropped beyond: with "latest" the older ones of PVs that have several, so that the
            newest value of each PV stays; with "drop_oldest" the oldest of all.
        metrics_port: The port of the HTTP endpoint with metrics and health; 0 for none. Needs the extra ``metrics``.
        metrics_host: The address that the endpoint listens on; by default only this machine can read it.
        log_level: The least level that is logged: debug, info, warning or error.
        log_format: How a line of the log is written: text, or json for a JSON object per line.
        max_command_bytes: Larger commands are dropped without parsing.
    """

    group: str = "epics-gateway"
    processes: int = 1
    start_timeout: float = 0.0
    operation_timeout: float = 10.0
    max_put_age: float = 30.0
    max_get_age: float = 60.0
    max_pending: int = 30_000  # a get of a PV that does not answer takes about 10 kB for 10 s
    max_pending_per_application: int = 10_000
    max_waiting: int = 100_000  # about 2 kB each
    max_waiting_per_application: int = 50_000
    max_waiting_triggers: int = 1_000
    max_names: int = 10_000  # a command of 1 MB, the default of brokers, has some 20,000
    max_pvs: int = 200_000  # more than one process can serve at 1 Hz
    max_pvs_per_application: int = 50_000
    max_topics: int = 100_000  # 300,000 partitions: more than most Kafka clusters bear
    max_topics_per_application: int = 50_000
    reply_topics: str = ".*"
    monitor_topics: str = ".*"
    snapshot_topics: str = ".*"
    read_only: bool = False
    pvlist: str = ""
    access: str = ""
    command_topics: str = ""
    audit_topic: str = ""
    state: bool = True
    state_topic: str = ""
    state_partitions: int = 32
    state_replication: int = 0
    create_topics: bool = True
    monitor_expiration: float = 3600.0
    first_value_delay: float = 1.0
    purge: bool = False
    ignored_groups: str = ""
    update_buffer: int = 256 * 1024 * 1024
    snapshot_buffer: int = 100_000
    outgoing_buffer: int = 250_000
    outgoing_buffer_bytes: int = 256 * 1024 * 1024
    outgoing_overflow: str = "latest"
    max_command_bytes: int = MAX_MESSAGE_BYTES
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    log_level: str = "info"
    log_format: str = "text"

    def __post_init__(self) -> None:
        if not isinstance(self.group, str) or not _GROUP.fullmatch(self.group):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"[gateway] group must consist of letters, digits, '.', '_' and '-', got {shown(self.group)}"
            )
        for name in ("read_only", "create_topics", "purge", "state"):
            flag(getattr(self, name), f"[gateway] {name}")
        for name in ("operation_timeout", "max_put_age", "max_get_age"):
            positive(getattr(self, name), f"[gateway] {name}")
        for name in ("monitor_expiration", "start_timeout", "first_value_delay"):
            non_negative(getattr(self, name), f"[gateway] {name}", LONGEST_DURATION)
        one_of(self.outgoing_overflow, "[gateway] outgoing_overflow", _OVERFLOWS)
        one_of(self.log_level, "[gateway] log_level", _LOG_LEVELS)
        one_of(self.log_format, "[gateway] log_format", _LOG_FORMATS)
        if instance(self.state_topic, "[gateway] state_topic", str, "a topic's name") and not is_topic_name(
            self.state_topic
        ):
            raise ValueError(f"[gateway] state_topic must be a topic's name, got {shown(self.state_topic)}")
        whole(self.state_replication, "[gateway] state_replication", 0, 32767)
        for name in ("reply_topics", "monitor_topics", "snapshot_topics", "ignored_groups"):
            pattern = instance(getattr(self, name), f"[gateway] {name}", str, "a regular expression")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"[gateway] {name} must be a regular expression ({error}), got {shown(pattern)}"
                ) from None
        if not instance(self.metrics_host, "[gateway] metrics_host", str, "an address").strip():
            raise ValueError("[gateway] metrics_host must be an address of this machine, got ''")
        for name in ("pvlist", "access"):
            instance(getattr(self, name), f"[gateway] {name}", str, "the path of a file")
        instance(self.command_topics, "[gateway] command_topics", str, "a list of TOPIC:NAME")
        if _principals(self.command_topics) and self.audit_topic in _principals(self.command_topics):
            raise ValueError("[gateway] audit_topic must not be a topic of commands")
        if not isinstance(self.audit_topic, str) or not (self.audit_topic == "" or is_topic_name(self.audit_topic)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"[gateway] audit_topic must be the name of a topic, got {shown(self.audit_topic)}")
        whole(self.metrics_port, "[gateway] metrics_port", 0, 65535)
        whole(self.processes, "[gateway] processes", 1, _MOST_PROCESSES)
        for name in (option.name for option in fields(self) if type(option.default) is int and option.default):
            whole(getattr(self, name), f"[gateway] {name}", 1, _MOST)

    @property
    def state_topic_name(self) -> str:
        """The topic of what the gateways of the group publish."""
        return self.state_topic or f"{self.group}-state"

    @classmethod
    def from_section(cls, section: Mapping[str, str]) -> GatewayOptions:
        """Returns the options of a `[gateway]` section; missing ones have their defaults.

        Raises:
            ValueError: An option is unknown or its value is invalid; the text names the option.
        """
        kinds: dict[str, type] = {option.name: type(cast("object", option.default)) for option in fields(cls)}
        values: dict[str, Any] = {}
        for name, text in mapping(section, "section", "a mapping of options to texts").items():
            if name not in kinds:
                raise ValueError(f"[gateway] {name[:80]} is not an option: {nearest(name[:80], sorted(kinds))}")
            values[name] = _convert(name, text.strip(), kinds[name])
        return cls(**values)

    @property
    def principals(self) -> Mapping[str, str]:
        """The name of the principal of each topic of `command_topics`."""
        return _principals(self.command_topics)

    @staticmethod
    def boolean(text: str) -> bool | None:
        """Returns the flag that a text such as ``yes``, ``off`` or ``1`` stands for; None for any other text."""
        return _BOOLEANS.get(text.lower())

    def warn(self) -> None:
        """Logs what is worth a warning."""
        if "k2eg" in self.group.lower():
            _log.warning(
                "group name contains 'k2eg': group=%s reason=deployed gateways have such names, and share the commands"
                " with this gateway if the group is the same; programs that count consumers leave such groups out",
                self.group,
            )


def _principals(text: str) -> dict[str, str]:
    principals: dict[str, str] = {}
    for item in filter(None, (each.strip() for each in text.split(","))):
        topic, _, name = (part.strip() for part in item.partition(":"))
        if not is_topic_name(topic) or not _PRINCIPAL.fullmatch(name) or name == ANONYMOUS:
            raise ValueError(
                f"[gateway] command_topics must be a list of TOPIC:NAME, with names of letters, digits and '._@-' other"
                f" than {ANONYMOUS!r}, got {shown(item)}"
            )
        if principals.setdefault(topic, name) != name:
            raise ValueError(f"[gateway] command_topics must name each topic once, got {shown(topic)} twice")
    return principals


def _convert(name: str, text: str, kind: type) -> str | float | int | bool:
    if kind is str:
        return text
    if kind is bool:
        if (flag_ := GatewayOptions.boolean(text)) is None:
            raise ValueError(f"[gateway] {name} must be 'yes' or 'no', got {text!r}")
        return flag_
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(f"[gateway] {name} must be {expected}, got {text!r}") from None

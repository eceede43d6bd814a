"""The PVs that a monitor command requests: their checks, topics, and the names of their events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from k2eg_rx.gateway.commands.get_put import MALFORMED
from k2eg_rx.gateway.commands.limits import OVER_LIMIT, too_many_names
from k2eg_rx.gateway.commands.messages import OutgoingRecord, reply
from k2eg_rx.gateway.commands.topic_rules import TOPIC_REFUSED, TopicRules
from k2eg_rx.gateway.runtime.options import ANONYMOUS, GatewayOptions
from k2eg_rx.protocol import MONITOR_KEY, MonitorCommand, MultiMonitorCommand, ReplyTo, Serialization
from k2eg_rx.pv import PVAddress, monitor_topic
from k2eg_rx.texts import printable

Target = tuple[PVAddress, str]  # a PV and the topic of its events
MonitorKey = tuple[str, str]  # the name of a monitor's events, and their topic


class MonitorRefusedError(Exception):
    """A monitor command is refused; `error` is the reply's code."""

    def __init__(self, error: int, text: str) -> None:
        super().__init__(text)
        self.error = error


@dataclass(frozen=True, slots=True)
class MonitorDefinition:
    """A monitor that is wanted, apart from the command that requested it.

    Attributes:
        name: The name of its events: Kafka key, and key of the structure.
        address: The PV.
        topic: The topic of its events.
        serialization: Theirs.
        applications: The reply topics of the applications that have requested it; the first one at first.
        reads_on: Whether the client that requested it last reads the topic from before its command on.
        principals: The principals of their commands.
    """

    name: str
    address: PVAddress
    topic: str
    serialization: Serialization
    applications: tuple[str, ...]
    reads_on: bool = True
    principals: tuple[str, ...] = (ANONYMOUS,)

    @property
    def key(self) -> MonitorKey:
        """What the monitor is identified by."""
        return self.name, self.topic


def requested_targets(command: MonitorCommand | MultiMonitorCommand, options: GatewayOptions) -> list[Target]:
    """Returns the PVs that a command requests, with the topics of their events.

    Raises:
        MonitorRefusedError: A PV name is malformed, which refuses the whole command, or there are too many.
    """
    if isinstance(command, MonitorCommand):
        try:
            return [(PVAddress.parse(command.pv_name), command.monitor_dest_topic)]
        except ValueError:
            raise MonitorRefusedError(-1, MALFORMED) from None
    refusal = too_many_names(len(command.pv_name_list), options)
    if refusal:
        raise MonitorRefusedError(OVER_LIMIT, refusal)
    targets: list[Target] = []
    for pv_name in command.pv_name_list:
        try:
            address = PVAddress.parse(pv_name)
        except ValueError:
            raise MonitorRefusedError(-1, f"{MALFORMED}: '{printable(pv_name, 200)}'") from None
        targets.append((address, command.monitor_dest_topic or monitor_topic(address.name)))
    return targets


def check_topics(targets: Sequence[Target], rules: TopicRules, application: str) -> None:
    """Checks the topics of monitors.

    Raises:
        MonitorRefusedError: A monitor of the application must not publish to one of them.
    """
    for _, topic in targets:
        refusal = rules.monitor_topic(topic, application)
        if refusal:
            raise MonitorRefusedError(TOPIC_REFUSED, f"monitor refused: {refusal}")


def confirmation(
    command: MonitorCommand | MultiMonitorCommand, reply_to: ReplyTo, names: Sequence[str], starts: str
) -> OutgoingRecord:
    """Returns the reply to a command that is carried out.

    Args:
        command: The command.
        reply_to: Topic, id and serialization of the reply.
        names: The names of the events of its PVs.
        starts: The topic of the starts of gateways.
    """
    by_uri = [name for name in names if "://" in name] if command.uri_keys else None
    if isinstance(command, MonitorCommand):
        text, shared_topic = f"Monitor activated for {command.pv_name}", None
    else:
        text, shared_topic = "Monitor activated", command.monitor_dest_topic or None
    return reply(reply_to, MONITOR_KEY, 0, text, shared_topic, uri_keys=by_uri, gateway_topic=starts)


def event_names(
    targets: Sequence[Target], user_of: Callable[[MonitorKey], PVAddress | None], *, uri_keys: bool
) -> list[str]:
    """Returns the names of the events of PVs on their topics: the PV's name, or its URI if the name has another user.

    Under its name a topic carries a PV over one protocol: as with the deployed gateway, the first one requested. For
    clients that accept URIs as names it carries the other one beside it.

    Args:
        targets: The PVs.
        user_of: Returns the PV that has a name on a topic; None if none has.
        uri_keys: Whether the client accepts URIs.
    """
    users: dict[MonitorKey, PVAddress] = {}  # in this command
    names: list[str] = []
    for address, topic in targets:
        user = user_of((address.name, topic)) or users.get((address.name, topic))
        name = address.name
        if uri_keys and (user != address if user is not None else user_of((address.uri, topic)) is not None):
            name = address.uri
        names.append(name)
        users.setdefault((name, topic), address)
    return names

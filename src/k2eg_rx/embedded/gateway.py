"""Starts the gateway of an embedded stack.

It is the only gateway on its command topic and connects to the stack's EPICS servers only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from k2eg_rx.embedded.ca_environment import channel_access
from k2eg_rx.gateway import Gateway, GatewayOptions, Provider, with_gateway_defaults
from k2eg_rx.gateway.epics.ca_provider import ChannelAccessProvider
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.kafka import KafkaTopicAdmin, KafkaTransport
from k2eg_rx.pv import Protocol, PVAddress
from k2eg_rx.settings import Settings
from k2eg_rx.transport import Receiver, RecordSource

_CONNECT_SECONDS = 60.0  # for the first PV over Channel Access; usually 30 ms
_START_SECONDS = 60.0  # for the gateway; usually 100 ms with the embedded broker
_CLOSE_SECONDS = 1.0  # for each part


class _GrouplessTransport(KafkaTransport):
    """Reads the command topic without a consumer group: there is one gateway, and joining a group takes 3 s."""

    def events(self, receiver: Receiver, group_name: str | None) -> RecordSource:
        """Returns a source that reads all partitions."""
        del group_name
        return super().events(receiver, None)


def start_gateway(
    settings: Settings,
    variables: Mapping[str, str],
    record: str,
    on_start: Callable[[str, Callable[[], object]], None],
    *,
    manage_topics: bool,
) -> Gateway:
    """Starts a gateway and returns it when it accepts commands.

    Args:
        settings: The environment to serve.
        variables: The EPICS variables of a client of the stack's servers.
        record: A record to read over Channel Access.
        on_start: Called with the name and the close function of each part as soon as it runs.
        manage_topics: Whether the broker supports CreateTopics and consumer group queries, as a real one does.

    Raises:
        ProviderError: The record cannot be read.
        TransportError: Kafka cannot be reached.
    """
    pva = PVAccessProvider(conf={name: value for name, value in variables.items() if name.startswith("EPICS_PVA_")})
    on_start("PVAccess", pva.close)
    with channel_access(variables):
        ca = ChannelAccessProvider()
        on_start("Channel Access", ca.close)
        ca.get(PVAddress("ca", record), _CONNECT_SECONDS).result(_CONNECT_SECONDS)
    transport = _GrouplessTransport(with_gateway_defaults(settings))
    on_start("transport", lambda: transport.close(_CLOSE_SECONDS))
    providers: dict[Protocol, Provider] = {"pva": pva, "ca": ca}
    options = GatewayOptions() if manage_topics else GatewayOptions(create_topics=False, monitor_expiration=0.0)
    admin = KafkaTopicAdmin(settings) if manage_topics else None
    gateway = Gateway(transport, providers, options, settings.command_topic, admin)
    on_start("gateway", lambda: gateway.close(_CLOSE_SECONDS))
    gateway.start(_START_SECONDS)
    return gateway

"""The gateway of an embedded stack: alone on its command topic, and on the EPICS servers of the stack only.

In: settings, and the EPICS variables of a client. Out: a running gateway, and its parts to close. Called on the thread
that starts the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from k2eg_rx.embedded.ca_environment import channel_access
from k2eg_rx.gateway import Gateway, GatewayOptions, Provider
from k2eg_rx.gateway.epics.ca_provider import ChannelAccessProvider
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.gateway.service import with_gateway_defaults
from k2eg_rx.kafka import KafkaTopicAdmin, KafkaTransport
from k2eg_rx.pv import Protocol, PVAddress
from k2eg_rx.settings import Settings
from k2eg_rx.transport import Receiver, RecordSource

_CONNECT_SECONDS = 10.0  # for the first PV over Channel Access; it takes about 30 ms
_START_SECONDS = 20.0  # for the gateway; it takes about 100 ms with the embedded broker
_CLOSE_SECONDS = 1.0  # for each part


class _LoneTransport(KafkaTransport):
    """Reads the command topic without a group: there is no second gateway to share it with, and joining takes 3 s."""

    def events(self, receiver: Receiver, group_name: str | None) -> RecordSource:
        """Returns a source that receives every record."""
        del group_name
        return super().events(receiver, None)


def start_gateway(
    settings: Settings,
    variables: Mapping[str, str],
    record: str,
    runs: Callable[[str, Callable[[], object]], None],
    *,
    manage_topics: bool,
) -> Gateway:
    """Returns a gateway that takes commands.

    Args:
        settings: The environment it serves.
        variables: The EPICS variables with which a client finds the stack's servers.
        record: A record that is served over Channel Access.
        runs: Called with the name of each part and how to close it, as soon as it runs.
        manage_topics: Whether the broker is a real one, which creates topics on request and knows who listens.

    Raises:
        ProviderError: The record cannot be read.
        TransportError: Kafka cannot be reached.
    """
    pva = PVAccessProvider(conf={name: value for name, value in variables.items() if name.startswith("EPICS_PVA_")})
    runs("PVAccess", pva.close)
    with channel_access(variables):
        ca = ChannelAccessProvider()
        runs("Channel Access", ca.close)
        ca.get(PVAddress("ca", record), _CONNECT_SECONDS).result(_CONNECT_SECONDS)
    transport = _LoneTransport(with_gateway_defaults(settings))
    runs("transport", lambda: transport.close(_CLOSE_SECONDS))
    providers: dict[Protocol, Provider] = {"pva": pva, "ca": ca}
    options = GatewayOptions() if manage_topics else GatewayOptions(create_topics=False, monitor_expiration=0.0)
    admin = KafkaTopicAdmin(settings) if manage_topics else None
    gateway = Gateway(transport, providers, options, settings.command_topic, admin)
    runs("gateway", lambda: gateway.close(_CLOSE_SECONDS))
    gateway.start(_START_SECONDS)
    return gateway

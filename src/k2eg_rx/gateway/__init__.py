"""The other end of the wire: a K2EG gateway to real EPICS, over PVAccess and Channel Access."""

from k2eg_rx.gateway.core import Gateway
from k2eg_rx.gateway.counters import Counters
from k2eg_rx.gateway.options import GatewayOptions
from k2eg_rx.gateway.provider import Provider, ProviderError, ProviderTimeout, Reading, Subscription, TypeMap
from k2eg_rx.gateway.topics import TopicAdmin

__all__ = [
    "Counters",
    "Gateway",
    "GatewayOptions",
    "Provider",
    "ProviderError",
    "ProviderTimeout",
    "Reading",
    "Subscription",
    "TopicAdmin",
    "TypeMap",
]

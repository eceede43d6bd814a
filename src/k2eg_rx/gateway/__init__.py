"""The other end of the wire: a K2EG gateway to real EPICS, over PVAccess and Channel Access.

It says what the deployed C++ gateway says, to the same topics, under the same keys, with the same codes, words and
fields in the same order. Where it differs, it is meant to:

- What the deployed one leaves unanswered has a negative reply, if there is a reply topic and an id: invalid MessagePack
  in a put (-2), a malformed name in a monitor (-1; in a multi-monitor nothing is activated then), the command `info`.
- `pv://` is no protocol (-1; -4 of a put). Names may have every character that EPICS allows. A field is read, not its
  record. The same PV over both protocols is two PVs, with two samples in a snapshot; a topic carries its events over
  one of them, the first that was asked for, unless that one gives nothing.
- JSON has booleans, unions and structures in arrays, and strings for NaN and the infinities.
- A put or get that waited too long in Kafka is refused (-3, in words). Puts to one PV are carried out in order, and a
  get behind a put reads what was put.
- A one-shot snapshot takes nothing from monitors. A negative window is refused (-4) and completed; a malformed name
  drops no other PV.
- Recurring snapshots honour `repeat_delay_msec` and the field filter whatever their type; a field that a PV lacks is
  absent, a dotted name is refused (-7). In a buffered one, a PV that was silent for a window is said at its end, in
  every window. A trigger right behind the start finds the snapshot. Values that were lost are told in `error_message`.
- A monitor ends when nobody has listened for long enough to its topic or to a reply topic it was asked for from; the
  topic stays. Monitors are not remembered over a restart.

As there, a topic has one form: a second request for the same PV and topic in another serialization changes nothing.
"""

from k2eg_rx.gateway.commands.dispatch import handle_each
from k2eg_rx.gateway.commands.messages import OutgoingRecord, reply
from k2eg_rx.gateway.commands.publisher import Publisher
from k2eg_rx.gateway.commands.source import CommandSource
from k2eg_rx.gateway.commands.topics import TopicAdmin
from k2eg_rx.gateway.epics.provider import (
    Provider,
    ProviderError,
    ProviderTimeout,
    PVReading,
    Subscriber,
    Subscription,
    TypeMap,
)
from k2eg_rx.gateway.gateway import CommandHandler, Gateway
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.gateway.runtime.options import GatewayOptions

__all__ = [
    "CommandHandler",
    "CommandSource",
    "Gateway",
    "GatewayContext",
    "GatewayOptions",
    "Metrics",
    "OutgoingRecord",
    "PVReading",
    "Provider",
    "ProviderError",
    "ProviderTimeout",
    "Publisher",
    "Subscriber",
    "Subscription",
    "TopicAdmin",
    "TypeMap",
    "handle_each",
    "reply",
]

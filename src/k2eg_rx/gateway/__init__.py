"""K2EG gateway: serves EPICS PVs to Kafka clients over PVAccess and Channel Access.

It replaces the deployed C++ gateway: the same topics, keys, reply codes and texts, and the same fields in the same
order. A topic keeps the serialization of its first monitor, as there. The intended differences are:

Bounds
    - The options `max_...` of the `[gateway]` section bound what one application, that is reply topic, and all together
      may use: names in a command, gets and puts under way and waiting, triggers that wait, PVs and topics of monitors
      and snapshots. What exceeds a bound is refused (-10, with a text that names the bound and the option), and delays
      no other application.

Access
    - What a command must not do is refused (-12, with a text that names PV and option) before it is begun: with
      `read_only` each put, with `pvlist` what that file does not allow, and with `access` what another file does
      not let the principal of its command topic do (`command_topics`). In a one-shot snapshot each denied PV is
      refused, and the others are read.
    - With `audit_topic` a record of each put that was carried out goes to that topic; such puts wait, a second at most,
      until the value before them is read.
    - An alias of `pvlist` is the PV's name in topics, keys, replies and events; EPICS is asked for the real PV. Puts to
      both keep their order.

Topics
    - A topic is refused (-11) if it is the command topic, an internal one of Kafka, in use for something else, or does
      not match the option `reply_topics`, `monitor_topics` or `snapshot_topics`.

Commands
    - Every invalid command with a reply topic and a reply id gets a negative reply. The deployed gateway does not
      answer invalid MessagePack in a put (-2), a malformed PV name in a monitor (-1) or the command `info` (-1).
    - `pv://` is not a protocol: -1; -4 for a put, -6 for a recurring snapshot.
    - PV names may contain every character that EPICS allows. PV and snapshot names must have no control characters.
    - A PV name with a field reads and writes the field, not the record.
    - The same PV over both protocols is two PVs: a snapshot reports both.

Values
    - In JSON, booleans are `true` and `false`, and unions and structures in arrays are included.
    - In JSON, NaN and the infinities are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`.
    - In MessagePack, arrays of 16-bit integers keep their sign.
    - Over Channel Access, arrays of characters are signed only if the record's field FTVL is CHAR.

Gets and puts
    - A put or get that waited in Kafka for longer than `max_put_age` or `max_get_age` is refused (-3, with a text).
    - Puts to one PV are carried out in order; a get after a put reads what was put.
    - A get with `timeout_msec` is answered by then, if that is sooner than `operation_timeout`.
    - A put is written without waiting for its record. With `wait: true` in the command it waits until the record has
      completed, for `wait_timeout_msec` at most; the reply then has `completed: true`. Another one that waits for the
      same PV is refused meanwhile (-2).
    - Texts that are not UTF-8 have a replacement character for each invalid part.
    - A value that does not fit the type of its PV is refused (-2) with a text that names PV, type and value.
    - An enum accepts a label as its `index`, and looks it up when it is written.
    - Over Channel Access, empty arrays and bytes can be put, and integers that would be rounded are refused (-2).

One-shot snapshots
    - A snapshot does not take updates from monitors of the same PVs.
    - A negative time window is refused (-4) and completed.
    - The window starts when all PVs have been subscribed to.
    - A malformed PV name is reported (-1) and does not drop the other PVs.

Recurring snapshots
    - `repeat_delay_msec` and the field filter apply to all types of snapshot.
    - Filter fields that a PV lacks are left out; a filter with a dotted name is refused (-7).
    - A buffered snapshot reports the latest value of each PV without an update in the window, in every window.
    - A trigger directly after the start command finds the snapshot. Commands after a stop wait until it is carried out.
    - A window that ends while the iteration before is still being published goes on until the next end.
    - The name of a running snapshot with other PVs or properties is refused (-8, with a text that says which); a start
      with the same ones, in any order, joins it.
    - A snapshot ends when neither its topic nor a reply topic it was requested from has had consumers for
      `monitor_expiration`.
    - Values lost to a full buffer are reported in `error_message` of the tail.
    - Messages are numbered as the newest gateways do, but without gaps: `msg_seq`, `total_messages` and, with
      `sub_push_delay_msec`, `submission_seq` and `last_submission_data`. The tail has `missing_messages` if data was
      dropped, and the header the `tags` of its trigger. A start command without `respect_push_order` gets no numbers:
      releases before 0.3.0 drop data messages that have more fields than they know.

Monitors
    - A malformed PV name in a multi-monitor refuses the whole command.
    - A topic carries a PV under its name over one protocol: the first one requested, unless that one has no value. For
      commands with `uri_keys: true` it carries the other one too, under the PV's URI; the reply lists such URIs.
    - A record in the monitor's topic says that the PV is lost, or connected again. It has the header `k2eg-connection`,
      a key that no PV has, and no `k2eg-ser-type`, so that other clients skip it: `protocol/connections.py`. A request
      for the monitor of a lost PV repeats it. Another one, with the header `k2eg-notice`, says that updates were not
      published. Both lie in the partition of the PV's events, unless the gateway has another `partitioner`.
    - For a client without `uri_keys`, which subscribes to the topic after the reply, the current value is published
      once more after `first_value_delay`, and when the topic has a new consumer.
    - Requests of many clients at once are answered by one or two repeats of the value.
    - Events have the header `k2eg-protocol`, `pva` or `ca`; those published before, for another request, also
      `k2eg-repeated`, since equal events of a PV without a time may be two postings.
    - A monitor ends when neither its topic nor a reply topic it was requested from has had consumers for
      `monitor_expiration`. The topic remains, unless `purge` is set: then it is deleted once it has been unused at two
      further checks, and only by a gateway that alone reads the command topic.
    - The gateway publishes its start to `<command topic>-gateways`, which replies to activations name as
      `gateway_topic`; clients then request those of their monitors and snapshots again that are silent.

Fleets
    - The gateways of a group share and remember what they publish, in the compacted topic `<group>-state`: each PV and
      each recurring snapshot has one publisher at a time, and another gateway goes on when that one ends. Numbers of
      iterations go on. The bounds on PVs and topics hold for all of them together.
    - Events and messages of snapshots have the header `k2eg-epoch`, which grows with each change of the publisher.
    - Without `state` or `create_topics`, or if Kafka refuses the topic, a gateway works alone and forgets its monitors.
"""

from k2eg_rx.gateway.commands.dispatch import handle_each
from k2eg_rx.gateway.commands.messages import OutgoingRecord, reply
from k2eg_rx.gateway.commands.publisher import Publisher
from k2eg_rx.gateway.commands.source import CommandSource, ReceivedCommand
from k2eg_rx.gateway.commands.starts import StartPublisher
from k2eg_rx.gateway.commands.topics import TopicAdmin
from k2eg_rx.gateway.epics.provider import (
    NotSentError,
    Provider,
    ProviderError,
    ProviderTimeout,
    PVReading,
    Subscriber,
    Subscription,
    TypeMap,
)
from k2eg_rx.gateway.gateway import CommandHandler, Gateway
from k2eg_rx.gateway.runtime.configuration_text import configuration_text
from k2eg_rx.gateway.runtime.context import GatewayContext
from k2eg_rx.gateway.runtime.deployed_configuration import (
    DeployedConfiguration,
    OptionFinding,
    load_deployed_configuration,
    uses_variables,
)
from k2eg_rx.gateway.runtime.kafka_defaults import with_gateway_defaults
from k2eg_rx.gateway.runtime.metrics import Metrics
from k2eg_rx.gateway.runtime.options import GatewayOptions

__all__ = [
    "CommandHandler",
    "CommandSource",
    "DeployedConfiguration",
    "Gateway",
    "GatewayContext",
    "GatewayOptions",
    "Metrics",
    "NotSentError",
    "OptionFinding",
    "OutgoingRecord",
    "PVReading",
    "Provider",
    "ProviderError",
    "ProviderTimeout",
    "Publisher",
    "ReceivedCommand",
    "StartPublisher",
    "Subscriber",
    "Subscription",
    "TopicAdmin",
    "TypeMap",
    "configuration_text",
    "handle_each",
    "load_deployed_configuration",
    "reply",
    "uses_variables",
    "with_gateway_defaults",
]

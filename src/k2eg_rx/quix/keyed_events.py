"""The events of PVs as a frame of quixstreams: `pv_frame`.

The types of quixstreams are given as protocols, since it cannot be installed beside the newest confluent-kafka.

Thread safety: the functions of a frame run on the thread of its application; the client's subscriber does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from importlib import import_module
from typing import Any, Protocol

from k2eg_rx.arguments import addressed, at_least_one, check_one_protocol, instance
from k2eg_rx.client import StreamClient
from k2eg_rx.errors import WireError, require_extra
from k2eg_rx.operators import retry_activation
from k2eg_rx.protocol import EpochFilter, PVUpdate, Record, repeats
from k2eg_rx.pv import PVAddress
from k2eg_rx.texts import get_logger, shown
from k2eg_rx.transport import DecodeErrorCounter, Headers, oversized

_log = get_logger(__name__)

_NANOSECONDS_PER_MS = 1_000_000
_DIGEST_BYTES = 16  # with fewer, two different events of a PV in a row could have the same one
_TOPIC = {"retention.ms": "3600000"}  # an hour, as gateways keep events
_BROKER_DEFAULT = -1  # as replication factor


class _Application(Protocol):
    """The part of `quixstreams.Application` that is used here."""

    @property
    def topic(self) -> Callable[..., Any]: ...

    @property
    def dataframe(self) -> Callable[..., Any]: ...


class _State(Protocol):
    """The state of one key, as quixstreams gives it to a function."""

    def get(self, key: Any, default: Any = None) -> Any: ...

    def set(self, key: Any, value: Any) -> None: ...


def pv_frame(application: _Application, client: StreamClient, uris: Iterable[str], *, partitions: int = 12) -> Any:
    """Returns the events of PVs as a `StreamingDataFrame`, keyed by PV name.

    An item is a dict with ``name``, ``value`` as in `PVUpdate.value`, ``severity`` (0 to 4, 3 is INVALID), and
    ``timestamp``, the EPICS time in integer nanoseconds since the Unix epoch or None. The frame's time is the EPICS
    time in milliseconds, or Kafka's for a PV without time. Events that a gateway publishes again for another client are
    left out, as in `monitor_stream`; so are undecodable ones, of which the first is logged, and states of connections.

    The events are read from the `events_topic` of the client's environment, which gateways of this library write, keyed
    by PV. The processes of the application share its partitions, and have state by them.

    Args:
        application: A `quixstreams.Application`, with ``processing_guarantee="exactly-once"``: otherwise the events
            since its last commit are repeated after a kill. Its `auto_offset_reset` says where the first run begins.
        client: A client that keeps the monitors active until it is closed, one in each process. With one `group_name`
            the processes share that work.
        uris: The PVs, at least as many as `events_topic_from` of the environment.
        partitions: Partitions of the topic if it is created now, the largest number of processes that share the work.

    Raises:
        ModuleNotFoundError: quixstreams is not installed.
        ValueError: A URI is malformed, a PV is requested over both protocols, or the environment has no `events_topic`
            for so few PVs.

    Example:
        >>> from k2eg_rx.quix import pv_frame
        >>> def means(application, client):
        ...     frame = pv_frame(application, client, ["pva://demo:bpm1"])
        ...     valid = frame.filter(lambda event: event["severity"] < 3)
        ...     return valid.apply(lambda event: event["value"]).tumbling_window(1000, grace_ms=1000).mean().final()
    """
    require_extra("quix", ["quixstreams"], "pv_frame")
    settings = instance(client, "client", StreamClient, "a k2eg_rx.Client").settings
    addresses = addressed(uris)
    check_one_protocol(addresses, "events")
    by_name = {address.name: address for address in addresses}
    if not settings.events_topic or len(by_name) < settings.events_topic_from:
        raise ValueError(
            f"the environment must have an events_topic, and events_topic_from of at most {len(by_name)}, the number of"
            f" PVs, got {shown(settings.events_topic)} and {settings.events_topic_from}: set both in [DEFAULT]"
        )
    config = import_module("quixstreams.models.topics").TopicConfig
    topic = application.topic(
        settings.events_topic,
        value_deserializer="bytes",
        key_deserializer="bytes",
        config=config(at_least_one(partitions, "partitions"), _BROKER_DEFAULT, dict(_TOPIC)),
    )
    _keep_active(client, [address.uri for address in addresses])  # once the topic has its partitions
    events = application.dataframe(topic).filter(_is_event_of(by_name), metadata=True)
    new = events.filter(is_new, stateful=True, metadata=True)
    decoded = new.apply(decoder(by_name, settings.max_message_bytes), expand=True, metadata=True)
    return decoded.set_timestamp(epics_time)


def _is_event_of(names: Iterable[str]) -> Callable[[bytes | None, bytes | None, int, object], bool]:
    """Returns whether a record is an event of wanted PVs; others share the topic, and states have other keys."""
    keys = {name.encode() for name in names}
    return lambda value, key, _time, _headers: key in keys and value is not None


def _keep_active(client: StreamClient, uris: Sequence[str]) -> None:
    topic = client.settings.events_topic
    elsewhere: set[str] = set()

    def on_next(update: PVUpdate) -> None:
        if update.record.topic != topic and not elsewhere:
            elsewhere.add(update.record.topic)
            _log.error(
                "a gateway does not publish in the events_topic, a frame gets nothing from it: pv=%s events_topic=%s",
                update.address.uri,
                topic,
            )

    def on_error(error: Exception) -> None:
        _log.error("monitors of a frame are no longer kept active: error=%s", error)

    client.monitor_many_stream(uris, overflow="latest").pipe(retry_activation()).subscribe(on_next, on_error)


def is_new(value: bytes, _key: bytes, _time: int, headers: Headers | None, state: _State) -> bool:
    """Whether an event is no repetition of the PV's last one, and not of a gateway that another one has replaced."""
    record = Record("", 0, 0, None, value, headers or ())
    epochs = EpochFilter()
    last_epoch: list[str] | None = state.get("epoch")
    if last_epoch is not None:
        epochs.passes([("", None), (last_epoch[0], last_epoch[1])])
    if not epochs.is_known(record.headers):
        if not epochs.passes(record.headers):
            return False
        name, epoch = record.headers[1]
        state.set("epoch", [name, epoch.decode("ascii", "replace") if isinstance(epoch, bytes) else epoch])
    digest = blake2b(value, digest_size=_DIGEST_BYTES).hexdigest()
    if digest == state.get("digest") and repeats(record, record):
        return False
    state.set("digest", digest)
    return True


def decoder(
    addresses: Mapping[str, PVAddress], max_bytes: int
) -> Callable[[bytes, bytes, int, Headers | None], list[dict[str, Any]]]:
    """Returns a function that decodes an event to a list of one item, or of none if it cannot.

    Args:
        addresses: The PVs by name.
        max_bytes: The largest size of an event that is decoded.
    """
    errors = DecodeErrorCounter()

    def decode(value: bytes, key: bytes, time: int, headers: Headers | None) -> list[dict[str, Any]]:
        update = PVUpdate(addresses[key.decode()], Record("", 0, 0, None, value, headers or (), time))
        try:
            if len(value) > max_bytes:
                raise oversized(len(value), max_bytes)
            return [
                {
                    "name": update.name,
                    "value": update.value,
                    "severity": int(update.severity),
                    "timestamp": update.timestamp,
                }
            ]
        except WireError as error:
            errors.add(error, update.address.uri)
            return []

    return decode


def epics_time(item: Mapping[str, Any], _key: object, time: int, _headers: object) -> int:
    """Returns an item's EPICS time in Unix milliseconds; Kafka's if it has none."""
    timestamp: int | None = item["timestamp"]
    return time if timestamp is None else timestamp // _NANOSECONDS_PER_MS

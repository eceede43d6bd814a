"""Converts librdkafka messages to records.

Headers and time stamps are read from the message on access: conflated records never need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, cast

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from k2eg_rx.transport import Headers, Record

_message_of: Callable[[Record], Any] = itemgetter(5)  # in place of the headers of a plain record


class KafkaRecord(Record):
    """A record that reads headers and time stamp from its message; equal to a `Record` of the same content."""

    __slots__ = ()

    @property
    def headers(self) -> Headers:  # pyright: ignore[reportIncompatibleVariableOverride] - read-only there, too
        """The headers, in order."""
        return _message_of(self).headers() or ()

    @property
    def timestamp_ms(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Kafka's time stamp; see `Record`."""
        return _message_of(self).timestamp()[1]

    @property
    def is_append_time(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether Kafka set the time stamp; see `Record`."""
        return _message_of(self).timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME

    def _plain(self) -> tuple[object, ...]:
        return (*self[:5], self.headers, self.timestamp_ms, self.is_append_time)

    def __eq__(self, other: object) -> bool:
        plain = other._plain() if isinstance(other, KafkaRecord) else other
        return self._plain() == plain

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:5])

    def __repr__(self) -> str:
        return repr(Record(*self[:5], self.headers, self.timestamp_ms, self.is_append_time))


_new_record: Callable[..., Record] = cast("Any", tuple).__new__  # twice as fast as the class's constructor


def records_of(messages: Sequence[Message]) -> list[Record]:
    """Returns the records of some messages, without the errors among them."""
    return [
        _new_record(
            KafkaRecord,
            (
                message.topic(),
                message.partition(),
                message.offset(),
                message.key(),
                message.value(),
                message,
            ),
        )
        for message in messages
        if message.error() is None
    ]

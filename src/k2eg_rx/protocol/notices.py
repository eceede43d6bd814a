"""The notice about a PV: a gateway's record in the PV's topic about updates that it did not publish.

It stands in the partition of the PV's events. Like a connection record, it has a key that is no PV's name, and lacks
the header of the serialization, without which the deployed clients skip a record.

Thread safety: immutable values.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, cast

from k2eg_rx.errors import WireError
from k2eg_rx.protocol.decode import require
from k2eg_rx.protocol.keys import key_about, name_in
from k2eg_rx.protocol.records import Headers, Record

_FIELD = "k2eg-notice"
_KIND = b"\x00notice:"  # no PV's name begins with NUL

NOTICE_HEADERS: Headers = ((_FIELD, "Json"),)


@dataclass(frozen=True, slots=True)
class Notice:
    """Updates of a PV that a gateway did not publish.

    Attributes:
        pv_name: The name of the PV's events in its topic.
        lost: The number of updates.
        reason: Why.
    """

    pv_name: str
    lost: int
    reason: str

    @property
    def key(self) -> bytes:
        """The Kafka key of the record."""
        return key_about(_KIND, self.pv_name)

    @property
    def body(self) -> bytes:
        """The body of the record: JSON."""
        return json.dumps({_FIELD: asdict(self)}).encode()


def is_notice(record: Record) -> bool:
    """Returns whether a record has the key of a notice."""
    return name_in(_KIND, record.key) is not None


def decode_notice(record: Record) -> Notice:
    """Returns the notice in a record that has the key of one.

    Raises:
        WireError: The record is no notice.
    """
    try:
        body = json.loads(record.value or b"")
    except (ValueError, RecursionError) as error:
        raise WireError("undecodable", f"json: {error}") from error
    if not isinstance(body, dict):
        raise WireError("shape", f"a {type(body).__name__} where a map is expected")
    about: dict[str, Any] = require(cast("dict[str, Any]", body), _FIELD, dict)
    return Notice(require(about, "pv_name", str), require(about, "lost", int), require(about, "reason", str))

"""PV addresses (``pva://NAME.field``) and the names of Kafka topics derived from PV and snapshot names."""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from k2eg_rx.texts import shown

Protocol = Literal["pva", "ca"]

# EPICS Base forbids white space, quotes, '.' and '$' in a record name (dbLexRoutines.c, dbRecordNameValidate);
# all other characters occur at real sites: + [ ] < > ; { } / # - _ :
_NAME = re.compile(r"[^\s\"'.$]+")
# The first single '.' starts the field path; '..' is a '.' of the name itself, as PVAccess servers may have them.
_PARTS = re.compile(r"((?:[^.]|\.\.)*)(?:(\.)(.*))?", re.DOTALL)
# A field path may carry a channel filter in JSON, hence quotes and blanks.
_FIELD = re.compile(r".+")
# Unicode categories of characters that a terminal or a log executes or hides instead of showing them: controls (C0 and
# C1), formats (bidirectional, zero width), surrogates (which cannot be encoded either), line and paragraph separators.
_CONTROL_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
MAX_URI_LENGTH = (
    4096  # characters; the longest are channel filters. A gateway keeps a name in several tables and caches
)

_CACHED = 10_000  # parsed addresses, about 4 MB: programs use the same PVs repeatedly

# Keys of the maps of replies, of snapshot messages and of callbacks, of which a PV may have the name.
_PROTOCOL_KEYS = frozenset(
    {
        "error",
        "reply_id",
        "message",
        "pv_type",
        "publishing_topic",
        "completed",
        "uri_keys",
        "message_type",
        "timestamp",
        "iter_index",
        "iteration",
        "header_timestamp",
        "tail_timestamp",
        "snapshot_name",
        "error_message",
        "msg_seq",
        "total_messages",
        "submission_seq",
        "last_submission_data",
        "message-size",
    }
)

_TOPIC_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_SNAPSHOT_UNSAFE = re.compile(r"[^A-Za-z0-9-]")
_TOPIC = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]+")
MAX_TOPIC_LENGTH = 249  # org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH
_DIGEST_LENGTH = 16


PULSE_ID_MASK = 0x1FFFF  # LCLS keeps the pulse id in the low 17 bits of a time stamp's nanoseconds


def check_pulse_id_mask(mask: int) -> int:
    """Returns a mask of the bits of the nanoseconds that hold the pulse id.

    Raises:
        ValueError: It is no mask of two or more adjacent bits of the lower 30; nanoseconds are below 2**30.
    """
    if not isinstance(mask, int) or isinstance(mask, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"pulse_id_mask must be a whole number, got {shown(mask)}")
    low = mask & -mask
    if mask <= 0 or mask >> 30 or (mask + low) & mask or mask == low:
        raise ValueError(f"pulse_id_mask must be two or more adjacent bits of the lower 30, got {shown(mask)}")
    return mask


def has_control(text: str) -> bool:
    """Returns whether a text has control or invisible formatting characters, line breaks, or unpaired surrogates."""
    if text.isascii():
        return not text.isprintable()
    return any(unicodedata.category(character) in _CONTROL_CATEGORIES for character in text)


def is_topic_name(name: str) -> bool:
    """Returns whether Kafka accepts the name of a topic."""
    return len(name) <= MAX_TOPIC_LENGTH and _TOPIC.fullmatch(name) is not None


def _malformed(reason: str) -> ValueError:
    """Returns the error for a URI; scripts for other K2EG clients look for its first words."""
    return ValueError(f"The url is not well formed: {reason}")


@dataclass(frozen=True, slots=True)
class PVAddress:
    """The address of a PV: protocol, name and optional field.

    Attributes:
        protocol: ``pva`` or ``ca``.
        base: The name of the record or PV, without a field, as in the URI: with ``..`` for each ``.`` of the name.
        field: The field path after the first single dot, or an empty string.
        name: The name with the field and without the protocol; the key of the PV's data in replies and events.
        uri: The address as commands carry it.
        pulse_id_mask: The bits of the nanoseconds that hold the pulse id in the PV's environment. Not compared.
    """

    protocol: Protocol
    base: str
    field: str = ""
    pulse_id_mask: int = dataclasses.field(default=PULSE_ID_MASK, repr=False, compare=False, kw_only=True)
    name: str = dataclasses.field(init=False, repr=False, compare=False)
    uri: str = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        name = f"{self.base}.{self.field}" if self.field else self.base
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "uri", f"{self.protocol}://{name}")

    def __hash__(self) -> int:
        return hash(self.uri)  # a string keeps its hash; gateways look addresses up for each value

    @classmethod
    def parse(cls, uri: str) -> PVAddress:
        """Returns the address that a URI denotes.

        Raises:
            ValueError: The URI is not ``pva://NAME`` or ``ca://NAME``; the text says why.
        """
        if not isinstance(uri, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
            raise _malformed(f"a PV's URI must be a string such as 'pva://my:pv', got {shown(uri)}")
        return cls._parsed(uri)

    @classmethod
    @functools.lru_cache(_CACHED)
    def _parsed(cls, uri: str) -> PVAddress:
        if len(uri) > MAX_URI_LENGTH:
            raise _malformed(
                f"{uri[:60]!r}...: a PV's URI must have at most {MAX_URI_LENGTH} characters, got {len(uri)}"
            )
        if has_control(uri):
            raise _malformed(f"{uri!a}: a PV's URI must have no control characters")
        protocol, separator, rest = uri.partition("://")
        if not separator or protocol not in ("pva", "ca"):
            raise _malformed(f"{shown(uri)}: the protocol must be 'pva' or 'ca', as in 'pva://my:pv'")
        parts = _PARTS.fullmatch(rest)
        base, dot, field = parts.groups(default="") if parts is not None else ("", "", "")
        if not base:
            raise _malformed(f"{shown(uri)}: the PV's name is missing after '{protocol}://'")
        if not _NAME.fullmatch(base.replace("..", ":")):
            raise _malformed(f"{shown(uri)}: a PV's name must have no white space, quotes or '$', got {shown(base)}")
        if dot and not _FIELD.fullmatch(field):
            raise _malformed(f"{shown(uri)}: the field after the dot is missing")
        return cls(protocol, base, field)

    @property
    def pv_name(self) -> str:
        """The name of the record or PV as EPICS has it, without a field."""
        return self.base.replace("..", ".")

    @property
    def key(self) -> str:
        """The key of the PV's data in replies and snapshots, which is its name unless the protocol has such a key."""
        return self.uri if self.name in _PROTOCOL_KEYS else self.name

    @property
    def is_record_field(self) -> bool:
        """Whether the field is a record field (``HIGH``), not a path in the PV's structure (``alarm.status``)."""
        return self.field != "" and not self.field[0].islower()

    def __str__(self) -> str:
        return self.uri


def pv_name_of(name_or_uri: str) -> str:
    """Returns a PV's name without the protocol, given the name or the URI."""
    return PVAddress.parse(name_or_uri).name if "://" in name_or_uri else name_or_uri


def _bounded(topic: str, original: str) -> str:
    """Shortens a topic's name to Kafka's limit; a digest keeps the names of different originals different."""
    if len(topic) <= MAX_TOPIC_LENGTH:
        return topic
    import hashlib  # noqa: PLC0415 - 2 ms, for few PVs

    digest = hashlib.sha256(original.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{topic[: MAX_TOPIC_LENGTH - _DIGEST_LENGTH - 1]}-{digest}"


def monitor_topic(pv_name: str) -> str:
    """Returns the topic of a PV's monitor events: its name with ``_`` for each character that Kafka does not accept.

    Two PVs may share a topic (``a:b`` and ``a_b``); the name inside the event distinguishes them.
    """
    return _bounded(_TOPIC_UNSAFE.sub("_", pv_name), pv_name)


def gateway_topic(command_topic: str) -> str:
    """Returns the topic to which the gateways of a command topic publish their starts."""
    return _bounded(f"{command_topic}-gateways", command_topic)


def snapshot_topic(snapshot_name: str) -> str:
    """Returns the topic of a recurring snapshot: lower case, with ``_`` for all but letters, digits and ``-``."""
    return _bounded(_SNAPSHOT_UNSAFE.sub("_", snapshot_name).lower(), snapshot_name)

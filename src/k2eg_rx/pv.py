"""PV addresses and the names of the topics that follow from them.

In: what people write (``pva://NAME.field``). Out: its parts, and topic names that Kafka accepts.
Pure functions; any thread.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["pva", "ca"]

# EPICS Base forbids white space, quotes, '.' and '$' in a record name (dbLexRoutines.c, dbRecordNameValidate);
# the first '.' starts the field path. Everything else occurs at real sites: + [ ] < > ; { } / # - _ :
_NAME = re.compile(r"[^\s\x00-\x1f\x7f\"'.$]+")
# A field path may carry a channel filter in JSON, hence quotes and blanks; never a control character.
_FIELD = re.compile(r"[^\x00-\x1f\x7f]+")

_REMEMBERED = 10_000  # addresses, some 4 MB of them: a program names the same ones again and again

_TOPIC_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_SNAPSHOT_UNSAFE = re.compile(r"[^A-Za-z0-9-]")
MAX_TOPIC_LENGTH = 249  # org.apache.kafka.common.internals.Topic.MAX_NAME_LENGTH
_DIGEST_LENGTH = 16


@dataclass(frozen=True, slots=True)
class PVAddress:
    """A PV as a client names it.

    Attributes:
        protocol: ``pva`` or ``ca``.
        base: The record's or PV's name without any field.
        field: The field path after the first dot, or an empty string.
        name: The name without the protocol, with the field; the key under which data comes back.
        uri: The address as it goes into a command.
    """

    protocol: Protocol
    base: str
    field: str = ""
    name: str = dataclasses.field(init=False, repr=False, compare=False)
    uri: str = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        name = f"{self.base}.{self.field}" if self.field else self.base
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "uri", f"{self.protocol}://{name}")

    @classmethod
    def parse(cls, uri: str) -> PVAddress:
        """Returns the parts of a PV's URI.

        Raises:
            ValueError: It is not ``pva://NAME`` or ``ca://NAME``; the text says what is wrong.
        """
        if not isinstance(uri, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
            raise ValueError(f"a PV's URI is a string such as 'pva://my:pv', not {uri!r}")
        return cls._parsed(uri)

    @classmethod
    @functools.lru_cache(_REMEMBERED)
    def _parsed(cls, uri: str) -> PVAddress:
        protocol, separator, rest = uri.partition("://")
        if not separator or protocol not in ("pva", "ca"):
            raise ValueError(f"{uri!r}: the protocol has to be 'pva' or 'ca', as in 'pva://my:pv'")
        base, dot, field = rest.partition(".")
        if not base:
            raise ValueError(f"{uri!r}: the PV's name is missing after '{protocol}://'")
        if not _NAME.fullmatch(base):
            raise ValueError(
                f"{uri!r}: a PV's name has no white space, control characters, quotes or '$'; got {base!r}"
            )
        if dot and not _FIELD.fullmatch(field):
            raise ValueError(f"{uri!r}: the field after the dot is missing or has a control character")
        return cls(protocol, base, field)

    @property
    def is_record_field(self) -> bool:
        """Whether the field is one of an EPICS record (``HIGH``), not a path in a structure (``alarm.status``)."""
        return self.field != "" and not self.field[0].islower()

    def __str__(self) -> str:
        return self.uri


def pv_name_of(name_or_uri: str) -> str:
    """Returns a PV's name, from the name itself or from its URI."""
    return PVAddress.parse(name_or_uri).name if "://" in name_or_uri else name_or_uri


def _bounded(topic: str, original: str) -> str:
    """Keeps a topic's name within what Kafka accepts, and different for different originals."""
    if len(topic) <= MAX_TOPIC_LENGTH:
        return topic
    digest = hashlib.sha256(original.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{topic[: MAX_TOPIC_LENGTH - _DIGEST_LENGTH - 1]}-{digest}"


def monitor_topic(pv_name: str) -> str:
    """Returns the topic that carries a PV's monitor events: its name, ``_`` for what Kafka does not accept.

    Two PVs may share a topic (``a:b`` and ``a_b``); the name inside the event tells them apart.
    """
    return _bounded(_TOPIC_UNSAFE.sub("_", pv_name), pv_name)


def snapshot_topic(snapshot_name: str) -> str:
    """Returns the topic of a recurring snapshot: lower case, ``_`` for all but letters, digits and ``-``."""
    return _bounded(_SNAPSHOT_UNSAFE.sub("_", snapshot_name).lower(), snapshot_name)

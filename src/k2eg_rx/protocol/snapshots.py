"""Snapshots, and the assembly of one-shot snapshots from their replies.

Thread safety: not thread-safe; an assembler belongs to one reader.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, cast, overload

from k2eg_rx.errors import OperationError, WireError
from k2eg_rx.protocol.messages import Reply
from k2eg_rx.protocol.structures import Structure, structure_of
from k2eg_rx.pv import PVAddress

# A decoded scalar PV takes about 5 kB, so this is about 500 MB: enough for the largest windows of laboratories
# (1000 PVs at 10 Hz for 10 s), and well below the memory of a host.
MAX_SAMPLES = 100_000

_MILLISECOND = 1_000_000  # in nanoseconds

COMPLETE = 1  # the `error` of the reply that ends a one-shot snapshot
TRUNCATED = -1  # the `error` of a snapshot that had more samples than the bound


class Samples(list[Structure]):
    """A PV's structures in arrival order; a string index returns a field of the newest one."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Structure: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Structure]: ...
    @overload
    def __getitem__(self, index: str, /) -> Any: ...
    def __getitem__(self, index: SupportsIndex | slice | str, /) -> Any:
        if not isinstance(index, str):
            return super().__getitem__(index)
        if not self:
            raise KeyError(f"{index}: the snapshot has no data of this PV")
        newest = super().__getitem__(-1)
        if index not in newest:
            raise KeyError(f"{index}: no such field; the fields are {', '.join(map(str, newest))}")
        return newest[index]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The values of a set of PVs, read together.

    Attributes:
        name: The snapshot's name, or the id of a one-shot snapshot.
        data: The samples of every requested PV, by PV name; empty for a PV without data.
        timestamp: Publication time of the tail in integer nanoseconds since the Unix epoch; 0 for a one-shot snapshot.
        iteration: The iteration's number, from 1; 0 for a one-shot snapshot.
        header_timestamp: Publication time of the header, as `timestamp`.
        tail_timestamp: The same as `timestamp`.
        error: 0, or negative if the iteration failed or was truncated.
        error_message: The failure, or an empty string.
        missing: The number of the iteration's messages that did not arrive, or that the gateway could not send.
            Without the tail, which tells how many there are, those that are known to be missing, so at least as many.
        tags: The tags of the trigger; empty without, and from gateways that do not repeat them.
    """

    name: str
    data: Mapping[str, Samples]
    timestamp: int = 0
    iteration: int = 0
    header_timestamp: int = 0
    tail_timestamp: int = 0
    error: int = 0
    error_message: str = ""
    missing: int = 0
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def complete(self) -> bool:
        """Whether no message of the iteration is known to be missing.

        Messages of gateways that do not number them can be missing without notice.
        """
        return self.missing == 0

    def _repr_html_(self) -> str:
        """Returns a table of the newest sample of each PV, which notebooks show."""
        from k2eg_rx.protocol.html_form import pvs_html  # noqa: PLC0415 - for notebooks only

        about = [f"snapshot {self.name}", f"iteration {self.iteration}" if self.iteration else ""]
        about += [f"{self.missing} messages missing" if self.missing else "", self.error_message]
        newest = {name: samples[-1] if samples else None for name, samples in self.data.items()}
        return pvs_html(newest, ", ".join(part for part in about if part))

    def as_dict(self) -> dict[str, Any]:
        """Returns the snapshot as callbacks of `k2eg` receive it: iteration, samples by PV name, times in
        milliseconds."""
        return dict(self.data) | {
            "timestamp": self.timestamp // _MILLISECOND,
            "iteration": self.iteration,
            "header_timestamp": self.header_timestamp // _MILLISECOND,
            "tail_timestamp": self.tail_timestamp // _MILLISECOND,
        }


class SampleCollection:
    """Collects the samples of one snapshot by the names of the requested PVs.

    A gateway may send a field (``X.alarm.status``) under its own name, or only the record (``X``).
    """

    def __init__(self, addresses: Iterable[PVAddress], max_samples: int) -> None:
        self._addresses = tuple(addresses)
        self._max_samples = max_samples
        self._by_key: dict[str, list[PVAddress]] = {}
        self._own_key: set[str] = set()  # fields that the gateway sends under their own name
        for address in {address.name: address for address in self._addresses}.values():
            for key in {address.name, address.base, address.key}:
                self._by_key.setdefault(key, []).append(address)
        self.start()

    def empty(self) -> SampleCollection:
        """Returns another collection for the same PVs, without samples."""
        other = copy.copy(self)
        other._own_key = set(self._own_key)
        other.start()
        return other

    def start(self) -> None:
        """Discards the samples."""
        self.data = {address.key: Samples() for address in self._addresses}
        self.excess = 0
        self._size = 0

    def add(self, key: str, structure: Structure) -> str:
        """Adds a sample. Returns an empty string, or the reason why it was dropped."""
        targets = self._by_key.get(key)
        if targets is None:
            return "unknown_pv"
        if self._size >= self._max_samples:
            self.excess += 1
            return "excess"
        reasons = [self._add(address, key, structure) for address in targets]
        return "" if "" in reasons else reasons[0]

    def _add(self, address: PVAddress, key: str, structure: Structure) -> str:
        samples = self.data[address.key]
        if address.field:  # else all keys of the PV are names of the record
            if key == address.name and key not in self._own_key:
                self._own_key.add(key)
                samples.clear()  # the samples taken from the record arrive again under this key
            elif key != address.name and address.name in self._own_key:
                return ""
            try:
                structure = structure_of(address, {key: structure})
            except (OperationError, WireError):
                return "unusable"
        samples.append(structure)
        self._size += 1
        return ""

    def snapshot(
        self,
        name: str,
        error: int = 0,
        error_message: str = "",
        *,
        tags: Mapping[str, str] | None = None,
        **numbers: int,
    ) -> Snapshot:
        """Returns the collected samples as a snapshot, and starts the next collection."""
        if self.excess and not error:
            error, error_message = TRUNCATED, f"{self.excess} samples beyond {self._max_samples} were dropped"
        snapshot = Snapshot(name, self.data, error=error, error_message=error_message, tags=tags or {}, **numbers)
        self.start()
        return snapshot


class OneShotAssembler:
    """Assembles a `Snapshot` from the replies to a one-shot snapshot; drops samples that it cannot use."""

    def __init__(self, name: str, addresses: Iterable[PVAddress], max_samples: int = MAX_SAMPLES) -> None:
        """Creates an assembler without samples.

        Args:
            name: The id of the snapshot.
            addresses: The requested PVs.
            max_samples: The bound on samples of the snapshot.
        """
        self._name = name
        self._addresses = tuple(addresses)
        self._collection = SampleCollection(self._addresses, max_samples)

    def feed(self, reply: Reply) -> Snapshot | None:
        """Processes the next reply. Returns the snapshot that it completes, or None.

        Raises:
            OperationError: The gateway refused the snapshot or one of its PVs.
        """
        if reply.error < 0:
            subject = ", ".join(address.uri for address in self._addresses)
            raise OperationError(reply.error, reply.message, "snapshot", subject)
        for key, structure in reply.body.items():
            if isinstance(structure, dict):
                self._collection.add(key, cast("Structure", structure))
        return self._collection.snapshot(self._name) if reply.error == COMPLETE else None

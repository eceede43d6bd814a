"""The states of the PVs that `put_to` depends on.

Thread safety: none; it belongs to the lock of its stage.
"""

from __future__ import annotations

from collections.abc import Iterable

from k2eg_rx.operators.stale import Staleness
from k2eg_rx.protocol import ConnectionEvent, PVState
from k2eg_rx.texts import shown

_STREAMS = {"input": "inputs", "target": "the targets' connections"}


class PutInputs:
    """The PVs that are not there.

    Args:
        role: What the PVs are, for the texts: ``input``, ``target``, ``permit``, ``stop_on``.
        uris: PVs that are not there before their connection is known.
    """

    def __init__(self, role: str, uris: Iterable[str] = ()) -> None:
        self._role = role
        self._missing: dict[tuple[type, str], str] = {
            (ConnectionEvent, uri): f"{role} {uri} is not known to be connected" for uri in uris
        }

    @property
    def refusal(self) -> str:
        """Why numbers are refused; empty if all inputs are there."""
        return next(iter(self._missing.values()), "")

    @property
    def is_disconnected(self) -> bool:
        """Whether a PV is disconnected."""
        return any(kind is ConnectionEvent for kind, _ in self._missing)

    def take(self, item: object) -> None:
        """Takes the state of an input.

        Raises:
            TypeError: It is neither a `ConnectionEvent` nor a `Staleness`.
        """
        if isinstance(item, ConnectionEvent):
            why = "was never connected" if item.state is PVState.NEVER_CONNECTED else f"is disconnected: {item.reason}"
            self._set(item, item.uri, "" if item.is_connected else f"{self._role} {item.uri} {why}")
        elif isinstance(item, Staleness):
            self._set(item, item.name, f"{self._role} {item.name} is stale" if item.is_stale else "")
        else:
            raise TypeError(f"inputs must emit ConnectionEvent or Staleness, got {shown(item)}")

    def end(self) -> None:
        """Takes the end of the states: from now on no input is known to be there."""
        self._missing[object, ""] = f"the stream of {_STREAMS.get(self._role, self._role)} has ended"

    def _set(self, item: object, name: str, refusal: str) -> None:
        if refusal:
            self._missing[type(item), name] = refusal
        else:
            self._missing.pop((type(item), name), None)

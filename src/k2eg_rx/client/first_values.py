"""Waits until each of several PVs has a value, or says which have none, and why.

Thread safety: any thread. It is called with the router's lock held, and finishes a subscriber, which never blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from typing import Any

from reactivex import abc

from k2eg_rx.client.requests import closed_before_reply
from k2eg_rx.delivery import SubscriberInput
from k2eg_rx.errors import OperationTimeout
from k2eg_rx.protocol import ConnectionEvent, PVState, PVUpdate

_MOST_NAMED = 10  # of the PVs without a value, in an error


class FirstValues:
    """The input of updates and connections of PVs for a subscriber of their first values; a `SubscriberInput`.

    A PV that is disconnected has no value, even if it had one before. State belongs to the lock.

    Args:
        subscriber: Gets the first values by URI, once all are there.
        uris: The PVs.
        label: Their name in the error.
        timeout: The seconds until `time_out`, for its error.
        unconfirmed: Returns the URIs of the PVs whose activation the gateway has not replied to.
        hint: Returns what is wrong with the broker or the gateway.
    """

    newest_only = True

    def __init__(
        self,
        subscriber: SubscriberInput[Mapping[str, PVUpdate]],
        uris: Sequence[str],
        *,
        label: str,
        timeout: float,
        unconfirmed: Callable[[], Sequence[str]],
        hint: Callable[[], str],
    ) -> None:
        self._subscriber = subscriber
        self._uris = uris
        self._label = label
        self._timeout = timeout
        self._unconfirmed = unconfirmed
        self._hint = hint
        self._lock = threading.Lock()
        self._values: dict[str, PVUpdate] = {}
        self._lost: dict[str, ConnectionEvent] = {}  # PVs that are not connected
        self._ended = False

    def offer(self, items: Sequence[PVUpdate | ConnectionEvent]) -> None:
        """Takes updates and events of connections; see `SubscriberInput.offer`."""
        with self._lock:
            if self._ended:
                return
            for item in items:
                if isinstance(item, PVUpdate):
                    self._values.setdefault(item.address.uri, item)
                elif item.is_connected:
                    self._lost.pop(item.uri, None)
                else:
                    self._lost[item.uri] = item
                    self._values.pop(item.uri, None)
            self._ended = len(self._values) == len(self._uris)
            if not self._ended:
                return
        self._subscriber.offer(({uri: self._values[uri] for uri in self._uris},))
        self._subscriber.finish()

    def time_out(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        """Fails the subscriber with an error that names the PVs without a value."""
        unconfirmed = set(self._unconfirmed())
        with self._lock:
            if self._ended:
                return
            self._ended = True
            missing = [uri for uri in self._uris if uri not in self._values]
        named = ", ".join(f"{uri} ({self._reason(uri, unconfirmed)})" for uri in missing[:_MOST_NAMED])
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        text = f"no value of {len(missing)} of {len(self._uris)} PVs: {named}{more}"
        self._subscriber.finish(OperationTimeout("values", self._label, self._timeout, hint=self._hint(), missing=text))

    def _reason(self, uri: str, unconfirmed: set[str]) -> str:
        lost = self._lost.get(uri)
        if lost is None:
            return "the gateway has not replied" if uri in unconfirmed else "no event"
        if lost.state is PVState.NEVER_CONNECTED:
            return "never connected"
        return f"disconnected since {lost.time.astimezone(UTC):%H:%M:%S} UTC"

    def finish(self, error: Exception | None = None) -> None:
        """Fails the subscriber: the activation was refused, or the client is closed; see `SubscriberInput.finish`."""
        self._subscriber.finish(error or closed_before_reply())

    def count_conflated(self, count: int) -> None:
        """Does nothing: only the first value counts."""

    def cancel_and_drain(self) -> Sequence[object]:
        """Ends the stream at once; see `SubscriberInput.cancel_and_drain`."""
        return self._subscriber.cancel_and_drain()

    def reclaim_undelivered(self, is_wanted: Callable[[Any], bool]) -> Sequence[Any]:  # noqa: ARG002
        """Returns nothing: what was seen is used; see `SubscriberInput.reclaim_undelivered`."""
        return ()

"""What opens, closes and trips the loop that `put_to` closes.

Thread safety: the conditions have a lock of their own. The lock of the stage is held while a report is emitted, and
what opens a loop must not wait behind a slow subscriber.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from k2eg_rx.operators.alarm_transition import AlarmTransition
from k2eg_rx.operators.put_inputs import PutInputs
from k2eg_rx.operators.stale import Staleness
from k2eg_rx.protocol import ConnectionEvent, PVData, PVUpdate, Severity
from k2eg_rx.texts import shown

PermitItem = PVUpdate | ConnectionEvent | Staleness | bool
"""An item of the stream that permits writing."""

StopItem = PVUpdate | AlarmTransition | ConnectionEvent | Staleness | bool
"""An item of the stream that stops writing for good."""


class LoopState(StrEnum):
    """Whether `put_to` writes.

    Attributes:
        CLOSED: It writes the numbers that arrive.
        OPEN: It refuses numbers until what opened the loop is over, or its stream has ended.
        TRIPPED: It refuses numbers until the stream is subscribed to again.
    """

    CLOSED = "closed"
    OPEN = "open"
    TRIPPED = "tripped"


@dataclass(frozen=True, slots=True)
class LoopChange:
    """The state of a loop, or another reason for it.

    Attributes:
        uri: URI of the PV that the loop writes; of several PVs the first one and their number.
        state: The state from now on.
        reason: Why the loop is open or has tripped, or which change was larger than `max_step` while the loop is
            closed; otherwise empty.
        time: UTC, by the scheduler's clock.
        large_steps: How many items have asked for a change larger than `max_step`.
    """

    uri: str
    state: LoopState
    reason: str
    time: datetime
    large_steps: int = 0


class _Permit:
    """Permission by a PV: connected, not silent, and on; by a bool: as it says.

    The connection of a PV must be known. A monitor shared with an earlier subscriber begins with the last update that
    the client has, which may be older than the loss of the PV; the state of the connection follows it.
    """

    def __init__(self, when: Callable[[PVUpdate], bool] | None) -> None:
        self._when = when
        self._lost = PutInputs("permit")
        self._name = ""
        self._is_on: bool | None = None  # None: no value since the subscription, or since the PV was lost
        self._is_connection_known = False
        self._was_lost = False

    @property
    def refusal(self) -> str:
        """Why writing is not permitted; empty if it is."""
        if self._lost.refusal:
            return self._lost.refusal
        about = f"permit {self._name}".rstrip()
        if self._is_on is None:
            return f"{about} has had no new value since it was lost" if self._was_lost else f"{about} has no value yet"
        if not self._is_on:
            return f"{about} is off"
        if self._name and not self._is_connection_known:
            return f"{about}: its connection is not known, monitor it with connection=True"
        return ""

    def take(self, item: object) -> None:
        """Takes an item of the stream.

        Raises:
            TypeError: It is of another type or another PV, or says neither on nor off.
        """
        if isinstance(item, ConnectionEvent):
            self._lost.take(item)
            self._is_connection_known = True
            self._forget_if(not item.is_connected)
        elif isinstance(item, Staleness):
            self._lost.take(item)
            self._forget_if(item.is_stale)
            if not item.is_stale and item.connection is None and isinstance(item.update, PVUpdate):
                self._take_update(item.update)
        elif isinstance(item, PVUpdate):
            self._take_update(item)
        elif isinstance(item, bool):
            self._set(item)
        else:
            raise TypeError(f"permit must emit PVUpdate, ConnectionEvent, Staleness or bool, got {shown(item)}")

    def end(self) -> None:
        """Takes the end of the stream: from now on nothing permits."""
        self._lost.end()

    def _forget_if(self, is_lost: bool) -> None:
        if is_lost:
            self._is_on, self._was_lost = None, True  # the PV may be off when it returns

    def _take_update(self, update: PVUpdate) -> None:
        if self._name not in ("", update.name):
            raise TypeError(f"permit must be one PV, got {self._name} and {update.name}: combine them to bools")
        self._name = update.name
        if not update.replayed:
            self._set(self._says_on(update))

    def _set(self, is_on: bool) -> None:
        if not self._lost.is_disconnected:  # else it is older than the loss
            self._is_on = is_on

    def _says_on(self, update: PVUpdate) -> bool:
        if update.severity >= Severity.INVALID:
            return False
        if self._when is not None:
            return bool(self._when(update))
        value = update.value
        if update.choices is not None:
            return int(update) != 0
        if not isinstance(value, int | float):
            raise TypeError(f"permit {update.name} must be a number or an enum, got {shown(value)}: use permit_when")
        return value != 0 and not math.isnan(value)


def _stop_reason(item: object) -> str:
    """Returns why an item stops the loop for good; an empty string if it does not.

    Raises:
        TypeError: It is of another type.
    """
    if isinstance(item, AlarmTransition | PVData):
        severity = item.current if isinstance(item, AlarmTransition) else item.severity
        return f"{item.name} is {severity.name}" if severity >= Severity.MAJOR else ""
    if isinstance(item, ConnectionEvent | Staleness):
        state = PutInputs("stop_on")
        state.take(item)
        return state.refusal
    if not isinstance(item, bool):
        raise TypeError(
            f"stop_on must emit PVUpdate, AlarmTransition, ConnectionEvent, Staleness or bool, got {shown(item)}"
        )
    return "stop_on has emitted True" if item else ""


class Standing(NamedTuple):
    """The state of a loop at one time.

    Attributes:
        state: The state.
        reason: Why it is not closed; of a closed loop, why it was opened last.
        opened: How often it has been opened: a number that arrived before the last time is not to be written.
    """

    state: LoopState
    reason: str = ""
    opened: int = 0


class LoopConditions:
    """Inputs, targets, permission and trip of a loop.

    Args:
        targets: The PVs that must be connected to be written.
        needs_permit: Whether there is a stream that permits.
        permit_when: Whether an update of it permits; None: a number other than zero does.
    """

    def __init__(
        self, *, targets: Iterable[str], needs_permit: bool, permit_when: Callable[[PVUpdate], bool] | None
    ) -> None:
        self._lock = threading.RLock()
        self._inputs = PutInputs("input")
        self._targets = PutInputs("target", targets)
        self._permit = _Permit(permit_when)
        self._needs_permit = needs_permit
        self._trip = ""
        self._standing = Standing(LoopState.CLOSED)
        self._follow()

    @property
    def standing(self) -> Standing:
        """The state now."""
        return self._standing

    def take_input(self, item: object) -> None:
        """Takes the state of an input."""
        with self._lock:
            self._inputs.take(item)
            self._follow()

    def end_inputs(self) -> None:
        """Takes the end of the inputs."""
        with self._lock:
            self._inputs.end()
            self._follow()

    def take_target(self, item: object) -> None:
        """Takes the state of a PV to write."""
        with self._lock:
            self._targets.take(item)
            self._follow()

    def end_targets(self) -> None:
        """Takes the end of these states."""
        with self._lock:
            self._targets.end()
            self._follow()

    def take_permit(self, item: object) -> None:
        """Takes an item of the stream that permits."""
        with self._lock:
            self._permit.take(item)
            self._follow()

    def end_permit(self) -> None:
        """Takes the end of the stream that permits."""
        with self._lock:
            self._permit.end()
            self._follow()

    def take_stop(self, item: object) -> None:
        """Takes an item that may stop the loop for good."""
        reason = _stop_reason(item)
        if reason:
            self.trip(reason)

    def end_stop(self) -> None:
        """Takes the end of these items: from now on nothing would stop the loop."""
        self.trip("the stream of stop_on has ended")

    def trip(self, reason: str) -> None:
        """Stops the loop for good; the first reason stays."""
        with self._lock:
            self._trip = self._trip or reason
            self._follow()

    def _follow(self) -> None:
        before, permit = self._standing, self._permit.refusal if self._needs_permit else ""
        refusal = permit or self._targets.refusal or self._inputs.refusal
        if not self._trip and not refusal:
            self._standing = before._replace(state=LoopState.CLOSED)
            return
        state = LoopState.TRIPPED if self._trip else LoopState.OPEN
        opened = before.opened + (before.state is LoopState.CLOSED)
        self._standing = Standing(state, self._trip or refusal, opened)

"""A get or put from its command to its reply: what it waits for, and when it has to be answered.

Thread safety: belongs to the event loop thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from reactivex import abc
from reactivex.disposable import SerialDisposable

from k2eg_rx.gateway.commands.limits import Slot
from k2eg_rx.gateway.commands.messages import OutgoingRecord
from k2eg_rx.gateway.commands.put_ordering import Ticket
from k2eg_rx.gateway.commands.requests import CommandRequest
from k2eg_rx.gateway.epics.provider import channel_name
from k2eg_rx.protocol import GetCommand, PutCommand
from k2eg_rx.pv import PVAddress

_PROVIDER_GRACE = 1.0  # seconds after the deadline at which an operation fails even if its provider has not answered


class Operation:
    """A waiting or running get or put.

    Args:
        request: The command.
        key: The key of the PV's queue.
        deadline: Scheduler time at which it times out.
        start_by: Scheduler time at which a put that waits for its application is given up.
        observer: Receives the reply.
    """

    def __init__(
        self,
        request: CommandRequest[Any],
        key: str,
        deadline: datetime,
        start_by: datetime,
        observer: abc.ObserverBase[OutgoingRecord],
    ) -> None:
        self.request = request
        self.key = key
        self.deadline = deadline
        self.start_by = start_by
        self.observer = observer
        self.ticket: Ticket | None = None
        self.slot: Slot | None = None
        self.unblock_timer = SerialDisposable()
        self.old: Mapping[str, Any] | None = None  # of a put: the fields before it, for the audit topic
        self.new: Mapping[str, Any] = {}
        self.is_denied = False  # its provider was not allowed to send the value
        self.is_unconfirmed = False  # it begins once its claim is confirmed

    @property
    def is_put(self) -> bool:
        """Whether it must not be carried out twice."""
        return isinstance(self.request.command, PutCommand)

    @property
    def started(self) -> bool:
        """Whether the provider was called."""
        return self.slot is not None and self.slot.running

    @property
    def waits_for_its_application(self) -> bool:
        """Whether its application has too many operations under way."""
        return self.slot is not None and self.slot.waiting

    @property
    def expires_at(self) -> datetime | None:
        """When it has to be answered in any case; None: not before it has started."""
        if self.started and not self.is_unconfirmed:
            return self.deadline + timedelta(seconds=_PROVIDER_GRACE)
        if not self.waits_for_its_application:
            return self.deadline
        # the time of a get begins when it starts; a put must not hold up later ones of its PV for long
        return None if isinstance(self.request.command, GetCommand) else self.start_by

    @property
    def waits(self) -> bool:
        """Whether it is a put that waits for its record."""
        return isinstance(self.request.command, PutCommand) and self.request.command.wait


def queue_key(address: PVAddress) -> str:
    """Returns what is equal for all addresses of one channel: ``X``, ``X.VAL`` and fields of the structure of ``X``."""
    return f"{address.protocol}://{channel_name(address).removesuffix('.VAL')}"


def copied_to(target: Any, finish: Callable[[], Any]) -> None:
    """Starts an operation; its result becomes that of another future."""

    def copy(done: Any) -> None:
        error = done.exception()
        target.set_result(done.result()) if error is None else target.set_exception(error)

    try:
        finish().add_done_callback(copy)
    except Exception as error:
        target.set_exception(error)

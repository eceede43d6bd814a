"""Who subscribed to a PV, guarded: what both EPICS libraries would take amiss stays here.

In: whole structures and the state of the connection, on the library's thread. Out: the subscriber's callbacks there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from k2eg_rx.errors import OperationError
from k2eg_rx.protocol import Structure, select_field
from k2eg_rx.pv import PVAddress

_log = logging.getLogger(__name__)


class Subscriber:
    """The callbacks of one subscription. Belongs to the thread that calls it, but for `closed`.

    Attributes:
        closed: Whether nothing is to be called any more; set by whoever closes.
    """

    def __init__(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
    ) -> None:
        self.closed = False
        self._address = address
        self._on_update = on_update
        self._on_connection = on_connection
        self._field_missing = False

    def update(self, structure: Structure) -> None:
        """Passes a value on, or the field of it that was asked for; that there is none is logged once in a row."""
        path = self._address.field
        if path and not self._address.is_record_field:
            try:
                structure = select_field(structure, path, self._address.uri)
            except OperationError as error:
                if not self._field_missing:
                    self._field_missing = True
                    _log.warning("%s: %s", self._address, error.message)
                return
            self._field_missing = False
        self._call(self._on_update, structure)

    def connection(self, connected: bool) -> None:
        """Tells that the connection came or went."""
        self._call(self._on_connection, connected)

    def _call(self, callback: Callable[[Any], None], argument: object) -> None:
        if self.closed:
            return
        try:
            callback(argument)
        except Exception:  # p4p and aioca would end the subscription
            _log.exception("%s: a subscriber failed; the subscription goes on", self._address)

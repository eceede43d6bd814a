"""Process variables as Python objects, controlled by a test.

Thread safety: the thread that runs the clock, which is the test's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from k2eg_rx.gateway import ProviderError, TypeMap
from k2eg_rx.protocol import Severity, Structure, fields_for, plain
from k2eg_rx.pv import Protocol
from k2eg_rx.testing.structures import Timestamp, nanoseconds, structure
from k2eg_rx.testing.virtual_clock import VirtualClock

# numpy type names to pvData type names (pvData Reference, "Scalar types")
_DTYPES = {
    "bool": "boolean",
    "int8": "byte",
    "uint8": "ubyte",
    "int16": "short",
    "uint16": "ushort",
    "int32": "int",
    "uint32": "uint",
    "int64": "long",
    "uint64": "ulong",
    "float32": "float",
    "float64": "double",
}
_KINDS: dict[type, str] = {bool: "boolean", int: "long", float: "double", str: "string", dict: "structure"}
_NOTHING_TO_PUT = "No fields to update in the provided Msgpack object"  # the deployed gateway's message


class PutRejectedError(ProviderError):
    """A PV rejects a put. May be raised in `on_put`; its text is the message of the gateway's reply."""


def kind_of(value: Any) -> str:
    """Returns the pvData name of a value's type: ``double``, ``long[]``, ``structure``, ...

    An empty array counts as an array of doubles.
    """
    dtype = _DTYPES.get(getattr(getattr(value, "dtype", None), "name", ""))
    made: object = plain(value)
    if not isinstance(made, list):
        return dtype or _KINDS.get(type(made), "any")
    items = cast("list[object]", made)
    kinds = {_KINDS.get(type(item), "any") for item in items} or {"double"}
    if kinds == {"long", "double"}:
        kinds = {"double"}
    return f"{dtype or (kinds.pop() if len(kinds) == 1 else 'any')}[]"


def _merged(whole: Mapping[str, Any], part: Mapping[str, Any]) -> Structure:
    """Returns a structure with the fields of another one replaced or added, recursively."""
    merged = dict(whole)
    for name, item in part.items():
        known = merged.get(name)
        both = isinstance(known, dict) and isinstance(item, dict)
        merged[name] = _merged(cast("Structure", known), cast("Structure", item)) if both else item
    return merged


class ScriptedPV:
    """A process variable of a `ScriptedGateway`, created by its `pv`.

    Attributes:
        name: The name, without protocol.
        protocols: The protocols that serve it.
        puts: The values put so far, in order: of an enum the index; a mapping if other fields were put.
        read_only: Whether puts are rejected.
        delay: Seconds that a get or put takes.
        on_put: Called with the value of a put before it is stored; a result other than None is stored instead. It may
            post to other PVs and raise `PutRejectedError`.
    """

    def __init__(
        self,
        name: str,
        protocols: Sequence[Protocol],
        clock: VirtualClock,
        changed: Callable[[ScriptedPV], None],
        value: object,
        *,
        kind: str | None,
        severity: Severity | int,
        message: str,
        choices: Sequence[str] | None,
        fields: Mapping[str, Any] | None,
        about: Mapping[str, Any],
        read_only: bool,
        delay: float,
        on_put: Callable[[Any], object] | None,
        connected: bool,
    ) -> None:
        self.name = name
        self.protocols = tuple(protocols)
        self.puts: list[Any] = []
        self.read_only = read_only
        self.delay = delay
        self.on_put = on_put
        self._clock = clock
        self._changed = changed
        self._connected = connected
        self._choices = None if choices is None else list(choices)
        self._about = dict(about)
        self._fields: Structure = dict(fields or {})
        self._alarm = (severity, message)
        self._timestamp: Timestamp = clock.nanoseconds
        self._value: object = value
        self._types: TypeMap = {}
        made = self.structure("pva")  # raises ValueError for invalid arguments
        self._types = self._infer_types(value, made, kind)
        if value is not None:
            self._value = self._checked({"value": value})["value"]

    @property
    def value(self) -> Any:
        """The ``value`` field, as `PVData.value`; of an enum a dict with index and choices."""
        return self.structure(self.protocols[0]).get("value")

    @property
    def label(self) -> str:
        """The label of an enum's current choice.

        Raises:
            ValueError: The PV is no enum.
        """
        if self._choices is None:
            raise ValueError(f"{self.name} is no enum")
        index: int = self.value["index"]
        return self._choices[index]

    @property
    def severity(self) -> Severity:
        """The alarm's severity."""
        return Severity(self._alarm[0])

    @property
    def connected(self) -> bool:
        """Whether the PV is connected."""
        return self._connected

    @property
    def types(self) -> TypeMap:
        """The types of its fields by their pvData names."""
        return self._types

    def structure(self, protocol: Protocol) -> Structure:
        """Returns the current structure in a protocol's layout."""
        severity, message = self._alarm
        made = structure(
            self._value,
            severity=severity,
            message=message,
            timestamp=self._timestamp,
            choices=self._choices,
            protocol=protocol,
            **self._about,
        )
        return _merged(made, plain(self._fields))

    def post(
        self,
        value: object = None,
        *,
        severity: Severity | int = Severity.NO_ALARM,
        message: str = "",
        timestamp: Timestamp = None,
        fields: Mapping[str, Any] | None = None,
        settle: bool = True,
    ) -> None:
        """Sets a new value and sends it to all monitors.

        The clock settles before and after, unless `post` is called by an action of the clock.

        Args:
            value: The value; None keeps the current one.
            severity: The alarm's severity.
            message: The alarm's message.
            timestamp: EPICS time: integer nanoseconds or a datetime; by default the clock's time, or one nanosecond
                after the previous timestamp if the clock has not advanced.
            fields: Further fields to change.
            settle: False only publishes, to post several values at once as a fast PV does.

        Raises:
            ValueError: The value does not fit the PV.
        """
        wanted = dict(fields or {}) | ({} if value is None else {"value": value})
        checked = self._checked(wanted) if wanted else {}
        with self._settling(settle=settle):
            self._store(checked, (Severity(severity), message), timestamp)

    def disconnect(self) -> None:
        """Disconnects the PV: monitors get no updates, gets and puts time out in the gateway. Idempotent."""
        self._set_connected(connected=False)

    def connect(self) -> None:
        """Connects the PV: monitors get its value, waiting gets and puts are executed. Idempotent."""
        self._set_connected(connected=True)

    def put(self, fields: Mapping[str, Any]) -> None:
        """Executes a put of the gateway.

        Args:
            fields: The values by field; unknown fields are ignored.

        Raises:
            ProviderError: The PV rejects the put; the text is the reply's message.
        """
        if self.read_only:
            raise PutRejectedError(f"{self.name} is read only")
        has = self.structure("pva")
        known = {name: item for name, item in fields.items() if name in has}
        if not known:
            raise PutRejectedError(_NOTHING_TO_PUT)
        try:
            checked = self._checked(known)
        except ValueError as error:
            raise PutRejectedError(str(error)) from None
        given = self._as_recorded(checked)
        if self.on_put is not None:
            instead = self.on_put(given)
            if instead is not None:
                checked = self._checked({"value": instead} if list(checked) == ["value"] else instead)
        self.puts.append(given)
        self._store(checked, (Severity.NO_ALARM, ""), None)

    def _as_recorded(self, checked: Mapping[str, Any]) -> Any:
        if list(checked) != ["value"]:
            return dict(checked)
        return checked["value"]["index"] if self._choices is not None else checked["value"]

    def _checked(self, given: object) -> dict[str, Any]:
        """Returns fields converted to their types."""
        return fields_for(given, self.structure("pva"), self._types, self.name)

    def _store(self, fields: Mapping[str, Any], alarm: tuple[Severity | int, str], timestamp: Timestamp) -> None:
        rest = dict(fields)
        if "value" in rest:
            self._value = rest.pop("value")
        self._fields = _merged(self._fields, rest)
        self._alarm = alarm
        last = nanoseconds(self._timestamp) if self._timestamp is not None else 0
        # an equal timestamp would make the value look like a repetition of the one before
        self._timestamp = max(self._clock.nanoseconds, last + 1) if timestamp is None else nanoseconds(timestamp)
        self._changed(self)

    def _set_connected(self, *, connected: bool) -> None:
        with self._settling():
            if connected != self._connected:
                self._connected = connected
                self._changed(self)

    @contextmanager
    def _settling(self, *, settle: bool = True) -> Generator[None]:
        """Settles the clock before and after, unless the caller is an action of the clock."""
        settles = settle and not self._clock.is_running_here()
        with self._clock.exclusive():
            if settles:
                self._clock.settle()
            yield
            if settles:
                self._clock.settle()

    def _infer_types(self, value: object, made: Structure, kind: str | None) -> TypeMap:
        types: TypeMap = {name: kind_of(item) for name, item in made.items()}
        if self._choices is not None:
            types["value"] = "enum"
        elif isinstance(value, Mapping):
            columns = cast("Mapping[str, Any]", value)
            types["value"] = {label: kind_of(column) for label, column in columns.items()}
        elif "value" in types:
            types["value"] = kind or kind_of(value)
        return types

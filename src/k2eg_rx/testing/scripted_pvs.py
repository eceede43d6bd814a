"""Process variables as Python objects: what a test does to them, and what was put into them.

In: values, from the test; puts, from the scripted gateway. Out: structures in the layout of either protocol, and news
of each change. Everything belongs to the thread that drives the clock, which is the test's.
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

# numpy's names and pvData's (pvData Reference, "Scalar types")
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
_NOTHING_TO_PUT = "No fields to update in the provided Msgpack object"  # the deployed gateway's words


class Refused(ProviderError):
    """A put that a PV does not take; to be raised in `on_put`. Its text is the gateway's message."""


def kind_of(value: Any) -> str:
    """Returns the pvData name of the type that a value has: ``double``, ``long[]``, ``structure``, ...

    An array of no elements is taken for one of doubles.
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
    """Returns a structure with some of its fields replaced, also within those that are structures."""
    merged = dict(whole)
    for name, item in part.items():
        known = merged.get(name)
        both = isinstance(known, dict) and isinstance(item, dict)
        merged[name] = _merged(cast("Structure", known), cast("Structure", item)) if both else item
    return merged


def _require_index(value: object, name: str) -> None:
    """Raises `Refused` for an enum's map with a label where the index belongs, as the project's gateway does."""
    if isinstance(value, Mapping) and isinstance(cast("Structure", value).get("index"), str):
        raise Refused(f"{name}: the field 'value' is of type enum; {value!r} has a label where the index is expected")


class ScriptedPV:
    """A process variable of a `ScriptedGateway`; made by its `pv`.

    Attributes:
        name: Its name, without a protocol.
        protocols: Over which it is served.
        puts: What was put into it, in order: the value, an enum's index; or a map, where other fields were put.
        read_only: Whether puts are refused.
        delay: Seconds that a get or a put takes it.
        on_put: Called with what is put, before it is stored. What it returns is stored instead, unless it is None. It
            may post to other PVs, and raise `Refused`.
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
        made = self.structure("pva")  # tells what is not possible
        self._types = self._told(value, made, kind)
        if value is not None:
            self._value = self._checked({"value": value})["value"]

    @property
    def value(self) -> Any:
        """What its ``value`` field holds, as an update's `value` does: an enum's has an index and choices."""
        return self.structure(self.protocols[0]).get("value")

    @property
    def label(self) -> str:
        """The label of an enum's choice.

        Raises:
            ValueError: It is no enum.
        """
        if self._choices is None:
            raise ValueError(f"{self.name} is no enum")
        index: int = self.value["index"]
        return self._choices[index]

    @property
    def severity(self) -> Severity:
        """Its alarm's severity."""
        return Severity(self._alarm[0])

    @property
    def connected(self) -> bool:
        """Whether it can be reached."""
        return self._connected

    @property
    def types(self) -> TypeMap:
        """The types of its fields by their pvData names."""
        return self._types

    def structure(self, protocol: Protocol) -> Structure:
        """Returns what it is now, in a protocol's layout."""
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
        """Gives it a new value, which all monitors of it get.

        What happened before has its effects first, and this one has its own before it returns; unless it is called
        by what they bring about.

        Args:
            value: The value; None leaves it as it is.
            severity: The alarm's severity.
            message: The alarm's text.
            timestamp: EPICS time: integer nanoseconds or a datetime; by default the clock's, or a nanosecond after
                the value before if no time has passed since.
            fields: Other fields to change.
            settle: False only publishes: several values at once, as a fast PV has them.

        Raises:
            ValueError: The value does not fit the PV.
        """
        wanted = dict(fields or {}) | ({} if value is None else {"value": value})
        checked = self._checked(wanted) if wanted else {}
        with self._between(settle=settle):
            self._store(checked, (Severity(severity), message), timestamp)

    def disconnect(self) -> None:
        """Takes it away: monitors fall silent, and gets and puts time out in the gateway. Idempotent."""
        self._become(connected=False)

    def connect(self) -> None:
        """Brings it back: monitors get its value, and so do gets that wait. Idempotent."""
        self._become(connected=True)

    def put(self, fields: Mapping[str, Any]) -> None:
        """Is what the gateway calls for a put.

        Args:
            fields: What is put, by field; those that it has not are passed over.

        Raises:
            ProviderError: It does not take that; with the words of the reply.
        """
        if self.read_only:
            raise Refused(f"{self.name} is read only")
        has = self.structure("pva")
        known = {name: item for name, item in fields.items() if name in has}
        if not known:
            raise Refused(_NOTHING_TO_PUT)
        if self._choices is not None:
            _require_index(known.get("value"), self.name)
        try:
            checked = self._checked(known)
        except ValueError as error:
            raise Refused(str(error)) from None
        given = self._as_given(checked)
        if self.on_put is not None:
            instead = self.on_put(given)
            if instead is not None:
                checked = self._checked({"value": instead} if list(checked) == ["value"] else instead)
        self.puts.append(given)
        self._store(checked, (Severity.NO_ALARM, ""), None)

    def _as_given(self, checked: Mapping[str, Any]) -> Any:
        if list(checked) != ["value"]:
            return dict(checked)
        return checked["value"]["index"] if self._choices is not None else checked["value"]

    def _checked(self, given: object) -> dict[str, Any]:
        """Returns fields as their types have them."""
        return fields_for(given, self.structure("pva"), self._types, self.name)

    def _store(self, fields: Mapping[str, Any], alarm: tuple[Severity | int, str], timestamp: Timestamp) -> None:
        rest = dict(fields)
        if "value" in rest:
            self._value = rest.pop("value")
        self._fields = _merged(self._fields, rest)
        self._alarm = alarm
        last = nanoseconds(self._timestamp) if self._timestamp is not None else 0
        # a value at the time of the one before would pass for that one once more
        self._timestamp = max(self._clock.nanoseconds, last + 1) if timestamp is None else nanoseconds(timestamp)
        self._changed(self)

    def _become(self, *, connected: bool) -> None:
        with self._between():
            if connected != self._connected:
                self._connected = connected
                self._changed(self)

    @contextmanager
    def _between(self, *, settle: bool = True) -> Generator[None]:
        """Settles before and after, unless it is the clock that does this."""
        settles = settle and not self._clock.is_driven_here()
        with self._clock.alone():
            if settles:
                self._clock.settle()
            yield
            if settles:
                self._clock.settle()

    def _told(self, value: object, made: Structure, kind: str | None) -> TypeMap:
        types: TypeMap = {name: kind_of(item) for name, item in made.items()}
        if self._choices is not None:
            types["value"] = "enum"
        elif isinstance(value, Mapping):
            columns = cast("Mapping[str, Any]", value)
            types["value"] = {label: kind_of(column) for label, column in columns.items()}
        elif "value" in types:
            types["value"] = kind or kind_of(value)
        return types

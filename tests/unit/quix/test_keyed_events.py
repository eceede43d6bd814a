"""Frames of PVs, without quixstreams: a frame that records what is done with it, and the functions it is given."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from k2eg_rx import Client, PVAddress, Settings
from k2eg_rx.protocol import Record, Severity
from k2eg_rx.quix import keyed_events, pv_frame
from k2eg_rx.quix.keyed_events import decoder, epics_time, is_new
from k2eg_rx.testing import MemoryBroker, MemoryTransport, update

URIS = ["pva://my:x", "pva://my:y"]
ADDRESSES = {"my:x": PVAddress.parse("pva://my:x")}
TIME = 1_767_225_600_123_456_789


class Application:
    """Records the topics and what is done with their frames."""

    def __init__(self) -> None:
        self.topics: list[tuple[str, Any]] = []
        self.steps: list[tuple[str, Any, dict[str, Any]]] = []

    def topic(self, name: str, **options: Any) -> str:
        self.topics.append((name, options["config"]))
        return name

    def dataframe(self, topic: str) -> Application:
        self.steps.append(("dataframe", topic, {}))
        return self

    def filter(self, function: Any, **options: Any) -> Application:
        self.steps.append(("filter", function, options))
        return self

    def apply(self, function: Any, **options: Any) -> Application:
        self.steps.append(("apply", function, options))
        return self

    def set_timestamp(self, function: Any) -> Application:
        self.steps.append(("set_timestamp", function, {}))
        return self


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> Application:
    """Returns an application, as if quixstreams was installed."""
    for name in ("quixstreams", "quixstreams.models", "quixstreams.models.topics"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["quixstreams.models.topics"].TopicConfig = lambda *values: values  # type: ignore[attr-defined]
    return Application()


def client_of(broker: MemoryBroker, **settings: Any) -> Client:
    environment = Settings("test", "nowhere:9092", "commands", "test-reply", **settings)
    return Client("test", "test", settings=environment, transport=MemoryTransport(broker))


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def client(broker: MemoryBroker) -> Iterator[Client]:
    with client_of(broker, events_topic="shared", events_topic_from=2) as client:
        yield client


def is_event_of_the_pvs(application: Application, key: bytes, value: bytes | None = b"") -> bool:
    return application.steps[1][1](value, key, 0, None)


def test_a_frame_reads_the_events_topic_and_keeps_the_monitors_active(application: Application, client: Client) -> None:
    frame = pv_frame(application, client, URIS, partitions=8)
    assert frame is application
    assert application.topics == [("shared", (8, -1, {"retention.ms": "3600000"}))]
    assert [(step, options) for step, _, options in application.steps] == [
        ("dataframe", {}),
        ("filter", {"metadata": True}),
        ("filter", {"stateful": True, "metadata": True}),
        ("apply", {"expand": True, "metadata": True}),
        ("set_timestamp", {}),
    ]
    assert "monitors=2" in repr(client)


def test_a_frame_has_the_events_of_its_pvs_only(application: Application, client: Client) -> None:
    pv_frame(application, client, URIS)
    keys = [b"my:x", b"my:y", b"my:z", b"\x00connection:my:x"]
    assert [key for key in keys if is_event_of_the_pvs(application, key)] == keys[:2]
    assert not is_event_of_the_pvs(application, b"my:x", None)


@pytest.mark.parametrize(
    ("settings", "uris"),
    [({}, URIS), ({"events_topic": "shared"}, URIS), ({"events_topic": "shared"}, [URIS[0]] * 100)],
)
def test_a_frame_needs_monitors_in_the_events_topic(
    application: Application, broker: MemoryBroker, settings: dict[str, Any], uris: list[str]
) -> None:
    with client_of(broker, **settings) as client, pytest.raises(ValueError, match="must have an events_topic, and"):
        pv_frame(application, client, uris)
    assert application.topics == []


def test_a_pv_over_both_protocols_is_refused(application: Application, client: Client) -> None:
    with pytest.raises(ValueError, match="cannot be requested together"):
        pv_frame(application, client, ["pva://my:x", "ca://my:x"])


def event(value: object, **about: Any) -> Record:
    return update("my:x", value, **{"timestamp": TIME, **about}).record


class State:
    """The state of one key."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def get(self, key: Any, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: Any, value: Any) -> None:
        self.values[key] = json.dumps(value)  # as quixstreams keeps it


def new_ones(*events: tuple[Record, list[tuple[str, bytes]]]) -> list[bool]:
    """Returns which events pass; the state comes back from Kafka after each."""
    values, passed = dict[str, Any](), list[bool]()
    for record, headers in events:
        passed.append(is_new(record.value or b"", b"my:x", 0, [*record.headers, *headers], State(values)))
    return passed


def test_an_event_that_repeats_the_last_one_is_left_out() -> None:
    one, two = event(1.0), event(2.0)
    assert new_ones((one, []), (one, []), (two, []), (one, [])) == [True, False, True, True]


def test_equal_events_without_a_time_repeat_each_other_only_if_the_gateway_says_so() -> None:
    one = event(1.0, timestamp=None)
    assert new_ones((one, []), (one, []), (one, [("k2eg-repeated", b"1")])) == [True, True, False]


def test_an_event_of_a_replaced_gateway_is_left_out() -> None:
    first, second = [("k2eg-epoch", b"fleet:1")], [("k2eg-epoch", b"fleet:2")]
    events = [(event(1.0), first), (event(2.0), second), (event(3.0), first), (event(4.0), second), (event(5.0), [])]
    assert new_ones(*events) == [True, True, False, True, True]


def decoded(record: Record, **about: Any) -> list[dict[str, Any]]:
    decode = decoder(ADDRESSES, **{"max_bytes": 10_000, **about})
    return decode(record.value or b"", b"my:x", 5, list(record.headers))


def test_an_event_is_decoded() -> None:
    (item,) = decoded(event(1.5, severity=Severity.MAJOR))
    assert item == {"name": "my:x", "value": 1.5, "severity": 2, "timestamp": TIME}
    assert type(item["severity"]) is int
    assert epics_time(item, b"my:x", 5, None) == 1_767_225_600_123


def test_an_event_without_a_time_has_that_of_kafka() -> None:
    (item,) = decoded(event(1.5, timestamp=None))
    assert item["timestamp"] is None
    assert epics_time(item, b"my:x", 5, None) == 5


def test_an_undecodable_event_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert decoded(event(1.5)._replace(value=b"\xc1")) == []
    assert decoded(event(1.5), max_bytes=10) == []
    assert len(caplog.records) == 2
    assert "pva://my:x" in caplog.text


def test_a_gateway_that_publishes_elsewhere_is_reported_once(
    application: Application, broker: MemoryBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported, lines = threading.Event(), list[tuple[Any, ...]]()
    monkeypatch.setattr(keyed_events, "_log", SimpleNamespace(error=lambda *line: (lines.append(line), reported.set())))
    small = client.monitor_stream(URIS[0]).subscribe()  # so that the PV keeps its own topic in this client
    pv_frame(application, client, URIS)
    small.dispose()
    for value in (1.0, 2.0):
        record = event(value)
        broker.append("my_x", record.value, b"my:x", record.headers)
    assert reported.wait(60.0)
    client.close()
    assert [line[1:] for line in lines] == [("pva://my:x", "shared")]

"""Behaviour common to both providers, against a real IOC."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
import pytest

from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.gateway.epics.ca_provider import ChannelAccessProvider
from k2eg_rx.gateway.epics.provider import Provider, ProviderError, ProviderTimeout
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.pv import PVAddress

TIMEOUT = 60.0  # seconds; far more than any operation takes
NOTHING = "No fields to update in the provided Msgpack object"

Kind = Literal["pva", "ca"]


@pytest.fixture(scope="module", params=["pva", "ca"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def make(kind: Kind, records_ioc: SoftIoc) -> Callable[[], Provider]:
    return ChannelAccessProvider if kind == "ca" else lambda: PVAccessProvider(records_ioc.client_environment)


@pytest.fixture(scope="module")
def provider(kind: Kind, records_ioc: SoftIoc) -> Iterator[Provider]:
    provider = ChannelAccessProvider() if kind == "ca" else PVAccessProvider(records_ioc.client_environment)
    yield provider
    provider.close()


@pytest.fixture
def address(kind: Kind) -> Callable[[str], PVAddress]:
    return lambda name: PVAddress.parse(f"{kind}://{name}")


@pytest.fixture
def get(provider: Provider, address: Callable[[str], PVAddress]) -> Callable[[str], Any]:
    """Returns a function that reads a PV's value, with arrays as lists."""

    def get(name: str) -> Any:
        value = provider.get(address(name), TIMEOUT).result(TIMEOUT).structure["value"]
        return value.tolist() if isinstance(value, np.ndarray) else value

    return get


@pytest.fixture
def put(provider: Provider, address: Callable[[str], PVAddress]) -> Callable[[str, object], None]:
    def put(name: str, value: object) -> None:
        provider.put(address(name), {"value": value}, TIMEOUT).result(TIMEOUT)

    return put


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("t:ao", 2.5, 2.5),
        ("t:ao", 3, 3.0),
        ("t:ao", 99.0, 9.0),  # limited by the record's DRVH
        ("t:lout", 77, 77),
        ("t:lout", 78.0, 78),
        ("t:long", -5, -5),
        ("t:str", "new string", "new string"),
        ("t:str", "µ°C", "µ°C"),
        ("t:str", "", ""),
        ("t:mbbo", 2, {"index": 2, "choices": ["Zero", "One", "Two"]}),
        ("t:mbbo", "One", {"index": 1, "choices": ["Zero", "One", "Two"]}),
        ("t:mbbo", {"index": 0}, {"index": 0, "choices": ["Zero", "One", "Two"]}),
        ("t:bo", "On", {"index": 1, "choices": ["Off", "On"]}),
        ("t:wfd", [1.0, 2.5], [1.0, 2.5]),
        ("t:wfd", [1, 2], [1.0, 2.0]),
        ("t:wfd", [], []),
        ("t:wfd", [1.5, 2.5, -3.0, 4.0, 5.0], [1.5, 2.5, -3.0, 4.0, 5.0]),
        ("t:wff", [1.5], [1.5]),
        ("t:wfl", [1, -2, 3], [1, -2, 3]),
        ("t:wful", [4_000_000_000], [4_000_000_000]),
        ("t:wfs", [300, -300], [300, -300]),
        ("t:wfus", [65535], [65535]),
        ("t:wfc", [72, -128], [72, -128]),
        ("t:wfuc", [72, 255], [72, 255]),
        ("t:wfuc", b"Hi\xff", [72, 105, 255]),
        ("t:wfst", ["a", "bb", ""], ["a", "bb", ""]),
        ("t:wfi64", [1, -2, 2**52], [1, -2, 2**52]),
        ("t:ao.HIGH", 5.5, 5.5),
        ("t:ao.DESC", "described", "described"),
    ],
)
def test_a_put_is_read_back_as_given(
    get: Callable[[str], Any], put: Callable[[str, object], None], name: str, value: object, read: object
) -> None:
    put(name, value)
    assert get(name) == read


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("t:ao", "4.5", "type double; '4.5' is not a number"),
        ("t:ao", True, "type double; True is not a number"),
        ("t:ao", None, "type double; None is no value"),
        ("t:ao", [1, 2], "type double; [1, 2] is not a scalar"),
        ("t:ao", {"index": 1}, "type double; {'index': 1} is not a scalar"),
        ("t:lout", 7.9, "type int; 7.9 is not a whole number"),
        ("t:lout", 2**31, "type int; 2147483648 is not between"),
        ("t:str", 12, "type string; 12 is not a string"),
        ("t:mbbo", 3, "type enum; 3 is not an index"),
        ("t:mbbo", "Three", "type enum; 'Three' is not one of its labels: 'Zero', 'One', 'Two'"),
        ("t:mbbo", {"index": "Three"}, "type enum; {'index': 'Three'} is not one of its labels"),
        ("t:wfd", 5.0, "type double[]; 5.0 is not an array"),
        ("t:wfs", [1, 2**15], "type short[]; [1, 32768] has at [1] 32768, which is not between"),
        ("t:wfc", [300], "type byte[]; [300] has at [0] 300, which is not between"),
        ("t:wfst", ["a", 1], "type string[]; ['a', 1] has at [1] 1, which is not a string"),
    ],
)
def test_a_value_that_would_not_read_back_is_rejected_and_not_written(
    get: Callable[[str], Any], put: Callable[[str, object], None], name: str, value: object, why: str
) -> None:
    before = get(name)
    with pytest.raises(ProviderError) as caught:
        put(name, value)
    assert str(caught.value).startswith(f"{name}: the field 'value' is of ")
    assert why in str(caught.value)
    assert get(name) == before


@pytest.mark.parametrize("fields", [{}, {"foo": 1}])
def test_a_put_without_known_fields_is_rejected(
    provider: Provider, address: Callable[[str], PVAddress], fields: dict[str, Any]
) -> None:
    with pytest.raises(ProviderError, match=NOTHING):
        provider.put(address("t:ao"), fields, TIMEOUT).result(TIMEOUT)


def test_a_put_to_a_write_protected_record_fails(get: Callable[[str], Any], put: Callable[[str, object], None]) -> None:
    with pytest.raises(ProviderError, match=r"putDisabled|DISP=1"):
        put("t:ro", 9.0)
    assert get("t:ro") == 3.0


def test_a_field_is_a_record_field_or_a_structure_path(provider: Provider, address: Callable[[str], PVAddress]) -> None:
    def read(name: str) -> Any:
        return provider.get(address(name), TIMEOUT).result(TIMEOUT)

    assert read("t:static.RTYP").structure["value"] == "ao"
    severity = read("t:static.alarm.severity")
    assert severity.structure["value"] == 0
    assert list(severity.structure) == ["value", "alarm", "timeStamp"]
    assert list(severity.types) == ["value"]
    with pytest.raises(ProviderError, match="no field 'nope'; there is value, "):
        read("t:static.nope")


def test_operations_on_a_missing_pv_time_out(provider: Provider, address: Callable[[str], PVAddress]) -> None:
    get = provider.get(address("no:such:pv"), 0.1)
    put = provider.put(address("no:such:pv"), {"value": 1}, 0.1)
    with pytest.raises(ProviderTimeout, match=r"^no:such:pv: no answer within 0\.1 s$"):
        get.result(TIMEOUT)
    with pytest.raises(ProviderTimeout, match=r"^no:such:pv: no answer within 0\.1 s; nothing was written$"):
        put.result(TIMEOUT)


def test_a_pending_operation_can_be_cancelled(provider: Provider, address: Callable[[str], PVAddress]) -> None:
    get = provider.get(address("no:such:pv:either"), TIMEOUT)
    assert get.cancel()
    with pytest.raises(CancelledError):
        get.result(TIMEOUT)
    assert provider.get(address("t:static"), TIMEOUT).result(TIMEOUT).types["value"] == "double"


def test_many_concurrent_gets_complete(provider: Provider, address: Callable[[str], PVAddress]) -> None:
    names = ["t:ao", "t:static", "t:wfd", "t:mbbo"] * 50
    gets = [provider.get(address(name), TIMEOUT) for name in names]
    assert all("value" in future.result(TIMEOUT).structure for future in gets)


def test_a_subscription_delivers_the_current_value_and_each_update_in_order(
    provider: Provider, address: Callable[[str], PVAddress], put: Callable[[str, object], None]
) -> None:
    put("t:static", 0.0)
    updates: SimpleQueue[Any] = SimpleQueue()
    connections: SimpleQueue[bool] = SimpleQueue()
    subscription = provider.subscribe(address("t:static"), updates.put, connections.put)
    assert connections.get(timeout=TIMEOUT) is True
    first = updates.get(timeout=TIMEOUT)
    assert first["value"] == 0.0
    assert {"value", "alarm", "timeStamp", "display", "control", "valueAlarm"} <= first.keys()
    for number in range(1, 21):
        put("t:static", float(number))
    received = [updates.get(timeout=TIMEOUT) for _ in range(20)]
    assert [update["value"] for update in received] == [float(number) for number in range(1, 21)]
    assert all(update.keys() == first.keys() for update in received)
    assert all(update["display"] == first["display"] for update in received)
    assert first["value"] == 0.0, "a structure must not change after delivery"
    subscription.close()
    subscription.close()
    put("t:static", 99.0)
    put("t:static", 42.0)
    assert updates.empty()
    assert connections.empty()


def test_changes_of_limits_and_units_are_delivered(
    provider: Provider, address: Callable[[str], PVAddress], put: Callable[[str, object], None]
) -> None:
    put("t:static2.EGU", "mm")
    updates: SimpleQueue[Any] = SimpleQueue()
    subscription = provider.subscribe(address("t:static2"), updates.put, lambda connected: None)
    assert updates.get(timeout=TIMEOUT)["display"]["units"] == "mm"
    put("t:static2.EGU", "km")
    changed = updates.get(timeout=TIMEOUT)
    assert (changed["value"], changed["display"]["units"]) == (43.0, "km")
    subscription.close()


def test_several_subscribers_of_one_pv_are_independent(
    provider: Provider, address: Callable[[str], PVAddress], put: Callable[[str, object], None]
) -> None:
    put("t:lout", 0)
    one: SimpleQueue[Any] = SimpleQueue()
    other: SimpleQueue[Any] = SimpleQueue()
    first = provider.subscribe(address("t:lout"), one.put, lambda connected: None)
    second = provider.subscribe(address("t:lout"), other.put, lambda connected: None)
    for queue in (one, other):
        assert queue.get(timeout=TIMEOUT)["value"] == 0
    first.close()
    put("t:lout", 1)
    assert other.get(timeout=TIMEOUT)["value"] == 1
    assert one.empty()
    second.close()


def test_a_failing_subscriber_is_logged_and_its_subscription_continues(
    provider: Provider,
    address: Callable[[str], PVAddress],
    put: Callable[[str, object], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    put("t:lout", 0)
    seen: SimpleQueue[int] = SimpleQueue()

    def fail_on_update(update: Any) -> None:
        seen.put(update["value"])
        raise RuntimeError("an error of on_update")

    def fail_on_connection(connected: bool) -> None:
        raise RuntimeError("an error of on_connection")

    subscription = provider.subscribe(address("t:lout"), fail_on_update, fail_on_connection)
    assert seen.get(timeout=TIMEOUT) == 0
    put("t:lout", 1)
    assert seen.get(timeout=TIMEOUT) == 1
    subscription.close()
    assert f"subscriber failed, its subscription continues: pv={address('t:lout')}" in caplog.text


def test_a_callback_may_close_its_subscription_and_use_the_provider(
    provider: Provider, address: Callable[[str], PVAddress], put: Callable[[str, object], None]
) -> None:
    put("t:lout", 5)
    opened = threading.Event()
    ended: SimpleQueue[Any] = SimpleQueue()
    subscriptions: list[Any] = []

    def close_and_put(update: Any) -> None:
        opened.wait(TIMEOUT)
        subscriptions[0].close()
        provider.put(address("t:lout"), {"value": update["value"] + 1}, TIMEOUT).add_done_callback(ended.put)

    subscriptions.append(provider.subscribe(address("t:lout"), close_and_put, lambda connected: None))
    opened.set()
    assert ended.get(timeout=TIMEOUT).exception() is None
    put("t:lout", 7)
    assert ended.empty()


def test_a_subscription_to_a_field_selects_it(
    provider: Provider, address: Callable[[str], PVAddress], put: Callable[[str, object], None]
) -> None:
    put("t:ao", 1.0)
    put("t:static.HIGH", 60.0)
    severities: SimpleQueue[Any] = SimpleQueue()
    limits: SimpleQueue[Any] = SimpleQueue()
    of_path = provider.subscribe(address("t:ao.alarm.severity"), severities.put, lambda connected: None)
    of_field = provider.subscribe(address("t:static.HIGH"), limits.put, lambda connected: None)
    assert severities.get(timeout=TIMEOUT)["value"] == 0
    assert limits.get(timeout=TIMEOUT)["value"] == 60.0
    put("t:ao", 8.5)
    assert severities.get(timeout=TIMEOUT)["value"] == 2
    put("t:static.HIGH", 70.0)
    # the IOC first posts a property change with the old value of the field
    assert any(limits.get(timeout=TIMEOUT)["value"] == 70.0 for _ in range(2))
    of_path.close()
    of_field.close()


def test_a_subscription_to_a_missing_field_is_logged_once(
    provider: Provider,
    address: Callable[[str], PVAddress],
    put: Callable[[str, object], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    updates: SimpleQueue[Any] = SimpleQueue()
    whole: SimpleQueue[Any] = SimpleQueue()
    missing = provider.subscribe(address("t:lout.nope"), updates.put, lambda connected: None)
    other = provider.subscribe(address("t:lout"), whole.put, lambda connected: None)
    before = whole.get(timeout=TIMEOUT)["value"]
    for number in (before + 1, before + 2):
        put("t:lout", number)
        assert whole.get(timeout=TIMEOUT)["value"] == number
    missing.close()
    other.close()
    assert updates.empty()
    assert caplog.text.count("no field 'nope'") == 1


def test_closing_fails_pending_operations_and_later_calls(
    make: Callable[[], Provider], address: Callable[[str], PVAddress]
) -> None:
    provider = make()
    updates: SimpleQueue[Any] = SimpleQueue()
    connections: SimpleQueue[bool] = SimpleQueue()
    subscription = provider.subscribe(address("t:fast"), updates.put, connections.put)
    updates.get(timeout=TIMEOUT)
    assert connections.get(timeout=TIMEOUT) is True
    pending = provider.get(address("no:such:pv"), 60.0)
    provider.close()
    provider.close()
    subscription.close()
    with pytest.raises(ProviderError, match="provider is closed"):
        pending.result(0)
    with pytest.raises(ProviderError, match="provider is closed"):
        provider.get(address("t:ao"), TIMEOUT).result(TIMEOUT)
    with pytest.raises(ProviderError, match="provider is closed"):
        provider.put(address("t:ao"), {"value": 1.0}, TIMEOUT).result(TIMEOUT)
    with pytest.raises(ProviderError, match="provider is closed"):
        provider.subscribe(address("t:ao"), updates.put, connections.put)
    assert connections.empty(), "close() must not call back"


def test_closing_right_after_a_call_fails_the_call(
    make: Callable[[], Provider], provider: Provider, address: Callable[[str], PVAddress]
) -> None:
    for _ in range(10):
        provider_to_close = make()
        provider_to_close.subscribe(address("t:fast"), lambda update: None, lambda connected: None)
        pending = provider_to_close.get(address("no:such:pv"), 60.0)
        provider_to_close.close()
        with pytest.raises(ProviderError, match="provider is closed"):
            pending.result(0)


@pytest.fixture
def put_and_wait(provider: Provider, address: Callable[[str], PVAddress]) -> Callable[[str, object], Future[None]]:
    """Returns a function that starts a put that waits, and returns once later puts can no longer overtake it."""

    def put_and_wait(name: str, value: object) -> Future[None]:
        written = threading.Event()
        put = provider.put(address(name), {"value": value}, TIMEOUT, wait=True, on_written=written.set)
        assert written.wait(TIMEOUT)
        return put

    return put_and_wait


def test_a_put_to_a_busy_record_acts_at_once(
    put_and_wait: Callable[[str, object], Future[None]],
    put: Callable[[str, object], None],
    get: Callable[[str], Any],
) -> None:
    first = put_and_wait("t:slow.A", 1.0)
    put("t:slow.A", 2.0)
    put("t:slow.B", 3.0)
    assert (get("t:slow.A"), get("t:slow.B")) == (2.0, 3.0)
    assert get("t:slow.PACT") == 1, "both were written while the record was busy"
    assert not first.done()
    first.result(TIMEOUT)


def test_puts_that_wait_for_one_busy_record_hold_nothing_else_back(
    put_and_wait: Callable[[str, object], Future[None]],
    put: Callable[[str, object], None],
    get: Callable[[str], Any],
) -> None:
    waiting = [put_and_wait("t:slow.A", value) for value in (7.0, 8.0)]
    put("t:slow.A", 9.0)
    put_and_wait("t:lout", 11).result(TIMEOUT)
    put("t:long", 12)
    assert (get("t:slow.A"), get("t:long"), get("t:lout")) == (9.0, 12, 11)
    assert not waiting[-1].done()
    for each in waiting:
        each.result(TIMEOUT)


def test_a_put_that_waits_longer_than_its_timeout_says_that_it_was_sent(
    provider: Provider, address: Callable[[str], PVAddress]
) -> None:
    with pytest.raises(ProviderTimeout, match="the value was sent, and its record did not complete it within 0"):
        provider.put(address("t:slow.A"), {"value": 1.0}, 0.2, wait=True).result(TIMEOUT)

"""`first`: the first item of a stream in the calling thread."""

import doctest
import threading
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg_rx import Client, EmptyStreamError, OperationTimeout, first
from k2eg_rx.client.blocking import RequestObservable
from k2eg_rx.testing import ScriptedGateway


def request_of(stream: Any, wait: Any) -> RequestObservable[Any]:
    return RequestObservable(stream, wait, "pva://x")


def test_first_returns_the_first_item_and_unsubscribes() -> None:
    disposed: list[bool] = []
    stream = rx.from_iterable([1, 2, 3]).pipe(ops.finally_action(lambda: disposed.append(True)))
    assert first(stream) == 1
    assert disposed == [True]


def test_first_raises_the_streams_error() -> None:
    with pytest.raises(ValueError, match="no good"):
        first(rx.throw(ValueError("no good")))


def test_a_stream_without_an_item_is_an_error() -> None:
    with pytest.raises(EmptyStreamError, match="the stream: completed without an item"):
        first(rx.empty())


def test_operators_run_on_the_calling_thread() -> None:
    def here(_: Any) -> threading.Thread:
        return threading.current_thread()

    threads = first(rx.timer(0.001).pipe(ops.map(here)))
    assert threads is threading.current_thread()


def test_a_timeout_ends_the_wait_and_unsubscribes() -> None:
    disposed: list[bool] = []
    stream = rx.never().pipe(ops.finally_action(lambda: disposed.append(True)))
    with pytest.raises(OperationTimeout, match=r"^Timeout: first item of the stream: nothing within 0\.001 s$"):
        first(stream, 0.001)
    assert disposed == [True]
    assert first(rx.timer(0.001), timeout=60.0) == 0


def test_the_traceback_names_the_users_code_and_does_not_grow() -> None:
    def buggy(item: int) -> int:
        raise KeyError(item)

    lengths: list[int] = []
    error = KeyError("shared")

    def shared(_: int) -> int:
        raise error.with_traceback(error.__traceback__)

    for stream in (rx.of(1).pipe(ops.map(buggy)), rx.of(1).pipe(ops.map(shared)), rx.throw(error), rx.throw(error)):
        with pytest.raises(KeyError) as caught:
            first(stream)
        lengths.append(len(caught.traceback))
        if stream is not error:
            assert caught.traceback[-1].name in {"buggy", "shared"}
    assert lengths[2] == lengths[3]


def test_a_timeout_names_the_pv_behind_operators(client: Client) -> None:
    with pytest.raises(OperationTimeout, match="first item of pva://x:"):
        first(client.monitor_stream("pva://x").pipe(ops.map(lambda update: update.value)), 0.001)


def test_a_pipe_leaves_observables_of_others_without_a_label(client: Client) -> None:
    other = Subject[int]()
    assert client.monitor_stream("pva://x").pipe(lambda _: other) is other
    assert not hasattr(other, "label")


def test_a_timeout_must_be_positive() -> None:
    with pytest.raises(ValueError, match="timeout must be a finite number above 0, got 0"):
        first(rx.of(1), 0)


def test_a_timeout_names_the_pv_of_a_clients_stream(client: Client) -> None:
    with pytest.raises(OperationTimeout, match="first item of pva://x:") as caught:
        first(client.monitor_stream("pva://x"), 0.001)
    assert (caught.value.operation, caught.value.subject, caught.value.waited) == ("first item", "pva://x", 0.001)


@pytest.mark.parametrize(("given", "waited"), [(0.001, 0.001), (60.0, 0.002)])
def test_the_shorter_timeout_ends_a_request(client: Client, given: float, waited: float) -> None:
    with pytest.raises(OperationTimeout) as caught:
        first(client.get_stream("pva://x", 0.002), given)
    assert (caught.value.operation, caught.value.subject, caught.value.waited) == ("get", "pva://x", waited)
    assert client.status.pending == 0


def test_first_waits_for_a_request_without_subscribing() -> None:
    assert first(request_of(lambda: pytest.fail("subscribed"), lambda timeout: timeout), 3) == 3.0


def test_a_request_is_an_ordinary_stream_too() -> None:
    got: list[int] = []
    request = request_of(lambda: rx.of(4), lambda _: pytest.fail("waited for"))
    request.subscribe(got.append)
    assert got == [4]
    assert first(request.pipe(ops.map(str))) == "4"


def test_in_virtual_time_first_subscribes_and_advances_the_clock() -> None:
    with ScriptedGateway() as gateway:
        assert first(request_of(lambda: rx.of(5), lambda _: pytest.fail("waited for"))) == 5
        with gateway.client() as client, pytest.raises(OperationTimeout, match="first item of pva://x:"):
            first(client.monitor_stream("pva://x"), timeout=3600.0)


def test_the_example_works() -> None:
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(first, "first", globs={}):
        assert runner.run(example).failed == 0
    assert runner.tries > 0

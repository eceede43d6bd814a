"""Waiting for a stream in the calling thread."""

import threading
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.internal.exceptions import SequenceContainsNoElementsError

from k2eg_rx import first
from k2eg_rx.client.blocking import Answer
from k2eg_rx.testing import ScriptedGateway


def test_the_first_value_is_returned_and_the_rest_unsubscribed() -> None:
    disposed: list[bool] = []
    stream = rx.from_iterable([1, 2, 3]).pipe(ops.finally_action(lambda: disposed.append(True)))
    assert first(stream) == 1
    assert disposed == [True]


def test_the_streams_error_is_raised() -> None:
    with pytest.raises(ValueError, match="no good"):
        first(rx.throw(ValueError("no good")))


def test_a_stream_without_a_value_is_an_error() -> None:
    with pytest.raises(SequenceContainsNoElementsError):
        first(rx.empty())


def test_operators_run_on_the_calling_thread() -> None:
    def here(_: Any) -> threading.Thread:
        return threading.current_thread()

    threads = first(rx.timer(0.001).pipe(ops.map(here)))
    assert threads is threading.current_thread()


def test_an_answer_is_waited_for_without_its_stream() -> None:
    assert first(Answer(lambda: pytest.fail("subscribed"), lambda: 3)) == 3


def test_an_answer_is_a_stream_like_any_other() -> None:
    got: list[int] = []
    answer = Answer(lambda: rx.of(4), lambda: pytest.fail("waited for"))
    answer.subscribe(got.append)
    assert got == [4]
    assert first(answer.pipe(ops.map(str))) == "4"


def test_where_something_stands_in_for_the_real_world_the_stream_has_to_happen_there() -> None:
    with ScriptedGateway():
        assert first(Answer(lambda: rx.of(5), lambda: pytest.fail("waited for"))) == 5

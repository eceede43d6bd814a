"""The runtime of a context: inheritance, and the runtime of threads without a context."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.concurrency import PRODUCTION, Runtime, current_runtime, use_runtime

_T = TypeVar("_T")


def in_thread(function: Callable[[], _T]) -> _T:
    """Calls a function in a thread without context; returns its result."""
    results: list[_T | BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, name="without-context")
    thread.start()
    thread.join()
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    return result


def test_a_runtime_is_in_use_within_its_block() -> None:
    runtime = Runtime(scheduler=TestScheduler())
    assert current_runtime() is PRODUCTION
    with use_runtime(runtime):
        assert current_runtime() is runtime
    assert current_runtime() is PRODUCTION


def test_a_context_has_at_most_one_runtime_in_use() -> None:
    with use_runtime(Runtime()), pytest.raises(RuntimeError, match="already"), use_runtime(Runtime()):
        pass


def test_a_thread_without_context_gets_the_only_runtime_in_use() -> None:
    runtime = Runtime()
    with use_runtime(runtime):
        assert in_thread(current_runtime) is runtime
    assert in_thread(current_runtime) is PRODUCTION


def test_each_thread_may_use_its_own_runtime() -> None:
    runtime, other = Runtime(), Runtime()
    inside, checked = threading.Event(), threading.Event()
    found: list[Runtime] = []

    def use_other() -> None:
        with use_runtime(other):
            found.append(current_runtime())
            inside.set()
            assert checked.wait(60)
            found.append(current_runtime())

    thread = threading.Thread(target=use_other)
    with use_runtime(runtime):
        thread.start()
        assert inside.wait(60)
        assert current_runtime() is runtime
        context = copy_context()
        assert in_thread(lambda: context.run(current_runtime)) is runtime
        with pytest.raises(RuntimeError, match="'without-context' belongs to none"):
            in_thread(current_runtime)
        checked.set()
        thread.join()
        assert in_thread(current_runtime) is runtime
    assert found == [other, other]


def test_a_block_may_be_left_in_another_context() -> None:
    runtime = Runtime()
    block = use_runtime(runtime)
    block.__enter__()
    in_thread(lambda: block.__exit__(None, None, None))
    assert current_runtime() is PRODUCTION
    with use_runtime(runtime):
        assert current_runtime() is runtime


def test_a_runtime_with_a_wait_function_is_virtual() -> None:
    assert not PRODUCTION.is_virtual
    assert Runtime(wait=lambda done: None).is_virtual

"""The runtime of a context: who inherits it, and what threads without one get."""

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

import pytest
from reactivex.testing import TestScheduler

from k2eg_rx.concurrency import PRODUCTION, Runtime, current_runtime, use_runtime

_T = TypeVar("_T")


def in_thread(function: Callable[[], _T]) -> _T:
    """Returns what a function returns in a thread without context."""
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


def test_a_replacement_ends_with_its_block() -> None:
    runtime = Runtime(scheduler=TestScheduler())
    assert current_runtime() is PRODUCTION
    with use_runtime(runtime):
        assert current_runtime() is runtime
    assert current_runtime() is PRODUCTION


def test_a_context_has_one_replacement() -> None:
    with use_runtime(Runtime()), pytest.raises(RuntimeError, match="already"), use_runtime(Runtime()):
        pass


def test_a_thread_without_context_gets_the_only_one_in_use() -> None:
    runtime = Runtime()
    with use_runtime(runtime):
        assert in_thread(current_runtime) is runtime
    assert in_thread(current_runtime) is PRODUCTION


def test_threads_have_replacements_of_their_own() -> None:
    mine, other = Runtime(), Runtime()
    inside, checked = threading.Event(), threading.Event()
    found: list[Runtime] = []

    def use_another() -> None:
        with use_runtime(other):
            found.append(current_runtime())
            inside.set()
            assert checked.wait(60)
            found.append(current_runtime())

    thread = threading.Thread(target=use_another)
    with use_runtime(mine):
        thread.start()
        assert inside.wait(60)
        assert current_runtime() is mine
        context = copy_context()
        assert in_thread(lambda: context.run(current_runtime)) is mine
        with pytest.raises(RuntimeError, match="'without-context' belongs to none"):
            in_thread(current_runtime)
        checked.set()
        thread.join()
        assert in_thread(current_runtime) is mine
    assert found == [other, other]


def test_a_block_that_is_left_in_another_context_leaves_nothing_behind() -> None:
    runtime = Runtime()
    block = use_runtime(runtime)
    block.__enter__()
    in_thread(lambda: block.__exit__(None, None, None))
    assert current_runtime() is PRODUCTION
    with use_runtime(runtime):
        assert current_runtime() is runtime


def test_virtual_time_is_told_by_how_one_waits() -> None:
    assert not PRODUCTION.is_virtual
    assert Runtime(wait=lambda done: None).is_virtual

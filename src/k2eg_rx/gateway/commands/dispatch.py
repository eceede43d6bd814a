"""The operator that answers commands, each with a stream of its own, and merges the streams.

In: what is to be answered. Out: what the answers emit. Runs on the thread of its source: the gateway's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable

_Asked = TypeVar("_Asked")
_Said = TypeVar("_Said")


def answer_each(
    answer: Callable[[_Asked], Observable[_Said]], failed: Callable[[_Asked, Exception], None]
) -> Callable[[Observable[_Asked]], Observable[_Said]]:
    """Returns an operator that merges the answers to each item, where one item's failure is its own.

    reactivex's `flat_map` ends everything with the first inner stream that fails, and looks for a finished one in a
    list of all.

    Args:
        answer: Makes an item's answer. It may raise.
        failed: Called with an item whose answer failed, or could not be made. It does not raise.
    """

    def operator(source: Observable[_Asked]) -> Observable[_Said]:
        def subscribe(
            observer: abc.ObserverBase[_Said], _scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            running: dict[int, abc.DisposableBase] = {}
            source_ended = False

            def finish(slot: abc.DisposableBase) -> None:
                running.pop(id(slot), None)
                if source_ended and not running:
                    observer.on_completed()

            def on_next(item: _Asked) -> None:
                slot = SingleAssignmentDisposable()
                running[id(slot)] = slot

                def on_error(error: Exception) -> None:
                    failed(item, error)
                    finish(slot)

                try:
                    slot.disposable = answer(item).subscribe(observer.on_next, on_error, lambda: finish(slot))
                except Exception as error:
                    on_error(error)

            def on_completed() -> None:
                nonlocal source_ended
                source_ended = True
                if not running:
                    observer.on_completed()

            def dispose() -> None:
                for slot in list(running.values()):
                    slot.dispose()
                running.clear()

            return CompositeDisposable(source.subscribe(on_next, observer.on_error, on_completed), Disposable(dispose))

        return Observable(subscribe)

    return operator

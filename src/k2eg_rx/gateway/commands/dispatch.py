"""Operator that handles each item of a stream and isolates failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def handle_each(
    handle: Callable[[_Item], Observable[_Result]], on_failure: Callable[[_Item, Exception], None]
) -> Callable[[Observable[_Item]], Observable[_Result]]:
    """Returns an operator that maps each item to an Observable and merges these, like `flat_map`.

    Unlike `flat_map`, a failing inner Observable does not end the others, and completion of one takes constant time.

    Thread safety: runs on the thread of the source.

    Args:
        handle: Returns the Observable for an item. It may raise.
        on_failure: Called with an item whose Observable failed or could not be created. It must not raise.
    """

    def operator(source: Observable[_Item]) -> Observable[_Result]:
        def subscribe(
            observer: abc.ObserverBase[_Result], _scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            running: dict[int, abc.DisposableBase] = {}
            source_completed = False

            def finish(slot: abc.DisposableBase) -> None:
                running.pop(id(slot), None)
                if source_completed and not running:
                    observer.on_completed()

            def on_next(item: _Item) -> None:
                slot = SingleAssignmentDisposable()
                running[id(slot)] = slot

                def on_error(error: Exception) -> None:
                    on_failure(item, error)
                    finish(slot)

                try:
                    slot.disposable = handle(item).subscribe(observer.on_next, on_error, lambda: finish(slot))
                except Exception as error:
                    on_error(error)

            def on_completed() -> None:
                nonlocal source_completed
                source_completed = True
                if not running:
                    observer.on_completed()

            def dispose() -> None:
                for slot in list(running.values()):
                    slot.dispose()
                running.clear()

            return CompositeDisposable(source.subscribe(on_next, observer.on_error, on_completed), Disposable(dispose))

        return Observable(subscribe)

    return operator

"""A progress bar on the terminal, by rich where it is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from k2eg_rx.scans.points import ScanPoint


def with_progress(total: int) -> Callable[[Observable[ScanPoint]], Observable[ScanPoint]]:
    """Shows a bar on standard error while the stream is subscribed, if that is a terminal; passes the points on."""

    def operator(source: Observable[ScanPoint]) -> Observable[ScanPoint]:
        if not sys.stderr.isatty() or find_spec("rich") is None:
            return source

        def subscribe(
            observer: abc.ObserverBase[ScanPoint], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            from rich.console import Console  # noqa: PLC0415 - an extra
            from rich.progress import Progress  # noqa: PLC0415

            bar = Progress(console=Console(stderr=True))
            task = bar.add_task("scan", total=total)
            bar.start()

            def on_next(point: ScanPoint) -> None:
                bar.update(task, advance=1)
                observer.on_next(point)

            def on_error(error: Exception) -> None:
                bar.stop()
                observer.on_error(error)

            def on_completed() -> None:
                bar.stop()
                observer.on_completed()

            subscription = source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
            return CompositeDisposable(subscription, Disposable(bar.stop))

        return Observable(subscribe)

    return operator

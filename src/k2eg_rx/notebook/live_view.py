"""A stream in the output of a cell, drawn at a bounded rate.

Thread safety: the items, and whether a drawing is due, belong to `_lock`, which is held while HTML is made, not while
it is sent. Drawings are sent one at a time: while one is due, no other is scheduled, and `_sending` orders the last one
behind it. Items arrive on the stream's threads, which never wait for the front end; drawings run on those of timed
operators.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, Protocol, cast

import reactivex as rx
from reactivex import abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable
from reactivex.subject import AsyncSubject

from k2eg_rx.arguments import instance, one_of, positive
from k2eg_rx.client import first
from k2eg_rx.concurrency import current_runtime
from k2eg_rx.notebook.cells import forget, require_notebook, stop_with_cell
from k2eg_rx.notebook.newest_rows import NewestRows
from k2eg_rx.notebook.svg_curves import SvgCurves
from k2eg_rx.texts import html_escaped

Kind = Literal["table", "plot"]

_DEFAULT_RATE = 5.0  # hertz: an eye reads no more, and a browser draws it without effort
_LEAST_RATE, _HIGHEST_RATE = 0.01, 20.0  # hertz: more floods the kernel's connection to the browser
_DEFAULT_SECONDS = 60.0


class _Picture(Protocol):
    def add(self, item: object) -> None: ...

    def html(self) -> str: ...


class _Handle(Protocol):
    """IPython's display handle, which has no types."""

    def display(self, obj: object) -> None: ...

    def update(self, obj: object) -> None: ...


class View:
    """A stream that is shown in the output of a cell; see `display`."""

    def __init__(
        self, stream: rx.Observable[Any], picture: _Picture, period: float, show: Callable[[str], None]
    ) -> None:
        """Subscribes to a stream.

        Args:
            stream: The stream.
            picture: Keeps what is needed of the items, and draws it.
            period: Least number of seconds between two drawings.
            show: Replaces what the front end shows.
        """
        self._picture = picture
        self._period = timedelta(seconds=period)
        self._show = show
        self._scheduler = current_runtime().scheduler
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._due = False
        self._running = True
        self._drawn_at = self._scheduler.now - self._period
        self._timer = SerialDisposable()
        self._subscription = SingleAssignmentDisposable()
        self._ended: AsyncSubject[View] = AsyncSubject()
        stop_with_cell(self.stop)
        self._subscription.disposable = stream.subscribe(self._take, self._fail, self._end)

    @property
    def running(self) -> bool:
        """Whether the view follows its stream."""
        return self._running

    def stop(self) -> None:
        """Unsubscribes from the stream; what is shown stays. Idempotent."""
        self._end("stopped")

    def wait(self) -> View:
        """Blocks until the stream ends, or an interrupt of the kernel stops the view; returns the view.

        Raises:
            Exception: The error of the stream.
        """
        try:
            first(self._ended)
        except KeyboardInterrupt:
            self.stop()
        return self

    def __repr__(self) -> str:
        return f"<View {'running' if self._running else 'ended'}>"

    def _ipython_display_(self) -> None:
        """Shows nothing: the stream is shown already, where `display` was called."""

    def _fail(self, error: Exception) -> None:
        self._end(f"ended by {type(error).__name__}: {error}", error)

    def _take(self, item: object) -> None:
        with self._lock:
            if not self._running:
                return
            self._picture.add(item)
            if self._due:
                return
            self._due = True
        wait = self._drawn_at + self._period - self._scheduler.now
        self._timer.disposable = self._scheduler.schedule_relative(max(timedelta(0), wait), self._draw)

    def _draw(self, _scheduler: abc.SchedulerBase, _state: object = None) -> None:
        try:
            with self._sending:
                with self._lock:
                    self._due = False
                    if not self._running:
                        return
                    self._drawn_at = self._scheduler.now
                    html = self._picture.html()
                self._show(html)
        except Exception as error:  # of an undecodable event, or of a kernel that is ending
            self._fail(error)

    def _end(self, how: str = "ended", error: Exception | None = None) -> None:
        with self._lock:
            if not self._running:
                return
            self._running = False
        self._subscription.dispose()
        self._timer.dispose()
        forget(self.stop)
        with suppress(Exception), self._sending:  # nothing is left to be told if the kernel is ending
            self._show(f"{self._last_picture()}<div>{html_escaped(how)}</div>")
        if error is not None:
            self._ended.on_error(error)
            return
        self._ended.on_next(self)
        self._ended.on_completed()

    def _last_picture(self) -> str:
        with suppress(Exception), self._lock:
            return self._picture.html()
        return ""


def display(
    stream: rx.Observable[Any],
    *,
    kind: Kind = "table",
    rate: float = _DEFAULT_RATE,
    seconds: float = _DEFAULT_SECONDS,
) -> View:
    """Shows a stream in the output of the cell, live, while other cells run.

    The view ends with the stream (the client's end included), by `View.stop`, and when the cell is run again.
    `View.wait` keeps the cell running until then, so that the kernel's interrupt ends it as well.

    The newest item of each PV is shown: of the first 200 PVs in a table, of the first ten in a plot. Memory does not
    grow with time, and a slow browser does not slow down the stream.

    Args:
        stream: Updates, snapshots or instants of `align`; a table shows other items as well.
        kind: ``"table"``, or ``"plot"``: the numbers over EPICS time.
        rate: Drawings per second, at most; up to 20.
        seconds: Width of a plot's time axis.

    Raises:
        RuntimeError: The code runs in no notebook.
        ValueError: Another argument is invalid.
    """
    instance(stream, "stream", rx.Observable, "an Observable")
    one_of(kind, "kind", ("table", "plot"))
    period = 1.0 / positive(rate, "rate", _HIGHEST_RATE, _LEAST_RATE)
    picture = SvgCurves(positive(seconds, "seconds")) if kind == "plot" else NewestRows()
    require_notebook("k2eg_rx.notebook.display")
    return View(stream, picture, period, _output_of_this_cell())


def _output_of_this_cell() -> Callable[[str], None]:
    """Returns a function that replaces the HTML in the output of the cell."""
    from IPython import display as ipython  # noqa: PLC0415 - an extra

    handle = cast("_Handle", ipython.DisplayHandle())
    handle.display(ipython.HTML("waiting for the first item"))
    return lambda html: handle.update(ipython.HTML(html))

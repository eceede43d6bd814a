"""`record`: a stream's items into files, on their way.

In: items, on the thread that hands them over, one at a time; it waits for the disk, so a slow disk is a slow
subscriber. Out: the same items, on the same thread. What waits is written every `flush_every` on a timer's thread.
`dispose` may come on any thread, and completes the file there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import reactivex as rx
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from k2eg_rx.arguments import at_least_one, positive
from k2eg_rx.concurrency import current_runtime
from k2eg_rx.errors import require_extra
from k2eg_rx.recording.errors import RecordingError
from k2eg_rx.recording.file_names import journal_of
from k2eg_rx.recording.rows import Recordable

if TYPE_CHECKING:
    from k2eg_rx.recording.recorder import Recorder

_log = logging.getLogger(__name__)

_T = TypeVar("_T", bound=Recordable)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A file that other tools still read with ease: some six million events of slow floats, at 45 bytes each, compressed.
_ROTATE_BYTES = 256 * 1024 * 1024
_ROW_GROUP_ROWS = 50_000  # some 30 MB of ordinary events before compression
_FLUSH_ROWS = 5_000
_FLUSH_SECONDS = 1.0


def record(
    path: str | Path,
    *,
    rotate_bytes: int | None = _ROTATE_BYTES,
    rotate_every: float | None = None,
    row_group_rows: int = _ROW_GROUP_ROWS,
    flush_rows: int = _FLUSH_ROWS,
    flush_every: float = _FLUSH_SECONDS,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[_T]], Observable[_T]]:
    """Returns an operator that writes a stream's items to Parquet files and passes them on.

    When the stream completes, fails, or is unsubscribed from, all items are in complete files, on the disk; the end is
    passed on after that. A process that is killed leaves what it recorded up to the last flush, which `replay_file`
    reads and `recover` turns into Parquet. While a file is open, it and its journal stand beside the name it will get,
    under names that begin with an underscore.

    The columns are those of `recording.rows.Row`: of an update its Kafka record as it came, and for other programs its
    time, name, value where it is a number or a string, severity and status. A subscription that cannot write fails with
    a `RecordingError` that names the file.

    Args:
        path: The first file, such as ``run.parquet``; further ones are ``run-0002.parquet`` and so on. No file is ever
            overwritten. An empty stream leaves an empty file.
        rotate_bytes: Bytes of a file after which the next one is begun; None for never.
        rotate_every: Seconds after which the next file is begun, to within `flush_every`; None for never.
        row_group_rows: Rows of a row group in the finished file; fewer where values are large.
        flush_rows: Rows that may wait in memory: a crash loses at most these,
        flush_every: and at most those of so many seconds.
        scheduler: What tells the time and when to flush; a thread of the subscription's own by default.

    Raises:
        ValueError: The file is there already, or was left by a crash; or a number is not above 0.
        ModuleNotFoundError: pyarrow is missing; the text says what to install.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import reactivex as rx
        >>> from reactivex import operators as ops
        >>> from k2eg_rx import first
        >>> from k2eg_rx.recording import record, replay_file
        >>> from k2eg_rx.testing import series
        >>> with TemporaryDirectory() as folder:
        ...     updates = rx.from_iterable(series("demo:current", [1.5, 2.5, 3.5]))
        ...     last = updates.pipe(record(f"{folder}/run.parquet")).run()
        ...     again = first(replay_file(f"{folder}/run.parquet").pipe(ops.to_list()))
        >>> [update.value for update in again], again[-1].record == last.record
        ([1.5, 2.5, 3.5], True)
    """
    require_extra("recording", ["pyarrow"], "record")
    from k2eg_rx.recording.recorder import Limits, Recorder  # noqa: PLC0415 - an extra

    first = Path(path).absolute()
    limits = Limits(
        None if rotate_bytes is None else at_least_one(rotate_bytes, "rotate_bytes"),
        None if rotate_every is None else positive(rotate_every, "rotate_every"),
        at_least_one(row_group_rows, "row_group_rows"),
        at_least_one(flush_rows, "flush_rows"),
    )
    interval = positive(flush_every, "flush_every")
    _require_free(first)

    def operator(source: Observable[_T]) -> Observable[_T]:
        def subscribe(observer: abc.ObserverBase[_T], asked: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            runtime = current_runtime()
            clock = _Clock(scheduler or (runtime.scheduler if runtime.is_virtual else None))
            try:
                recorder = Recorder(first, limits, clock.now())
            except RecordingError as error:
                observer.on_error(error)
                return Disposable()
            recording = _Recording(recorder, observer, clock.now)
            ticks = clock.every(interval, recording.on_tick)
            end = CompositeDisposable(ticks, Disposable(recording.dispose))
            try:
                items = source.subscribe(recording.on_next, recording.on_error, recording.on_completed, scheduler=asked)
            except BaseException:
                end.dispose()
                raise
            return CompositeDisposable(items, end)

        return Observable(subscribe)

    return operator


def _require_free(path: Path) -> None:
    journal = journal_of(path)
    if path.exists():
        raise ValueError(f"{path} exists already; a recording overwrites nothing: choose another name")
    if journal.exists():
        raise ValueError(
            f"{path} is being recorded, or its recorder was killed and left {journal}: choose another name, "
            "or call recover to complete it"
        )


class _Clock:
    """What tells the time, and when to flush: a scheduler, or without one the system and a thread of its own."""

    def __init__(self, scheduler: abc.SchedulerBase | None) -> None:
        self._scheduler = scheduler

    def now(self) -> int:
        """Returns the time, nanoseconds since the Unix epoch."""
        now = datetime.now(UTC) if self._scheduler is None else self._scheduler.now
        return (now - _EPOCH) // timedelta(microseconds=1) * 1000

    def every(self, seconds: float, tick: Callable[[], None]) -> abc.DisposableBase:
        """Has `tick` called again and again, until what is returned is disposed; one call may be under way then."""
        if self._scheduler is not None:
            return rx.interval(seconds, scheduler=self._scheduler).subscribe(lambda _: tick())
        stopped = threading.Event()

        def run() -> None:
            while not stopped.wait(seconds):
                tick()

        threading.Thread(target=run, name="k2eg-recording", daemon=True).start()
        return Disposable(stopped.set)


class _Recording(Generic[_T]):
    """One subscription. All state belongs to the lock, which is not held while the observer is called.

    The observer is called by one thread at a time: by the source's; or, when a tick finds that writing fails, by the
    timer's, unless the source's is at it, which then tells.
    """

    def __init__(self, recorder: Recorder, observer: abc.ObserverBase[_T], now: Callable[[], int]) -> None:
        self._recorder = recorder
        self._observer = observer
        self._now = now
        self._lock = threading.Lock()
        self._ended = False
        self._handing_over = False
        self._untold: Exception | None = None

    def on_next(self, item: _T) -> None:
        """Records an item and passes it on."""
        with self._lock:
            if self._ended:
                return
            failure = self._attempt(lambda: self._recorder.add(item, self._now()))
            self._handing_over = failure is None
        if failure is None:
            try:
                self._observer.on_next(item)
            finally:
                with self._lock:
                    self._handing_over = False
                    failure, self._untold = self._untold, None
        if failure is not None:
            self._observer.on_error(failure)

    def on_error(self, error: Exception) -> None:
        """Completes the file and passes the source's error on."""
        with self._lock:
            if self._ended:
                return
            failure = self._end()
        if failure is not None:
            error.add_note(f"besides, the recording could not be completed: {failure}")
        self._observer.on_error(error)

    def on_completed(self) -> None:
        """Completes the file and passes the end on."""
        with self._lock:
            if self._ended:
                return
            failure = self._end()
        if failure is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(failure)

    def on_tick(self) -> None:
        """Writes what waits."""
        with self._lock:
            if self._ended:
                return
            failure = self._attempt(lambda: self._recorder.tick(self._now()))
            if self._handing_over:
                self._untold, failure = failure, None
        if failure is not None:
            self._tell_between_items(failure)

    def _tell_between_items(self, failure: Exception) -> None:
        """Tells on the timer's thread, where nobody catches what a subscriber raises."""
        try:
            self._observer.on_error(failure)
        except Exception as unhandled:
            if unhandled is not failure:  # reactivex raises the error itself where no on_error was given
                _log.exception("the error handler of a recording's subscriber raised")
            else:
                _log.error("a recording failed, and its subscriber has no on_error: %s", failure)

    def dispose(self) -> None:
        """Completes the file, if that is still to be done. A failure is logged: there is nobody to tell."""
        with self._lock:
            if not self._ended and (failure := self._end()) is not None:
                _log.error("a recording could not be completed: %s", failure)

    def _end(self) -> Exception | None:
        failure = self._attempt(self._recorder.close)
        self._ended = True
        return failure

    def _attempt(self, action: Callable[[], None]) -> Exception | None:
        """Does something with the recorder. Returns what went wrong: then the recording has ended."""
        try:
            action()
        except RecordingError as error:
            self._ended = True
            return RecordingError(error.path, "; ".join(filter(None, [error.reason, self._recorder.abandon()])))
        except Exception as error:  # an item's fault
            self._ended = True
            try:
                self._recorder.close()
            except Exception:
                _log.exception("a recording could not be completed; %s", self._recorder.abandon())
            return error
        return None

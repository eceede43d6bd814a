"""Writes a stream to Parquet files and passes its items on: `record`.

Thread safety: items are written and passed on, on the source's thread, which waits for the disk. Waiting rows are
flushed on a timer's thread. `dispose` may run on any thread and completes the file there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import reactivex as rx
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from k2eg_rx.arguments import at_least_one, file_path, flag, positive
from k2eg_rx.concurrency import check_scheduler, current_runtime
from k2eg_rx.errors import require_extra
from k2eg_rx.protocol import nanoseconds_of
from k2eg_rx.recording.errors import RecordingError
from k2eg_rx.recording.file_names import journal_of
from k2eg_rx.recording.rows import Recordable
from k2eg_rx.texts import get_logger

if TYPE_CHECKING:
    from k2eg_rx.recording.recorder import Recorder

_log = get_logger(__name__)

_T = TypeVar("_T", bound=Recordable)

# A file that other tools read easily: about six million events of scalars, at 45 bytes each when compressed.
_ROTATE_BYTES = 256 * 1024 * 1024
_ROW_GROUP_ROWS = 50_000  # about 30 MB of scalar events before compression
_FLUSH_ROWS = 5_000
_FLUSH_EVERY = 1.0


def record(
    path: str | Path,
    *,
    rotate_bytes: int | None = _ROTATE_BYTES,
    rotate_every: float | None = None,
    row_group_rows: int = _ROW_GROUP_ROWS,
    flush_rows: int = _FLUSH_ROWS,
    flush_every: float = _FLUSH_EVERY,
    resume: bool = False,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[_T]], Observable[_T]]:
    """Writes a stream's items to Parquet files and passes them on.

    When the stream completes, fails or is disposed, all items are in complete files on disk; completion or error
    follows after that. A process that is killed leaves the items up to the last flush: `replay_file` reads them,
    `recover` turns them into Parquet files. An open file has a journal beside it; both have names that begin with an
    underscore.

    With `resume`, a recording that has ended, also by a kill, goes on with a further file. Updates that it has already,
    by topic, partition and offset, are neither recorded again nor passed on. Let the source begin where the recording
    ends, then only what Kafka does not keep any more is missing::

        client.monitor_many_stream(uris, since=positions(path)).pipe(record(path, resume=True))

    The columns are the fields of `recording.rows.Row`. An update's row has its Kafka record and, for other programs,
    its time, name, severity, status, and its value if that is a number or a string.

    Args:
        path: First file, such as ``run.parquet``; later ones are ``run-0002.parquet`` and so on. Existing files are
            never overwritten. An empty stream leaves an empty file.
        rotate_bytes: Bytes of a file, after which the next one starts; None for no limit.
        rotate_every: Seconds of a file, to within `flush_every`, after which the next one starts; None for no limit.
        row_group_rows: Rows of a row group in the complete file; fewer if values are large.
        flush_rows: Rows that may wait in memory and that a crash may lose.
        flush_every: Seconds for which rows may wait in memory.
        resume: Whether to go on with the recording at `path` if there is one.
        scheduler: Clock and flush timer; by default a thread of the subscription.

    Emits:
        Items of the source. Fails with `RecordingError`, which names the file, if writing fails.

    Raises:
        ValueError: The file exists or a crash left its journal, without `resume`; or a number is not above 0.
        ModuleNotFoundError: pyarrow is not installed; the text names the extra.

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
    from k2eg_rx.recording.resuming import resumed  # noqa: PLC0415 - an extra

    first = file_path(path, "path").absolute()
    limits = Limits(
        None if rotate_bytes is None else at_least_one(rotate_bytes, "rotate_bytes"),
        None if rotate_every is None else positive(rotate_every, "rotate_every"),
        at_least_one(row_group_rows, "row_group_rows"),
        at_least_one(flush_rows, "flush_rows"),
    )
    interval = positive(flush_every, "flush_every")
    check_scheduler(scheduler)
    flag(resume, "resume")
    if not resume:
        _require_free(first)

    def operator(source: Observable[_T]) -> Observable[_T]:
        def subscribe(
            observer: abc.ObserverBase[_T], subscribed: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            runtime = current_runtime()
            clock = _Clock(scheduler or (runtime.scheduler if runtime.is_virtual else None))
            try:
                recorder = Recorder(first, limits, clock.now(), resumed(first) if resume else None)
            except RecordingError as error:
                observer.on_error(error)
                return Disposable()
            recording = _Recording(recorder, observer, clock.now)
            end = CompositeDisposable(clock.every(interval, recording.on_tick), Disposable(recording.dispose))
            try:
                items = source.subscribe(
                    recording.on_next, recording.on_error, recording.on_completed, scheduler=subscribed
                )
            except BaseException:
                end.dispose()
                raise
            return CompositeDisposable(items, end)

        return Observable(subscribe)

    return operator


def _require_free(path: Path) -> None:
    journal = journal_of(path)
    if path.exists():
        raise ValueError(f"path must not exist, got {path}: choose another name, record overwrites nothing")
    if journal.exists():
        raise ValueError(
            f"path must not be in use, got {path} with the journal {journal}: choose another name, "
            "or complete a recording that crashed with recover, or go on with it with resume=True"
        )


class _Clock:
    """Clock and flush timer: a scheduler, or the system's time and a thread of its own."""

    def __init__(self, scheduler: abc.SchedulerBase | None) -> None:
        self._scheduler = scheduler

    def now(self) -> int:
        """Returns the time in nanoseconds since the Unix epoch."""
        return nanoseconds_of(datetime.now(UTC) if self._scheduler is None else self._scheduler.now)

    def every(self, seconds: float, tick: Callable[[], None]) -> abc.DisposableBase:
        """Calls `tick` periodically until the result is disposed; a call in progress runs to its end."""
        if self._scheduler is not None:
            return rx.interval(seconds, scheduler=self._scheduler).subscribe(lambda _: tick())
        stopped = threading.Event()

        def run() -> None:
            while not stopped.wait(seconds):
                tick()

        threading.Thread(target=run, name="k2eg-recording", daemon=True).start()
        return Disposable(stopped.set)


class _Recording(Generic[_T]):
    """One subscription. The lock protects all state and is not held while the observer is called.

    One thread at a time calls the observer: the source's, or the timer's if a flush fails. If that happens while the
    source's thread emits an item, the source's thread emits the error afterwards.
    """

    def __init__(self, recorder: Recorder, observer: abc.ObserverBase[_T], now: Callable[[], int]) -> None:
        self._recorder = recorder
        self._observer = observer
        self._now = now
        self._lock = threading.Lock()
        self._ended = False
        self._is_emitting = False
        self._failure: Exception | None = None

    def on_next(self, item: _T) -> None:
        """Records an item and passes it on, unless a resumed recording has it already."""
        with self._lock:
            if self._ended or self._recorder.has(item):
                return
            failure = self._attempt(lambda: self._recorder.add(item, self._now()))
            self._is_emitting = failure is None
        if failure is None:
            try:
                self._observer.on_next(item)
            finally:
                with self._lock:
                    self._is_emitting = False
                    failure, self._failure = self._failure, None
        if failure is not None:
            self._observer.on_error(failure)

    def on_error(self, error: Exception) -> None:
        """Completes the file and passes the error on."""
        with self._lock:
            if self._ended:
                return
            failure = self._end()
        if failure is not None:
            error.add_note(f"the recording could not be completed either: {failure}")
        self._observer.on_error(error)

    def on_completed(self) -> None:
        """Completes the file, then the stream."""
        with self._lock:
            if self._ended:
                return
            failure = self._end()
        if failure is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(failure)

    def on_tick(self) -> None:
        """Writes waiting rows."""
        with self._lock:
            if self._ended:
                return
            failure = self._attempt(lambda: self._recorder.tick(self._now()))
            if self._is_emitting:
                self._failure, failure = failure, None
        if failure is not None:
            self._fail_from_timer(failure)

    def _fail_from_timer(self, failure: Exception) -> None:
        """Fails the stream on the timer's thread, where nothing catches exceptions of the subscriber."""
        try:
            self._observer.on_error(failure)
        except Exception as unhandled:
            if unhandled is not failure:  # reactivex raises the error itself if there is no on_error
                _log.exception("on_error of a subscriber raised")
            else:
                _log.error("recording failed, its subscriber has no on_error: error=%s", failure)

    def dispose(self) -> None:
        """Completes the file unless that is done. Logs a failure, since no observer is left."""
        with self._lock:
            if not self._ended and (failure := self._end()) is not None:
                _log.error("recording could not be completed: error=%s", failure)

    def _end(self) -> Exception | None:
        failure = self._attempt(self._recorder.close)
        self._ended = True
        return failure

    def _attempt(self, action: Callable[[], None]) -> Exception | None:
        """Runs an action of the recorder. Returns its error, after which the recording has ended."""
        try:
            action()
        except RecordingError as error:
            self._ended = True
            return RecordingError(error.path, "; ".join(filter(None, [error.reason, self._recorder.abandon()])))
        except Exception as error:  # the item cannot be recorded
            self._ended = True
            try:
                self._recorder.close()
            except Exception:
                _log.exception("recording could not be completed: %s", self._recorder.abandon())
            return error
        return None

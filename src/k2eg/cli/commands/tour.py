"""``k2eg demo --tour``: runs every operation once on the demo's PVs and checks the results.

It is part of the command line, not of examples/, because an installed package has no examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from itertools import pairwise
from typing import Any, TypeVar

from reactivex import Observable
from reactivex import operators as ops

from k2eg.cli.printing.formatting import format_value, table_lines
from k2eg_rx import (
    Client,
    PVData,
    PVUpdate,
    SnapshotData,
    SnapshotHeader,
    SnapshotMessage,
    SnapshotProperties,
    SnapshotTail,
    SnapshotType,
    first,
)

_T = TypeVar("_T")

_STEP_SECONDS = 15.0  # per step, for a busy machine
_AMPLITUDE = 10.0  # of the demo's sine waves
_PERIOD = 100  # updates of demo:sine100


class TourError(Exception):
    """A step of the tour had an unexpected result."""


def _check(condition: bool, text: str) -> None:
    if not condition:
        raise TourError(text)


def _format(data: PVData) -> str:
    return f"{format_value(data)} {data.units}".rstrip()


def _take(stream: Observable[_T], count: int) -> Future[list[_T]]:
    """Subscribes at once; the future gets the first `count` items."""
    future: Future[list[_T]] = Future()
    stream.pipe(ops.take(count), ops.to_list()).subscribe(future.set_result, future.set_exception)
    return future


class Tour:
    """Runs the steps of the tour in order.

    Args:
        client: A client of the demo.
        print_line: Prints a line.
    """

    def __init__(self, client: Client, print_line: Callable[[str], object]) -> None:
        self._client = client
        self._print_line = print_line

    def run(self) -> None:
        """Runs the steps.

        Raises:
            TourError: A step failed or had an unexpected result; the text names the step.
        """
        steps: list[tuple[str, Callable[[], list[str]]]] = [
            ("get: get_stream(uri)", self._get),
            ("put: put_stream(uri, value)", self._put),
            ("monitor: monitor_stream(uri)", self._monitor),
            ("one-shot snapshot: snapshot_stream(uris)", self._one_shot),
            ("recurring snapshot, normal: snapshot_recurring_stream(properties)", self._normal),
            ("recurring snapshot, triggered: snapshot_trigger_stream(name)", self._triggered),
            ("recurring snapshot, timed-buffered with sub push: snapshot_events_stream(properties)", self._buffered),
            ("table: put_stream(uri, columns), and read back", self._table),
            ("pipe: a value computed from a live stream", self._pipe),
        ]
        for number, (title, step) in enumerate(steps, start=1):
            self._print_line(f"{number}. {title}")
            try:
                lines = step()
            except Exception as error:
                what = title.partition(":")[0]
                raise TourError(f"step {number} ({what}): {str(error) or type(error).__name__}") from error
            for line in lines:
                self._print_line(f"   {line}")
        self._print_line(f"all {len(steps)} steps done")

    def _read(self, uri: str) -> PVData:
        return first(self._client.get_stream(uri, _STEP_SECONDS))

    def _get(self) -> list[str]:
        uris = ("pva://demo:setpoint1", "pva://demo:setpoint2", "pva://demo:sum", "ca://demo:sum", "ca://demo:mode")
        read = [self._read(uri) for uri in uris]
        one, two, over_pva, over_ca = (data.value for data in read[:4])
        _check(over_pva == over_ca == one + two, f"{one} + {two} is not {over_pva} (PVAccess), {over_ca} (CA)")
        return [f"{uri} = {_format(data)}" for uri, data in zip(uris, read, strict=True)]

    def _put(self) -> list[str]:
        uri, wanted = "pva://demo:setpoint1", 3.25
        other = self._read("pva://demo:setpoint2").value
        sums = self._client.monitor_stream("pva://demo:sum").pipe(ops.filter(lambda sum_: sum_.value == wanted + other))
        changed = _take(sums, 1)
        reply = first(self._client.put_stream(uri, wanted, _STEP_SECONDS))
        read = self._read(uri)
        _check(read.value == wanted, f"{uri} is {read.value} after a put of {wanted}")
        (sum_,) = changed.result(_STEP_SECONDS)
        lines = [f"{uri} <- {wanted}: {reply.message}", f"pva://demo:sum follows: {_format(sum_)}"]
        first(self._client.put_stream("pva://demo:mode", "Beam", _STEP_SECONDS))
        mode = self._read("pva://demo:mode")
        _check(mode.label == "Beam", f"demo:mode must be Beam, got {mode.label}")
        return [*lines, f"pva://demo:mode <- 'Beam', by its label: {_format(mode)}"]

    def _monitor(self) -> list[str]:
        lines: list[str] = []
        for uri, count in (("ca://demo:ramp10", 10), ("pva://demo:ramp100", 200)):
            updates = _take(self._client.monitor_stream(uri), count).result(_STEP_SECONDS)
            values = [round(update.value) for update in updates]
            gaps = [b for a, b in pairwise(values) if b != (a + 1) % _PERIOD]
            _check(not gaps, f"{uri} must count up by one, got {values}")
            times = [update.timestamp or 0 for update in updates]
            rate = (count - 1) / ((times[-1] - times[0]) / 1e9)
            lines.append(f"{uri}: {count} updates, none missing, {rate:.1f} a second: {values[0]} to {values[-1]}")
        return lines

    def _one_shot(self) -> list[str]:
        names = ("demo:sum", "demo:ramp10", "demo:message", "demo:temperature", "demo:table")
        snapshot = first(self._client.snapshot_stream([f"pva://{name}" for name in names], _STEP_SECONDS))
        missing = [name for name in names if not snapshot.data[name]]
        _check(not missing, f"no value of {missing}")
        return [f"{name} = {_format(PVData(name, snapshot.data[name][-1]))}" for name in names]

    def _normal(self) -> list[str]:
        properties = SnapshotProperties(
            snapshot_name="tour-normal", pv_uri_list=["pva://demo:ramp10", "pva://demo:sum"], time_window=500
        )
        taken = _take(self._client.snapshot_recurring_stream(properties), 3).result(_STEP_SECONDS)
        self._stop(properties)
        numbers = [snapshot.iteration for snapshot in taken]
        _check(numbers == list(range(numbers[0], numbers[0] + 3)), f"iterations {numbers}")
        counts = [{name: len(samples) for name, samples in snapshot.data.items()} for snapshot in taken]
        _check(all(count == {"demo:ramp10": 1, "demo:sum": 1} for count in counts), f"samples: {counts}")
        return [
            f"iteration {snapshot.iteration}, every {properties.time_window} ms: demo:ramp10 ="
            f" {snapshot.data['demo:ramp10']['value']:g}, demo:sum = {snapshot.data['demo:sum']['value']:g}"
            for snapshot in taken
        ]

    def _triggered(self) -> list[str]:
        properties = SnapshotProperties(
            snapshot_name="tour-triggered", pv_uri_list=["pva://demo:sine100", "ca://demo:ramp10"], triggered=True
        )
        client, lines = self._client, list[str]()
        snapshots = client.snapshot_recurring_stream(properties)
        subscription = snapshots.subscribe(lambda _: None, lambda _: None)  # keeps the stream open between the triggers
        first(client.snapshot_activation_stream(properties.snapshot_name, _STEP_SECONDS))
        for _ in range(2):
            taken = _take(snapshots, 1)
            reply = first(client.snapshot_trigger_stream(properties.snapshot_name, _STEP_SECONDS))
            (snapshot,) = taken.result(_STEP_SECONDS)
            lines.append(f"trigger: {reply.message}; iteration {snapshot.iteration} of {len(snapshot.data)} PVs")
        subscription.dispose()
        self._stop(properties)
        return lines

    def _buffered(self) -> list[str]:
        properties = SnapshotProperties(
            snapshot_name="tour-buffered",
            pv_uri_list=["pva://demo:ramp100"],
            time_window=1000,
            sub_push_delay_msec=250,
            type=SnapshotType.TIMED_BUFFERED,
        )
        messages: Observable[SnapshotMessage] = self._client.snapshot_events_stream(properties).pipe(
            ops.take_while(lambda message: not isinstance(message, SnapshotTail), inclusive=True)
        )
        future: Future[list[SnapshotMessage]] = Future()
        messages.pipe(ops.to_list()).subscribe(future.set_result, future.set_exception)
        parts = future.result(_STEP_SECONDS)
        self._stop(properties)
        header, tail = parts[0], parts[-1]
        data = [message for message in parts if isinstance(message, SnapshotData)]
        values = [round(message.data["value"]) for message in data]
        gaps = [b for a, b in pairwise(values) if b != (a + 1) % _PERIOD]
        pushes = sorted({message.timestamp for message in data})
        _check(isinstance(header, SnapshotHeader) and isinstance(tail, SnapshotTail), f"{header} ... {tail}")
        _check(bool(values) and not gaps, f"demo:ramp100 must count up by one, got {values}")
        _check(len(pushes) > 1, f"expected several pushes, got one at {pushes}")
        return [
            f"{len(values)} values of demo:ramp100 in {len(pushes)} pushes, none missing;"
            f" the first push came {(tail.timestamp - pushes[0]) // 1_000_000} ms before the window's end"
        ]

    def _table(self) -> list[str]:
        uri = "pva://demo:table"
        columns = self._read(uri).table
        row = {"element": "WIRE1", "device_name": "WIRE:DEMO:240", "s": 2.1, "length": 0.03}
        longer = {label: [*column, row[label]] for label, column in columns.items()}
        try:
            first(self._client.put_stream(uri, longer, _STEP_SECONDS))
            read = self._read(uri).table
            _check(read == longer, f"{uri} is {read} after a put of {longer}")
        finally:
            first(self._client.put_stream(uri, columns, _STEP_SECONDS))
        return [f"{uri}, with a row added (and removed afterwards):", *(f"  {line}" for line in table_lines(longer))]

    def _pipe(self) -> list[str]:
        def root_mean_square(updates: list[PVUpdate]) -> float:
            return math.sqrt(sum(update.value**2 for update in updates) / len(updates))

        effective = self._client.monitor_stream("pva://demo:sine100").pipe(
            ops.buffer_with_count(_PERIOD), ops.map(root_mean_square)
        )
        values = _take(effective, 2).result(_STEP_SECONDS)
        expected = _AMPLITUDE / math.sqrt(2)
        _check(all(math.isclose(value, expected, rel_tol=1e-3) for value in values), f"{values}, expected {expected}")
        return [
            "monitor_stream('pva://demo:sine100').pipe(buffer_with_count(100), map(root_mean_square))",
            f"gives {', '.join(f'{value:.3f}' for value in values)} mV; expected {expected:.3f}",
        ]

    def _stop(self, properties: SnapshotProperties) -> Any:
        return first(self._client.snapshot_stop_stream(properties.snapshot_name, _STEP_SECONDS))

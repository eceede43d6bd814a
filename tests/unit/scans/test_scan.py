"""Scans on the scripted gateway: order of steps, shots after the move, failures, disposal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import reactivex as rx
from reactivex import operators as ops

from k2eg_rx import Client, first
from k2eg_rx.operators import align
from k2eg_rx.scans import Readback, ScanError, ScanPoint, restoring, scan
from k2eg_rx.testing import ScriptedGateway
from k2eg_rx.testing.scripted_pvs import ScriptedPV

QUAD, ACTUAL, SIZE, BPM = "pva://quad", "pva://quad:actual", "pva://size", "pva://bpm"
SETTLE = {QUAD: Readback(ACTUAL, tolerance=0.01)}


class Beam:
    """A quadrupole whose current follows a second after its set point, and what is measured at 10 Hz."""

    def __init__(self, gateway: ScriptedGateway, client: Client) -> None:
        self.gateway, self.client = gateway, client
        self.actual: ScriptedPV = gateway.pv("quad:actual", 10.0)
        self.quad: ScriptedPV = gateway.pv("quad", 10.0, on_put=self._follow)
        self.size: ScriptedPV = gateway.pv("size", 0.0)
        self.bpm: ScriptedPV = gateway.pv("bpm", 0.0)
        self.follows = True
        self._shots = rx.interval(0.1, scheduler=gateway.clock).subscribe(self._shoot)

    def _follow(self, current: float) -> None:
        def arrive(*_: object) -> None:
            if self.follows:
                self.actual.post(current)

        self.gateway.clock.schedule_relative(1.0, arrive)

    def _shoot(self, number: int) -> None:
        self.size.post(self.actual.value)
        self.bpm.post(float(number))


@pytest.fixture
def beam() -> Iterator[Beam]:
    with ScriptedGateway() as gateway, gateway.client() as client:
        yield Beam(gateway, client)


def points_of(stream: rx.Observable[ScanPoint]) -> list[ScanPoint]:
    return first(stream.pipe(ops.to_list()))


def test_shots_are_taken_after_the_read_back_has_settled(beam: Beam) -> None:
    points = points_of(scan(beam.client, {QUAD: [6.0, 8.0]}, settle=SETTLE, acquire=[SIZE, BPM], shots=3))
    assert beam.quad.puts == [6.0, 8.0]
    assert [[shot["size"].value for shot in point.shots] for point in points] == [[6.0] * 3, [8.0] * 3]
    for point in points:
        assert all(shot["bpm"].timestamp > point.readbacks[QUAD].timestamp for shot in point.shots)
    row = next(points[1].rows())
    assert {"point": 1, QUAD: 8.0, "shot": 0, "quad:actual": 8.0, "size": 8.0}.items() <= row.items()


def test_a_grid_writes_only_what_changes(beam: Beam) -> None:
    other = beam.gateway.pv("corrector", 0.0)
    points = points_of(scan(beam.client, {QUAD: [6.0, 8.0], "pva://corrector": [1.0, 2.0]}, settle=0.5))
    assert [tuple(point.setpoints.values()) for point in points] == [(6.0, 1.0), (6.0, 2.0), (8.0, 1.0), (8.0, 2.0)]
    assert (beam.quad.puts, other.puts) == ([6.0, 8.0], [1.0, 2.0, 1.0, 2.0])


def test_an_operator_makes_the_shots(beam: Beam) -> None:
    joined = align(["size", "bpm"], tolerance=0.01)
    stream = scan(beam.client, {QUAD: [6.0]}, settle=SETTLE, acquire=[SIZE, BPM], shots=2, through=joined)
    assert [row["size"] for point in points_of(stream) for row in point.rows()] == [6.0, 6.0]


def test_a_read_back_that_does_not_settle_ends_the_scan(beam: Beam) -> None:
    beam.follows = False
    with pytest.raises(
        ScanError, match=r"at point 0, pva://quad=6: Timeout: settling of quad:actual: not within 0\.01"
    ):
        points_of(scan(beam.client, {QUAD: [6.0, 8.0]}, settle=SETTLE))
    assert beam.quad.puts == [6.0]


def test_a_put_that_fails_ends_the_scan(beam: Beam) -> None:
    beam.gateway.pv("fixed", 0.0, read_only=True)
    with pytest.raises(ScanError, match=r"point 0, .*put of pva://fixed"):
        points_of(scan(beam.client, {"pva://fixed": [1.0, 2.0], QUAD: [6.0, 7.0]}, settle=0.1))
    beam.gateway.advance(60.0)
    assert beam.quad.puts in ([], [6.0])  # both are sent at once


def test_nothing_is_written_before_everything_is_there(beam: Beam) -> None:
    with pytest.raises(Exception, match="dead"):
        points_of(scan(beam.client, {QUAD: [6.0]}, settle=SETTLE, acquire=["pva://dead"], timeout=5.0))
    assert beam.quad.puts == []


def test_a_silent_pv_ends_the_scan(beam: Beam) -> None:
    beam.gateway.pv("silent", 0.0)
    with pytest.raises(ScanError, match="not 1 shots of silent within 5 s after the move"):
        points_of(scan(beam.client, {QUAD: [6.0, 7.0]}, settle=SETTLE, acquire=["pva://silent"], timeout=5.0))
    assert beam.quad.puts == [6.0]


@pytest.mark.parametrize("after", [0.0, 0.3, 1.2, 1.55, 1.7])
def test_nothing_is_written_after_dispose(beam: Beam, after: float) -> None:
    seen: list[ScanPoint] = []
    scanning = scan(beam.client, {QUAD: [6.0, 8.0, 9.0]}, settle=SETTLE, acquire=[BPM], shots=2).subscribe(seen.append)
    beam.gateway.advance(after)
    puts = list(beam.quad.puts)
    scanning.dispose()
    beam.gateway.advance(60.0)
    assert puts == [6.0, 8.0][: len(puts)]
    assert beam.quad.puts == puts
    assert "monitors=0" in repr(beam.client)


def test_an_exception_of_the_subscriber_ends_the_scan(beam: Beam) -> None:
    def fail(_: ScanPoint) -> None:
        raise KeyError("mine")

    errors: list[Exception] = []
    scan(beam.client, {QUAD: [6.0, 8.0]}, settle=0.2).subscribe(fail, errors.append)
    beam.gateway.advance(60.0)
    assert isinstance(errors[0], KeyError)
    assert beam.quad.puts == [6.0]


def test_two_scans_of_one_pv_are_refused(beam: Beam) -> None:
    seen: list[ScanPoint] = []
    one = scan(beam.client, {QUAD: [6.0, 8.0]}, settle=SETTLE).subscribe(seen.append)
    with pytest.raises(ScanError, match="another scan of this client moves quad"):
        points_of(scan(beam.client, {"ca://quad.VAL": [1.0]}, settle=0.1))
    beam.gateway.advance(30.0)
    assert (len(seen), beam.quad.puts) == (2, [6.0, 8.0])
    points_of(scan(beam.client, {QUAD: [7.0]}, settle=SETTLE))  # the first one has ended
    one.dispose()


def test_an_abandoned_scan_is_put_back(beam: Beam) -> None:
    beam.quad.delay = 3.0  # Ctrl-C strikes while a put is under way

    def interrupted() -> None:
        with restoring(beam.client, [QUAD]):
            scanning = scan(beam.client, {QUAD: [6.0, 8.0]}, settle=SETTLE).subscribe()
            beam.gateway.advance(1.0)
            scanning.dispose()
            beam.quad.delay = 0.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    beam.gateway.advance(60.0)
    assert beam.quad.value == 10.0
    assert beam.quad.puts in ([10.0], [6.0, 10.0])


@pytest.mark.parametrize(
    ("setpoints", "settle", "text"),
    [
        ({}, 1.0, "at least one PV"),
        ({QUAD: []}, 1.0, "at least one PV"),
        ({QUAD: [float("nan")]}, 1.0, "must be finite numbers, got nan"),
        ({QUAD: ["6"]}, 1.0, "must be finite numbers, got '6'"),
        ({QUAD: [1.0], "ca://quad": [2.0]}, 1.0, "must be different PVs"),
        ([{QUAD: 1.0}, {ACTUAL: 1.0}], 1.0, "must set the same PVs"),
        ({QUAD: [1.0]}, -1.0, "settle must be"),
        ({QUAD: [1.0]}, {ACTUAL: Readback(ACTUAL, 0.1)}, "settle must name set points of the scan"),
        ({QUAD: [1.0]}, {QUAD: 0.1}, "must be a Readback"),
    ],
)
def test_wrong_arguments_are_refused(beam: Beam, setpoints: object, settle: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        scan(beam.client, setpoints, settle=settle)  # type: ignore[arg-type] # pyright: ignore
    assert beam.quad.puts == []

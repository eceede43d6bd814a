"""Windows by event time, arrival and count: content, closing, late updates, statistics."""

import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import from_iterable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx.operators import DropReason, Window, WindowCounts, window_statistics
from k2eg_rx.operators.window_states import TimeWindows
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.structures import NANOSECONDS, Severity
from k2eg_rx.testing import START, series, update


def at(seconds: float | None, value: object = 1.0, pv: str = "a") -> PVUpdate:
    """Returns an update a number of seconds after START."""
    return update(pv, value, timestamp=None if seconds is None else START + round(seconds * NANOSECONDS))


class Run:
    """A subscription to `window_statistics` in virtual time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.clock = TestScheduler()
        self.counts = WindowCounts()
        self.late: list[PVUpdate] = []
        self.dropped: list[tuple[PVUpdate, DropReason]] = []
        self.windows: list[Window] = []
        self.ends: list[Exception | None] = []
        self.source: Subject[PVUpdate] = Subject()
        options = {"counts": self.counts, "on_drop": self.drop} | options
        self.subscription = self.source.pipe(window_statistics(*arguments, **options)).subscribe(
            self.windows.append, self.ends.append, lambda: self.ends.append(None), scheduler=self.clock
        )

    def drop(self, item: PVUpdate, reason: DropReason) -> None:
        self.dropped.append((item, reason))
        if reason is DropReason.LATE:
            self.late.append(item)

    def feed(self, *updates: PVUpdate) -> list[tuple[str, float, tuple[Any, ...]]]:
        """Emits updates; returns name, start in seconds after START, and values of the resulting windows."""
        before = len(self.windows)
        for item in updates:
            self.source.on_next(item)
        return self.shown(before)

    def until(self, seconds: float) -> list[tuple[str, float, tuple[Any, ...]]]:
        """Advances the clock; returns the resulting windows."""
        before = len(self.windows)
        self.clock.advance_to(seconds)
        return self.shown(before)

    def shown(self, before: int = 0) -> list[tuple[str, float, tuple[Any, ...]]]:
        return [(found.name, (found.start - START) / NANOSECONDS, found.values) for found in self.windows[before:]]


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[TimeWindows]:
    """Checks of open windows by the clock."""
    taken: list[TimeWindows] = []
    tick = TimeWindows.tick
    monkeypatch.setattr(TimeWindows, "tick", lambda stage: (taken.append(stage), tick(stage)))
    return taken


class TestEventTime:
    def test_an_update_past_the_grace_closes_a_window(self):
        run = Run(1.0, grace=0.5)
        assert run.feed(at(0.0, 1), at(0.9, 2), at(1.0, 3), at(1.499, 4)) == []
        assert run.feed(at(1.5, 5)) == [("a", 0.0, (1, 2))]
        (found,) = run.windows
        assert (found.end - found.start, found.timestamps) == (NANOSECONDS, (START, START + 900_000_000))

    def test_updates_within_the_grace_are_in_their_window(self):
        run = Run(1.0, grace=0.5)
        assert run.feed(at(0.2, 1), at(1.4, 2), at(0.9, 3), at(1.5, 4)) == [("a", 0.0, (1, 3))]
        assert run.late == []

    def test_late_updates_are_counted_and_passed_to_on_drop(self):
        run = Run(1.0, grace=0.5)
        late = at(0.9, 3)
        run.feed(at(0.2, 1), at(1.5, 2), late, at(2.6, 4), at(3.6, 5))
        assert run.shown() == [("a", 0.0, (1,)), ("a", 1.0, (2,)), ("a", 2.0, (4,))]
        assert run.late == [late]
        assert [found.late for found in run.windows] == [0, 1, 0]
        assert run.counts == WindowCounts(received=5, windows=3, dropped=Counter({DropReason.LATE: 1}))

    def test_a_subscriber_that_blocks_makes_no_update_late(self):
        run = Run(1.0, grace=0.5)
        blocked: list[Window] = []

        def block(window: Window) -> None:
            blocked.append(window)
            run.clock.sleep(60.0)

        run.subscription.dispose()
        counts = WindowCounts()
        run.source.pipe(window_statistics(1.0, grace=0.5, counts=counts)).subscribe(block, scheduler=run.clock)
        run.feed(at(0.0, 1, "b"), at(0.0, 1), at(0.5, 2), at(1.6, 3))
        assert [(found.name, found.values) for found in blocked] == [("a", (1, 2))]
        run.clock.advance_by(0.1)  # all timers that were due meanwhile
        run.feed(at(0.5, 2, "b"), at(1.6, 3, "b"))
        assert [(found.name, found.values) for found in blocked[1:]] == [("b", (1, 2))]
        for _ in range(2):  # each closes one, which blocks; `advance_by` then sets the clock back
            run.clock.advance_by(100.0)
        assert (len(blocked), counts.dropped.total()) == (4, 0)

    def test_late_updates_can_feed_a_subject(self):
        aside: Subject[PVUpdate] = Subject()
        values: list[object] = []
        aside.subscribe(lambda item: values.append(item.value))
        Run(1.0, grace=0.0, on_drop=lambda item, _: aside.on_next(item)).feed(at(1.0, 1), at(0.0, 2), at(0.5, 3))
        assert values == [2, 3]

    def test_windows_start_at_multiples_of_their_length(self):
        run = Run(60.0, grace=0.0)
        run.feed(at(59.0), at(61.0))
        assert [(found.start % (60 * NANOSECONDS), found.end - found.start) for found in run.windows] == [
            (0, 60 * NANOSECONDS)
        ]

    def test_each_pv_has_its_own_windows_and_its_own_time(self):
        run = Run(1.0, grace=0.0)
        assert run.feed(at(0.0, 1, "a"), at(100.0, 2, "b"), at(0.5, 3, "a")) == []
        assert run.feed(at(1.0, 4, "a")) == [("a", 0.0, (1, 3))]

    def test_updates_without_time_are_counted(self):
        run = Run(1.0)
        unset = [update("a", 0.0, severity=3, timestamp=datetime(year, 1, 1, tzinfo=UTC)) for year in (1970, 1990)]
        run.feed(at(None), *unset)
        run.source.on_completed()
        assert run.counts == WindowCounts(received=3, dropped=Counter({DropReason.NO_TIME: 3}))
        assert [reason for _, reason in run.dropped] == [DropReason.NO_TIME] * 3
        assert run.windows == []

    def test_the_clock_closes_the_window_of_a_silent_pv(self):
        run = Run(1.0, grace=0.5)
        run.until(10.0)
        run.feed(at(0.2, 1))  # an update that is due 1.3 s later would close its window
        assert run.until(11.299) == []
        assert run.until(11.3) == [("a", 0.0, (1,))]

    def test_clocks_need_not_agree(self):
        run = Run(1.0, grace=0.0)  # the clock is at 1970
        run.feed(at(0.25, 1), at(0.5, 2))
        assert run.until(0.5) == [("a", 0.0, (1, 2))]

    def test_delayed_updates_are_not_late_by_the_clock(self):
        run = Run(1.0, grace=0.5)
        run.feed(at(0.2, 1))
        run.until(20.0)
        run.feed(at(0.9, 2), *(at(number + 0.5, number) for number in range(1, 4)))
        assert run.shown() == [("a", 0.0, (1,)), ("a", 1.0, (1,)), ("a", 2.0, (2,))]
        assert len(run.late) == 1

    def test_an_older_update_does_not_delay_a_window(self):
        run = Run(1.0, grace=0.5)
        run.feed(at(1.4, 2), at(0.9, 1))
        assert run.until(0.1) == [("a", 0.0, (1,))]

    def test_a_time_finer_than_the_clock_does_not_delay_a_window(self):
        run = Run(1.0, grace=0.1234563)
        run.feed(at(0.2))
        assert len(run.until(0.923459)) == 1

    def test_closed_windows_are_not_checked(self, checks: list[TimeWindows]):
        run = Run(1.0, grace=0.5)
        run.feed(at(0.2), at(1.7))
        assert len(run.until(0.799)) == 0
        assert len(run.until(10.0)) == 1  # 0.8 s after the update
        assert len(checks) <= 2

    def test_few_checks_close_many_silent_pvs(self, checks: list[TimeWindows]):
        run = Run(1.0, grace=0.5)
        for number in range(40):
            run.until(number / 400)
            run.feed(at(0.5, 1, f"pv{number}"))
        assert len(run.until(1.0)) == 1
        assert len(run.until(1.15)) == 39  # the last was due at 1.0975
        assert len(checks) <= 4

    def test_a_check_is_moved_forward_for_an_earlier_window(self):
        run = Run(10.0, grace=5.0)
        run.feed(at(0.0, 1, "slow"))
        run.until(1.0)
        run.feed(at(9.9, 1, "soon"))
        assert run.until(6.2) == [("soon", 0.0, (1,))]
        assert run.until(15.0) == [("slow", 0.0, (1,))]

    def test_windows_restart_after_ten_updates_of_a_clock_set_back(self):
        run = Run(1.0, grace=0.0)
        run.feed(at(3600.0), *(at(number / 100, number) for number in range(15)))
        run.source.on_completed()
        assert run.shown() == [("a", 3600.0, (1.0,)), ("a", 0.0, tuple(range(9, 15)))]
        assert len(run.late) == 9

    def test_occasional_late_updates_are_no_clock_step(self):
        run = Run(1.0, grace=0.0)
        run.feed(at(100.0), *[at(1.0)] * 9, at(100.1), *[at(1.0)] * 9)
        assert len(run.late) == 18

    def test_windows_that_overlap(self):
        run = Run(1.0, every=0.5, grace=0.0)
        run.feed(at(0.1, 1), at(0.6, 2), at(1.1, 3), at(1.6, 4))
        run.source.on_completed()
        assert run.shown() == [
            ("a", -0.5, (1,)),
            ("a", 0.0, (1, 2)),
            ("a", 0.5, (2, 3)),
            ("a", 1.0, (3, 4)),
            ("a", 1.5, (4,)),
        ]

    def test_a_delayed_update_is_in_the_overlapping_windows_still_open(self):
        run = Run(1.0, every=0.5, grace=0.0)
        run.feed(at(0.6, 1), at(1.1, 2), at(0.7, 3), at(1.5, 4))
        assert run.shown() == [("a", 0.0, (1,)), ("a", 0.5, (1, 2, 3))]
        assert run.late == []


class TestArrival:
    def test_the_clock_alone_counts(self):
        run = Run(1.0, by="arrival")
        run.until(0.3)
        run.feed(at(500.0, 1))
        run.until(0.7)
        run.feed(at(None, 2))
        assert run.until(0.999) == []
        before = len(run.windows)
        run.until(1.0)
        assert [(found.start, found.values) for found in run.windows[before:]] == [(0, (1, 2))]
        assert run.windows[0].timestamps == (START + 500 * NANOSECONDS, None)

    def test_all_pvs_close_at_the_boundary(self):
        run = Run(1.0, by="arrival")
        for number in range(5):
            run.until(1.1 + number / 10)
            run.feed(at(0.0, 1, f"pv{number}"))
        assert len(run.until(2.0)) == 5


class TestCount:
    def test_a_window_has_the_given_number_of_updates(self):
        run = Run(count=3)
        run.feed(at(0.0, 1), at(0.0, 9, "b"), at(0.1, 2), at(0.4, 3), at(0.5, 4))
        (found,) = run.windows
        assert (found.name, found.values) == ("a", (1, 2, 3))
        assert (found.start - START, found.end - START) == (0, 400_000_000)
        assert found.rate == pytest.approx(5.0)  # two intervals in 0.4 s

    def test_remaining_updates_are_emitted_at_the_end(self):
        run = Run(count=3)
        run.feed(at(0.0, 1), at(0.0, 9, "b"), at(0.1, 2), at(0.4, 3), at(0.5, 4))
        run.source.on_completed()
        assert [(found.name, found.values) for found in run.windows] == [("a", (1, 2, 3)), ("a", (4,)), ("b", (9,))]
        assert math.isnan(run.windows[-1].rate)
        assert run.ends == [None]

    def test_windows_that_overlap(self):
        run = Run(count=3, every=1)
        run.feed(*(at(number, number) for number in range(5)))
        run.source.on_completed()
        assert [found.values for found in run.windows] == [(0, 1, 2), (1, 2, 3), (2, 3, 4)]

    def test_by_arrival_it_needs_no_event_time(self):
        run = Run(count=2, by="arrival")
        run.until(1.0)
        run.feed(at(None, 1))
        run.until(3.0)
        run.feed(at(None, 2))
        assert [(found.start, found.end, found.rate) for found in run.windows] == [(10**9, 3 * 10**9, 0.5)]


class TestStatistics:
    def window_of(self, *values: object, **about: Any) -> Window:
        found: list[Window] = []
        from_iterable(series("demo:x", values, every=0.125, **about)).pipe(window_statistics(1.0)).subscribe(
            found.append
        )
        return found[0]

    def test_of_numbers(self):
        found = self.window_of(1.0, 2.0, 3.0, 6.0)
        assert (found.mean, found.min, found.max, found.percentile(50), found.rate) == (3.0, 1.0, 6.0, 2.5, 4.0)
        assert found.std == pytest.approx(math.sqrt(3.5))
        assert (len(found), found.excluded) == (4, 0)

    def test_of_arrays(self):
        found = self.window_of([1.0, 2.0], [3.0, 6.0])
        assert found.mean.tolist() == [2.0, 4.0]

    def test_invalid_values_are_kept_without_statistics(self):
        found: list[Window] = []
        updates = [update("a", 1.0), update("a", 1e9, severity=Severity.INVALID, timestamp=START + 1)]
        from_iterable(updates).pipe(window_statistics(1.0)).subscribe(found.append)
        assert (found[0].values, found[0].excluded, found[0].mean) == ((1.0, 1e9), 1, 1.0)
        assert found[0].severities == (Severity.NO_ALARM, Severity.INVALID)

    def test_a_pv_of_text_has_windows_but_no_statistics(self):
        found = self.window_of("on", "off")
        assert (found.values, found.excluded) == (("on", "off"), 2)
        with pytest.raises(ValueError, match=r"demo:x has values of type str"):
            _ = found.mean

    def test_only_invalid_numbers_are_nan(self):
        assert math.isnan(self.window_of(1.0, 2.0, severity=3).max)

    @pytest.mark.parametrize("q", [-1, 100.1, math.nan])
    def test_a_percentile_is_from_0_to_100(self, q: float):
        with pytest.raises(ValueError, match="from 0 to 100"):
            self.window_of(1.0).percentile(q)


def test_open_windows_are_emitted_on_completion_but_not_on_failure():
    run = Run(1.0)
    run.feed(at(0.0, 1), at(0.5, 2, "b"))
    run.source.on_completed()
    assert run.shown() == [("a", 0.0, (1,)), ("b", 0.0, (2,))]
    run = Run(1.0)
    run.feed(at(0.0, 1))
    run.source.on_error(RuntimeError("gone"))
    assert (run.shown(), [str(end) for end in run.ends]) == ([], ["gone"])
    assert run.until(100.0) == []


def test_nothing_is_emitted_after_dispose():
    run = Run(1.0)
    run.feed(at(0.0, 1))
    run.subscription.dispose()
    run.feed(at(10.0, 1))
    assert run.until(100.0) == []
    assert run.counts.windows == 0


def test_a_subscriber_may_feed_the_source():
    source: Subject[PVUpdate] = Subject()
    clock = TestScheduler()
    seen: list[tuple[Any, ...]] = []

    def answer(found: Window) -> None:
        seen.append(found.values)
        if len(seen) < 3:
            source.on_next(at(10.0, "new", f"pv{len(seen)}"))

    source.pipe(window_statistics(1.0, grace=0.0)).subscribe(answer, scheduler=clock)
    source.on_next(at(0.0, 1))
    clock.advance_to(5.0)
    assert seen == [(1,), ("new",), ("new",)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(0, 20)), max_size=40),
    st.integers(0, 20),
    st.sampled_from([None, 0.5]),
)
def test_every_update_is_in_its_windows_or_late(events: list[tuple[str, int, int]], grace: int, every: float | None):
    """Times and pauses in tenths of a second, in any order."""
    run = Run(1.0, grace=grace / 10, every=every)
    passed = 0.0
    for number, (pv, time, pause) in enumerate(events):
        passed += pause / 10
        run.until(passed)
        run.feed(at(time / 10, number, pv))
    run.source.on_completed()
    found = [value for item in run.windows for value in item.values]
    assert set(found) | {item.value for item in run.late} == set(range(len(events)))
    assert set(found).isdisjoint(item.value for item in run.late)
    assert every is not None or len(found) == len(set(found))
    assert run.counts.dropped[DropReason.LATE] == len(run.late)
    for item in run.windows:
        assert all(item.start <= (time or 0) < item.end for time in item.timestamps)
        assert item.values


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either"),
        ({"duration": 1.0, "count": 3}, "either"),
        ({"duration": 0.0}, "duration"),
        ({"duration": math.inf}, "duration"),
        ({"duration": 1e-10}, "1e-06 to"),
        ({"count": 0}, "count"),
        ({"count": 2.5}, "whole"),
        ({"count": 2, "every": 3}, "every"),
        ({"count": 2, "every": 1.5}, "whole"),
        ({"duration": 1.0, "every": 2.0}, "every"),
        ({"duration": 1.0, "every": -1.0}, "every"),
        ({"duration": 1.0, "grace": -1.0}, "grace"),
        ({"duration": 1.0, "by": "kafka"}, "'arrival'"),
    ],
)
def test_bad_arguments_raise_at_the_call(options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        window_statistics(**options)

"""Instants of `align`, its dropped updates and its counts."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from reactivex import from_iterable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from k2eg_rx import ConnectionEvent, PVState
from k2eg_rx.operators import AlignCounts, Aligned, DropReason, align
from k2eg_rx.protocol.messages import PVUpdate
from k2eg_rx.protocol.structures import NANOSECONDS
from k2eg_rx.testing import START, update

MS = 1_000_000


def at(pv: str, time: int | None, value: object = 1.0) -> PVUpdate:
    """Returns an update `time` nanoseconds after START."""
    return update(pv, value, timestamp=None if time is None else START + time)


def shown(instants: Iterable[Aligned]) -> list[dict[str, int]]:
    return [{name: (item.timestamp or 0) - START for name, item in instant.updates.items()} for instant in instants]


class Run:
    """A subscription to `align` with a subject as source."""

    def __init__(self, pvs: Iterable[str], **options: Any) -> None:
        self.counts = AlignCounts()
        self.dropped: list[tuple[PVUpdate, DropReason]] = []
        self.instants: list[Aligned] = []
        self.errors: list[Exception] = []
        self.source: Subject[PVUpdate | ConnectionEvent] = Subject()
        self.clock = TestScheduler()
        self.wait = options.get("grace", 1.0) / 4
        options = {"scheduler": self.clock} | options
        options = {"counts": self.counts, "on_drop": lambda item, why: self.dropped.append((item, why))} | options
        self.subscription = self.source.pipe(align(pvs, **options)).subscribe(self.instants.append, self.errors.append)

    def feed(self, *updates: PVUpdate | ConnectionEvent) -> list[dict[str, int]]:
        """Emits updates; returns the resulting instants."""
        before = len(self.instants)
        for item in updates:
            self.source.on_next(item)
        return shown(self.instants[before:])

    def feed_slowly(self, *updates: PVUpdate) -> list[dict[str, int]]:
        """Emits updates, each after a quarter of the grace."""
        return [instant for item in updates for instant in self.after(self.wait, item)]

    def after(self, seconds: float, *updates: PVUpdate) -> list[dict[str, int]]:
        """Emits updates after a time."""
        self.clock.sleep(seconds)
        return self.feed(*updates)

    def reasons(self) -> list[tuple[str, int, str]]:
        return [(item.name, (item.timestamp or 0) - START, why.value) for item, why in self.dropped]


def test_updates_of_one_time_are_an_instant_in_any_order():
    run = Run(["a", "pva://b", "c"])
    assert run.feed(at("b", 8), at("a", 0), at("c", 0), at("a", 8)) == []
    assert run.feed(at("b", 0)) == []  # before its own predecessor: out of order
    run = Run(["a", "pva://b", "c"])
    assert run.feed(at("b", 0), at("b", 8), at("a", 0), at("a", 8), at("c", 0)) == [{"a": 0, "b": 0, "c": 0}]
    assert run.feed(at("c", 8)) == [{"a": 8, "b": 8, "c": 8}]
    assert (run.counts.used, run.counts.waiting, run.counts.instants) == (6, 0, 2)


def test_an_instant_has_time_and_values_in_the_order_of_the_pvs():
    run = Run(["z", "a"], tolerance=1e-6)
    run.feed(at("a", 5, "text"), at("z", 9, 2.5))
    (instant,) = run.instants
    assert instant.values() == {"z": 2.5, "a": "text"}
    assert list(instant.updates) == ["z", "a"]
    assert (instant.timestamp, instant.pulse_id, instant.is_complete) == (START + 5, None, True)


@pytest.mark.parametrize(("apart", "joined"), [(999, True), (1000, True), (1001, False)])
def test_tolerance_is_exact_to_the_nanosecond(apart: int, joined: bool):
    run = Run(["a", "b"], tolerance=1e-6)
    assert bool(run.feed(at("a", 0), at("b", apart))) is joined


def test_an_update_that_another_pv_has_passed_is_dropped_at_once():
    run = Run(["a", "b"])
    assert run.feed(at("a", 0), at("a", 8), at("b", 8)) == [{"a": 8, "b": 8}]
    assert run.reasons() == [("a", 0, "unmatched")]
    assert run.counts.dropped == {DropReason.UNMATCHED: 1}


def test_an_incomplete_instant_expires_after_the_grace():
    run = Run(["a", "b"], grace=0.010)
    run.feed_slowly(*(at("a", time * MS) for time in (0, 4, 6, 8, 10)))
    assert run.reasons() == []
    run.feed_slowly(at("a", 10 * MS + 1))
    assert run.reasons() == [("a", 0, "expired")]


def test_a_pv_that_arrives_is_waited_for_however_late_it_is():
    run = Run(["a", "b", "c"], grace=0.010)
    for number in range(50):
        run.feed_slowly(at("a", (5000 + number) * MS), at("b", (5000 + number) * MS), at("c", number * MS))
    assert run.counts.dropped == {DropReason.UNMATCHED: 50}  # of c
    assert run.counts.waiting == 100


def test_a_silent_pv_is_given_up_and_its_next_update_joins_again(caplog: pytest.LogCaptureFixture):
    run = Run(["a", "b"], grace=0.010)
    assert run.feed_slowly(*(at("a", 4 * number * MS) for number in range(40))) == []
    assert run.counts.dropped[DropReason.EXPIRED] == 36
    assert run.feed(at("b", 156 * MS)) == [{"a": 156 * MS, "b": 156 * MS}]
    (record,) = [record for record in caplog.records if record.name.startswith("k2eg_rx.operators")]
    assert "reason=expired waiting=5 missing=1 first=b" in record.getMessage()


@pytest.mark.parametrize("stalled", ["source", "subscriber"])
def test_a_stall_gives_up_no_instant(stalled: str):
    names = ["a", "b", "c"]
    run = Run(names)
    if stalled == "subscriber":
        run.source.subscribe(lambda _: None)
        run.subscription.dispose()
        source = run.source.pipe(align(names, scheduler=run.clock, counts=run.counts))

        def block(instant: Aligned) -> None:
            run.instants.append(instant)
            run.clock.sleep(60.0)

        source.subscribe(block)
    run.feed(*(at(pv, 0) for pv in names), at("a", 100 * MS))
    backlog = [at(pv, number * 100 * MS) for pv in names for number in range(1, 600)]
    instants = run.after(60.0, *backlog[1:])
    assert len(instants) == 599
    assert run.counts.dropped.total() == 0


def test_the_grace_starts_after_the_tolerance():
    run = Run(["a", "b"], grace=0.010, tolerance=0.005)
    slowly = run.feed_slowly(*(at("a", time * MS) for time in (0, 7, 9, 11, 12)), at("b", 5 * MS))
    assert slowly == [{"a": 0, "b": 5 * MS}]


def test_an_update_after_the_grace_is_late():
    run = Run(["a", "b"], grace=0.010)
    assert run.feed_slowly(*(at("a", time * MS) for time in (0, 10, 20, 25, 30))) == []
    assert run.feed(at("b", 0), at("b", 30 * MS)) == [{"a": 30 * MS, "b": 30 * MS}]
    assert run.reasons()[:2] == [("a", 0, "expired"), ("b", 0, "late")]


def test_partial_instants_are_emitted_when_no_update_can_join_in_time():
    run = Run(["a", "b", "c"], grace=0.010, tolerance=1e-6, incomplete="partial")
    assert run.feed_slowly(at("a", 0), at("b", 7), at("a", 8 * MS), at("b", 8 * MS)) == []
    assert run.feed_slowly(at("a", 16 * MS)) == [{"a": 0, "b": 7}]
    assert run.instants[0].missing == ("c",)
    assert run.feed(at("c", 500), at("c", 8 * MS)) == [{"a": 8 * MS, "b": 8 * MS, "c": 8 * MS}]
    assert run.reasons() == [("c", 500, "late")]
    assert (run.counts.partial, run.counts.instants) == (1, 2)


def test_a_late_update_makes_no_second_partial_instant():
    run = Run(["a", "b"], tolerance=0.001, incomplete="partial", capacity=2)
    assert run.feed(at("a", 0), at("a", 8 * MS), at("a", 16 * MS)) == [{"a": 0}]  # too many wait
    assert run.feed(at("b", MS)) == []
    assert run.reasons() == [("b", MS, "late")]


def test_a_completed_source_leaves_nothing_waiting():
    updates = [at("a", 0), at("b", 0), at("a", 8), at("b", 9)]
    counts = AlignCounts()
    instants: list[Aligned] = []
    from_iterable(updates).pipe(align(["a", "b"], counts=counts)).subscribe(instants.append)
    assert shown(instants) == [{"a": 0, "b": 0}]
    assert (counts.used, counts.dropped, counts.waiting) == (
        2,
        {DropReason.UNMATCHED: 1, DropReason.ENDED: 1},
        0,
    )
    from_iterable(updates).pipe(align(["a", "b"], incomplete="partial")).subscribe(instants.append)
    assert shown(instants[1:]) == [{"a": 0, "b": 0}, {"a": 8}, {"b": 9}]


def test_an_error_is_passed_on_and_waiting_updates_are_counted():
    run = Run(["a", "b"], incomplete="partial")
    run.feed(at("a", 0))
    run.source.on_error(RuntimeError("gone"))
    assert [str(error) for error in run.errors] == ["gone"]
    assert run.instants == []
    assert run.reasons() == [("a", 0, "ended")]


def test_capacity_bounds_the_queue_and_drops_the_oldest():
    run = Run(["a", "b", "c"], capacity=3, grace=1000.0)
    run.feed(at("a", 1), at("b", 1), at("a", 2), at("a", 3))
    assert run.reasons() == [("a", 1, "overflow"), ("b", 1, "unmatched")]
    run.feed(at("a", 4), at("a", 5))
    assert run.reasons()[2:] == [("a", 2, "overflow")]
    assert run.counts.waiting == 3


def test_drop_reasons_of_unusable_updates():
    run = Run(["a", "b"])
    run.feed(at("x", 0), at("a", None), at("a", 8), at("a", 8), at("a", 7), at("b", 8))
    assert [why for _, why in run.dropped] == [
        DropReason.UNNAMED,
        DropReason.NO_TIME,
        DropReason.DUPLICATE,
        DropReason.OUT_OF_ORDER,
    ]
    assert shown(run.instants) == [{"a": 8, "b": 8}]


def test_clocks_that_are_set_back_stop_the_join_for_ten_updates_only():
    run = Run(["a", "b"])
    hour = 3600 * NANOSECONDS
    run.feed(at("a", hour), at("b", hour), at("a", hour + 8))
    back = [at(pv, time) for time in range(1, 12) for pv in ("a", "b")]
    assert run.feed(*back) == [{"a": 10, "b": 10}, {"a": 11, "b": 11}]
    assert ("a", hour + 8, "clock_step") in run.reasons()
    assert run.counts.waiting == 0


def test_updates_dropped_by_a_clock_step_no_longer_wait():
    run = Run(["a", "b"], capacity=4)
    run.feed(*(at("a", NANOSECONDS + number) for number in range(4)))
    run.feed(*(at("a", number) for number in range(13)))
    assert run.counts.dropped == {DropReason.OUT_OF_ORDER: 9, DropReason.CLOCK_STEP: 4}


@pytest.mark.parametrize("ahead", ["a", "b"])
def test_a_time_far_ahead_affects_ten_updates_only(ahead: str):
    run = Run(["a", "b"])
    run.feed(at(ahead, 3600 * NANOSECONDS))
    normal = [at(pv, time * 8 * MS) for time in range(11) for pv in sorted("ab", key=ahead.__ne__)]  # that one first
    assert run.feed(*normal) == [{"a": time * MS, "b": time * MS} for time in (72, 80)]


class TestPulses:
    """Joining by pulse id."""

    def pulse(self, pv: str, second: int, pulse_id: int, upper: int = 0) -> PVUpdate:
        """Returns an update with the pulse id in the low 17 bits of the nanoseconds and `upper` above."""
        seconds = START // NANOSECONDS + second
        return update(pv, float(pulse_id), timestamp=seconds * NANOSECONDS + (upper << 17) + pulse_id)

    def test_the_id_is_in_the_nanoseconds_not_in_the_whole_time(self):
        run = Run(["a", "b"], on="pulse_id", grace=5.0)
        run.feed(self.pulse("a", 1, 77, upper=40), self.pulse("b", 2, 77, upper=3000))
        assert [instant.pulse_id for instant in run.instants] == [77]
        assert run.instants[0].timestamp == START + NANOSECONDS + (40 << 17) + 77

    def test_equal_times_with_different_ids_are_no_instant(self):
        run = Run(["a", "b"], on="pulse_id")
        run.feed(self.pulse("a", 0, 3), self.pulse("b", 0, 6), self.pulse("a", 0, 6, upper=1))
        assert [instant.pulse_id for instant in run.instants] == [6]
        assert [why for _, why in run.dropped] == [DropReason.UNMATCHED]

    def test_clocks_may_differ_by_more_than_a_period(self):
        run = Run(["a", "b"], on="pulse_id")
        for number in range(100):
            run.feed(self.pulse("a", 0, 3 * number, upper=10 * number))
            run.feed(self.pulse("b", 0, 3 * number, upper=10 * number + 300))  # 39 ms later
        assert [instant.pulse_id for instant in run.instants] == list(range(0, 300, 3))

    @pytest.mark.parametrize("first", [0x1FFDF - 30, 65_536 - 30, 0])
    def test_ids_wrap_as_at_lcls_and_pvs_may_be_apart_there(self, first: int):
        ids = [(first + 3 * number) % 0x1FFE0 for number in range(40)]
        run = Run(["a", "b"], on="pulse_id")
        for number, pulse_id in enumerate(ids):
            run.feed(self.pulse("a", 0, pulse_id, upper=20 * number))
            if number >= 10:
                run.feed(self.pulse("b", 0, ids[number - 10], upper=20 * (number - 10)))
        assert [instant.pulse_id for instant in run.instants] == ids[:30]
        assert run.dropped == []

    def test_an_id_that_recurs_is_another_pulse(self):
        run = Run(["a", "b"], on="pulse_id")
        run.feed(self.pulse("a", 0, 5), self.pulse("b", 364, 5), self.pulse("a", 364, 5))
        assert shown(run.instants) == [{"a": 364 * NANOSECONDS + 5, "b": 364 * NANOSECONDS + 5}]
        assert [why for _, why in run.dropped] == [DropReason.UNMATCHED]

    def test_the_invalid_id_is_never_joined(self):
        run = Run(["a", "b"], on="pulse_id")
        run.feed(self.pulse("a", 0, 0x1FFFF), self.pulse("b", 0, 0x1FFFF))
        assert run.instants == []
        assert run.counts.dropped == {DropReason.NO_PULSE: 2}

    def test_reset_ids_join_again(self):
        run = Run(["a", "b"], on="pulse_id")
        run.feed(self.pulse("a", 0, 50_000))
        for number, pulse_id in enumerate((50_003, 0, 3)):
            run.feed(self.pulse("b", 0, pulse_id, upper=number + 1), self.pulse("a", 0, pulse_id, upper=number + 1))
            run.feed(self.pulse("a", 0, pulse_id + 1, upper=number + 1))
        assert [instant.pulse_id for instant in run.instants] == [50_003, 0, 3]

    def test_a_second_update_in_a_pulse_is_a_duplicate(self):
        run = Run(["a", "b"], on="pulse_id")
        run.feed(self.pulse("a", 0, 9), self.pulse("a", 0, 9, upper=1), self.pulse("b", 0, 9))
        assert run.counts.dropped == {DropReason.DUPLICATE: 1}
        assert len(run.instants) == 1

    def test_a_tolerance_bounds_the_times_of_a_pulse(self):
        run = Run(["a", "b"], on="pulse_id", tolerance=0.001)
        run.feed(self.pulse("a", 0, 9), self.pulse("b", 0, 9, upper=8))
        assert run.instants == []
        assert run.counts.dropped == {DropReason.UNMATCHED: 2}

    def test_a_custom_mask(self):
        run = Run(["a", "b"], on="pulse_id", pulse_id_mask=0xFF00)
        run.feed(self.pulse("a", 0, 0x1203), self.pulse("b", 0, 0x1277))
        assert [instant.pulse_id for instant in run.instants] == [0x12]

    @pytest.mark.parametrize("mask", [0, -1, 1, 0b101, 1 << 31])
    def test_an_invalid_mask_raises(self, mask: int):
        with pytest.raises(ValueError, match="pulse_id_mask"):
            align(["a"], on="pulse_id", pulse_id_mask=mask)

    def test_pvs_may_be_apart_by_more_than_the_ids_take_to_repeat(self):
        run = Run(["a", "b"], on="pulse_id", capacity=100_000)
        pulses = [(number, 36 * number % 0x1FFE0) for number in range(5000) if not 300 < number < 320]  # 360 Hz
        run.feed(*(self.pulse("a", number // 10, pulse, upper=700 * (number % 10)) for number, pulse in pulses))
        run.feed(*(self.pulse("b", number // 10, pulse, upper=700 * (number % 10)) for number, pulse in pulses))
        assert [instant.pulse_id for instant in run.instants] == [pulse for _, pulse in pulses]


class TestHeld:
    """Held PVs."""

    def test_values_stay_that_waiting_updates_need(self):
        run = Run(["a", "b", "slow"], hold={"slow": 2.0}, grace=0.5)
        run.feed(*(at("a", number * NANOSECONDS) for number in range(60)))
        run.feed(*(at("slow", number * NANOSECONDS) for number in range(60)))
        instants = run.feed(*(at("b", number * NANOSECONDS) for number in range(60)))
        assert instants == [dict.fromkeys(["a", "b", "slow"], number * NANOSECONDS) for number in range(60)]

    def test_a_slow_pv_is_not_waited_for(self):
        run = Run(["fast", "slow", "other"], hold={"pva://slow": 2.0})
        run.feed(at("slow", 0, 7.0))
        for number in range(1, 4):
            run.feed(at("fast", 8 * number * MS), at("other", 8 * number * MS))
        assert [instant.values()["slow"] for instant in run.instants] == [7.0, 7.0, 7.0]
        assert list(run.instants[0].updates) == ["fast", "slow", "other"]
        assert run.counts.used == 7

    def test_the_value_is_not_newer_than_the_instant(self):
        run = Run(["fast", "slow"], hold={"slow": 2.0})
        assert run.feed(at("slow", 0), at("slow", 10), at("slow", 20), at("fast", 15)) == [{"fast": 15, "slow": 10}]
        assert run.feed(at("fast", 20)) == [{"fast": 20, "slow": 20}]
        assert run.reasons() == [("slow", 0, "superseded")]

    def test_a_value_too_old_leaves_the_instant_incomplete(self):
        run = Run(["fast", "slow"], hold={"slow": 0.001})
        assert run.feed(at("slow", 0), at("fast", MS)) == [{"fast": MS, "slow": 0}]
        assert run.feed(at("fast", MS + 1)) == []
        assert run.reasons() == [("fast", MS + 1, "not_held")]
        run = Run(["fast", "slow"], hold={"slow": 0.001}, incomplete="partial")
        run.feed(at("fast", 8 * MS))
        assert run.instants[0].missing == ("slow",)

    def test_an_unchanged_setpoint_is_held_forever(self):
        run = Run(["fast", "slow"], hold={"slow": math.inf})
        assert len(run.feed(at("slow", -START + NANOSECONDS), at("fast", 0), at("fast", 8))) == 2

    def test_values_that_no_instant_needs_are_dropped(self):
        run = Run(["fast", "slow"], hold={"slow": 5.0}, grace=0.5)
        run.feed(*(at("slow", number) for number in range(1030)))
        assert run.counts.dropped == {DropReason.OVERFLOW: 6}
        run.feed(at("fast", 3 * NANOSECONDS), at("slow", 3 * NANOSECONDS))
        assert run.counts.waiting == 1  # the one of the present; the one before it is used
        assert shown(run.instants) == [{"fast": 3 * NANOSECONDS, "slow": 1029}]

    def test_all_updates_are_counted_at_the_end(self):
        run = Run(["fast", "slow"], hold={"slow": 5.0})
        run.feed(at("slow", 0), at("fast", 1), at("slow", 2))
        run.source.on_completed()
        assert (run.counts.waiting, run.counts.used) == (0, 2)
        assert run.reasons() == [("slow", 2, "ended")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pvs": []}, "at least one PV"),
        ({"pvs": "pva://a"}, "a list of PVs"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"grace": math.inf}, "grace"),
        ({"on": "pulse"}, "'pulse_id'"),
        ({"incomplete": "emit"}, "'partial'"),
        ({"capacity": 1}, "capacity"),
        ({"hold": {"c": 1.0}}, "'c'"),
        ({"hold": {"a": 0.0}}, "'a'"),
        ({"hold": {"a": 1.0, "b": 1.0}}, "all of them"),
        ({"pvs": ["pva://a b"]}, "white space"),
    ],
)
def test_bad_arguments_raise_at_the_call(options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        align(**{"pvs": ["a", "b"], **options})


def test_a_drop_handler_that_raises_ends_the_stream():
    def refuse(item: PVUpdate, why: DropReason) -> None:
        raise RuntimeError(why)

    run = Run(["a"], on_drop=refuse)
    run.feed(at("x", 0))
    assert [str(error) for error in run.errors] == ["unnamed"]


def test_each_subscription_has_its_own_state():
    run = Run(["a", "b"])
    run.feed(at("a", 0))
    other: list[Aligned] = []
    run.source.pipe(align(["a", "b"])).subscribe(other.append)
    run.subscription.dispose()
    run.feed(at("b", 0), at("a", 8), at("b", 8))
    assert run.instants == []
    assert shown(other) == [{"a": 8, "b": 8}]


class TestKeys:
    """Joining by what a function returns."""

    def tagged(self, pv: str, tag: int | None, time: int) -> PVUpdate:
        seconds, nanoseconds = divmod(START + time, NANOSECONDS)
        stamp = {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds, "userTag": tag}
        return update(pv, float(time), fields={"timeStamp": stamp})

    def test_updates_with_equal_keys_are_an_instant_whatever_their_times(self) -> None:
        run = Run(["a", "b"], on=lambda update: update.user_tag)
        run.feed(self.tagged("a", 7, 0), self.tagged("a", 8, 10), self.tagged("b", 8, 3 * NANOSECONDS))
        assert [(item.pulse_id, item.timestamp - START) for item in run.instants] == [(8, 10)]
        assert run.counts.dropped == {DropReason.UNMATCHED: 1}

    def test_an_update_without_a_key_or_with_an_old_one_is_dropped(self) -> None:
        run = Run(["a", "b"], on=lambda update: update.user_tag)
        run.feed(*(self.tagged("a", tag, time) for time, tag in enumerate([5, None, 5, 4, 6])))
        assert run.counts.dropped == {DropReason.NO_PULSE: 1, DropReason.DUPLICATE: 1, DropReason.OUT_OF_ORDER: 1}

    def test_keys_that_begin_anew_are_followed(self) -> None:
        run = Run(["a", "b"], on=lambda update: update.user_tag)
        tags = [1000, 1001, *range(1, 30)]
        run.feed(*(self.tagged(pv, tag, time) for time, tag in enumerate(tags) for pv in ("a", "b")))
        assert [item.pulse_id for item in run.instants] == [1000, 1001, *range(10, 30)]

    def test_a_key_that_is_no_number_fails_the_stream(self) -> None:
        run = Run(["a"], on=lambda update: "7")
        run.feed(self.tagged("a", 7, 0))
        assert [str(error) for error in run.errors] == ["on must return a whole number or None, got '7' for 'a'"]

    def test_the_bits_of_pulse_ids_are_those_of_the_environment(self) -> None:
        run = Run(["a", "b"], on="pulse_id")
        for pv, late in (("a", 0), ("b", 3)):
            shot = at(pv, (0b101 << 4) + late)
            run.feed(PVUpdate(replace(shot.address, pulse_id_mask=0xF0), shot.record))
        assert [item.pulse_id for item in run.instants] == [0b101]


def connection(name: str, state: PVState) -> ConnectionEvent:
    return ConnectionEvent(name, f"pva://{name}", state, START)


def test_no_instant_waits_for_a_pv_that_is_not_connected() -> None:
    run = Run(["a", "b", "c"], incomplete="partial", grace=60.0)
    run.feed(at("a", 1), at("b", 1))
    assert run.feed(connection("c", PVState.DISCONNECTED)) == [{"a": 1, "b": 1}]
    assert run.feed(at("a", 2)) == []
    assert run.feed(at("b", 2), at("a", 3), at("b", 4)) == [{"a": 2, "b": 2}, {"a": 3}]
    run.feed(connection("c", PVState.CONNECTED))
    assert run.feed(at("a", 4)) == []
    assert run.feed(at("c", 4)) == [{"a": 4, "b": 4, "c": 4}]
    assert run.counts.partial == 3


def test_what_a_pv_has_sent_before_its_connection_was_lost_is_joined() -> None:
    run = Run(["a", "b"], grace=60.0)
    run.feed(at("b", 1), at("b", 2), connection("b", PVState.DISCONNECTED))
    assert run.feed(at("a", 1), at("a", 2), at("a", 3)) == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]
    assert run.dropped[-1][1] is DropReason.DISCONNECTED
    assert run.counts.dropped.total() == 1
    assert run.feed(at("b", 3)) == [], "it comes too late for its instant"
    assert run.feed(at("a", 4), at("b", 4)) == [{"a": 4, "b": 4}], "an update of a PV shows that it is connected"


def test_connections_of_held_and_other_pvs_change_nothing() -> None:
    run = Run(["a", "b", "set"], hold={"set": math.inf}, grace=60.0)
    run.feed(at("set", 0), connection("set", PVState.DISCONNECTED), connection("other", PVState.DISCONNECTED))
    assert run.feed(at("a", 1)) == []
    assert run.feed(at("b", 1)) == [{"a": 1, "b": 1, "set": 0}]

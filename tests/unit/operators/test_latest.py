"""`latest_by_pv` and `combine_pvs`."""

from typing import Any

import numpy as np
import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg_rx.operators import combine_pvs, latest_by_pv, value
from k2eg_rx.protocol.messages import PVData, PVUpdate
from k2eg_rx.testing import update

UPDATES = [update("x", 1), update("other", 9), update("y", 2), update("x", 3)]


def combined(pvs: Any, **arguments: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    rx.from_iterable(UPDATES).pipe(combine_pvs(pvs, **arguments)).subscribe(found.append)
    return found


def test_latest_by_pv_has_the_newest_update_of_every_pv() -> None:
    found: list[dict[str, PVUpdate]] = []
    stream = rx.from_iterable(UPDATES).pipe(latest_by_pv())
    stream.subscribe(found.append)
    stream.subscribe(found.append)  # a new subscription
    shown = [{name: one.value for name, one in newest.items()} for newest in found]
    assert shown == [{"x": 1}, {"x": 1, "other": 9}, {"x": 1, "other": 9, "y": 2}, {"x": 3, "other": 9, "y": 2}] * 2
    found[0].clear()
    assert found[1]


def test_combine_waits_for_all_and_ignores_other_pvs() -> None:
    assert combined({"a": "x", "b": "pva://y"}) == [{"a": 1, "b": 2}, {"a": 3, "b": 2}]


def test_a_list_of_pvs_has_their_names_as_labels() -> None:
    assert combined(["ca://x", "y"]) == [{"x": 1, "y": 2}, {"x": 3, "y": 2}]


def test_missing_values_may_be_none_or_left_out() -> None:
    assert combined({"b": "y", "a": "x"}, incomplete="fill_none") == [
        {"b": None, "a": 1},
        {"b": 2, "a": 1},
        {"b": 2, "a": 3},
    ]
    assert combined({"b": "y", "a": "x"}, incomplete="partial") == [{"a": 1}, {"b": 2, "a": 1}, {"b": 2, "a": 3}]


def test_a_default_does_not_count_as_missing() -> None:
    assert combined({"a": "x", "b": "y"}, defaults={"b": 0}) == [{"a": 1, "b": 0}, {"a": 1, "b": 2}, {"a": 3, "b": 2}]
    assert combined({"a": "x", "n": "never"}, defaults={"a": 0}) == []
    assert combined({"a": "x", "n": "never"}, defaults={"a": 0}, incomplete="fill_none")[0] == {"a": 1, "n": None}


def test_a_pv_may_have_two_labels() -> None:
    assert combined({"a": "x", "b": "x"}) == [{"a": 1, "b": 1}, {"a": 3, "b": 3}]


def test_values_are_plain_and_none_if_missing() -> None:
    found: list[dict[str, Any]] = []
    source = rx.of(PVData("w", {"value": [1.0, 2.0]}), PVData("s", {"fields": 1}))
    source.pipe(combine_pvs(["w", "s"])).subscribe(found.append)
    assert isinstance(found[0]["w"], np.ndarray)
    assert found[0]["s"] is None


def test_a_part_may_be_a_stream_of_updates_or_of_values() -> None:
    source: Subject[PVData] = Subject()
    sums: Subject[float] = Subject()
    found: list[dict[str, Any]] = []
    ends: list[str] = []
    parts = {"x": "x", "sum": sums, "seven": rx.of(update("seven", 7))}
    source.pipe(combine_pvs(parts)).subscribe(found.append, on_completed=lambda: ends.append("completed"))
    source.on_next(update("x", 1))
    sums.on_next(0.5)
    sums.on_next(1.5)
    assert found == [{"x": 1, "sum": 0.5, "seven": 7}, {"x": 1, "sum": 1.5, "seven": 7}]
    source.on_completed()
    assert ends == []
    sums.on_completed()
    assert ends == ["completed"]


def test_the_first_failure_ends_the_stream_and_all_subscriptions() -> None:
    source: Subject[PVData] = Subject()
    part: Subject[float] = Subject()
    errors: list[Exception] = []
    source.pipe(combine_pvs({"x": "x", "part": part})).subscribe(on_error=errors.append)
    part.on_error(KeyError("part"))
    source.on_error(KeyError("source"))
    assert [error.args for error in errors] == [("part",)]
    assert not source.observers


def test_dispose_ends_all_subscriptions() -> None:
    source: Subject[PVData] = Subject()
    part: Subject[float] = Subject()
    source.pipe(combine_pvs({"x": "x", "part": part})).subscribe().dispose()
    assert not source.observers
    assert not part.observers


def test_each_subscription_has_its_own_state() -> None:
    stream = rx.from_iterable(UPDATES).pipe(combine_pvs(["x", "y"]), ops.take(1))
    found: list[Any] = []
    stream.subscribe(found.append)
    stream.subscribe(found.append)
    assert found == [{"x": 1, "y": 2}] * 2


def test_plain_values_of_a_part_keep_their_type() -> None:
    found: list[Any] = []
    stream = rx.of(update("w", [1, 2])).pipe(value())
    rx.empty().pipe(combine_pvs({"w": stream})).subscribe(found.append)
    assert isinstance(found[0]["w"], np.ndarray)


@pytest.mark.parametrize("pvs", [{}, [], "pva://x", 5, {"a": 5}, {5: "x"}, [5], {"a": "http://x"}])
def test_invalid_pvs_raise_at_the_call(pvs: Any) -> None:
    with pytest.raises(ValueError, match=r"(?i)pv"):
        combine_pvs(pvs)


def test_an_unknown_policy_or_label_raises_at_the_call() -> None:
    with pytest.raises(ValueError, match="incomplete"):
        combine_pvs(["x"], incomplete="hope")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"labels x, got \['z'\]"):
        combine_pvs(["x"], defaults={"z": 1})

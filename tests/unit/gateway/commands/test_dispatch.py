"""The operator that answers commands, and the core around it: one command's failure is its own."""

from __future__ import annotations

from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex.subject import Subject

from k2eg_rx.gateway.commands.dispatch import handle_each


def test_answers_are_merged() -> None:
    asked: Subject[str] = Subject()
    answers: dict[str, Subject[int]] = {"a": Subject(), "b": Subject()}
    said: list[object] = []
    asked.pipe(handle_each(answers.__getitem__, lambda *_: None)).subscribe(
        said.append, on_completed=lambda: said.append("end")
    )
    asked.on_next("a")
    asked.on_next("b")
    answers["b"].on_next(1)
    answers["a"].on_next(2)
    asked.on_completed()
    answers["b"].on_completed()
    answers["a"].on_next(3)
    assert said == [1, 2, 3]
    answers["a"].on_completed()
    assert said == [1, 2, 3, "end"]


def test_a_failure_ends_nothing_else() -> None:
    asked: Subject[str] = Subject()
    failures: list[tuple[str, str]] = []
    said: list[int] = []

    def answer(item: str) -> Observable[int]:
        if item == "raises":
            raise RuntimeError("made none")
        if item == "fails":
            return reactivex.concat(reactivex.of(1), reactivex.throw(RuntimeError("failed")))
        return reactivex.of(2)

    def failed(item: str, error: Exception) -> None:
        failures.append((item, str(error)))

    ended: list[bool] = []
    asked.pipe(handle_each(answer, failed)).subscribe(said.append, on_completed=lambda: ended.append(True))
    for item in ("raises", "fails", "fine"):
        asked.on_next(item)
    assert failures == [("raises", "made none"), ("fails", "failed")]
    assert said == [1, 2]
    asked.on_completed()
    assert ended == [True], "what failed is not waited for"


def test_disposing_ends_all_answers() -> None:
    asked: Subject[int] = Subject()
    ended: list[int] = []

    def answer(item: int) -> Observable[int]:
        return reactivex.never().pipe(reactivex.operators.finally_action(lambda: ended.append(item)))

    subscription = asked.pipe(handle_each(answer, lambda *_: None)).subscribe()
    for item in range(3):
        asked.on_next(item)
    subscription.dispose()
    assert ended == [0, 1, 2]


def test_the_source_s_failure_is_passed_on() -> None:
    errors: list[str] = []
    source: Observable[int] = reactivex.throw(RuntimeError("source"))
    source.pipe(handle_each(reactivex.of, lambda *_: None)).subscribe(on_error=lambda error: errors.append(str(error)))
    assert errors == ["source"]


@pytest.mark.parametrize(
    "value", [None, b"", b"{}", b"[1,2]", b'{"command": "get", ', b"\xff", b'{"command":"get","pv_name":"pva://a"}']
)
def test_poison_is_counted_and_nothing_is_said(gateway: Any, value: bytes | None) -> None:
    gateway.raw(value)
    gateway.raw(value)
    gateway.command("get", pv_name="pva://a")
    assert gateway.sent() == []
    assert (gateway.metrics.poison, gateway.metrics.commands) == (2, 3)
    assert len(gateway.pva.gets) == 1


def test_what_is_not_whole_is_refused_under_the_key_for_it(gateway: Any) -> None:
    gateway.command("info", pv_name="pva://a")
    (said,) = gateway.sent()
    assert (said.topic, said.key, said.body) == (
        "replies",
        "comand-parse-error-reply",
        {"error": -1, "reply_id": "id"},
    )
    assert gateway.metrics.refused == 1


def test_a_fault_of_the_gateway_is_told(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(gateway.handler.channels, "stream", broken)
    gateway.command("snapshot", pv_name_list=["pva://a"])
    assert gateway.bodies() == [{"error": -2, "reply_id": "id", "message": "the gateway failed: RuntimeError: boom"}]
    assert gateway.metrics.failures == 1
    gateway.command("get", pv_name="pva://a")
    assert len(gateway.pva.gets) == 1

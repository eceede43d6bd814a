"""handle_each and CommandHandler: a failing command does not affect others."""

from __future__ import annotations

from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as ops
from reactivex.subject import Subject

from k2eg_rx.gateway.commands.dispatch import handle_each


def test_inner_streams_are_merged() -> None:
    source: Subject[str] = Subject()
    answers: dict[str, Subject[int]] = {"a": Subject(), "b": Subject()}
    sent: list[object] = []
    source.pipe(handle_each(answers.__getitem__, lambda *_: None)).subscribe(
        sent.append, on_completed=lambda: sent.append("end")
    )
    source.on_next("a")
    source.on_next("b")
    answers["b"].on_next(1)
    answers["a"].on_next(2)
    source.on_completed()
    answers["b"].on_completed()
    answers["a"].on_next(3)
    assert sent == [1, 2, 3]
    answers["a"].on_completed()
    assert sent == [1, 2, 3, "end"]


def test_a_failing_item_does_not_end_the_others() -> None:
    source: Subject[str] = Subject()
    failures: list[tuple[str, str]] = []
    sent: list[int] = []

    def answer(item: str) -> Observable[int]:
        if item == "raises":
            raise RuntimeError("made none")
        if item == "fails":
            return reactivex.concat(reactivex.of(1), reactivex.throw(RuntimeError("failed")))
        return reactivex.of(2)

    def failed(item: str, error: Exception) -> None:
        failures.append((item, str(error)))

    ended: list[bool] = []
    source.pipe(handle_each(answer, failed)).subscribe(sent.append, on_completed=lambda: ended.append(True))
    for item in ("raises", "fails", "fine"):
        source.on_next(item)
    assert failures == [("raises", "made none"), ("fails", "failed")]
    assert sent == [1, 2]
    source.on_completed()
    assert ended == [True], "completion does not wait for failed items"


def test_disposing_ends_all_inner_streams() -> None:
    source: Subject[int] = Subject()
    ended: list[int] = []

    def answer(item: int) -> Observable[int]:
        return reactivex.never().pipe(ops.finally_action(lambda: ended.append(item)))

    subscription = source.pipe(handle_each(answer, lambda *_: None)).subscribe()
    for item in range(3):
        source.on_next(item)
    subscription.dispose()
    assert ended == [0, 1, 2]


def test_an_error_of_the_source_is_passed_on() -> None:
    errors: list[str] = []
    source: Observable[int] = reactivex.throw(RuntimeError("source"))
    source.pipe(handle_each(reactivex.of, lambda *_: None)).subscribe(on_error=lambda error: errors.append(str(error)))
    assert errors == ["source"]


@pytest.mark.parametrize(
    "value", [None, b"", b"{}", b"[1,2]", b'{"command": "get", ', b"\xff", b'{"command":"get","pv_name":"pva://a"}']
)
def test_unanswerable_commands_are_counted_without_a_reply(gateway: Any, value: bytes | None) -> None:
    gateway.raw(value)
    gateway.raw(value)
    gateway.command("get", pv_name="pva://a")
    assert gateway.sent() == []
    assert (gateway.metrics.poison, gateway.metrics.commands) == (2, 3)
    assert len(gateway.pva.gets) == 1


def test_an_incomplete_command_is_refused_under_the_parse_error_key(gateway: Any) -> None:
    gateway.command("info", pv_name="pva://a")
    (sent,) = gateway.sent()
    assert (sent.topic, sent.key, sent.body) == (
        "replies",
        "comand-parse-error-reply",
        {"error": -1, "reply_id": "id"},
    )
    assert gateway.metrics.refused == 1


def test_an_unexpected_exception_is_reported_in_the_reply(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(gateway.handler.channels, "stream", broken)
    gateway.command("snapshot", pv_name_list=["pva://a"])
    assert gateway.bodies() == [{"error": -2, "reply_id": "id", "message": "the gateway failed: RuntimeError: boom"}]
    assert gateway.metrics.failures == 1
    gateway.command("get", pv_name="pva://a")
    assert len(gateway.pva.gets) == 1

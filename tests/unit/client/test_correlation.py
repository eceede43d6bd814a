"""Matching replies with pending requests."""

from concurrent.futures import Future
from typing import Any

from k2eg_rx.client.correlation import PendingRequests, when_done
from k2eg_rx.client.put_progress import PutProgress
from k2eg_rx.errors import TransportError
from k2eg_rx.transport.decode_errors import DecodeErrorCounter


def test_a_request_ends_once() -> None:
    class Failures:
        def __init__(self) -> None:
            self.ids: list[str] = []

        def handle(self, replies: Any) -> None: ...

        def on_progress(self, reply_id: str, progress: PutProgress) -> None: ...

        def fail(self, reply_ids: Any, error: Exception) -> None:
            self.ids += reply_ids

    pending, failures = PendingRequests(DecodeErrorCounter()), Failures()
    pending.register(["a", "b", "c"], failures)
    assert pending.unregister(["b", "d"]) == ["b"]
    for _ in range(2):
        pending.fail(["a", "b"], TransportError("no"))
    pending.fail_all(TransportError("no"))
    assert (failures.ids, len(pending)) == (["a", "c"], 0)


def test_when_done_waits_for_all_futures_and_passes_the_first_error() -> None:
    futures: list[Future[None]] = [Future(), Future(), Future()]
    errors: list[object] = []
    when_done(futures, errors.append)
    futures[2].set_result(None)
    futures[1].set_exception(TransportError("no"))
    assert errors == []
    futures[0].set_result(None)
    assert [str(error) for error in errors] == ["no"]
    when_done([], errors.append)
    assert errors[1] is None

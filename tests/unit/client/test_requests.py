"""Requests and their timeouts, in virtual time."""

from concurrent.futures import Future
from typing import Any

import pytest
from reactivex.disposable import Disposable
from reactivex.testing import TestScheduler

from k2eg_rx.client.correlation import CommandSender, PendingRequests
from k2eg_rx.client.get_put import is_spurious
from k2eg_rx.client.requests import BlockingResult, Request, Requests, closed_before_reply, closed_before_sending
from k2eg_rx.errors import ClientClosedError, OperationError, OperationTimeout, TransportError
from k2eg_rx.protocol.commands import GetCommand, PutCommand
from k2eg_rx.protocol.msgpack_codec import pack
from k2eg_rx.transport.decode_errors import DecodeErrorCounter
from k2eg_rx.transport.interfaces import Record, UnconfirmedError

HEADERS = [("k2eg-ser-type", b"Msgpack")]


class Sink:
    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.reports: list[Any] = []
        self.still_wanted: list[Any] = []

    def send(
        self, topic: str, value: bytes | None, *, on_delivery: Any = None, still_wanted: Any = None, **_: Any
    ) -> None:
        assert value is not None
        self.still_wanted.append(still_wanted)
        self.sent.append(value)
        self.reports.append(on_delivery)

    def close(self, timeout: float) -> None: ...


class Setup:
    def __init__(self) -> None:
        self.timers = TestScheduler()
        self.pending = PendingRequests(DecodeErrorCounter())
        self.sink = Sink()
        self.ready: Future[None] = Future()
        self.sender = CommandSender(
            self.pending, self.sink, command_topic="commands", reply_topic="replies", ready=self.ready
        )
        self.requests = Requests(self.sender, self.timers)
        self.items: list[Any] = []
        self.errors: list[Exception] = []

    def subscribe(self, stream: Any) -> Any:
        return stream.subscribe(self.items.append, self.errors.append)

    def reply(self, number: int = 0, **fields: Any) -> None:
        import json

        reply_id = json.loads(self.sink.sent[number])["reply_id"]
        body = pack({"error": 0, "reply_id": reply_id} | fields)
        self.pending.receive([Record("replies", 0, 0, None, body, HEADERS)])


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_a_timeout_names_operation_subject_and_seconds_and_frees_the_request(setup: Setup) -> None:
    setup.ready.set_result(None)
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    setup.timers.advance_to(2.9)
    assert (setup.errors, len(setup.pending)) == ([], 1)
    setup.timers.advance_to(3.1)
    error = setup.errors[0]
    assert isinstance(error, OperationTimeout)
    assert isinstance(error, TimeoutError)
    assert (error.operation, error.subject, error.waited) == ("get", "pva://x", 3.0)
    assert str(error).startswith("Timeout: get of pva://x: no reply within 3 s")
    assert len(setup.pending) == 0
    setup.reply(x={"value": 1})
    assert setup.items == []


def test_a_timeout_names_the_cause_if_it_is_known(setup: Setup) -> None:
    def timed_out() -> str:
        setup.errors.clear()
        setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 1.0))
        setup.timers.advance_by(2)
        return str(setup.errors[0]).removeprefix("Timeout: get of pva://x: no reply within 1 s")

    assert timed_out() == "; the reply topic 'replies' cannot be read yet"
    setup.ready.set_result(None)
    assert "no gateway has replied to this client yet: check that one reads the command topic 'commands'" in timed_out()
    setup.sender.connection_fault = lambda: "the broker is away"
    assert timed_out() == "; the broker is away"
    setup.sender.connection_fault = lambda: ""
    setup.sink.sent.clear()
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 1.0))
    setup.reply(x={"value": 1})
    assert timed_out() == ""


def test_waiting_for_the_reply_topic_counts_towards_the_timeout(setup: Setup) -> None:
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    setup.timers.advance_to(4)
    assert isinstance(setup.errors[0], OperationTimeout)
    setup.ready.set_result(None)
    assert setup.sink.sent == []


def test_a_reply_ends_the_timer(setup: Setup) -> None:
    setup.ready.set_result(None)
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    setup.reply(x={"value": 1})
    setup.timers.advance_to(10)
    assert len(setup.items) == 1
    assert setup.errors == []
    assert len(setup.pending) == 0


def get_of_x(**options: Any) -> Any:
    return Request(GetCommand("pva://x"), "pva://x", 3.0, **options)


def test_the_parsed_reply_or_the_parsers_error_is_emitted(setup: Setup) -> None:
    setup.ready.set_result(None)
    setup.subscribe(setup.requests.single(get_of_x(parse=lambda reply: reply.body["x"])))
    setup.reply(x=7)
    setup.subscribe(setup.requests.single(get_of_x(parse=lambda reply: reply.body["x"])))
    setup.reply(1, y=7)
    assert (setup.items, [type(error) for error in setup.errors]) == ([7], [KeyError])
    assert len(setup.pending) == 0


def test_a_spurious_reply_repeats_the_command_once_within_the_timeout(setup: Setup) -> None:
    setup.ready.set_result(None)
    request = get_of_x(parse=lambda reply: reply.error, is_spurious=lambda reply: reply.error == -2)
    for _ in range(2):
        setup.subscribe(setup.requests.single(request))
    setup.timers.advance_to(2)
    setup.reply(0, error=-2)
    setup.reply(2, error=-2)
    assert (setup.items, len(setup.sink.sent)) == ([-2], 3)
    setup.reply(1, error=-2)
    setup.timers.advance_to(3.1)
    assert [type(error) for error in setup.errors] == [OperationTimeout]
    assert len(setup.pending) == 0


def test_unsubscribing_prevents_the_repetition(setup: Setup) -> None:
    setup.ready.set_result(None)
    request = get_of_x(parse=lambda reply: reply.error, is_spurious=lambda _: subscription.dispose() or True)
    subscription = setup.subscribe(setup.requests.single(request))
    setup.reply(0, error=-2)
    assert (setup.items, setup.errors, len(setup.sink.sent), len(setup.pending)) == ([], [], 1, 0)


def value_of_x(**options: Any) -> Request[Any]:
    def read(reply: Any) -> Any:
        if reply.error:
            raise OperationError(reply.error, reply.message, "get", "pva://x")
        return reply.body["x"]

    return Request(GetCommand("pva://x"), "pva://x", options.pop("timeout", 3.0), read, **options)


def reply_at_once(setup: Setup, monkeypatch: pytest.MonkeyPatch, *replies: dict[str, Any]) -> None:
    """Replies to each command before the sink returns."""
    left, send = list(replies), setup.sink.send

    def sent(*record: Any, **more: Any) -> None:
        send(*record, **more)
        if left:
            setup.reply(len(setup.sink.sent) - 1, **left.pop(0))

    monkeypatch.setattr(setup.sink, "send", sent)
    setup.ready.set_result(None)


def test_wait_returns_the_parsed_reply_without_a_timer(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    reply_at_once(setup, monkeypatch, {"x": 1})
    monkeypatch.setattr(setup.timers, "schedule_relative", lambda *_: pytest.fail("a timer was set"))
    assert setup.requests.wait(value_of_x()) == 1
    assert (len(setup.sink.sent), len(setup.pending)) == (1, 0)


def test_wait_repeats_the_command_after_a_spurious_reply(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    reply_at_once(setup, monkeypatch, {"error": -2, "message": "Operaton cancelled"}, {"x": 2})
    assert setup.requests.wait(value_of_x(is_spurious=is_spurious)) == 2
    assert (len(setup.sink.sent), len(setup.pending)) == (2, 0)


def test_wait_raises_the_gateways_error(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    reply_at_once(setup, monkeypatch, {"error": -1, "message": "no such PV"})
    with pytest.raises(OperationError, match="no such PV"):
        setup.requests.wait(value_of_x())


def test_wait_raises_the_timeout_and_frees_the_request(setup: Setup) -> None:
    setup.ready.set_result(None)
    with pytest.raises(OperationTimeout) as caught:
        setup.requests.wait(value_of_x(timeout=0.001))
    assert str(caught.value).startswith("Timeout: get of pva://x: no reply within 0.001 s; ")
    assert len(setup.pending) == 0


def test_wait_returns_a_reply_that_arrives_with_the_timeout(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.ready.set_result(None)
    wait, waits = BlockingResult[Any].wait, list[tuple[float, ...]]()

    def too_long(result: BlockingResult[Any], *timeout: float) -> bool:
        waits.append(timeout)
        if timeout:
            setup.reply(x=4)
            return False
        return wait(result)

    monkeypatch.setattr(BlockingResult, "wait", too_long)
    assert setup.requests.wait(value_of_x()) == 4
    assert waits == [(3.0,), ()]


def test_wait_raises_if_the_client_is_closed(setup: Setup) -> None:
    setup.ready.set_result(None)
    setup.pending.close(closed_before_reply(), closed_before_sending())
    with pytest.raises(ClientClosedError):
        setup.requests.wait(value_of_x())


def test_an_interrupted_wait_frees_the_request(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> bool:
        raise KeyboardInterrupt

    setup.ready.set_result(None)
    monkeypatch.setattr(BlockingResult, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        setup.requests.wait(value_of_x())
    assert len(setup.pending) == 0


def test_an_unreadable_reply_topic_fails_the_request(setup: Setup) -> None:
    setup.ready.set_exception(TransportError("create topic 'replies'"))
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    assert str(setup.errors[0]) == "create topic 'replies'"
    assert len(setup.pending) == 0


def test_a_failed_delivery_fails_the_request_at_once(setup: Setup) -> None:
    setup.ready.set_result(None)
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    setup.sink.reports[0](TransportError("the broker refused"))
    assert str(setup.errors[0]) == "the broker refused"
    assert len(setup.pending) == 0


def test_a_put_that_was_given_up_is_not_sent_later(setup: Setup) -> None:
    setup.ready.set_result(None)
    setup.subscribe(setup.requests.reply(PutCommand("pva://x", b""), "pva://x", 3.0))
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    put, get = setup.sink.still_wanted
    assert put()
    setup.timers.advance_by(3.1)
    assert isinstance(setup.errors[0], OperationTimeout)
    assert not put()
    assert get is None, "only writes must not be late"


def test_an_unconfirmed_put_may_have_been_written(setup: Setup) -> None:
    setup.ready.set_result(None)
    setup.subscribe(setup.requests.reply(PutCommand("pva://x", b""), "pva://x", 3.0))
    setup.sink.reports[0](UnconfirmedError("sent but not confirmed"))
    assert isinstance(setup.errors[0], UnconfirmedError)
    assert str(setup.errors[0]) == "the put may have been carried out, or may still be: sent but not confirmed"
    assert len(setup.pending) == 0


def test_unsubscribing_frees_the_request_and_prevents_sending(setup: Setup) -> None:
    subscription = setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    subscription.dispose()
    setup.ready.set_result(None)
    assert (setup.sink.sent, len(setup.pending)) == ([], 0)


def test_close_fails_pending_and_later_requests(setup: Setup) -> None:
    setup.ready.set_result(None)
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    setup.pending.close(closed_before_reply(), closed_before_sending())
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    assert [type(error) for error in setup.errors] == [ClientClosedError, ClientClosedError]
    assert len(setup.pending) == 0


def test_a_refusal_fails_requests_until_it_ends(setup: Setup) -> None:
    setup.ready.set_result(None)
    setup.sender.refuse(TransportError("wrong password"))
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    setup.sender.refuse(None)
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    assert [str(error) for error in setup.errors] == ["wrong password"]
    assert (len(setup.sink.sent), len(setup.pending)) == (1, 1)


def test_disposal_before_registration_leaves_no_request_pending(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.ready.set_result(None)
    register = setup.pending.register
    monkeypatch.setattr(setup.pending, "register", lambda ids, handler: handler.dispose() or register(ids, handler))
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    assert len(setup.pending) == 0


def test_a_reply_disposes_the_timer(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    disposed: list[bool] = []
    timer = Disposable(lambda: disposed.append(True))
    monkeypatch.setattr(setup.timers, "schedule_relative", lambda *_: timer)
    setup.ready.set_result(None)
    setup.subscribe(setup.requests.reply(GetCommand("pva://x"), "pva://x", 3.0))
    assert disposed == []
    setup.reply(x={"value": 1})
    assert disposed == [True]

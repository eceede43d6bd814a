"""The order in which puts to one record are sent; the test acts as the gateway, and timeouts are in virtual time."""

import base64
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reactivex.testing import TestScheduler

import k2eg_rx
from k2eg_rx import Client, ClientClosedError, OperationTimeout, TransportError
from k2eg_rx.client.put_order import PutOrder, Turn
from k2eg_rx.protocol.msgpack_codec import unpack
from k2eg_rx.pv import PVAddress
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus

SETTINGS = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")


@pytest.fixture
def client(transport: Any, timers: TestScheduler) -> Iterator[Client]:
    with Client("scripted", "test", settings=SETTINGS, transport=transport) as client:
        yield client


class Seen:
    """A subscriber on its own scheduler, which runs when the test reads what it got."""

    def __init__(self, stream: Any, on_error: Callable[[Exception], None] = lambda _: None) -> None:
        self._scheduler = TestScheduler()
        self._items: list[Any] = []
        self._errors: list[Exception] = []

        def fail(error: Exception) -> None:
            self._errors.append(error)
            on_error(error)

        self.subscription = stream.subscribe(self._items.append, fail, scheduler=self._scheduler)

    @property
    def items(self) -> list[Any]:
        self._scheduler.start()
        return self._items

    @property
    def errors(self) -> list[Exception]:
        self._scheduler.start()
        return self._errors


def puts(transport: Any) -> list[tuple[str, Any]]:
    """Returns the PVs and values of the puts on the command topic."""
    commands = [command for command in transport.commands if command["command"] == "put"]
    fields: list[Any] = [unpack(base64.b64decode(command["value"])) for command in commands]
    return [(c["pv_name"].removeprefix("pva://"), its["value"]) for c, its in zip(commands, fields, strict=True)]


def queues(client: Client) -> int:
    return len(client._core.puts.order)


def reply_type(transport: Any, number: int = 0, name: str = "x", **fields: Any) -> None:
    transport.reply(transport.commands[number], **({name: {"value": 0.0}, "pv_type": {"value": "double"}} | fields))


LATER: list[Callable[[Client], Any]] = [
    lambda client: client.put_stream("pva://x", 2, check=False),
    lambda client: client.put_stream("ca://x", 2, check=False),
    lambda client: client.put_stream("pva://x.VAL", 2, check=False),
    lambda client: client.put_many_stream({"pva://x": 2}, check=False),
]


@pytest.mark.parametrize("later", LATER)
def test_a_put_does_not_pass_one_that_waits_for_the_type(
    client: Client, transport: Any, later: Callable[[Client], Any]
) -> None:
    first, second = Seen(client.put_stream("pva://x", 1)), Seen(later(client))
    Seen(client.put_stream("pva://y", 5, check=False))  # another record's
    assert puts(transport) == [("y", 5)]
    reply_type(transport)
    assert [value for _, value in puts(transport)] == [5, 1, 2]
    assert queues(client) == 0
    for command in transport.commands[2:]:  # the second does not wait for the reply to the first, which is still due
        transport.reply(command)
    assert (len(first.items), len(second.items), client.status.pending) == (1, 1, 1)


def test_puts_of_a_batch_keep_their_order_among_themselves_and_with_single_ones(client: Client, transport: Any) -> None:
    Seen(client.put_many_stream({"pva://x": 1, "pva://x.VAL": 2.5, "pva://y": 3}))
    Seen(client.put_stream("pva://x", 4, check=False))
    gets = {command["pv_name"]: number for number, command in enumerate(transport.commands)}
    reply_type(transport, gets["pva://y"], "y")
    reply_type(transport, gets["pva://x.VAL"], "x.VAL")
    assert puts(transport) == [("y", 3)]
    reply_type(transport, gets["pva://x"])
    assert puts(transport) == [("y", 3), ("x", 1), ("x.VAL", 2.5), ("x", 4)]
    assert queues(client) == 0


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("end", ["dispose", "timeout", "conversion", "failure", "refusal"])
def test_a_put_that_ends_before_it_was_sent_is_not_sent_and_holds_back_none(
    client: Client, transport: Any, timers: TestScheduler, end: str, many: bool
) -> None:
    stream = client.put_many_stream({"pva://x": "One"}, 3) if many else client.put_stream("pva://x", "One", 3)
    first, second = Seen(stream), Seen(client.put_stream("pva://x", 2, 9, check=False))
    assert puts(transport) == []
    match end:
        case "dispose":
            first.subscription.dispose()
        case "timeout":
            timers.advance_to(4)
        case "conversion":
            reply_type(transport)
        case "failure":
            transport.reply(transport.commands[0], error=-1, message="no such PV")
        case _:
            transport.listeners[0](TransportStatus(ConnectionState.DOWN, "wrong password", refused=True))
            assert [type(error) for error in second.errors] == [TransportError]
    assert puts(transport) == ([] if end == "refusal" else [("x", 2)])
    assert len(first.items if many else first.errors) == (end != "dispose")
    if end in {"dispose", "timeout"}:
        reply_type(transport)  # late
    assert len(puts(transport)) == (end != "refusal")
    assert queues(client) == 0


@pytest.mark.parametrize("many", [False, True])
def test_a_put_that_waits_for_an_earlier_one_times_out_unsent(
    client: Client, transport: Any, timers: TestScheduler, many: bool
) -> None:
    Seen(client.put_stream("pva://x", 1, 60))
    if many:
        second = Seen(client.put_many_stream({"pva://x": 2}, 2, check=False))
    else:
        second = Seen(client.put_stream("pva://x", 2, 2, check=False))
    Seen(client.put_stream("pva://x", 3, 60, check=False))
    timers.advance_to(2.5)
    error = second.items[0].error if many else second.errors[0]
    assert isinstance(error, OperationTimeout)
    assert str(error).startswith(
        "Timeout: put of pva://x: no reply within 2 s; nothing was written: an earlier put to this record still waits"
    )
    reply_type(transport)
    assert puts(transport) == [("x", 1), ("x", 3)]
    assert queues(client) == 0


STOPS: list[Callable[[Client], Any]] = [
    lambda client: client.put_stream("pva://x.STOP", 1, check=False),
    lambda client: client.put_stream("ca://x.STOP", 1, check=False),
    lambda client: client.put_many_stream({"pva://x.STOP": 1}, check=False),
]


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("stop", STOPS)
def test_a_put_to_another_field_waits_half_a_second_and_the_one_before_it_is_never_sent(
    client: Client, transport: Any, timers: TestScheduler, stop: Callable[[Client], Any], many: bool
) -> None:
    first = Seen(client.put_many_stream({"pva://x": 1}, 60) if many else client.put_stream("pva://x", 1, 60))
    timers.advance_to(10)
    stopped = Seen(stop(client))
    timers.advance_to(10.4)
    assert puts(transport) == []
    timers.advance_to(10.6)
    assert [value for _, value in puts(transport)] == [1]
    error = first.items[0].error if many else first.errors[0]
    assert isinstance(error, OperationTimeout)
    assert str(error) == (
        "Timeout: put of pva://x: no reply within 10.5 s; nothing was written: a later put, to x.STOP, had waited 0.5 s"
        " for the type of this PV"
    )
    reply_type(transport)  # late
    transport.reply(transport.commands[-1])
    assert (len(puts(transport)), len(stopped.items), queues(client), client.status.pending) == (1, 1, 0, 0)


def test_a_put_to_another_field_is_sent_behind_the_one_before_it_if_its_type_arrives(
    client: Client, transport: Any, timers: TestScheduler
) -> None:
    first = Seen(client.put_stream("pva://x", 5, 60))
    Seen(client.put_stream("pva://x.STOP", 1, check=False))
    timers.advance_to(0.4)
    reply_type(transport)
    timers.advance_to(30)
    assert (puts(transport), first.errors, queues(client)) == ([("x", 5), ("x.STOP", 1)], [], 0)


def test_overtaking_keeps_the_order_of_each_pv(client: Client, transport: Any, timers: TestScheduler) -> None:
    slow = Seen(client.put_stream("pva://x", 1, 60))
    Seen(client.put_stream("pva://x.VAL", 2, check=False))
    Seen(client.put_stream("pva://x.A", 3, 60))
    Seen(client.put_stream("pva://x.B", 4, check=False))
    Seen(client.put_stream("pva://x.A", 5, check=False))
    reply_type(transport, 1, "x.A")
    assert puts(transport) == []
    timers.advance_to(0.6)
    assert puts(transport) == [("x.VAL", 2), ("x.A", 3), ("x.B", 4), ("x.A", 5)]
    assert (len(slow.errors), queues(client)) == (1, 0)


def test_the_patience_of_a_put_begins_when_none_of_its_pv_is_before_it(
    client: Client, transport: Any, timers: TestScheduler
) -> None:
    Seen(client.put_stream("pva://x", 1, 60))
    own = Seen(client.put_stream("pva://x.STOP", 2, 60))
    Seen(client.put_stream("pva://x.STOP", 3, 60, check=False))
    timers.advance_to(3)
    own.subscription.dispose()
    timers.advance_to(3.4)
    assert puts(transport) == []
    timers.advance_to(3.6)
    assert (puts(transport), queues(client)) == ([("x.STOP", 3)], 0)


def test_no_put_overtakes_before_the_reply_topic_is_read(transport: Any, timers: TestScheduler) -> None:
    transport.hold_replies = True
    with Client("scripted", "test", settings=SETTINGS, transport=transport) as client:
        first = Seen(client.put_stream("pva://x", 1, 60))
        Seen(client.put_stream("pva://x.STOP", 2, 60, check=False))
        timers.advance_to(5)
        transport.reply_source.held[0].set_result(None)
        reply_type(transport)
        assert (puts(transport), first.errors, queues(client)) == ([("x", 1), ("x.STOP", 2)], [], 0)


def test_a_value_whose_methods_raise_holds_back_no_later_put(client: Client, transport: Any) -> None:
    class Value:
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no value")

    reply_type_of = Seen(client.put_stream("pva://x", 1))
    reply_type(transport)
    failed = Seen(client.put_stream("pva://x", Value()))
    reply_type_again = [c for c in transport.commands if c["command"] == "get"][1:]
    for command in reply_type_again:
        transport.reply(command, x={"value": 0.0}, pv_type={"value": "double"})
    Seen(client.put_stream("pva://x", 2, check=False))
    assert (len(failed.errors), reply_type_of.errors) == (1, [])
    assert (puts(transport), queues(client)) == ([("x", 1), ("x", 2)], 0)


def test_a_subscriber_may_put_again(client: Client, transport: Any) -> None:
    def again(error: Exception) -> None:
        Seen(client.put_stream("pva://x", 3, check=False))

    first = Seen(client.put_stream("pva://x", "One"), again)
    Seen(client.put_stream("pva://x", 2, check=False))
    reply_type(transport)
    assert len(first.errors) == 1
    assert (puts(transport), queues(client)) == ([("x", 2), ("x", 3)], 0)


def test_many_puts_that_wait_are_sent_in_order_and_leave_nothing(client: Client, transport: Any) -> None:
    Seen(client.put_stream("pva://x", 0))
    for value in range(1, 3000):
        Seen(client.put_stream("pva://x", value, check=False))
    reply_type(transport)
    assert puts(transport) == [("x", value) for value in range(3000)]
    assert queues(client) == 0


def test_after_a_close_each_put_says_what_became_of_it(transport: Any) -> None:
    client = Client("scripted", "test", settings=SETTINGS, transport=transport)
    sent = Seen(client.put_stream("pva://a", 1, check=False))
    many = Seen(client.put_many_stream({"pva://b": 1}, check=False))
    typed, behind = Seen(client.put_stream("pva://x", 1)), Seen(client.put_stream("pva://x", 2, check=False))
    behind_many = Seen(client.put_many_stream({"pva://x": 3}, check=False))
    client.close()
    before_reply = "the client was closed before the reply arrived"
    may = f"{before_reply}: the put may have been carried out, or may still be"
    not_sent = "the client was closed before the command was sent"
    errors = [sent.errors[0], many.items[0].error, typed.errors[0], behind.errors[0], behind_many.items[0].error]
    assert [str(error) for error in errors] == [may, may, before_reply, not_sent, not_sent]
    assert {type(error) for error in errors} == {ClientClosedError}
    assert (puts(transport), queues(client)) == ([("a", 1), ("b", 1)], 0)


def test_a_put_during_the_start_of_reading_passes_none_that_waits_for_it(transport: Any) -> None:
    transport.hold_replies = True
    with Client("scripted", "test", settings=SETTINGS, transport=transport) as client:
        put = transport.out.send

        def put_meanwhile(*arguments: Any, **options: Any) -> None:
            put(*arguments, **options)
            if len(transport.commands) == 1:  # the first command is being sent, the second waits
                other = threading.Thread(target=lambda: Seen(client.put_stream("pva://x", 3, check=False)))
                other.start()
                other.join()

        transport.out.send = put_meanwhile
        Seen(client.put_stream("pva://x", 1, check=False))
        Seen(client.put_stream("pva://x", 2, check=False))
        transport.reply_source.held[0].set_result(None)
        assert puts(transport) == [("x", 1), ("x", 2), ("x", 3)]


def test_an_action_that_raises_holds_back_none() -> None:
    order, sent = PutOrder(TestScheduler()), list[int]()
    turns = [order.enter(PVAddress.parse("pva://x")) for _ in range(3)]
    assert turns[1].send(lambda: exec("raise RuntimeError('no')"))
    assert turns[2].send(partial(sent.append, 2))
    with pytest.raises(RuntimeError, match="no"):
        turns[0].send(partial(sent.append, 0))
    assert (sent, len(order)) == ([0, 2], 0)


@given(st.lists(st.tuples(st.sampled_from(["enter", "send", "leave"]), st.integers(0, 9), st.booleans()), max_size=60))
def test_in_any_interleaving_puts_are_sent_once_and_in_order(steps: list[tuple[str, int, bool]]) -> None:
    order = PutOrder(TestScheduler())
    turns: list[tuple[str, Turn]] = []
    ready, left = set[int](), set[int]()
    sent: dict[str, list[int]] = {"x": [], "y": []}

    def enter(key: str) -> None:
        turns.append((key, order.enter(PVAddress.parse(f"pva://{key}"))))

    def send(number: int, nested: bool) -> None:
        key, _ = turns[number]
        sent[key].append(number)
        if nested:  # a subscriber that puts again
            enter(key)

    for step, number, flag in steps:
        if step == "enter":
            enter("x" if flag else "y")
        elif number < len(turns):
            if step == "send" and number not in ready | left:
                ready.add(number)
                turns[number][1].send(partial(send, number, flag))
            elif step == "leave" and turns[number][1].leave():
                left.add(number)
        for key, numbers in sent.items():
            own = [number for number, (its, _) in enumerate(turns) if its == key and number not in left]
            first_unready = next((place for place, number in enumerate(own) if number not in ready), len(own))
            assert numbers == own[:first_unready]
    for _, turn in turns:
        turn.leave()
    for key, numbers in sent.items():
        assert set(numbers) == {n for n, (its, _) in enumerate(turns) if its == key} & ready - left
    assert len(order) == 0


def test_threads_send_each_put_once_and_in_the_order_of_entering() -> None:
    order, sent = PutOrder(TestScheduler()), list[int]()
    turns = [order.enter(PVAddress.parse("pva://x")) for _ in range(400)]
    threads = [
        threading.Thread(target=lambda own: [turns[n].send(partial(sent.append, n)) for n in own], args=(own,))
        for own in (range(0, 400, 2), range(399, 0, -2))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sent, len(order)) == (list(range(400)), 0)


def test_a_put_that_waits_for_its_turn_is_pending(client: Client, transport: Any) -> None:
    Seen(client.put_stream("pva://a", 1.0))  # requests the type
    assert client.status.pending == 1
    Seen(client.put_stream("pva://a", 2.0, check=False))
    Seen(client.put_many_stream({"pva://a": 3.0}, check=False))
    assert client.status.pending == 3
    reply_type(transport, name="a")
    assert len(puts(transport)) == 3
    assert client.status.pending == 3, "the replies to all three are due"

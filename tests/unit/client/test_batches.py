"""Gets and puts of many PVs; the test acts as the gateway, and the deadline is in virtual time."""

import base64
import doctest
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.testing import TestScheduler

import k2eg_rx
from k2eg.dml import dml
from k2eg_rx import (
    Client,
    ClientClosedError,
    GetResult,
    K2EGError,
    OperationError,
    OperationTimeout,
    PutResult,
    PutWithheldError,
    PVData,
    Scalar,
    TransportError,
)
from k2eg_rx.protocol.msgpack_codec import unpack
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus

ENUM = {"value": {"index": 0, "choices": ["Off", "On"]}}


class Results:
    """A subscriber on its own scheduler, which runs when the test reads the results."""

    def __init__(self, stream: Any) -> None:
        self._scheduler = TestScheduler()
        self._items: list[Any] = []
        self.errors: list[Exception] = []
        self._ends = 0
        self.subscription = stream.subscribe(
            self._items.append, self.errors.append, self._end, scheduler=self._scheduler
        )

    def _end(self) -> None:
        self._ends += 1

    @property
    def items(self) -> list[Any]:
        self._scheduler.start()
        return self._items

    @property
    def uris(self) -> list[str]:
        return [item.uri for item in self.items]

    @property
    def ends(self) -> int:
        self._scheduler.start()
        return self._ends

    def error_of(self, uri: str) -> Any:
        return next(item.error for item in self.items if item.uri == uri)


@pytest.fixture
def client(transport: Any, timers: TestScheduler) -> Iterator[Client]:
    settings = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
    with Client("scripted", "test", settings=settings, transport=transport) as client:
        yield client


class Scheduled:
    """Records the timers that are started.

    Attributes:
        delays: The seconds until each is due.
        disposed: How many were disposed.
    """

    def __init__(self, schedule: Callable[..., Any]) -> None:
        self.delays: list[float] = []
        self.disposed = 0
        self._schedule = schedule

    def __call__(self, duetime: Any, *arguments: Any) -> Any:
        self.delays.append(duetime)
        return CompositeDisposable(self._schedule(duetime, *arguments), Disposable(self._count))

    def _count(self) -> None:
        self.disposed += 1


@pytest.fixture
def scheduled(timers: TestScheduler, client: Client, monkeypatch: pytest.MonkeyPatch) -> Scheduled:
    scheduled = Scheduled(timers.schedule_relative)
    monkeypatch.setattr(timers, "schedule_relative", scheduled)
    return scheduled


def written(command: dict[str, Any]) -> Any:
    return unpack(base64.b64decode(command["value"]))


def commands_of(transport: Any, name: str) -> list[dict[str, Any]]:
    return [command for command in transport.commands if command["command"] == name]


SETTINGS = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")


class TestGetMany:
    def test_all_commands_are_sent_at_once_and_results_come_in_order_of_arrival(
        self, client: Client, transport: Any
    ) -> None:
        stream = client.get_many_stream(["pva://a", "ca://b", "pva://c:d"])
        assert transport.commands == []
        results = Results(stream)
        assert [c["pv_name"] for c in transport.commands] == ["pva://a", "ca://b", "pva://c:d"]
        transport.reply(transport.commands[2], **{"c:d": {"value": 3}})
        assert (results.uris, results.ends) == (["pva://c:d"], 0)
        transport.reply(transport.commands[0], a={"value": 1})
        transport.reply(transport.commands[1], b={"value": 2})
        assert [(item.uri, item.result().value) for item in results.items] == [
            ("pva://c:d", 3),
            ("pva://a", 1),
            ("ca://b", 2),
        ]
        assert (results.ends, results.errors, client.status.pending) == (1, [], 0)

    def test_repeated_pvs_are_read_once(self, client: Client, transport: Any) -> None:
        results = Results(client.get_many_stream(["pva://a", "pva://b", "pva://a"]))
        for command in list(transport.commands):
            transport.reply(command, **{command["pv_name"][6:]: {"value": 1}})
        assert results.uris == ["pva://a", "pva://b"]
        assert results.ends == 1

    def test_each_subscription_sends_the_commands(self, client: Client, transport: Any) -> None:
        stream = client.get_many_stream(["pva://a"])
        one, two = Results(stream), Results(stream)
        transport.reply(transport.commands[1], a={"value": 2})
        assert (one.items, [item.result().value for item in two.items]) == ([], [2])

    def test_a_failure_affects_only_its_pv(self, client: Client, transport: Any) -> None:
        results = Results(client.get_many_stream(["pva://a", "pva://b", "pva://c"]))
        first, second, third = transport.commands
        transport.reply(first, error=-3, message="Timeout operation")
        transport.reply(second, other={"value": 1})
        transport.reply(third, c={"value": 3})
        assert results.ends == 1
        error = results.error_of("pva://a")
        assert isinstance(error, OperationError)
        assert (error.error, error.operation, error.subject) == (-3, "get", "pva://a")
        assert "no structure of 'b'" in str(results.error_of("pva://b"))
        assert results.items[2].result().value == 3
        with pytest.raises(OperationError):
            results.items[0].result()

    def test_one_timer_serves_all_pvs_and_each_late_one_gets_a_timeout(
        self, client: Client, transport: Any, timers: TestScheduler, scheduled: Scheduled
    ) -> None:
        results = Results(client.get_many_stream([f"pva://x{n}" for n in range(50)], timeout=3))
        assert scheduled.delays == [3.0]
        transport.reply(transport.commands[7], x7={"value": 7})
        timers.advance_to(2.9)
        assert (results.uris, results.ends) == (["pva://x7"], 0)
        timers.advance_to(3.1)
        assert (len(results.items), results.ends, client.status.pending) == (50, 1, 0)
        error = results.error_of("pva://x49")
        assert isinstance(error, OperationTimeout)
        assert (error.operation, error.subject, error.waited) == ("get", "pva://x49", 3.0)
        transport.reply(transport.commands[0], x0={"value": 0})
        assert len(results.items) == 50

    def test_the_default_is_the_clients_timeout(self, client: Client, scheduled: Scheduled) -> None:
        Results(client.get_many_stream(["pva://a"]))
        assert scheduled.delays == [client.timeout]

    def test_the_timer_is_disposed_after_the_last_result(
        self, client: Client, transport: Any, timers: TestScheduler, scheduled: Scheduled
    ) -> None:
        results = Results(client.get_many_stream(["pva://a"], timeout=3))
        transport.reply(transport.commands[0], a={"value": 1})
        assert scheduled.disposed == 1
        timers.advance_to(4)
        assert (results.uris, results.ends) == (["pva://a"], 1)

    def test_a_spurious_reply_repeats_the_get_once(self, client: Client, transport: Any) -> None:
        results = Results(client.get_many_stream(["pva://a", "pva://b"]))
        transport.reply(transport.commands[0], error=-2, message="Operaton cancelled")
        transport.reply(transport.commands[1], b={"value": 2})
        assert transport.commands[2]["pv_name"] == "pva://a"
        transport.reply(transport.commands[2], error=-2, message="Operaton cancelled")
        assert len(transport.commands) == 3
        assert isinstance(results.error_of("pva://a"), OperationError)

    def test_a_full_send_queue_is_an_error_of_the_pvs_that_do_not_fit(self, client: Client, transport: Any) -> None:
        send = transport.out.send

        def send_two(*arguments: Any, **options: Any) -> None:
            if len(transport.commands) == 2:
                raise TransportError("the queue is full")
            send(*arguments, **options)

        transport.out.send = send_two
        results = Results(client.get_many_stream(["pva://a", "pva://b", "pva://c"]))
        assert isinstance(results.error_of("pva://c"), TransportError)
        transport.reply(transport.commands[0], a={"value": 1})
        transport.reply(transport.commands[1], b={"value": 2})
        assert (results.uris, results.ends) == (["pva://c", "pva://a", "pva://b"], 1)

    def test_commands_wait_for_the_reply_topic_until_the_deadline(self, transport: Any, timers: TestScheduler) -> None:
        transport.hold_replies = True
        with Client("scripted", "test", settings=SETTINGS, transport=transport) as client:
            late, early = (
                Results(client.get_many_stream(["pva://a"], timeout=1)),
                Results(client.get_many_stream(["pva://b"], timeout=9)),
            )
            timers.advance_to(2)
            assert isinstance(late.error_of("pva://a"), OperationTimeout)
            transport.reply_source.held[0].set_result(None)
            assert [c["pv_name"] for c in transport.commands] == ["pva://b"]
            assert early.items == []

    def test_unsubscribing_frees_all_requests(self, client: Client, transport: Any, timers: TestScheduler) -> None:
        results = Results(client.get_many_stream(["pva://a", "pva://b"], timeout=3))
        transport.reply(transport.commands[0], a={"value": 1})
        assert results.uris == ["pva://a"]
        results.subscription.dispose()
        assert client.status.pending == 0
        timers.advance_to(4)
        assert (results.uris, results.ends) == (["pva://a"], 0)

    def test_close_is_the_error_of_pvs_without_a_reply(self, transport: Any, client: Client) -> None:
        from reactivex.scheduler import ImmediateScheduler

        class Now(TestScheduler):
            def schedule(self, action: Any, state: Any = None) -> Any:
                return ImmediateScheduler.singleton().schedule(action, state)

        items: list[Any] = []
        ends: list[bool] = []
        client.get_many_stream(["pva://a", "pva://b"]).subscribe(
            items.append, items.append, lambda: ends.append(True), scheduler=Now()
        )
        transport.reply(transport.commands[0], a={"value": 1})
        client.close()
        assert [(item.uri, type(item.error)) for item in items] == [
            ("pva://a", type(None)),
            ("pva://b", ClientClosedError),
        ]
        assert ends == [True]
        with pytest.raises(ClientClosedError):
            client.get_many_stream(["pva://a"])

    def test_a_refusal_of_the_broker_is_the_error_of_all_pvs_at_once(self, transport: Any, client: Client) -> None:
        results = Results(client.get_many_stream(["pva://a", "pva://b"]))
        transport.listeners[0](TransportStatus(ConnectionState.DOWN, "wrong password", refused=True))
        assert [str(item.error) for item in results.items] == ["wrong password"] * 2
        assert results.ends == 1

    def test_results_hold_back_no_events(self, transport: Any, client: Client) -> None:
        uris = [f"pva://x{n}" for n in range(2000)]  # more than the capacity of a monitor's subscriber
        results = Results(client.get_many_stream(uris))
        for number, command in enumerate(list(transport.commands)):
            transport.reply(command, **{f"x{number}": {"value": number}})
        assert transport.event_source.receiver.ready()
        assert (results.uris, results.ends) == (uris, 1)

    def test_only_the_first_reply_to_a_command_counts(self, client: Client, transport: Any) -> None:
        results = Results(client.get_many_stream(["pva://a", "pva://b"]))
        question = transport.commands[0]
        transport.replies_together((question, {"a": {"value": 1}}), (question, {"a": {"value": 2}}))
        transport.reply(question, a={"value": 3})
        transport.reply(transport.commands[1], b={"value": 4})
        assert [(got.uri, got.result().value) for got in results.items] == [("pva://a", 1), ("pva://b", 4)]
        assert results.ends == 1

    def test_replies_of_one_batch_of_records_are_handled_together(self, client: Client, transport: Any) -> None:
        results, others = (Results(client.get_many_stream([f"pva://{n}{x}" for x in "abc"])) for n in "xy")
        a, b, c, other, *_ = transport.commands
        transport.replies_together(
            (b, {"xb": {"value": 2}}),
            (other, {"ya": {"value": 9}}),
            (a, {"error": -2, "message": "Operaton cancelled"}),
            (c, {"error": -3, "message": "Timeout operation"}),
        )
        assert results.uris == ["pva://xb", "pva://xc"]
        assert others.uris == ["pva://ya"]
        assert (transport.commands[-1]["pv_name"], len(transport.commands)) == ("pva://xa", 7)
        transport.reply(transport.commands[-1], xa={"value": 1})
        assert (results.uris, results.ends) == (["pva://xb", "pva://xc", "pva://xa"], 1)

    def test_a_repeated_get_has_the_same_deadline(self, client: Client, transport: Any, timers: TestScheduler) -> None:
        results = Results(client.get_many_stream(["pva://a"], timeout=3))
        timers.advance_to(2)
        transport.reply(transport.commands[0], error=-2, message="Operaton cancelled")
        timers.advance_to(4)
        assert isinstance(results.error_of("pva://a"), OperationTimeout)
        assert (results.ends, client.status.pending) == (1, 0)

    def test_unsubscribing_stops_sending(self, transport: Any) -> None:
        transport.hold_replies = True
        send = transport.out.send
        subscriptions: list[Any] = []

        def unsubscribe_after_the_first(*arguments: Any, **options: Any) -> None:
            send(*arguments, **options)
            for subscription in subscriptions:
                subscription.dispose()

        transport.out.send = unsubscribe_after_the_first
        with Client("scripted", "test", settings=SETTINGS, transport=transport) as client:
            subscriptions.append(Results(client.get_many_stream(["pva://a", "pva://b", "pva://c"])).subscription)
            assert transport.commands == []
            transport.reply_source.held[0].set_result(None)
            assert [c["pv_name"] for c in transport.commands] == ["pva://a"]
            assert client.status.pending == 0

    def test_a_timeout_while_the_reply_is_parsed_is_the_only_result(
        self, client: Client, transport: Any, timers: TestScheduler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def parse_slowly(*_: Any) -> PVData:
            timers.advance_to(4)
            return PVData("a", {"value": 1})

        monkeypatch.setattr("k2eg_rx.client.batches.data_of", parse_slowly)
        results = Results(client.get_many_stream(["pva://a"], timeout=3))
        transport.reply(transport.commands[0], a={"value": 1})
        assert [type(got.error) for got in results.items] == [OperationTimeout]
        assert results.ends == 1

    def test_a_get_is_not_repeated_after_the_deadline(
        self, client: Client, transport: Any, timers: TestScheduler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("k2eg_rx.client.batches.is_spurious", lambda _: timers.advance_to(4) or True)
        Results(client.get_many_stream(["pva://a"], timeout=3))
        transport.reply(transport.commands[0])
        assert (len(transport.commands), client.status.pending) == (1, 0)

    def test_a_deadline_before_registration_leaves_no_request_pending(
        self, client: Client, transport: Any, timers: TestScheduler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sender = client._core.sender  # pyright: ignore[reportPrivateUsage]
        send = sender.send
        monkeypatch.setattr(sender, "send", lambda *arguments: timers.advance_to(4) or send(*arguments))
        results = Results(client.get_many_stream(["pva://a"], timeout=3))
        assert (client.status.pending, results.ends) == (0, 1)  # no request is pending when the stream completes


class TestPutMany:
    def test_types_are_requested_at_once_and_each_value_is_sent_when_its_type_arrives(
        self, client: Client, transport: Any
    ) -> None:
        results = Results(client.put_many_stream({"pva://a": "On", "pva://b": 5}))
        assert [(c["command"], c["pv_name"], c["describe"]) for c in transport.commands] == [
            ("get", "pva://a", True),
            ("get", "pva://b", True),
        ]
        transport.reply(transport.commands[1], b={"value": 0.5})
        assert written(transport.commands[2]) == {"value": 5.0}
        transport.reply(transport.commands[0], a=ENUM)
        assert written(transport.commands[3]) == {"value": {"index": 1}}
        transport.reply(transport.commands[3], message="Successfull operation")
        assert (results.uris, results.ends) == (["pva://a"], 0)
        transport.reply(transport.commands[2])
        assert [item.result().error for item in results.items] == [0, 0]
        assert results.ends == 1

    def test_described_types_are_not_requested_again(self, client: Client, transport: Any) -> None:
        Results(client.put_many_stream({"pva://a": 1}))
        transport.reply(transport.commands[0], a={"value": 0}, pv_type={"value": "int"})
        Results(client.put_many_stream({"pva://a": 2, "pva://b": 2}))
        assert [(c["command"], c["pv_name"]) for c in transport.commands] == [
            ("get", "pva://a"),
            ("put", "pva://a"),
            ("put", "pva://a"),
            ("get", "pva://b"),
        ]

    def test_a_value_that_does_not_fit_affects_only_its_pv(self, client: Client, transport: Any) -> None:
        results = Results(client.put_many_stream({"pva://a": "Half", "pva://b": object(), "pva://c": 1}))
        for command in list(transport.commands):
            transport.reply(command, **{command["pv_name"][6:]: ENUM})
        puts = commands_of(transport, "put")
        assert [(c["pv_name"], written(c)) for c in puts] == [("pva://c", {"value": {"index": 1}})]
        transport.reply(puts[0])
        assert isinstance(results.error_of("pva://a"), ValueError)
        assert "pva://a" in str(results.error_of("pva://a"))
        assert isinstance(results.error_of("pva://b"), ValueError)
        assert results.items[-1].result().error == 0
        assert results.ends == 1

    def test_unchecked_values_are_sent_as_given(self, client: Client, transport: Any) -> None:
        Results(client.put_many_stream({"pva://a": Scalar("value", 42)}))
        results = Results(client.put_many_stream({"pva://b": 5, "pva://c": object()}, check=False))
        assert [written(c) for c in transport.commands] == [{"value": 42}, {"value": 5}]
        assert "object" in str(results.error_of("pva://c"))

    def test_a_pv_that_cannot_be_read_is_not_written(self, client: Client, transport: Any) -> None:
        results = Results(client.put_many_stream({"pva://a": 1, "pva://b": 1}))
        transport.reply(transport.commands[0], error=-3, message="Timeout operation")
        transport.reply(transport.commands[1], b={"value": 0})
        transport.reply(transport.commands[2])
        assert isinstance(results.error_of("pva://a"), OperationError)
        assert results.uris == ["pva://a", "pva://b"]
        assert [c["pv_name"] for c in commands_of(transport, "put")] == ["pva://b"]

    def test_a_timeout_says_whether_the_put_may_still_be_carried_out(
        self, client: Client, transport: Any, timers: TestScheduler, scheduled: Scheduled
    ) -> None:
        results = Results(client.put_many_stream({"pva://a": 1, "pva://b": 1}, timeout=3))
        transport.reply(transport.commands[0], a={"value": 0})
        timers.advance_to(4)
        assert scheduled.delays == [3.0]
        sent, unsent = results.error_of("pva://a"), results.error_of("pva://b")
        assert isinstance(sent, OperationTimeout)
        assert isinstance(unsent, OperationTimeout)
        assert "may still be carried out" in str(sent)
        assert "nothing was written" in str(unsent)
        assert results.ends == 1
        transport.reply(transport.commands[1], b={"value": 0})
        assert [c["pv_name"] for c in commands_of(transport, "put")] == ["pva://a"]

    def test_a_put_that_timed_out_unsent_is_not_sent_later(
        self, client: Client, transport: Any, timers: TestScheduler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def known(*_: Any) -> bytes:
            timers.advance_to(4)
            return b"\x80"

        monkeypatch.setattr(client._core.puts, "known_fields", known)  # pyright: ignore[reportPrivateUsage]
        results = Results(client.put_many_stream({"pva://a": 1}, timeout=3))
        assert "nothing was written" in str(results.error_of("pva://a"))
        assert (transport.commands, results.ends) == ([], 1)

    def test_a_failed_put_removes_the_type_from_the_cache(self, client: Client, transport: Any) -> None:
        Results(client.put_many_stream({"pva://a": 1}))
        transport.reply(transport.commands[0], a={"value": 0})
        transport.reply(transport.commands[1], error=-1, message="wrong type")
        Results(client.put_many_stream({"pva://a": 1}))
        assert [c["command"] for c in transport.commands] == ["get", "put", "get"]

    def test_values_are_copied_by_the_call(self, client: Client, transport: Any) -> None:
        values: dict[str, object] = {"pva://a": 1}
        stream = client.put_many_stream(values, check=False)
        values["pva://b"] = 2
        Results(stream)
        assert [c["pv_name"] for c in transport.commands] == ["pva://a"]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_many_stream(["pva://good", "bad"]),
        lambda client: client.put_many_stream({"pva://good": 1, "bad": 1}),
    ],
)
def test_an_invalid_uri_is_rejected_by_the_call_and_named(client: Client, transport: Any, call: Any) -> None:
    with pytest.raises(ValueError, match="'bad'"):
        call(client)
    assert transport.commands == []


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_many_stream([]),
        lambda client: client.get_many_stream("pva://x"),
        lambda client: client.get_many_stream(["pva://x"], timeout=0),
        lambda client: client.put_many_stream({}),
        lambda client: client.put_many_stream([("pva://x", 1)]),
        lambda client: client.put_many_stream({"pva://x": 1}, timeout=-1),
    ],
)
def test_an_invalid_argument_is_rejected_by_the_call(client: Client, transport: Any, call: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        call(client)
    assert transport.commands == []


def test_result_returns_the_reply_or_raises_the_error() -> None:
    error = K2EGError("why")
    for failed in (GetResult("pva://x", error=error), PutResult("pva://x", error=error)):
        with pytest.raises(K2EGError, match="why"):
            failed.result()
    for nothing in (GetResult("pva://x"), PutResult("pva://x")):
        with pytest.raises(ValueError, match="pva://x"):
            nothing.result()


@pytest.mark.parametrize("method", [Client.get_many_stream, Client.put_many_stream, dml.get_many, dml.put_many])
def test_the_examples_work(method: Any) -> None:
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(method, method.__name__, globs={}):
        assert runner.run(example).failed == 0
    assert runner.tries > 0


class TestPutAllOrNone:
    def test_puts_are_sent_when_all_types_are_known(self, client: Client, transport: Any) -> None:
        results = Results(client.put_many_stream({"pva://a": 1, "pva://b": 2}, all_or_none=True))
        a, b = transport.commands
        transport.reply(a, a={"value": 0.0})
        assert commands_of(transport, "put") == []
        transport.reply(b, b={"value": 0.0})
        puts = commands_of(transport, "put")
        assert [(put["pv_name"], written(put)) for put in puts] == [
            ("pva://a", {"value": 1.0}),
            ("pva://b", {"value": 2.0}),
        ]
        transport.reply(puts[0], error=-1, message="no")  # does not affect the other one any more
        transport.reply(puts[1])
        assert isinstance(results.error_of("pva://a"), OperationError)
        assert results.error_of("pva://b") is None
        assert results.ends == 1

    @pytest.mark.parametrize("is_first", [True, False])
    def test_a_value_that_does_not_fit_withholds_all(self, client: Client, transport: Any, is_first: bool) -> None:
        results = Results(client.put_many_stream({"pva://a": "text", "pva://b": 2}, all_or_none=True))
        a, b = transport.commands
        for command in (a, b) if is_first else (b, a):
            transport.reply(command, **{command["pv_name"][6:]: {"value": 0}})
        assert commands_of(transport, "put") == []
        assert isinstance(results.error_of("pva://a"), ValueError)
        withheld = results.error_of("pva://b")
        assert isinstance(withheld, PutWithheldError)
        assert str(withheld).startswith("nothing was written, because of pva://a: ")
        assert (len(results.items), results.ends) == (2, 1)

    @pytest.mark.parametrize("values", [{"pva://a": object(), "pva://b": 2}, {"pva://b": 2, "pva://a": object()}])
    def test_a_value_that_fits_no_pv_withholds_all_at_once(
        self, client: Client, transport: Any, values: dict[str, object]
    ) -> None:
        results = Results(client.put_many_stream(values, check=False, all_or_none=True))
        assert (transport.commands, results.ends) == ([], 1)
        assert isinstance(results.error_of("pva://b"), PutWithheldError)

    def test_a_type_that_is_not_known_in_time_withholds_all(
        self, client: Client, transport: Any, timers: TestScheduler
    ) -> None:
        results = Results(client.put_many_stream({"pva://a": 1, "pva://b": 2}, 3, all_or_none=True))
        transport.reply(transport.commands[0], a={"value": 0.0})
        timers.advance_to(4)
        transport.reply(transport.commands[1], b={"value": 0.0})
        assert commands_of(transport, "put") == []
        assert ["nothing was written" in str(item.error) for item in results.items] == [True, True]

    def test_a_pv_that_cannot_be_read_withholds_all(self, client: Client, transport: Any) -> None:
        results = Results(client.put_many_stream({"pva://a": 1, "pva://b": 2}, all_or_none=True))
        transport.reply(transport.commands[0], a={"value": 0.0})
        transport.reply(transport.commands[1], error=-3, message="Timeout operation")
        assert commands_of(transport, "put") == []
        assert isinstance(results.error_of("pva://a"), PutWithheldError)

    def test_an_earlier_put_that_is_abandoned_for_a_later_one_withholds_all(
        self, client: Client, transport: Any, timers: TestScheduler
    ) -> None:
        results = Results(client.put_many_stream({"pva://a": 1, "pva://b": 2}, 60, all_or_none=True))
        stop = Results(client.put_many_stream({"pva://a.STOP": 1}, check=False))
        timers.advance_to(1)
        assert [put["pv_name"] for put in commands_of(transport, "put")] == ["pva://a.STOP"]
        for command in transport.commands[:2]:
            transport.reply(command, **{command["pv_name"][6:]: {"value": 0.0}})
        assert len(commands_of(transport, "put")) == 1
        assert isinstance(results.error_of("pva://b"), PutWithheldError)
        assert stop.ends == 0

    def test_dispose_before_the_first_put_sends_none(self, client: Client, transport: Any) -> None:
        results = Results(client.put_many_stream({"pva://a": 1, "pva://b": 2}, all_or_none=True))
        a, b = transport.commands
        transport.reply(a, a={"value": 0.0})
        results.subscription.dispose()
        transport.reply(b, b={"value": 0.0})
        assert commands_of(transport, "put") == []
        assert client.status.pending == 0

    def test_dispose_between_two_puts_sends_both(self, client: Client, transport: Any) -> None:
        first = Results(client.put_many_stream({"pva://b": 0}))  # whose type holds the second one back
        results = Results(client.put_many_stream({"pva://a": 1, "pva://b": 2}, check=False, all_or_none=True))
        assert [put["pv_name"] for put in commands_of(transport, "put")] == ["pva://a"]
        results.subscription.dispose()
        transport.reply(transport.commands[0], b={"value": 0.0})
        assert [(put["pv_name"], written(put)) for put in commands_of(transport, "put")] == [
            ("pva://a", {"value": 1}),
            ("pva://b", {"value": 0.0}),
            ("pva://b", {"value": 2}),
        ]
        for put in commands_of(transport, "put"):
            transport.reply(put)
        assert (first.ends, results.items, client.status.pending) == (1, [], 0)

    def test_it_is_a_flag(self, client: Client) -> None:
        with pytest.raises(ValueError, match="all_or_none must be True or False"):
            client.put_many_stream({"pva://a": 1}, all_or_none="no")  # pyright: ignore[reportArgumentType]

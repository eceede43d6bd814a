"""What the errors of puts without a reply say about them; the test acts as broker and gateway, in virtual time."""

from collections.abc import Callable
from typing import Any

import pytest
from reactivex.testing import TestScheduler

import k2eg_rx
from k2eg_rx import Client, ClientClosedError, OperationTimeout, TransportError
from k2eg_rx.transport.interfaces import ConnectionState, TransportStatus, UnconfirmedError

SETTINGS = k2eg_rx.Settings("scripted", "nowhere:9092", "commands", "test-reply")
UNSENT = "nothing was written: the command was not sent, and will not be"
MAY = "the put may have been carried out, or may still be"
SENT = "the command may still be carried out: it was sent, but Kafka has not confirmed it"
STORED = "the command may still be carried out: it waits in Kafka for the gateway"
Deliver = Callable[[Any], None]

DELIVERIES: list[tuple[Deliver, str]] = [
    (lambda transport: None, SENT),
    (lambda transport: transport.out.reports[0](None), STORED),
]


class Put:
    """A put of one of the two kinds, subscribed to, and its error."""

    def __init__(self, client: Client, timers: TestScheduler, many: bool) -> None:
        self._timers = timers
        self._ends: list[Any] = []
        stream: Any = (
            client.put_many_stream({"pva://x": 1}, 3, check=False)
            if many
            else client.put_stream("pva://x", 1, 3, check=False)
        )
        stream.subscribe(self._ends.append, self._ends.append, scheduler=timers)

    @property
    def error(self) -> Any:
        self._timers.advance_by(0.1)
        (end,) = self._ends
        return getattr(end, "error", end)


@pytest.fixture(params=[False, True], ids=["single", "many"])
def many(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def client(transport: Any, timers: TestScheduler) -> Client:
    return Client("scripted", "test", settings=SETTINGS, transport=transport)


def test_a_timeout_before_the_reply_topic_is_read(transport: Any, timers: TestScheduler, many: bool) -> None:
    transport.hold_replies = True
    with Client("scripted", "test", settings=SETTINGS, transport=transport) as client:
        put = Put(client, timers, many)
        timers.advance_by(4)
        assert isinstance(put.error, OperationTimeout)
        assert str(put.error) == (
            f"Timeout: put of pva://x: no reply within 3 s; {UNSENT}; the reply topic 'test-reply' cannot be read yet"
        )
        transport.reply_source.held[0].set_result(None)
        assert transport.commands == []


def test_a_timeout_while_the_command_waits_for_the_broker(
    client: Client, transport: Any, timers: TestScheduler, many: bool
) -> None:
    transport.out.is_reachable = False
    put = Put(client, timers, many)
    timers.advance_by(4)
    assert put.error.hint.startswith(UNSENT)


@pytest.mark.parametrize(("deliver", "text"), DELIVERIES)
def test_a_timeout_after_the_command_was_sent(
    client: Client, transport: Any, timers: TestScheduler, many: bool, deliver: Deliver, text: str
) -> None:
    put = Put(client, timers, many)
    deliver(transport)
    timers.advance_by(4)
    assert put.error.hint.startswith(text)


@pytest.mark.parametrize("reachable", [False, True])
def test_the_close_of_the_client(
    client: Client, transport: Any, timers: TestScheduler, many: bool, reachable: bool
) -> None:
    transport.out.is_reachable = reachable
    put = Put(client, timers, many)
    client.close()
    assert isinstance(put.error, ClientClosedError)
    assert str(put.error).endswith(MAY if reachable else "the put was not sent")


@pytest.mark.parametrize("reachable", [False, True])
def test_a_broker_that_refuses_the_client(
    client: Client, transport: Any, timers: TestScheduler, many: bool, reachable: bool
) -> None:
    transport.out.is_reachable = reachable
    put = Put(client, timers, many)
    transport.listeners[0](TransportStatus(ConnectionState.DOWN, "wrong password", refused=True))
    assert isinstance(put.error, TransportError)
    assert (MAY in str(put.error)) == reachable


@pytest.mark.parametrize(("failure", "doubtful"), [(TransportError("full"), False), (UnconfirmedError("lost"), True)])
def test_a_command_that_was_not_delivered(
    client: Client, transport: Any, timers: TestScheduler, many: bool, failure: Exception, doubtful: bool
) -> None:
    put = Put(client, timers, many)
    transport.out.reports[0](failure)
    assert type(put.error) is type(failure)
    assert (str(put.error).count(MAY), str(put.error).endswith(str(failure))) == (doubtful, True)

"""The sink: what librdkafka gets, what waits and expires, and which reports are certain."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import pytest
from confluent_kafka import KafkaError, KafkaException

from k2eg_rx.errors import TransportError
from k2eg_rx.kafka import in_flight
from k2eg_rx.kafka import producer as module
from k2eg_rx.kafka.connection.errors import ErrorTranslator
from k2eg_rx.kafka.producer import KafkaSink
from k2eg_rx.transport.interfaces import RecordTooLargeError, TransientError, UnconfirmedError


class Clock:
    """Replaces the time module in the sink."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1e9

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class ScriptedMessage(NamedTuple):
    """What a report says about a record."""

    known_offset: int | None
    known_partition: int

    def offset(self) -> int | None:
        return self.known_offset

    def partition(self) -> int:
        return self.known_partition


class ScriptedProducer:
    """A producer whose records are confirmed by the test."""

    made: list[ScriptedProducer]

    def __init__(self, properties: dict[str, Any], **_: Any) -> None:
        self.properties = properties
        self.records: deque[tuple[bytes, Any, int]] = deque()
        self.values: list[bytes] = []
        self.reports: deque[Any] = deque()
        self.polled: list[float] = []
        self.purged = False
        self.failure: BaseException | None = None
        self.on_poll: deque[Any] = deque()
        ScriptedProducer.made.append(self)

    def __len__(self) -> int:
        return len(self.records) + len(self.reports)

    def produce(
        self, topic: str, value: bytes, key: Any, partition: int, on_delivery: Any, headers: Any, timestamp: int
    ) -> None:
        if self.failure is not None:
            raise self.failure
        self.records.append((value, on_delivery, timestamp))
        self.values.append(value)

    def report(self, error: KafkaError | None = None, offset: int | None = 0, partition: int = 0) -> None:
        """Makes the next poll report the oldest record."""
        self.reports.append((self.records.popleft()[1], error, ScriptedMessage(offset, partition)))

    def poll(self, timeout: float) -> int:
        self.polled.append(timeout)
        if self.on_poll:
            self.on_poll.popleft()()
        count = len(self.reports)
        while self.reports:
            call, error, message = self.reports.popleft()
            call(error, message)
        return count

    def flush(self, timeout: float) -> None:
        """Fails as confluent-kafka's does after a fatal error, whose exception is set while it calls reports."""
        self.reports.clear()
        raise SystemError("a report returned a result with an exception set")

    def purge(self) -> None:
        self.purged = True
        while self.records:
            self.report(KafkaError(KafkaError._PURGE_QUEUE))


class ScriptedHealth:
    """The connection state, as the test sets it."""

    def __init__(self) -> None:
        self.is_down = self.suspicious = False
        self.disruptions = self.suspected = self.answers = 0
        self.last_answer = 0.0
        self.reason = ""

    def on_throttle(self, event: object) -> None: ...

    def on_error(self, error: KafkaError) -> None:
        pass

    def on_answer(self) -> None:
        self.answers += 1

    def suspect(self) -> None:
        self.suspected += 1
        self.suspicious = True


class NoThread:
    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass


class Bench:
    """A sink without its thread; keeps the reports by value."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **properties: Any) -> None:
        ScriptedProducer.made = []
        self.clock = Clock()
        self.health = ScriptedHealth()
        self.reports: dict[bytes, list[TransportError | None]] = {}
        monkeypatch.setattr(module, "Producer", ScriptedProducer)
        monkeypatch.setattr(module, "time", self.clock)
        monkeypatch.setattr(in_flight, "time", self.clock)
        monkeypatch.setattr(module.ConnectionWatchdog, "is_disconnected", lambda *_: False)
        health: Any = self.health
        with monkeypatch.context() as patched:
            patched.setattr(module.threading, "Thread", NoThread)
            self.sink: Any = KafkaSink(
                {"message.timeout.ms": 10_000, "queue.buffering.max.messages": 100, **properties},
                health,
                ErrorTranslator("broker:9092"),
            )

    @property
    def producer(self) -> ScriptedProducer:
        return ScriptedProducer.made[-1]

    def send(self, *values: bytes, topic: str = "t", **options: Any) -> None:
        for value in values:
            self.sink.send(topic, value, on_delivery=self.reports.setdefault(value, []).append, **options)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.sink._move_on()

    def confirm(self, count: int = 1, **report: Any) -> None:
        for _ in range(count):
            self.producer.report(**report)
        self.producer.poll(0)
        self.sink._move_on()

    def make_topic_known(self) -> None:
        """Has the first record of the topic confirmed, and forgets it."""
        self.send(b"first")
        self.confirm()
        for seen in (self.producer.values, self.producer.polled, self.reports):
            seen.clear()
        self.health.answers = 0

    def kinds(self) -> dict[bytes, list[type]]:
        return {value: [type(error) for error in errors] for value, errors in self.reports.items()}


@pytest.fixture
def new_bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A sink that has not sent anything yet."""
    return Bench(monkeypatch)


@pytest.fixture
def bench(new_bench: Bench) -> Bench:
    """A sink that librdkafka gets the records of a topic from at once."""
    new_bench.make_topic_known()
    return new_bench


def test_librdkafka_never_expires_a_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would resend the records behind an expired one, which the broker may have stored."""
    assert bench.producer.properties["message.timeout.ms"] == 0
    other = Bench(monkeypatch, **{"delivery.timeout.ms": "3000"})
    assert "delivery.timeout.ms" not in other.producer.properties
    assert other.sink._expiry == 3.0


def test_confirmed_records_are_passed_on_at_once(bench: Bench) -> None:
    bench.send(b"1", b"2")
    assert bench.producer.values == [b"1", b"2"]
    bench.confirm(2)
    assert bench.reports == {b"1": [None], b"2": [None]}
    assert bench.health.answers == 2


def test_the_second_record_of_a_topic_waits_for_the_confirmation_of_the_first(new_bench: Bench) -> None:
    """A broker that has no record of a producer stores any: it would store the second one and refuse the first."""
    new_bench.send(b"1", b"2", b"3")
    new_bench.send(b"other 1", b"other 2", topic="other")
    assert new_bench.producer.values == [b"1", b"other 1"]
    new_bench.send(b"4")
    new_bench.confirm()
    assert new_bench.producer.values == [b"1", b"other 1", b"2", b"3", b"4"]
    new_bench.send(b"5")
    new_bench.confirm()
    assert new_bench.producer.values[5:] == [b"5", b"other 2"]
    new_bench.confirm(5)
    assert set(map(tuple, new_bench.kinds().values())) == {(type(None),)}


def test_records_keep_their_order_behind_the_first_one_of_their_topic(new_bench: Bench) -> None:
    """Those that waited for the broker come before those that wait for the first record."""
    new_bench.health.is_down = True
    new_bench.send(b"1", b"2")
    new_bench.health.is_down = False
    new_bench.send(b"3")
    new_bench.pass_time(0.0)
    new_bench.send(b"4")
    assert new_bench.producer.values == [b"1"]
    new_bench.confirm()
    assert new_bench.producer.values == [b"1", b"2", b"3", b"4"]


def test_the_next_record_is_the_first_one_if_that_is_refused(new_bench: Bench) -> None:
    new_bench.send(b"1", b"2", b"3")
    new_bench.confirm(error=KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert new_bench.producer.values == [b"1", b"2"]
    new_bench.confirm()
    assert new_bench.producer.values == [b"1", b"2", b"3"]
    new_bench.producer.failure = KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    with pytest.raises(RecordTooLargeError):
        new_bench.send(b"too large", topic="other")
    new_bench.producer.failure = None
    new_bench.send(b"4", topic="other")
    assert new_bench.producer.values[3:] == [b"4"]


def test_what_waits_for_the_first_record_expires(new_bench: Bench) -> None:
    new_bench.health.is_down = True
    new_bench.send(b"1", b"2")
    new_bench.pass_time(9.0)
    new_bench.health.is_down = False
    new_bench.pass_time(0.5)
    assert new_bench.producer.values == [b"1"]
    new_bench.pass_time(1.0)
    assert new_bench.kinds() == {b"1": [], b"2": [TransientError]}
    new_bench.confirm()
    assert new_bench.kinds() == {b"1": [type(None)], b"2": [TransientError]}


def test_what_waits_for_the_first_record_is_bounded(new_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING_BYTES", 10)
    new_bench.send(b"1", b"12345678")
    with pytest.raises(TransportError, match="too many records wait"):
        new_bench.send(b"901")
    new_bench.confirm()
    new_bench.send(b"901")
    assert new_bench.producer.values == [b"1", b"12345678", b"901"]


def test_closing_reports_what_waits_for_the_first_record_as_not_sent(new_bench: Bench) -> None:
    new_bench.send(b"1", b"2")
    new_bench.sink._finish(new_bench.clock.now)
    assert new_bench.kinds() == {b"1": [UnconfirmedError], b"2": [TransportError]}


def test_a_record_without_an_offset_is_stored_only_if_the_partition_has_an_earlier_one(new_bench: Bench) -> None:
    """librdkafka takes it for stored since a later one is, which a broker without earlier records has not checked."""
    new_bench.send(b"1")
    new_bench.confirm(partition=0)
    new_bench.send(b"2", b"3", b"4", b"5")
    new_bench.confirm(partition=1, offset=None)
    new_bench.confirm(partition=1)
    new_bench.confirm(partition=1, offset=None)
    new_bench.confirm(partition=0, offset=None)
    assert new_bench.kinds() == {
        b"1": [type(None)],
        b"2": [UnconfirmedError],
        b"3": [type(None)],
        b"4": [type(None)],
        b"5": [type(None)],
    }
    assert "a later one only" in str(new_bench.reports[b"2"][0])


def test_a_topic_without_records_for_some_seconds_is_a_new_one(bench: Bench) -> None:
    """It may have been made anew."""
    bench.pass_time(4.0)
    bench.send(b"1", b"2")
    assert bench.producer.values == [b"1", b"2"]
    bench.confirm(2)
    bench.pass_time(6.0)
    bench.send(b"3", b"4")
    assert bench.producer.values == [b"1", b"2", b"3"]


def test_records_wait_while_none_is_confirmed_and_the_cluster_does_not_answer(bench: Bench) -> None:
    bench.send(b"1")
    bench.pass_time(0.3)
    assert bench.health.suspected == 1
    bench.send(b"2", b"3")
    bench.pass_time(0.1)
    assert bench.producer.values == [b"1"]
    bench.confirm()
    assert bench.producer.values == [b"1", b"2", b"3"]
    assert [stamp for *_, stamp in bench.producer.records] == [round((1e9 + 1000.3) * 1000)] * 2, "when it was sent"


def test_records_do_not_wait_for_a_slow_topic_while_the_cluster_answers(bench: Bench) -> None:
    bench.send(b"1")
    bench.pass_time(0.3)
    bench.health.suspicious = False
    bench.send(b"2")
    assert bench.producer.values == [b"1", b"2"]


def test_librdkafka_gets_no_more_than_a_window(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WINDOW", 3)
    bench.send(*(b"%d" % n for n in range(6)))
    assert len(bench.producer.values) == 3
    bench.confirm(2)
    assert bench.producer.values == [b"0", b"1", b"2", b"3", b"4"]


def test_what_expires_while_it_waits_is_certain_not_to_be_sent(bench: Bench) -> None:
    bench.health.is_down = True
    bench.send(b"put")
    bench.pass_time(10.1)
    (error,) = bench.reports[b"put"]
    assert isinstance(error, TransportError)
    assert not isinstance(error, UnconfirmedError)
    assert "not sent to 't'" in str(error)
    assert "message.timeout.ms" in str(error)
    bench.health.is_down = False
    bench.pass_time(0.1)
    assert bench.producer.values == []


def test_what_is_not_confirmed_in_time_is_in_doubt_and_never_sent_again(bench: Bench) -> None:
    bench.send(b"put")
    bench.health.suspicious = True
    bench.pass_time(5.0)
    bench.send(b"later")
    bench.pass_time(5.1)
    (error,) = bench.reports[b"put"]
    assert isinstance(error, UnconfirmedError)
    assert "may have been stored" in str(error)
    assert "within 10 s (message.timeout.ms)" in str(error)
    old, bench.health.is_down = bench.producer, True
    assert old.purged
    bench.pass_time(0.1)
    bench.health.is_down = False
    bench.pass_time(0.1)
    assert bench.producer is not old
    assert (old.values, bench.producer.values) == ([b"put"], [b"later"])


def test_a_record_that_waited_long_has_its_full_time_to_be_confirmed(bench: Bench) -> None:
    """Else it would end the producer, and leave in doubt what was sent with it."""
    bench.health.is_down = True
    bench.send(b"old")
    bench.pass_time(9.9)
    bench.health.is_down = False
    bench.send(b"new")
    bench.pass_time(0.05)
    assert bench.producer.values == [b"old"]  # alone, as after each silence
    bench.pass_time(1.0)
    bench.confirm()
    bench.pass_time(0.05)
    assert bench.producer.values == [b"old", b"new"]
    bench.confirm()
    assert bench.reports == {b"old": [None], b"new": [None]}


def test_a_record_that_was_not_asked_for_is_not_sent_and_one_that_was_given_up_neither(bench: Bench) -> None:
    asked: list[int] = []
    bench.health.is_down = True
    bench.send(b"waits", still_wanted=lambda: not asked.append(1))
    assert asked == []
    bench.health.is_down = False
    bench.pass_time(0.1)
    bench.confirm()
    assert (bench.producer.values, asked) == ([b"waits"], [1])
    bench.send(b"at once", still_wanted=lambda: not asked.append(2))
    bench.send(b"given up", still_wanted=lambda: False)
    bench.pass_time(0.1)
    assert (bench.producer.values, asked) == ([b"waits", b"at once"], [1, 2])
    assert [str(error) for error in bench.reports[b"given up"]] == ["not sent to 't': given up before that"]


@pytest.mark.parametrize("sent", [False, True])
def test_an_expired_record_says_what_is_wrong_with_the_connection(bench: Bench, sent: bool) -> None:
    bench.health.is_down = not sent
    bench.send(b"put")
    bench.health.suspicious, bench.health.reason = True, "the broker is away"
    bench.pass_time(10.1)
    (error,) = bench.reports[b"put"]
    assert type(error) is (UnconfirmedError if sent else TransientError)
    assert str(error).endswith("; the broker is away")


def test_a_record_that_is_given_up_while_it_waits_is_not_sent(bench: Bench) -> None:
    wanted = [True]
    bench.send(b"0", still_wanted=lambda: wanted[0])
    bench.confirm()
    bench.health.is_down = True
    bench.send(b"1", b"2", still_wanted=lambda: wanted[0])
    bench.send(b"3")
    wanted.clear()
    wanted.append(False)
    bench.health.is_down = False
    bench.pass_time(0.1)
    assert bench.producer.values == [b"0", b"3"]
    assert [str(error) for error in bench.reports[b"1"]] == ["not sent to 't': given up before that"]


def test_without_expiry_records_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, **{"message.timeout.ms": "0"})
    bench.send(b"1")
    bench.health.suspicious = True
    bench.pass_time(1.0)
    bench.send(b"2")
    bench.pass_time(1e6)
    assert bench.kinds() == {b"1": [], b"2": []}


def test_a_full_queue_refuses_records(bench: Bench) -> None:
    bench.health.is_down = True
    bench.send(*(b"%d" % n for n in range(100)))
    with pytest.raises(TransportError, match="too many records wait") as caught:
        bench.send(b"too many")
    assert isinstance(caught.value.__cause__, BufferError)


def test_the_bytes_that_wait_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING_BYTES", 10)
    bench.health.is_down = True
    bench.send(b"12345678")
    with pytest.raises(TransportError, match="too many records wait"):
        bench.send(b"901")


def test_a_fatal_failure_leaves_in_doubt_what_librdkafka_had_and_sends_the_rest(bench: Bench) -> None:
    bench.send(b"1", b"2")
    bench.health.suspicious = True
    bench.pass_time(0.3)
    bench.send(b"3", b"4")
    old = bench.producer
    bench.sink._fail(bench.sink._sending, KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER))
    bench.pass_time(0.0)
    assert bench.producer is not old
    bench.confirm()
    assert bench.producer.values == [b"3", b"4"]
    bench.confirm()
    assert bench.kinds() == {
        b"1": [UnconfirmedError],
        b"2": [UnconfirmedError],
        b"3": [type(None)],
        b"4": [type(None)],
    }


def test_a_fatal_error_that_is_told_while_a_producer_is_given_up_loses_no_report(bench: Bench) -> None:
    def tell() -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL))

    bench.send(b"1", b"2")
    bench.producer.on_poll.extend([tell, tell])
    bench.sink._fail(bench.sink._sending, KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER))
    assert bench.kinds() == {b"1": [UnconfirmedError], b"2": [UnconfirmedError]}


def test_the_thread_goes_on_after_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[str] = []

    def serve() -> None:
        served.append("reports")
        bench.sink._work.set()
        if len(served) == 1:
            raise SystemError("a report failed")
        bench.sink._deadline = 0.0

    monkeypatch.setattr(bench.sink, "_poll_reports", serve)
    bench.sink._work.set()
    bench.sink._run()
    assert len(served) == 2


def test_a_refused_permission_is_certain(bench: Bench) -> None:
    bench.send(b"1")
    bench.sink._fail(bench.sink._sending, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    (error,) = bench.reports[b"1"]
    assert not isinstance(error, UnconfirmedError)
    assert "no permission" in str(error)


def test_send_replaces_a_producer_that_has_failed(bench: Bench) -> None:
    bench.send(b"1")
    old = bench.producer
    old.failure = KafkaException(KafkaError(KafkaError._FATAL))
    bench.send(b"2")
    assert bench.producer.values == [b"2"]
    bench.sink._give_up_failed()
    assert bench.kinds() == {b"1": [UnconfirmedError], b"2": []}


def test_too_large_a_record_has_an_error_of_its_own(bench: Bench) -> None:
    bench.send(b"1")
    bench.producer.report(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    bench.producer.poll(0)
    assert bench.kinds() == {b"1": [RecordTooLargeError]}
    bench.producer.failure = BufferError("full")
    with pytest.raises(RecordTooLargeError):
        bench.send(b"larger than librdkafka's empty queue")


def test_records_that_librdkafka_refuses_later_are_reported(bench: Bench) -> None:
    bench.health.is_down = True
    bench.send(b"1", b"2")
    bench.health.is_down = False
    bench.producer.failure = KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    bench.pass_time(0.1)
    assert bench.kinds() == {b"1": [RecordTooLargeError], b"2": [RecordTooLargeError]}


def test_records_wait_for_room_in_librdkafka(bench: Bench) -> None:
    bench.send(b"1")
    bench.producer.failure = BufferError("full")
    bench.send(b"2")
    bench.producer.failure = None
    bench.pass_time(0.1)
    assert bench.producer.values == [b"1", b"2"]


def test_closing_reports_what_was_not_sent_and_what_is_in_doubt(bench: Bench) -> None:
    bench.send(b"1")
    bench.health.suspicious = True
    bench.pass_time(0.3)
    bench.send(b"2")
    bench.sink._finish(bench.clock.now)
    assert bench.kinds() == {b"1": [UnconfirmedError], b"2": [TransportError]}
    assert all("closed before" in str(error) for (error,) in bench.reports.values())


def test_a_record_is_reported_once(bench: Bench) -> None:
    bench.send(b"1")
    call = bench.producer.records[0][1]
    bench.confirm()
    call(KafkaError(KafkaError._PURGE_QUEUE), None)
    assert bench.reports == {b"1": [None]}


def polls(bench: Bench) -> list[float]:
    bench.sink._poll_reports()
    return bench.producer.polled


def test_polling_ends_at_once_without_records_in_flight(bench: Bench) -> None:
    assert polls(bench) == [0]


def test_polling_continues_while_records_are_in_flight(bench: Bench) -> None:
    poll, linger = module._POLL, module._LINGER
    bench.send(b"1")
    bench.producer.on_poll.extend([lambda: None, lambda: None, bench.producer.report])
    assert polls(bench) == [0, poll, poll, linger]


def test_polling_continues_while_records_wait(bench: Bench) -> None:
    bench.health.is_down = True
    bench.send(b"1")

    def come_up() -> None:
        bench.health.is_down = False

    bench.producer.on_poll.extend([lambda: None, come_up, lambda: None, bench.producer.report])
    polls(bench)
    assert bench.reports == {b"1": [None]}

"""librdkafka's log: repetitions and partition counts."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from k2eg_rx.kafka.connection.librdkafka_log import ConsumerLog, Repetitions, librdkafka_log


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("librdkafka", logging.ERROR, __file__, 1, text, None, None)


def test_a_text_passes_once_a_minute():
    now = 100.0
    repetitions = Repetitions(clock=lambda: now)
    assert repetitions.filter(record("FAIL [a] Connect failed (after 0ms in state CONNECT)"))
    assert not repetitions.filter(
        record("FAIL [a] Connect failed (after 3ms in state CONNECT, 30 identical error(s) suppressed)")
    )
    assert repetitions.filter(record("FAIL [b] Connect failed (after 0ms in state CONNECT)"))
    now = 160.0
    assert repetitions.filter(record("FAIL [a] Connect failed (after 0ms in state CONNECT)"))


@pytest.fixture
def info_enabled() -> Iterator[None]:
    level = librdkafka_log.level
    librdkafka_log.setLevel(logging.INFO)
    yield
    librdkafka_log.setLevel(level)


def failure(client: str, broker: str, text: str) -> logging.LogRecord:
    words = ("FAIL", client, f"[thrd:{broker}]: {broker}: {text}")
    return logging.LogRecord("librdkafka", logging.ERROR, __file__, 1, "%s [%s] %s", words, None)


@pytest.mark.usefixtures("info_enabled")
def test_a_lost_broker_is_one_line_a_minute_for_all_clients_and_no_error():
    now = 100.0
    repetitions = Repetitions(clock=lambda: now)
    first = failure("k2eg-rx#consumer-1", "10.0.0.1:9092/1", "Disconnected (after 9ms in state UP)")
    assert repetitions.filter(first)
    assert (first.levelno, first.levelname) == (logging.INFO, "INFO")
    for client in range(2, 50):
        for broker in ("10.0.0.1:9092/1", "10.0.0.1:9092/bootstrap", "ssl://10.0.0.1:9092/bootstrap"):
            assert not repetitions.filter(failure(f"k2eg-rx#producer-{client}", broker, "Connect to x failed"))
    assert not repetitions.filter(failure("c", "GroupCoordinator: 10.0.0.1:9092", "Connect to x failed"))
    assert repetitions.filter(failure("c", "10.0.0.2:9092/2", "Connect to x failed")), "another broker"
    now = 160.0
    assert repetitions.filter(failure("k2eg-rx#producer-50", "10.0.0.1:9092/1", "Connect to x failed"))


@pytest.mark.usefixtures("info_enabled")
@pytest.mark.parametrize("facility", ["REQTMOUT", "METADATAUPDATE", "SESSTMOUT", "GETPID"])
def test_other_lines_of_an_outage_are_one_a_minute_for_all_partitions(facility: str):
    repetitions = Repetitions()

    def line(topic: str) -> logging.LogRecord:
        words = (
            facility,
            "k2eg-rx#producer-3",
            f"[thrd:main]: Partition {topic}(id)[0]: new leader-1 not found in cache",
        )
        return logging.LogRecord("librdkafka", logging.WARNING, __file__, 1, "%s [%s] %s", words, None)

    lines = [line(f"t{number}") for number in range(1000)]
    assert [repetitions.filter(each) for each in lines].count(True) == 1
    assert lines[0].levelno == logging.INFO


def test_a_lost_broker_is_not_logged_at_level_warning():
    librdkafka_log.setLevel(logging.WARNING)
    try:
        assert not Repetitions().filter(failure("c", "10.0.0.1:9092/1", "Connect to x failed"))
    finally:
        librdkafka_log.setLevel(logging.NOTSET)


def test_warnings_about_properties_of_other_roles_do_not_pass():
    assert not Repetitions().filter(record("CONFWARN [x] linger.ms is a producer property and will be ignored"))


def test_the_memory_is_bounded():
    now = 0.0
    repetitions = Repetitions(clock=lambda: now)
    for n in range(1000):
        repetitions.filter(record(f"text {n}"))
    assert len(repetitions._said) <= 200


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("[thrd:main]: Topic a-b.c_d (id piHeQ84YSuSzuQl6NimOlw) partition count changed from 3 to 0", ("a-b.c_d", 0)),
        ("[thrd:main]: Topic t partition count changed from 1 to 12", ("t", 12)),
    ],
)
def test_a_changed_partition_count_is_reported(text, change):
    reported: list[tuple[str, int]] = []
    ConsumerLog(lambda topic, partitions: reported.append((topic, partitions))).log(
        logging.INFO, "%s [%s] %s", "PARTCNT", "k2eg-rx#consumer-1", text
    )
    assert reported == [change]


def test_other_messages_are_logged(caplog):
    reported: list[object] = []
    with caplog.at_level(logging.INFO, logger="k2eg_rx.kafka.librdkafka"):
        ConsumerLog(lambda *change: reported.append(change)).log(
            logging.ERROR, "%s [%s] %s", "FAIL", "me", "another message"
        )
    assert reported == []
    assert "FAIL [me] another message" in caplog.text

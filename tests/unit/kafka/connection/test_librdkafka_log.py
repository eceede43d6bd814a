"""librdkafka's log: repetitions and partition counts."""

from __future__ import annotations

import logging

import pytest

from k2eg_rx.kafka.connection.librdkafka_log import ConsumerLog, Repetitions


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

"""Routes librdkafka's log to a Python logger and suppresses repetitions.

While a broker is away, each client of each thread says so at level ERROR some twenty times a second, and when it is
back, once for each partition. That is one event, which the connection's status reports; here one line a minute per
broker and kind of line, at level INFO, keeps the details.

librdkafka reports a changed partition count, or the deletion of a topic, only in its log: `ConsumerLog` parses it.

Thread safety: called on the thread that polls the client.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

from k2eg_rx.texts import get_logger

_PAUSE = 60.0  # seconds
_MOST_KNOWN = 200  # bounds the memory; when it is reached all are forgotten and at worst logged again
_VARYING = re.compile(r" \(after \d+ms in state .*\)")
# librdkafka's facilities of lines about outages: a connection failed; a request timed out; a partition has no leader
# yet; a group's session expired, which `group.py` reports; an idempotent producer waits for the coordinator
_OUTAGE = ("FAIL", "REQTMOUT", "METADATAUPDATE", "SESSTMOUT", "GETPID")
_BROKER = re.compile(r"\]: (?:GroupCoordinator: )?(?:\w+://)?(\S+?)(?:/\w+)?: ")


class Repetitions(logging.Filter):
    """Log filter that lets each text pass once a minute.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        text = record.getMessage()
        if "CONFWARN" in text:  # each client gets the whole [kafka] section, with properties of other client types
            return False
        key = _VARYING.sub("", text)
        if isinstance(record.args, tuple) and record.args and record.args[0] in _OUTAGE:
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            broker = _BROKER.search(text) if record.args[0] == "FAIL" else None
            key = f"{record.args[0]} {broker[1] if broker else ''}"
            if not librdkafka_log.isEnabledFor(logging.INFO):
                return False
        now = self._clock()
        if now - self._said.get(key, -_PAUSE) < _PAUSE:
            return False
        if len(self._said) >= _MOST_KNOWN:
            self._said.clear()
        self._said[key] = now
        return True


librdkafka_log = get_logger("k2eg_rx.kafka.librdkafka")
librdkafka_log.addHandler(logging.NullHandler())
librdkafka_log.addFilter(Repetitions())


_PARTITION_COUNT = re.compile(r"Topic (\S+) .*partition count changed from \d+ to (\d+)")


class ConsumerLog:
    """Logger of a consumer that also reports changed partition counts.

    Args:
        on_partition_count: Called with a topic and its new number of partitions; 0 if the topic was deleted.
    """

    def __init__(self, on_partition_count: Callable[[str, int], None]) -> None:
        self._on_partition_count = on_partition_count

    def log(self, level: int, text: str, *words: object) -> None:
        """Logs a message; ``words`` are librdkafka's facility, client name and text."""
        if words and words[0] == "PARTCNT" and (match := _PARTITION_COUNT.search(str(words[-1]))):
            self._on_partition_count(match[1], int(match[2]))
        librdkafka_log.log(level, text, *words)

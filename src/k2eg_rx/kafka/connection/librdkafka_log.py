"""Where librdkafka's own words go: to a logger, never to the terminal, and each of them once in a while only.

In: log records, on whichever thread polls a client. Out: the program's log. What a user has to know is told by
`TransportStatus` and by errors; this is for those who look for the cause. One thing a consumer says there and nowhere
else: that a topic it reads has vanished, or has another number of partitions.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

_PAUSE = 60.0  # seconds: while a broker is away librdkafka says so some twenty times a second
_MOST_KNOWN = 200  # texts kept at most; then all are forgotten, and at worst said again
_VARYING = re.compile(r" \(after \d+ms in state .*\)")


class Repetitions(logging.Filter):
    """Lets a text pass once a minute.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is news."""
        text = record.getMessage()
        if "CONFWARN" in text:  # every role gets the whole [kafka] section; librdkafka warns of what is another role's
            return False
        key = _VARYING.sub("", text)
        now = self._clock()
        if now - self._said.get(key, -_PAUSE) < _PAUSE:
            return False
        if len(self._said) >= _MOST_KNOWN:
            self._said.clear()
        self._said[key] = now
        return True


librdkafka_log = logging.getLogger("k2eg_rx.kafka.librdkafka")
librdkafka_log.addHandler(logging.NullHandler())
librdkafka_log.addFilter(Repetitions())


_PARTITION_COUNT = re.compile(r"Topic (\S+) .*partition count changed from \d+ to (\d+)")


class ConsumerLog:
    """A consumer's log, which is read as well.

    Args:
        on_partition_count: Called with a topic's name and its number of partitions when that has changed; 0 if the
            topic is gone. On the thread that polls the consumer.
    """

    def __init__(self, on_partition_count: Callable[[str, int], None]) -> None:
        self._on_partition_count = on_partition_count

    def log(self, level: int, text: str, *words: object) -> None:
        """Takes what librdkafka has to say: its form, then the kind, the client's name and the words."""
        if words and words[0] == "PARTCNT" and (match := _PARTITION_COUNT.search(str(words[-1]))):
            self._on_partition_count(match[1], int(match[2]))
        librdkafka_log.log(level, text, *words)

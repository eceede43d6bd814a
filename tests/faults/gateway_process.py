"""A gateway process over a provider whose PVs count.

The argument is a JSON object with `broker`, `commands`, `rate`, `first`, `kafka`, `options`, and perhaps `epics`: the
variables of an EPICS client, which then takes the place of the PVs that count. The process prints
``ready`` once it consumes commands. It reads lines: ``pause`` stops the counting and prints a JSON object with the last
value of each subscribed PV, ``resume`` continues. It exits at the end of the input.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from k2eg_rx.gateway import Gateway, GatewayOptions, PVReading, with_gateway_defaults
from k2eg_rx.gateway.epics.pva_provider import PVAccessProvider
from k2eg_rx.gateway.fleet.state_log import KafkaStateLog
from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.kafka.metadata.topic_admin import KafkaTopicAdmin
from k2eg_rx.protocol.structures import Structure
from k2eg_rx.pv import PVAddress
from k2eg_rx.settings import Settings


class _Subscription:
    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close


class CountingProvider:
    """Has a PV of every name; subscribed PVs count, all at one rate. A get of `silent` is never answered.

    Args:
        rate: Steps per second.
        first: The first value of every PV.
    """

    def __init__(self, rate: float, first: int) -> None:
        self._period = 1 / rate
        self._first = first
        self._lock = threading.RLock()
        self._values: dict[str, int] = {}
        self._listeners: dict[object, tuple[str, Callable[[Structure], None]]] = {}
        self.counting = threading.Event()
        self.counting.set()
        threading.Thread(target=self._count, daemon=True).start()

    def _structure(self, name: str) -> Structure:
        nanoseconds = time.time_ns()
        return {
            "value": self._values.get(name, self._first),
            "alarm": {"severity": 0, "status": 0, "message": ""},
            "timeStamp": {
                "secondsPastEpoch": nanoseconds // 10**9,
                "nanoseconds": nanoseconds % 10**9,
                "userTag": 0,
            },
        }

    def _count(self) -> None:
        due = time.monotonic()
        while self.counting.wait():
            due = max(due + self._period, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))
            with self._lock:
                if self.counting.is_set():
                    self._step()

    def _step(self) -> None:
        for name in {name for name, _ in self._listeners.values()}:
            self._values[name] += 1
        for name, on_update in list(self._listeners.values()):
            on_update(self._structure(name))

    def pause(self) -> dict[str, int]:
        with self._lock:
            self.counting.clear()
            return dict(self._values)

    def get(self, address: PVAddress, timeout: float) -> Future[PVReading]:
        future: Future[PVReading] = Future()
        if address.name != "silent":
            future.set_result(PVReading(self._structure(address.name), {}))
        return future

    def put(
        self,
        address: PVAddress,
        fields: Mapping[str, Any],
        timeout: float,
        *,
        wait: bool = False,
        on_written: Callable[[], None] = lambda: None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> Future[None]:
        future: Future[None] = Future()
        if may_send():
            future.set_result(None)
        return future

    def subscribe(
        self,
        address: PVAddress,
        on_update: Callable[[Structure], None],
        on_connection: Callable[[bool], None],
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> _Subscription:
        key = object()
        with self._lock:
            self._values.setdefault(address.name, self._first)
            self._listeners[key] = (address.name, on_update)
            on_connection(True)
            on_update(self._structure(address.name))
        return _Subscription(lambda: self._unsubscribe(key))

    def _unsubscribe(self, key: object) -> None:
        with self._lock:
            self._listeners.pop(key, None)

    def close(self) -> None:
        pass


def main() -> None:
    arguments = json.loads(sys.argv[1])
    commands, kafka = arguments["commands"], arguments["kafka"]
    counting = CountingProvider(arguments["rate"], arguments["first"])
    provider = PVAccessProvider(arguments["epics"]) if arguments.get("epics") else counting
    settings = with_gateway_defaults(Settings("faults", arguments["broker"], commands, "unused", kafka))
    transport = KafkaTransport(settings)
    options = GatewayOptions(**arguments["options"])
    admin = KafkaTopicAdmin(settings, options.ignored_groups) if options.create_topics else None
    state_log = KafkaStateLog.of(transport, admin, options) if admin is not None else None
    with Gateway(
        transport, {"pva": provider, "ca": provider}, options, commands, admin, state_log=state_log
    ) as gateway:
        print("ready", flush=True)
        for line in sys.stdin:
            if line == "resume\n":
                counting.counting.set()
            else:
                print(json.dumps({"last": counting.pause(), "counters": gateway.metrics.as_dict()}), flush=True)
    transport.close(1.0)


if __name__ == "__main__":
    main()

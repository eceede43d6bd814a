"""Test kit for scripts: a scripted gateway in virtual time, without broker or IOC.

A script and its test::

    def write_average(client, source, target, count):
        return client.monitor_stream(source).pipe(
            ops.map(lambda update: update.value),
            ops.buffer_with_count(count, 1),
            ops.filter(lambda values: len(values) == count),
            ops.flat_map(lambda values: client.put_stream(target, sum(values) / count)),
        ).subscribe()

    pytest_plugins = ["k2eg_rx.testing.fixtures"]  # k2eg_gateway and k2eg_client

    def test_average_is_written(k2eg_gateway, k2eg_client):
        current = k2eg_gateway.pv("demo:current", 0.0, units="A")
        average = k2eg_gateway.pv("demo:average", 0.0, units="A")
        write_average(k2eg_client, "pva://demo:current", "pva://demo:average", count=3)
        for value in (3.0, 6.0, 9.0):
            current.post(value)
        assert average.puts == [3.0, 6.0]

Scripts that create their own `Client` or `dml` are connected to the test's gateway too. It runs the code of
`k2eg_rx.gateway` on PVs that are Python objects:

- `ScriptedGateway`: `pv(...)`, `advance(seconds)`, `faults` (failed, lost, garbled and late replies), `go_down` and
  `come_up`, `broker.go_down` and `broker.come_up`, `commands` (received so far).
- `ScriptedPV`: `post`, `puts`, `value`, `disconnect` and `connect`, `delay`, `on_put`, `read_only`.
- `VirtualClock`: the time and reactivex scheduler; `running()` for scripts that wait by other means.
- `update`, `series`, `snapshot`, `structure`: build items of streams from plain values, for tests of operators.
- `MemoryBroker`, `MemoryTransport`: Kafka in memory, with threads and in real time.
"""

from k2eg_rx.testing.faults import Faults
from k2eg_rx.testing.memory_transport import MemoryBroker, MemoryTransport
from k2eg_rx.testing.scripted_gateway import ScriptedGateway
from k2eg_rx.testing.scripted_pvs import PutRejectedError, ScriptedPV
from k2eg_rx.testing.stream_items import series, snapshot, update
from k2eg_rx.testing.structures import START, structure
from k2eg_rx.testing.virtual_clock import ClockStalledError, EndlessLoopError, VirtualClock

__all__ = [
    "START",
    "ClockStalledError",
    "EndlessLoopError",
    "Faults",
    "MemoryBroker",
    "MemoryTransport",
    "PutRejectedError",
    "ScriptedGateway",
    "ScriptedPV",
    "VirtualClock",
    "series",
    "snapshot",
    "structure",
    "update",
]

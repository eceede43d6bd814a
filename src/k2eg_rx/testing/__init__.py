"""For those who test their own scripts: a scripted gateway in virtual time, without broker or IOC, in milliseconds.

A script, and its test::

    def write_average(client, source, target, count):
        return client.monitor_stream(source).pipe(
            ops.map(lambda update: update.value),
            ops.buffer_with_count(count, 1),
            ops.filter(lambda values: len(values) == count),
            ops.flat_map(lambda values: client.put_stream(target, sum(values) / count)),
        ).subscribe()

    pytest_plugins = ["k2eg_rx.testing.fixtures"]  # k2eg_gateway and k2eg_client

    def test_the_average_is_written_back(k2eg_gateway, k2eg_client):
        current = k2eg_gateway.pv("demo:current", 0.0, units="A")
        average = k2eg_gateway.pv("demo:average", 0.0, units="A")
        write_average(k2eg_client, "pva://demo:current", "pva://demo:average", count=3)
        for value in (3.0, 6.0, 9.0):
            current.post(value)
        assert average.puts == [3.0, 6.0]

A script that makes its own `Client` or `dml` comes to the gateway of the test as well. What it does is done by the
gateway's own code, on PVs that are Python objects:

- `ScriptedGateway`: `pv(...)`, `advance(seconds)`, `faults` (refused, lost, garbled and late answers), `go_down` and
  `come_up`, `broker.go_down` and `broker.come_up`, `commands` (what was asked).
- `ScriptedPV`: `post`, `puts`, `value`, `disconnect` and `connect`, `delay`, `on_put`, `read_only`.
- `VirtualClock`: the time, a reactivex scheduler; `running()` for scripts that wait in ways of their own.
- `update`, `series`, `snapshot`, `structure`: what streams emit, made of plain values, for tests of operators.
- `MemoryBroker`, `MemoryTransport`: Kafka in memory, with threads and in real time.
"""

from k2eg_rx.testing.faults import Faults
from k2eg_rx.testing.memory_transport import MemoryBroker, MemoryTransport
from k2eg_rx.testing.scripted_gateway import ScriptedGateway
from k2eg_rx.testing.scripted_pvs import Refused, ScriptedPV
from k2eg_rx.testing.stream_items import series, snapshot, update
from k2eg_rx.testing.structures import START, structure
from k2eg_rx.testing.virtual_clock import Stuck, Unsettled, VirtualClock

__all__ = [
    "START",
    "Faults",
    "MemoryBroker",
    "MemoryTransport",
    "Refused",
    "ScriptedGateway",
    "ScriptedPV",
    "Stuck",
    "Unsettled",
    "VirtualClock",
    "series",
    "snapshot",
    "structure",
    "update",
]

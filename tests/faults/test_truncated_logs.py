"""A power cut of the broker, after which the last records of its logs are missing and their offsets are used again."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from gateway_process import CountingProvider

from k2eg_rx import first
from k2eg_rx.gateway import Gateway, GatewayOptions, Provider, with_gateway_defaults
from k2eg_rx.kafka import KafkaTopicAdmin, KafkaTransport
from k2eg_rx.pv import Protocol, PVAddress

COUNTER, SET_POINT = "pva://power-cut:counter", "pva://power-cut:set-point"


class WritableProvider(CountingProvider):
    """Keeps the values of the puts."""

    def __init__(self) -> None:
        super().__init__(rate=20.0, first=0)
        self.puts: list[object] = []

    def put(self, address: PVAddress, fields: Mapping[str, Any], timeout: float, **options: Any) -> Future[None]:
        self.puts.append(fields["value"])
        return super().put(address, fields, timeout, **options)


def test_no_put_is_repeated_and_no_monitor_goes_back(
    make_apache_kafka: Any, make_site: Any, make_collector: Any
) -> None:
    broker = make_apache_kafka()
    site = make_site(broker.address)
    settings = with_gateway_defaults(site.settings("gateway"))
    provider = WritableProvider()
    alone, sharing, since, afterwards = (make_collector() for _ in range(4))
    with ExitStack() as stack:
        transport = KafkaTransport(settings)
        stack.callback(transport.close, 1.0)
        providers: Mapping[Protocol, Provider] = {"pva": provider, "ca": provider}
        admin = KafkaTopicAdmin(settings)
        stack.enter_context(Gateway(transport, providers, GatewayOptions(), settings.command_topic, admin))
        client, member = site.client(), site.client(group_name="sharing")
        for value in range(5):
            first(client.put_stream(SET_POINT, value, check=False))
        hour = timedelta(hours=1)
        client.monitor_stream(COUNTER).subscribe(alone.on_next, alone.on_end, alone.on_end)
        member.monitor_stream(COUNTER).subscribe(sharing.on_next, sharing.on_end, sharing.on_end)
        client.monitor_stream(COUNTER, since=hour).subscribe(since.on_next, since.on_end, since.on_end)
        for collector in (alone, sharing, since):
            collector.wait_until(lambda collector=collector: bool(collector.values), "the PV")
            collector.wait_for_progress(20)
        last = provider.pause()
        for collector in (alone, sharing, since):
            collector.wait_for_last_values(last)

        broker.kill()
        broker.lose_records(settings.command_topic, 3)
        broker.lose_records("power-cut_counter", 10)
        broker.start()
        another = site.client()
        for value in range(5, 10):  # more commands than were lost
            first(another.put_stream(SET_POINT, value, check=False))
        another.monitor_stream(COUNTER, since=hour).subscribe(afterwards.on_next, afterwards.on_end, afterwards.on_end)
        provider.counting.set()
        afterwards.wait_until(lambda: bool(afterwards.values), "the PV")
        for collector in (alone, sharing, since, afterwards):
            collector.wait_for_progress(20)
    assert provider.puts == list(range(10))
    for collector in (alone, sharing, since, afterwards):
        (values,) = collector.values.values()
        assert values == sorted(set(values)), "values repeat"

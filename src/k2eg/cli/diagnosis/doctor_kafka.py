"""The checks of ``k2eg doctor`` about Kafka: from host names to topics and rights.

Thread safety: main thread.
"""

from __future__ import annotations

import threading
from argparse import Namespace
from contextlib import ExitStack
from functools import cached_property

from k2eg.cli.demo_registry import require_running_demo
from k2eg.cli.diagnosis.doctor_checks import Checks, Finding, Result, failure
from k2eg.cli.session import CLOSE_SECONDS
from k2eg_rx import Client, ConnectionState, Settings, first, load_settings
from k2eg_rx.kafka import (
    KafkaInspection,
    KafkaTransport,
    TopicFinding,
    bootstrap_addresses,
    connection_failure,
    resolution_failure,
)
from k2eg_rx.transport import TransportStatus

_CONNECT = 10.0  # seconds for Kafka's first answer, or the reason why there is none


class KafkaChecks:
    """Checks Kafka.

    Args:
        checks: Runs the checks.
        arguments: Those of the command line.
        stack: Closes what the checks open.
    """

    def __init__(self, checks: Checks, arguments: Namespace, stack: ExitStack) -> None:
        self._checks = checks
        self._arguments = arguments
        self._stack = stack
        self._topics: dict[str, TopicFinding] = {}

    @cached_property
    def settings(self) -> Settings:
        """The environment."""
        return load_settings(self._arguments.environment, self._arguments.app)

    @cached_property
    def inspection(self) -> KafkaInspection:
        """Looks at the cluster."""
        return KafkaInspection(self.settings)

    @cached_property
    def transport(self) -> KafkaTransport:
        """A connection of its own."""
        transport = KafkaTransport(self.settings)
        self._stack.callback(transport.close, CLOSE_SECONDS)
        return transport

    @cached_property
    def client(self) -> Client:
        """A client."""
        client = Client(self.settings.environment_id, self._arguments.app, settings=self.settings)
        self._stack.callback(client.close, CLOSE_SECONDS)
        return client

    def run(self) -> None:
        """Runs the checks."""
        run = self._checks.run
        run("properties", ["settings"], self._properties)
        run("host names", ["properties"], self._host_names)
        run("brokers", ["host names"], self._brokers)
        run("TLS and SASL", ["brokers"], self._security)
        run("all brokers", ["TLS and SASL"], self._advertised)
        run("command topic", ["TLS and SASL"], self._command_topic)
        run("reply topic", ["TLS and SASL"], self._reply_topic)
        run("rights", ["command topic"], self._rights)

    def _properties(self) -> Finding:
        require_running_demo(self.settings)
        _ = self.inspection
        return Finding("properties", Result.OK, "Kafka's library accepts the properties in [kafka]")

    def _host_names(self) -> list[Finding]:
        hosts = list(dict.fromkeys(host for host, _ in bootstrap_addresses(self.settings)))
        failures = {host: text for host in hosts if (text := resolution_failure(host))}
        found = [
            failure("host names", f"{host} has no address: {text}", "correct kafka_broker_url, or ask for a DNS entry")
            for host, text in failures.items()
        ]
        if len(failures) < len(hosts):  # one is enough to get on
            found = [Finding(each.check, Result.WARNING, each.text, each.remedy) for each in found]
        known = ", ".join(host for host in hosts if host not in failures)
        return found or [Finding("host names", Result.OK, f"found: {known}")]

    def _brokers(self) -> list[Finding]:
        addresses = [f"{host}:{port}" for host, port in bootstrap_addresses(self.settings)]
        failures = {address: text for address in addresses if (text := connection_failure(address))}
        remedy = "check that the broker runs, its port, and that no firewall is in between"
        found = [failure("brokers", f"{each} accepts no connection: {text}", remedy) for each, text in failures.items()]
        if len(failures) < len(addresses):
            found = [Finding(each.check, Result.WARNING, each.text, each.remedy) for each in found]
        return found or [Finding("brokers", Result.OK, f"connected to {', '.join(addresses)}")]

    def _security(self) -> Finding:
        known, done = list[TransportStatus](), threading.Event()

        def on_status(status: TransportStatus) -> None:
            known.append(status)
            if status.refused or status.connection is ConnectionState.UP:
                done.set()  # another failure may pass, while Kafka starts

        self.transport.on_status(on_status)
        protocol = self.settings.kafka_of_producers.get("security.protocol", "plaintext").upper()
        done.wait(_CONNECT)
        last = known[-1] if known else TransportStatus(ConnectionState.CONNECTING)
        if last.connection is ConnectionState.CONNECTING:
            text = f"Kafka did not answer within {_CONNECT:g} s, though its port accepts connections"
            return failure("TLS and SASL", text, f"check that it speaks {protocol}: security.protocol in [kafka]")
        if last.refused or last.connection is ConnectionState.DOWN:
            return failure("TLS and SASL", last.reason)
        return Finding("TLS and SASL", Result.OK, f"Kafka answers over {protocol}")

    def _advertised(self) -> Finding | list[Finding]:
        count, texts = self.inspection.unreachable_brokers()
        text = f"{count} broker{'s' * (count != 1)}, all of them reachable under the addresses that Kafka names"
        return [failure("all brokers", each) for each in texts] or Finding("all brokers", Result.OK, text)

    def _topic(self, name: str) -> TopicFinding:
        if name not in self._topics:
            self._topics[name] = self.inspection.topic(name)
        return self._topics[name]

    def _command_topic(self) -> Finding:
        name = self.settings.command_topic
        topic = self._topic(name)
        if topic.problem:
            return failure("command topic", topic.problem)
        if not topic.partitions and self.inspection.is_embedded:
            return Finding("command topic", Result.OK, f"{name} does not exist yet: the first command creates it")
        if not topic.partitions:
            create = f"correct k2eg_cmd_topic, or create it: {self.inspection.create_command(name)}"
            return failure("command topic", f"{name} does not exist", create)
        text = f"{name} exists, partitions: {topic.partitions}"
        if self.inspection.has_append_time(name) is False:
            remedy = "set message.timestamp.type=LogAppendTime on it, so that the age of puts is by one clock"
            return Finding("command topic", Result.WARNING, f"{text}; its time stamps are those of clients", remedy)
        return Finding("command topic", Result.OK, text)

    def _reply_topic(self) -> Finding:
        name = self.settings.reply_topic
        topic = self._topic(name)
        if topic.problem:
            return failure("reply topic", topic.problem)
        if topic.partitions:
            return Finding("reply topic", Result.OK, f"{name} exists")
        self._topics.pop(name)
        first(self.client.ready_stream(self._arguments.timeout))  # makes it, as every program does
        return Finding("reply topic", Result.OK, f"{name} did not exist, and was created")

    def _rights(self) -> list[Finding]:
        wanted = {self.settings.command_topic: "WRITE"}
        if self._checks.passed("reply topic"):
            wanted[self.settings.reply_topic] = "READ"
        found: list[Finding] = []
        for name, right in wanted.items():
            operations = self._topic(name).operations
            if operations is not None and not {right, "ALL"} & set(operations):
                remedy = f"ask for an ACL: {right} and DESCRIBE on topic {name!r}"
                found.append(failure("rights", f"this user has no permission to {right} {name}", remedy))
            elif operations is None:
                text = f"because this broker does not tell those on {name}"
                found.append(Finding("rights", Result.NOT_CHECKED, text))
        granted = ", ".join(f"{right} {name}" for name, right in wanted.items())
        return found or [Finding("rights", Result.OK, granted)]

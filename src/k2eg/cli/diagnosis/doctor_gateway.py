"""The checks of ``k2eg doctor`` about gateways and PVs.

Thread safety: main thread; what is received is collected on one of the client's threads.
"""

from __future__ import annotations

import json
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from reactivex import operators as ops

from k2eg.cli.diagnosis.doctor_checks import Checks, Finding, Result, failure
from k2eg.cli.diagnosis.doctor_kafka import KafkaChecks
from k2eg.cli.printing.live_rows import format_age
from k2eg_rx import ConnectionEvent, GatewayReport, OperationError, PVUpdate, first
from k2eg_rx.protocol import START_KEY, Structure, choice_of, timestamp_of
from k2eg_rx.pv import gateway_topic
from k2eg_rx.transport import Record

_LOCATE = 3.0  # seconds for Kafka to find records, and to send the first
_WATCH = 3.0  # seconds for which updates are counted
_CLOCK_WARNING = 1.0  # seconds; synchronized clocks differ by milliseconds
_CLOCK_FAILURE = 5.0  # seconds in the future from which gateways carry out no put
_MOST_STARTS = 5  # that are named


class GatewayChecks:
    """Checks gateways and PVs.

    Args:
        checks: Runs the checks.
        arguments: Those of the command line.
        kafka: The checks of Kafka, which have the connections.
    """

    def __init__(self, checks: Checks, arguments: Namespace, kafka: KafkaChecks) -> None:
        self._checks = checks
        self._uris: Sequence[str] = tuple(dict.fromkeys(arguments.uris))
        self._timeout: float = arguments.timeout
        self._kafka = kafka
        self._reports: Sequence[GatewayReport] = ()
        self._sent = self._received = 0.0

    def run(self) -> None:
        """Runs the checks."""
        run = self._checks.run
        run("starts", ["command topic"], self._starts)
        run("group members", ["command topic"], self._members)
        run("gateway", ["command topic", "reply topic", "rights"], self._gateway)
        run("versions", ["gateway"], self._versions)
        run("clock of gateway", ["gateway"], self._gateway_clocks)
        run("clock of Kafka", ["gateway"], self._kafka_clock)
        if self._uris:
            run("PVs", ["gateway"], self._pvs)

    def _records(self, topic: str, newest: int) -> Sequence[Record]:
        """Returns the newest records of a topic, as many of each partition."""
        history = self._kafka.transport.history([topic])
        try:
            spans = history.locate(0, None, _LOCATE) or {}
            wanted = {
                place: max(span.begin, span.end - newest) for place, span in spans.items() if span.end > span.begin
            }
            records: list[Record] = []
            deadline = time.monotonic() + _LOCATE
            while wanted and time.monotonic() < deadline:
                read = history.read(wanted, _LOCATE / 10)
                records.extend(read.records)
                wanted.update({(record.topic, record.partition): record.offset + 1 for record in read.records})
                wanted = {place: at for place, at in wanted.items() if at < spans[place].end and place not in read.ends}
            return records
        finally:
            history.close()

    def _starts(self) -> Finding:
        topic = gateway_topic(self._kafka.settings.command_topic)
        starts: list[tuple[int, str]] = []
        for record in self._records(topic, _MOST_STARTS) if self._exists(topic) else ():
            try:
                body: Any = json.loads(record.value or b"") if record.key == START_KEY else None
                if body is not None:
                    starts.append((int(body["epoch"]), f"{body['gateway']} (version {body['version'] or 'unknown'})"))
            except (ValueError, KeyError, TypeError):
                continue
        if not starts:
            text = f"no gateway has published its start in {topic}; those of other kinds do not, and records expire"
            return Finding("starts", Result.OK, text)
        last = sorted(starts)[-_MOST_STARTS:]
        ages = (f"{name} {format_age(time.time() - at / 1000)} ago" for at, name in reversed(last))
        return Finding("starts", Result.OK, ", ".join(ages))

    def _exists(self, topic: str) -> bool:
        return self._kafka.inspection.topic(topic).partitions > 0

    def _members(self) -> Finding:
        topic = self._kafka.settings.command_topic
        known = self._kafka.inspection.readers([topic])
        if known is None:
            return Finding("group members", Result.NOT_CHECKED, "because this cluster does not tell")
        groups = known[topic]
        if not groups:
            remedy = f"start a gateway for this topic: k2eg -e {self._kafka.settings.environment_id} gateway"
            text = f"no consumer group that this user may see reads {topic}"
            return Finding("group members", Result.WARNING, text, remedy)
        texts = [f"{group.name}: {len(group.members)} ({', '.join(group.members)})" for group in groups]
        return Finding("group members", Result.OK, "; ".join(texts))

    def _gateway(self) -> Finding:
        client = self._kafka.client
        first(client.ready_stream(self._timeout))
        self._sent = time.time()

        def note(_: GatewayReport) -> None:
            self._received = self._received or time.time()

        try:
            collected = client.gateways_stream(min(self._timeout, 3.0)).pipe(ops.do_action(note), ops.to_list())
            self._reports = first(collected)
        except OperationError:  # it has answered
            return Finding("gateway", Result.OK, "a gateway answers; it is of another kind, which tells no more")
        took = (self._received - self._sent) * 1000
        names = ", ".join(report.gateway for report in self._reports)
        count = len(self._reports)
        return Finding(
            "gateway", Result.OK, f"{count} gateway{'s' * (count != 1)} answered, first in {took:.0f} ms: {names}"
        )

    def _versions(self) -> list[Finding]:
        if not self._reports:
            return [Finding("versions", Result.NOT_CHECKED, "because the gateway does not tell")]
        found: list[Finding] = []
        versions = sorted({report.version or "unknown" for report in self._reports})
        if len(versions) > 1:
            remedy = "upgrade the older ones"
            found.append(Finding("versions", Result.WARNING, f"several versions: {', '.join(versions)}", remedy))
        else:
            found.append(Finding("versions", Result.OK, f"version {versions[0]}"))
        answered = {report.member for report in self._reports}
        missing = sorted({name for report in self._reports for name in report.members} - answered)
        if missing:
            text = f"gateways that share the PVs and did not answer: {', '.join(missing)}"
            found.append(failure("versions", text, "look whether these processes run, and at their logs"))
        for report in self._reports:
            wrong = [report.reason, report.problem, *report.providers.values()]
            texts = [f"{report.gateway}: {text}" for text in wrong if text]
            found.extend(Finding("versions", Result.WARNING, text, "see its log") for text in texts)
        return found

    def _gateway_clocks(self) -> list[Finding]:
        here, error = (self._sent + self._received) / 2, (self._received - self._sent) / 2
        return [
            _clock("clock of gateway", report.time_ms / 1000 - here, error, report.gateway)
            for report in self._reports
            if report.time_ms
        ] or [Finding("clock of gateway", Result.NOT_CHECKED, "because the gateway does not tell")]

    def _kafka_clock(self) -> Finding:
        records = self._records(self._kafka.settings.command_topic, 1)
        stamped = [record.timestamp_ms / 1000 for record in records if record.is_append_time]
        if not stamped:
            text = "because Kafka does not set the time stamps of the command topic, or this user may not read it"
            return Finding("clock of Kafka", Result.NOT_CHECKED, text)
        error = (self._received or time.time()) - self._sent
        return _clock("clock of Kafka", max(stamped) - self._sent, error, "Kafka")

    def _pvs(self) -> Iterator[Finding]:
        seen = _watch(self._kafka, self._uris, self._timeout)
        for uri in self._uris:
            yield _finding_of(uri, seen[uri])


def _clock(check: str, difference: float, error: float, whose: str) -> Finding:
    certain = max(abs(difference) - error, 0.0)
    if certain < _CLOCK_WARNING:
        text = f"{whose} and this host differ by {abs(difference):.3f} s, measured to {error:.3f} s"
        return Finding(check, Result.OK, text)
    text = f"{whose} is {abs(difference):.3f} s {'ahead of' if difference >= 0 else 'behind'} this host"
    result = Result.FAILED if certain >= _CLOCK_FAILURE else Result.WARNING
    return Finding(check, result, text, "synchronize both clocks: gateways refuse puts that seem old or of the future")


@dataclass
class _Seen:
    """What has come of a PV."""

    updates: int = 0
    last: PVUpdate | None = None
    connection: ConnectionEvent | None = None
    times: list[float] = field(default_factory=list[float])


def _watch(kafka: KafkaChecks, uris: Sequence[str], timeout: float) -> Mapping[str, _Seen]:
    """Monitors PVs until each is known, and then for some seconds more."""
    seen = {uri: _Seen() for uri in uris}
    known, lock, errors = threading.Event(), threading.Lock(), list[Exception]()

    def take(of_pv: _Seen, item: PVUpdate | ConnectionEvent) -> None:
        with lock:
            if isinstance(item, ConnectionEvent):
                of_pv.connection = item
            else:
                of_pv.last = item
                of_pv.times.append(time.monotonic())
            if all(each.last or (each.connection and not each.connection.is_connected) for each in seen.values()):
                known.set()

    def end(error: Exception) -> None:
        errors.append(error)
        known.set()

    subscriptions = [
        kafka.client.monitor_stream(uri, connection=True).subscribe(partial(take, each), end)
        for uri, each in seen.items()
    ]
    try:
        known.wait(timeout)
        begin = time.monotonic()
        threading.Event().wait(0.0 if errors else _WATCH)
    finally:
        for subscription in subscriptions:
            subscription.dispose()
    if errors:
        raise errors[0]
    with lock:
        for each in seen.values():
            each.updates = sum(at >= begin for at in each.times)
    return seen


def _finding_of(uri: str, seen: _Seen) -> Finding:
    tool = "caget" if uri.startswith("ca:") else "pvget"
    remedy = f"check that its IOC runs and is found; on the gateway's host: {tool} {uri.partition('://')[2]}"
    connection, last = seen.connection, seen.last
    if connection is not None and not connection.is_connected:
        state = connection.state.value.replace("_", " ")
        return failure("PVs", f"{uri}: {state}: {connection.reason}", remedy)
    if last is None:
        return failure("PVs", f"{uri}: the gateway has not published a value", remedy)
    stamp = timestamp_of(last.data)
    age = "undefined" if not stamp else format_age(time.time() - stamp / 1e9)
    host = f" at {connection.host}" if connection is not None and connection.host else ""
    rate = f"{seen.updates / _WATCH:.1f} updates/s"
    return Finding("PVs", Result.OK, f"{uri}: connected{host}, {_kind(last.data)}, age {age}, {rate}")


def _kind(data: Structure) -> str:
    """Returns the type of a PV's value, as far as the value shows it."""
    value: Any = data.get("value")
    choice = choice_of(data)
    if choice is not None:
        return f"enum ({', '.join(choice[1])})"
    if isinstance(value, list):
        return f"array of {len(cast('list[Any]', value))}"
    if isinstance(value, dict):
        return f"structure of {', '.join(cast('dict[str, Any]', value))}"
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "floating point number", str: "string"}
    return names.get(cast("type[object]", type(value)), "no value")

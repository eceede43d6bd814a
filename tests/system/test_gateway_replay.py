"""Replays recorded commands of the deployed gateway and compares the messages of this one.

tests/data/gateway_messages.jsonl holds the recorded cases: a command with its text, or a message with topic, key,
headers and decoded body, each with `t_ms` since the start of the case. There are at most ten events per case, and
arrays are cut to eight elements; a number that JSON lacks is `{"__float__": ...}`. The gateway runs as a process, like
at a site. Shapes, codes, keys and topics must be the same; each intended difference has a name below.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from k2eg_rx.embedded.broker import EmbeddedBroker
from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import merge_client_environments, without_epics
from k2eg_rx.kafka import KafkaTransport
from k2eg_rx.protocol import connection_event
from k2eg_rx.protocol.decode import PROTOCOL_HEADER, decode_body
from k2eg_rx.settings import Settings
from k2eg_rx.transport.interfaces import Receiver, Record

pytestmark = pytest.mark.timeout(360)  # the replay takes about 20 s, mostly recorded timeouts and time windows

DATA = Path(__file__).parents[1] / "data"
COMMANDS = "replayed-commands"
# What the deployed gateway does not write, and clients that do not know it ignore.
OWN_HEADERS = {PROTOCOL_HEADER}
OWN_KEYS = {"gateway_topic", "tags"}  # of a reply; of a header: the tags of the trigger
# What the newest gateways write into the messages of recurring snapshots, and the recorded one did not yet, behind
# everything else. A test below looks at it.
SEQUENCE_KEYS = {"msg_seq", "total_messages", "submission_seq", "last_submission_data"}
GATEWAY = """
import sys
from k2eg_rx.gateway.service import run_gateway
from k2eg_rx.settings import load_settings
sys.exit(run_gateway(load_settings("replay", "gateway"), ready=lambda: print("ready", flush=True)))
"""


@dataclass
class Case:
    """A recorded case."""

    commands: list[tuple[float, str]] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def reply_ids(self) -> list[str]:
        texts = " ".join(text for _, text in self.commands)
        return [reply_id for reply_id in re.findall(r'"reply_id": "([^"]*)"', texts) if reply_id]


def recorded() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for line in (DATA / "gateway_messages.jsonl").read_text().splitlines():
        message = json.loads(line)
        case = cases.setdefault(message["case"], Case())
        if message["kind"] == "command":
            case.commands.append((message["t_ms"] / 1000, message["text"]))
        else:
            (case.replies if "reply_id" in message["body"] else case.events).append(message)
    return cases


CASES = recorded()

NOT_REPRODUCED = {
    r"startup/.*": "needs a restart of the gateway; this one does not restore monitors",
    r"disconnect/.*": "needs servers that stop and start within a case",
}


class Difference(NamedTuple):
    """An intended difference in the replies to the commands of some cases.

    Attributes:
        name: What differs.
        cases: A pattern of case names.
        replies: Code and message pattern (None: no message) of all replies, in any order. None: the recorded codes with
            other messages.
    """

    name: str
    cases: str
    replies: Sequence[tuple[int, str | None]] | None


TYPE_ERROR = r"put/(pva|ca)/(float to int|string number|string garbage|bool to|nil to|list to|number to)[^/]*"
STOPPED = (0, "Snapshot '.*' has been stopped")
STARTED = (0, "The snapshot '.*' has been started")
DIFFERENCES = [
    Difference(
        "commands before the first partition assignment are not lost", r"get/pva/json/variable:(a|sum)", [(0, None)]
    ),
    Difference(
        "a field is read, not its record", r"get/uri/.*\.(HIGH|DESC)|put/(pva|ca)/field uri/readback", [(0, None)]
    ),
    Difference("pv:// is not a protocol", r"get/uri/pv://t:ao", [(-1, "PV name malformed")]),
    Difference(
        "names with all characters of EPICS are accepted",
        r"get/malformed/'(pva://variable:a/x|ca://variable:\{a\})'",
        [(-3, "Timeout operation")],
    ),
    Difference(
        "a put that times out says whether it was sent",
        r"put/nonexistent.*",
        [(-3, "Timeout operation: nothing was written, and nothing will be")] * 4,
    ),
    Difference("a command that is not a string is answered", r"bad/command not a string", [(-1, None)]),
    Difference("info is answered", r"bad/info command", [(-1, None)]),
    Difference("type errors have a text", rf"{TYPE_ERROR}|put/.*/(out of range int8|int key)", None),
    Difference("an enum takes a label as its index", r"put/(pva|ca)/enum nested label", [(0, "Successfull operation")]),
    Difference("a scalar for an array has a text", r"put/ca/scalar to array", None),
    Difference("an unknown column has a text", r"put/p4p/table (wrong|one) column", None),
    Difference("an empty array is an array", r"put/ca/empty array", [(0, "Successfull operation")]),
    Difference("bytes are an array of bytes", r"put/ca/bytes to char array", [(0, "Successfull operation")]),
    Difference(
        "an int64 that Channel Access would round is refused", r"put/ca/int64 array", [(-2, "cannot be held exactly")]
    ),
    Difference("truncated MessagePack is reported", r"put/base64 wrong padding", [(-2, "not MessagePack")]),
    Difference("invalid MessagePack is answered", r"put/msgpack invalid byte 0xc1", [(-2, "not MessagePack")]),
    Difference("a malformed name is refused", r"monitor/malformed uri", [(-1, "PV name malformed")]),
    Difference(
        "a malformed name refuses the whole multi-monitor", r"multi-monitor/one malformed", [(-1, "malformed: 'bad'")]
    ),
    Difference(
        "a negative window is refused, and completes",
        r"snapshot/time_window_msec=-5",
        [(-4, "The time window is not valid: -5"), (1, None)],
    ),
    Difference(
        "a malformed name drops no other PV",
        r"snapshot/one malformed uri",
        [(-1, "PV 'bad'name malformed"), (0, None), (1, None)],
    ),
    Difference(
        "a trigger directly after the start works",
        r"rsnap/triggered normal: trigger immediately after start",
        [STARTED, (0, "Snapshot 'rt-imm' has been armed"), STOPPED],
    ),
    Difference(
        "a name in use with other PVs is refused",
        r"rsnap/start twice same name",
        [STARTED, (-8, "Snapshot rn-2x is in use with other PVs"), STOPPED],
    ),
    Difference(
        "a filter field that a PV lacks is skipped",
        r"rsnap/timedbuffered/(msgpack/filter value,timeStamp,nonexistent|json/filter nothing valid)",
        [STARTED, STOPPED],
    ),
    Difference(
        "a dotted filter is refused",
        r"rsnap/timedbuffered/json/filter nested alarm.severity",
        [(-7, "The field filter 'alarm.severity' is not valid"), (0, "Snapshot 'tb-6' is already stopped")],
    ),
]

# Intended differences in structures: name, and predicate of path, recorded value, new value and whether it is JSON.
IN_VALUES: dict[str, Callable[[str, Any, Any, bool], bool]] = {
    "booleans are booleans in JSON": lambda _path, was, now, is_json: (
        is_json and was in (0, 1) and isinstance(now, bool)
    ),
    "unions are in JSON": lambda path, was, now, is_json: (
        is_json
        and path.endswith("P:CUSTOM")
        and [name for name in now if name in was] == list(was)
        and {"u", "any", "anylist"} == set(now) - set(was)
    ),
    "structures in arrays are in JSON": lambda path, was, now, is_json: (
        is_json and path.endswith("/list[]") and was == {} and set(now) == {"k", "v"}
    ),
    "a variant union keeps its value": lambda path, was, _now, _is_json: path.endswith("/any/") and was is None,
}


class RecordCollector(Receiver):
    """Collects all records and waits for conditions on them."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.changed = threading.Condition()

    def ready(self) -> bool:
        return True

    def receive(self, records: Sequence[Record]) -> None:
        with self.changed:
            self.records.extend(record for record in records if connection_event(record) is None)
            self.changed.notify_all()

    def wait_for(self, arrived: Callable[[], bool], seconds: float) -> bool:
        with self.changed:
            return self.changed.wait_for(arrived, seconds)


@dataclass
class Replay:
    """The messages of the gateway under test, by reply id and by topic, and its exit code."""

    replies: dict[str, list[dict[str, Any]]]
    events: dict[str, list[dict[str, Any]]]
    exit_code: int


def message_of(record: Record) -> dict[str, Any]:
    texts = [[name, value.decode() if isinstance(value, bytes) else value] for name, value in record.headers]
    headers = [header for header in texts if header[0] not in OWN_HEADERS]
    key = None if record.key is None else record.key.decode()
    fields = decode_body(record)
    numbers = {name: value for name, value in fields.items() if name in SEQUENCE_KEYS}
    assert list(fields)[len(fields) - len(numbers) :] == list(numbers), "clients take the first key they do not know"
    body = {name: value for name, value in fields.items() if name not in OWN_KEYS | SEQUENCE_KEYS}
    return {"topic": record.topic, "key": key, "headers": headers, "body": body, "numbers": numbers}


def expected_replies(name: str, case: Case) -> int:
    difference = difference_of(name)
    return len(case.replies if difference is None or difference.replies is None else difference.replies)


def difference_of(name: str) -> Difference | None:
    found = [difference for difference in DIFFERENCES if re.fullmatch(difference.cases, name)]
    assert len(found) <= 1, f"{name}: {[difference.name for difference in found]}"
    return found[0] if found else None


def is_reproduced(name: str) -> bool:
    return not any(re.fullmatch(pattern, name) for pattern in NOT_REPRODUCED)


REPRODUCED = [name for name in CASES if is_reproduced(name)]


def timetable() -> list[tuple[float, str]]:
    """Returns the commands with their times in seconds; cases that do not depend on others start at 0."""
    begin = {"snapshot": 2.0, "monitor+snapshot": 2.0, "rsnap": 2.0}  # after the PVs of the other cases are connected
    later = {"rsnap/start again after stop (iteration restarts?)": 6.0}  # another case uses its name before
    table: list[tuple[float, str]] = []
    for name in REPRODUCED:
        offset = later.get(name, begin.get(name.split("/", maxsplit=1)[0], 0.0))
        table.extend((offset + at, as_sent_today(text)) for at, text in CASES[name].commands)
    return sorted(table, key=lambda entry: entry[0])


def as_sent_today(text: str) -> str:
    """Adds what clients send that take numbered snapshot messages; the recorded commands do not have it."""
    start = '"command": "repeating_snapshot"'
    return text.replace(start, f'{start}, "respect_push_order": true')


@pytest.fixture(scope="module")
def environment(pvs_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Starts a broker and the recorded PVs; yields the address and the environment of a process that uses them."""
    with EmbeddedBroker() as broker, SoftIoc([DATA / "records.db", DATA / "gateway_records.db"]) as ioc:
        folder = tmp_path_factory.mktemp("environments")
        (folder / "replay.ini").write_text(
            f"[DEFAULT]\nkafka_broker_url={broker.address}\nk2eg_cmd_topic={COMMANDS}\n"
            "[kafka]\nfetch.wait.max.ms=5\n[gateway]\ncreate_topics=no\nmonitor_expiration=0\n"
        )
        epics = merge_client_environments(ioc.client_environment, pvs_server.client_environment)
        yield (
            broker.address,
            without_epics(os.environ) | epics | {"K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(folder)},
        )


@pytest.fixture(scope="module")
def replay(environment: tuple[str, dict[str, str]]) -> Replay:
    address, variables = environment
    collector = RecordCollector()
    transport = KafkaTransport(Settings("replay", address, COMMANDS, "cap-reply", {"fetch.wait.max.ms": "5"}))
    source, sink = transport.events(collector, None), transport.sink()
    process = subprocess.Popen([sys.executable, "-c", GATEWAY], env=variables, stdout=subprocess.PIPE, text=True)
    try:
        topics = {each["topic"] for case in CASES.values() for each in case.replies + case.events}
        for position in [source.read(topic) for topic in sorted(topics)]:
            position.result(20)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        send_commands(sink, collector)
        code = terminate(process)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        sink.close(2.0)
        source.close(2.0)
        transport.close(2.0)
    return sort_records(collector, code)


def send_commands(sink: Any, collector: RecordCollector) -> None:
    """Sends the commands at their times and waits for all expected replies."""
    first = {"command": "get", "pv_name": "pva://t:ao", "reply_topic": "cap-reply", "reply_id": "first"}
    sink.send(COMMANDS, json.dumps(first).encode(), key=b"any")
    assert collector.wait_for(lambda: bool(collector.records), 30.0), "the gateway does not answer"
    begin = time.monotonic()
    for at, text in timetable():
        time.sleep(max(0.0, begin + at - time.monotonic()))
        sink.send(COMMANDS, text.encode(), key=b"one partition, for the order")
    wanted = Counter[str]()
    for name in REPRODUCED:
        if CASES[name].reply_ids():
            wanted[name] = expected_replies(name, CASES[name])

    def all_there() -> bool:
        return sum(b"reply_id" in (record.value or b"") for record in collector.records) > sum(wanted.values())

    collector.wait_for(all_there, 20.0)  # missing replies are reported per case


def terminate(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(10.0)


def sort_records(collector: RecordCollector, code: int) -> Replay:
    result = Replay({}, {}, code)
    for record in collector.records:
        message = message_of(record)
        if "reply_id" in message["body"]:
            result.replies.setdefault(message["body"]["reply_id"], []).append(message)
        else:
            result.events.setdefault(record.topic, []).append(message)
    return result


def is_number(value: Any) -> bool:
    special = value in ("NaN", "Infinity", "-Infinity") if isinstance(value, str) else False
    return special or (isinstance(value, int | float) and not isinstance(value, bool)) or is_odd_float(value)


def is_odd_float(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"__float__"}


def differences(path: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields differences in shape: kinds of fields, their names, and their order."""
    if is_number(was) and is_number(now):
        return
    if isinstance(was, dict) and isinstance(now, dict) and not is_odd_float(was):
        if list(was) != list(now):
            yield path, was, now
        for name in was:
            if name in now:
                yield from differences(f"{path}/{name}", was[name], now[name])
    elif isinstance(was, list) and isinstance(now, list):
        if was and now:
            yield from differences(f"{path}[]", was[0], now[0])
    elif type(was) is not type(now):
        yield path, was, now


def unintended(was: dict[str, Any], now: dict[str, Any], is_json: bool) -> list[str]:
    return [
        f"{path}: {before!r} became {after!r}"
        for path, before, after in differences("", was, now)
        if not any(rule(path, before, after, is_json) for rule in IN_VALUES.values())
    ]


def summary(message: dict[str, Any]) -> tuple[Any, ...]:
    body = message["body"]
    return message["topic"], message["key"], message["headers"], body["error"], body.get("message")


def replies_of(replay: Replay, case: Case) -> list[dict[str, Any]]:
    return [reply for reply_id in case.reply_ids() for reply in replay.replies.get(reply_id, [])]


@pytest.mark.parametrize("name", REPRODUCED)
def test_replies(replay: Replay, name: str) -> None:
    case = CASES[name]
    if not case.reply_ids():
        return  # commands without an id are compared in another test
    replies, difference = replies_of(replay, case), difference_of(name)
    was = sorted(map(summary, case.replies), key=repr)
    now = sorted(map(summary, replies), key=repr)
    if difference is None:
        assert now == was
    elif difference.replies is None:
        assert [entry[:4] for entry in now] == [entry[:4] for entry in was]
    else:
        codes = sorted(difference.replies, key=repr)
        assert [entry[3] for entry in sorted(now, key=lambda entry: repr(entry[3:]))] == [code for code, _ in codes]
        for code, words in codes:
            assert any(matches(entry, code, words) for entry in now), f"{code} {words}: {now}"
    if difference is None:
        compare_bodies(case.replies, replies)


def matches(entry: tuple[Any, ...], code: int, words: str | None) -> bool:
    return entry[3] == code and (entry[4] is None if words is None else bool(re.search(words, entry[4] or "")))


def compare_bodies(was: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> None:
    """Asserts that each recorded message has one with the same fields in order and values of the same shape."""
    for message in was:
        body, is_json = message["body"], message["headers"][0][1] == "Json"
        candidates = [each["body"] for each in now if list(each["body"]) == list(body)]
        assert candidates, f"no message with {list(body)}; got {[list(each['body']) for each in now]}"
        faults = [unintended(body, candidate, is_json) for candidate in candidates]
        assert [] in faults, min(faults, key=len)


def test_gets_without_an_id_are_answered_as_recorded(replay: Replay) -> None:
    cases = [case for name, case in CASES.items() if is_reproduced(name) and not case.reply_ids()]
    was = [reply for case in cases for reply in case.replies if reply["body"]["reply_id"] == ""]
    assert sorted(map(summary, replay.replies[""]), key=repr) == sorted(map(summary, was), key=repr)


MONITORS = [
    name
    for name in REPRODUCED
    if name.startswith(("monitor", "multi-monitor")) and CASES[name].events and difference_of(name) is None
]


@pytest.mark.parametrize("name", MONITORS)
def test_monitor_events(replay: Replay, name: str) -> None:
    texts = " ".join(text for _, text in CASES[name].commands)
    for event in CASES[name].events:
        if event["topic"] == "other-topic":
            continue  # requested in a case that is not recorded here
        events = [each for each in replay.events.get(event["topic"], []) if each["key"] == event["key"]]
        assert events, f"no event of {event['key']} on {event['topic']}"
        if f"ca://{event['key']}" in texts and any(
            f"pva://{event['key']}" in other for other in commands_for(event["topic"])
        ):
            continue  # a topic of both protocols: one subscription each here, one in the deployed gateway
        compare_bodies([event], events)


def commands_for(topic: str) -> list[str]:
    texts = (text for name in MONITORS for _, text in CASES[name].commands)
    return [text for text in texts if f'"monitor_dest_topic": "{topic}"' in text]


def test_a_missing_pv_has_no_events(replay: Replay) -> None:
    assert not [
        key for events in replay.events.values() for key in {each["key"] for each in events} if "no:such" in key
    ]


def test_a_snapshot_does_not_affect_a_monitor(replay: Replay) -> None:
    values = [each["body"]["t:fast"]["value"] for each in replay.events["t_fast"] if each["key"] == "t:fast"]
    seen = sorted(set(values))
    assert seen == [seen[0] + n for n in range(len(seen))], "no value of the counter is missing"
    reported = [
        reply["body"]["t:fast"]["value"]
        for reply in replies_of(replay, CASES["monitor+snapshot/5 snapshots in a row"])
        if "t:fast" in reply["body"]
    ]
    assert len(reported) == 5
    assert set(reported) <= set(values)


SNAPSHOTS = [name for name in REPRODUCED if name.startswith("rsnap") and CASES[name].events]
ONE_STREAM_EACH = "rsnap/pva and ca same pv"
TIMING = {  # a first iteration that ends at once has varying content
    "rsnap/normal/window 0",
    "rsnap/triggered normal: trigger immediately after start",
}


def iterations(events: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Returns the messages of each iteration; asserts that iterations are in order and do not interleave."""
    found: list[list[dict[str, Any]]] = []
    for event in events:
        body = event["body"]
        if body["message_type"] == 0:
            found.append([])
        assert found
        assert body["message_type"] in (0, 1, 2)
        assert body["iter_index"] == found[-1][0]["iter_index"] if found[-1] else True
        found[-1].append(body)
    return found


def pv_of(body: dict[str, Any]) -> str:
    return next((name for name, value in body.items() if isinstance(value, dict)), "")


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_recurring_snapshots(replay: Replay, name: str) -> None:
    for topic in dict.fromkeys(each["topic"] for each in CASES[name].events):
        was = [each for each in CASES[name].events if each["topic"] == topic]
        compare_iterations(name, was, replay.events[topic])


def compare_iterations(name: str, was: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> None:
    assert {each["key"] for each in was} == {each["key"] for each in now}
    is_shared_name = was[0]["topic"] == "rn-2x"  # two consecutive cases use this name
    iterations_now = iterations(now)
    indices = [iteration[0]["iter_index"] for iteration in iterations_now]
    if not is_shared_name:
        assert indices == list(range(1, len(indices) + 1))
    assert all(iteration[-1]["message_type"] == 2 for iteration in iterations_now)
    compare_bodies(was, now)
    first_was = iterations(was)[0]
    if name in TIMING or first_was[-1]["message_type"] != 2:
        return
    pvs_was, pvs_now = [pv_of(body) for body in first_was], [pv_of(body) for body in iterations_now[0]]
    if "timedbuffered" in " ".join(text.lower() for _, text in CASES[name].commands):
        pvs_was, pvs_now = sorted(set(pvs_was)), sorted(set(pvs_now))
    if name == ONE_STREAM_EACH:
        pvs_was = [pv for pv in pvs_was for _ in range(2 if pv else 1)]
    assert pvs_now == pvs_was


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_recurring_snapshots_are_numbered(replay: Replay, name: str) -> None:
    """As client 0.3.2 needs it: by message, and by partial push where the command asks for pushes."""
    commands = [json.loads(text) for _, text in CASES[name].commands]
    pushes = any(command.get("sub_push_delay_msec", 0) > 0 for command in commands)
    for topic in dict.fromkeys(each["topic"] for each in CASES[name].events):
        messages = replay.events[topic]
        headers = [n for n, each in enumerate(messages) if each["body"]["message_type"] == 0]
        for begin, end in itertools.pairwise([*headers, len(messages)]):
            numbers = [each["numbers"] for each in messages[begin:end]]
            assert [each["msg_seq"] for each in numbers] == list(range(1, len(numbers) + 1))
            assert [each["total_messages"] for each in numbers if "total_messages" in each] == [len(numbers)]
            assert numbers[-1]["total_messages"] == len(numbers)
            parts = [each["submission_seq"] for each in numbers if "submission_seq" in each]
            assert parts == sorted(parts)
            assert len(parts) == (len(numbers) if pushes else 0)
            last = [n for n, each in enumerate(numbers) if each.get("last_submission_data")]
            assert len(last) == len(set(parts) if pushes and len(numbers) > 2 else [])


def test_the_gateway_stops_cleanly(replay: Replay) -> None:
    assert replay.exit_code == 0


def test_every_listed_difference_exists(replay: Replay) -> None:
    for difference in DIFFERENCES:
        names = [name for name in REPRODUCED if re.fullmatch(difference.cases, name)]
        assert names, difference.name
        for name in names:
            was = [(summary(each), list(each["body"])) for each in CASES[name].replies]
            now = [(summary(each), list(each["body"])) for each in replies_of(replay, CASES[name])]
            assert sorted(was, key=repr) != sorted(now, key=repr), f"{difference.name}: {name} is as recorded"


def test_every_listed_difference_in_values_exists(replay: Replay) -> None:
    seen: set[str] = set()
    for name in REPRODUCED:
        for was in CASES[name].replies:
            for now in replies_of(replay, CASES[name]):
                is_json = was["headers"][0][1] == "Json"
                for path, before, after in differences("", was["body"], now["body"]):
                    seen |= {each for each, rule in IN_VALUES.items() if rule(path, before, after, is_json)}
    assert seen == set(IN_VALUES)

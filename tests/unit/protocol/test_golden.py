"""Messages of a deployed gateway decode as recorded.

Each line of `recorded.jsonl` is a message: the test case of the recording, kind (reply or event), topic, Kafka key,
headers, bytes in base64, and the decoded body as JSON, with ``{"__float__": "nan"}`` for floats that JSON lacks.
"""

from __future__ import annotations

import base64
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import pytest

from k2eg_rx.protocol.assembly import IterationAssembler
from k2eg_rx.protocol.decode import decode_body
from k2eg_rx.protocol.messages import PVUpdate, SnapshotData, SnapshotHeader, SnapshotTail
from k2eg_rx.protocol.replies import decode_reply, decode_snapshot_message
from k2eg_rx.protocol.snapshots import OneShotAssembler, Snapshot
from k2eg_rx.protocol.structures import NANOSECONDS
from k2eg_rx.pv import PVAddress, snapshot_topic
from k2eg_rx.transport.interfaces import Record

RECORDED = Path(__file__).parents[2] / "data" / "recorded.jsonl"


def load() -> dict[str, list[tuple[str, Record, Any]]]:
    cases: dict[str, list[tuple[str, Record, Any]]] = defaultdict(list)
    for offset, line in enumerate(RECORDED.read_text().splitlines()):
        message = json.loads(line, object_hook=unmarked)
        record = Record(
            topic=message["topic"],
            partition=0,
            offset=offset,
            key=message["key"].encode(),
            value=base64.b64decode(message["value_b64"]),
            headers=[(name, value.encode()) for name, value in message["headers"]],
        )
        cases[message["case"]].append((message["kind"], record, message["decoded"]))
    return cases


def unmarked(item: dict[str, Any]) -> Any:
    return float(item["__float__"]) if item.keys() == {"__float__"} else item


CASES = load()


def same(found: Any, expected: Any) -> bool:
    """Returns whether values are equal in type, value and order of fields; NaN is equal to itself."""
    if type(found) is not type(expected):
        return False
    kind = cast("object", type(found))
    if kind is dict:
        return list(found) == list(expected) and all(same(found[name], expected[name]) for name in found)
    if kind is list:
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected or (isinstance(found, float) and math.isnan(found) and math.isnan(expected))


def test_the_recording_is_not_empty() -> None:
    assert sum(map(len, CASES.values())) == 868


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_message_decodes_as_recorded(case: str) -> None:
    for _, record, expected in CASES[case]:
        found = decode_body(record)
        assert same(found, expected), f"{found!r}\n!=\n{expected!r}"


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_message_is_a_reply_event_or_snapshot_message(case: str) -> None:
    for _, record, expected in CASES[case]:
        if "reply_id" in expected:
            reply = decode_reply(record)
            assert (reply.reply_id, reply.error) == (expected["reply_id"], expected["error"])
            assert reply.message == expected.get("message", "")
        elif "message_type" in expected:
            message = decode_snapshot_message(record)
            assert type(message) is (SnapshotHeader, SnapshotData, SnapshotTail)[expected["message_type"]]
            assert (message.timestamp, message.iter_index) == (
                expected["timestamp"] * 1_000_000,
                expected["iter_index"],
            )
        else:
            ((name, structure),) = expected.items()
            update = PVUpdate(PVAddress.parse(f"pva://{name}"), record)
            assert same(update.data, structure)
            assert record.key == name.encode()
            stamp = structure.get("timeStamp")
            expected_time = stamp and stamp["secondsPastEpoch"] * NANOSECONDS + stamp["nanoseconds"]
            assert update.timestamp == expected_time


def pvs_in(records: list[Record]) -> list[PVAddress]:
    names = {name for record in records for name, part in decode_body(record).items() if isinstance(part, dict)}
    return [PVAddress.parse(f"pva://{name}") for name in sorted(names)]


RECURRING = {
    (case, record.topic): [other for _, other, _ in CASES[case] if other.topic == record.topic]
    for case, messages in CASES.items()
    for kind, record, expected in messages
    if kind == "event" and "message_type" in expected
}


@pytest.mark.parametrize("recording", RECURRING)
def test_recorded_iterations_become_snapshots(recording: tuple[str, str]) -> None:
    records = RECURRING[recording]
    messages = [decode_snapshot_message(record) for record in records]
    name = next(message.snapshot_name for message in messages if isinstance(message, SnapshotHeader))
    assert snapshot_topic(name) == recording[1]
    assembler = IterationAssembler(name, pvs_in(records))
    snapshots = [snapshot for message in messages for snapshot in assembler.feed(message)]
    tails = [message for message in messages if isinstance(message, SnapshotTail)]
    assert [(s.iteration, s.timestamp, s.error) for s in snapshots] == [(t.iter_index, t.timestamp, 0) for t in tails]
    assert not assembler.counts
    complete = {snapshot.iteration for snapshot in snapshots}
    data = [m for m in messages if isinstance(m, SnapshotData) and m.iter_index in complete]
    assert sum(len(samples) for snapshot in snapshots for samples in snapshot.data.values()) == len(data)


ONE_SHOT = [
    case
    for case, messages in CASES.items()
    if case.startswith("snapshot/") and any(expected.get("error") == 1 for _, _, expected in messages)
]


@pytest.mark.parametrize("case", ONE_SHOT)
def test_recorded_one_shot_snapshots_are_complete_at_their_last_reply(case: str) -> None:
    replies = [decode_reply(record) for kind, record, _ in CASES[case] if kind == "reply"]
    accepted = [reply for reply in replies if reply.error >= 0]
    assembler = OneShotAssembler("id", pvs_in([record for _, record, _ in CASES[case]]))
    results = [assembler.feed(reply) for reply in accepted]
    assert results[:-1] == [None] * (len(accepted) - 1)
    assert isinstance(results[-1], Snapshot)
    assert sum(map(len, results[-1].data.values())) == len(accepted) - 1

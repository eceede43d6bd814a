"""Claims: a put or a trigger is carried out once, by the gateway that owns its partition, and refused otherwise."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from k2eg_rx.protocol.commands import pack_fields
from k2eg_rx.transport.interfaces import Partition, Record

PARTITION = ("commands", 0)


class ScriptedSource:
    """What a command source needs of its record source."""

    def __init__(self) -> None:
        self.committed = 1000
        self.confirmable = True
        self.attempts = 0
        self.wake: Callable[[], None] = lambda: None

    def owns(self, partition: Partition, offset: int) -> bool:
        return offset < self.committed

    def is_live(self, partition: Partition, offset: int) -> bool:
        return False

    def confirm(self, done: Callable[[], None]) -> None:
        self.attempts += 1
        if self.confirmable:
            self.committed = 1000
        done()


def attach(gateway: Any) -> ScriptedSource:
    source = ScriptedSource()
    gateway.commands.attach(source)
    return source


def receive(gateway: Any, *commands: tuple[int, str, dict[str, Any]], settle: bool = True) -> None:
    """Receives commands at offsets; the reply id is the offset."""
    records = [
        Record(
            *PARTITION,
            offset,
            None,
            json.dumps(
                {
                    "command": command,
                    "reply_topic": "replies",
                    "reply_id": str(offset),
                    "serialization": "json",
                    **fields,
                }
            ).encode(),
        )
        for offset, command, fields in commands
    ]
    gateway.commands.receive(records)
    if settle:
        gateway.settle()


def put(offset: int, pv: str = "a") -> tuple[int, str, dict[str, Any]]:
    value = base64.b64encode(pack_fields({"value": offset})).decode()
    return offset, "put", {"pv_name": f"pva://{pv}", "value": value}


def get(offset: int, pv: str = "a") -> tuple[int, str, dict[str, Any]]:
    return offset, "get", {"pv_name": f"pva://{pv}"}


def written(gateway: Any) -> list[int]:
    return [fields["value"] for _, fields, _, _ in gateway.pva.puts]


def answers(gateway: Any) -> dict[str, int]:
    return {body["reply_id"]: body["error"] for body in gateway.bodies("replies")}


def revoke(gateway: Any, *, handed_over: bool = True) -> Any:
    offsets = gateway.commands.reclaim_undelivered({PARTITION})
    gateway.commands.on_revoked({PARTITION}, handed_over=handed_over)
    gateway.settle()
    return offsets


def test_batches_with_puts_or_triggers_are_committed_first(gateway: Any) -> None:
    commits_first = gateway.commands.commit_first
    assert not commits_first([b'{"command": "get"}', None, b'{"command": "monitor"}'])
    assert commits_first([b'{"command": "get"}', b'{"command": "put"}'])
    assert commits_first([b'{"command": "repeating_snapshot_trigger"}'])


def test_a_put_is_carried_out_once_its_offset_is_committed(gateway: Any) -> None:
    source = attach(gateway)
    source.committed = 3
    source.confirmable = False
    receive(gateway, put(3), get(4, "b"))
    assert written(gateway) == []
    assert len(gateway.pva.gets) == 1, "a get needs no proof"
    source.confirmable = True
    gateway.advance(0.3)
    assert written(gateway) == [3]
    gateway.advance(5.0)
    assert written(gateway) == [3]
    assert source.attempts == 2


def test_a_put_that_is_never_confirmed_is_refused(gateway: Any) -> None:
    source = attach(gateway)
    source.committed = 0
    source.confirmable = False
    receive(gateway, put(1), put(2))
    gateway.advance(10.5)
    source.confirmable = True
    gateway.advance(10.0)
    bodies = gateway.bodies()
    assert [(body["reply_id"], body["error"]) for body in bodies] == [("1", -3), ("2", -3)]
    assert "the put was not carried out" in bodies[0]["message"]
    assert "read the PV" in bodies[0]["message"]
    assert written(gateway) == []


def test_a_put_is_sent_only_while_its_partition_is_owned(gateway: Any) -> None:
    source = attach(gateway)
    gateway.pva.is_connected = False
    receive(gateway, put(1))
    source.committed = 0  # nothing has confirmed it for long
    ((_, send),) = gateway.pva.unsent
    gateway.pva.is_connected = True
    assert not send(), "the PV connects"
    gateway.settle()
    assert source.attempts == 1
    assert written(gateway) == [1], "it is sent once it is confirmed"
    gateway.pva.is_connected = False
    receive(gateway, put(2, "b"))
    assert revoke(gateway) == {PARTITION: 2}
    assert not gateway.pva.unsent[-1][1]()
    gateway.settle()
    assert written(gateway) == [1]
    assert gateway.bodies() == []


def test_commands_that_were_not_passed_on_go_to_the_next_owner(gateway: Any) -> None:
    receive(gateway, put(5), get(6), put(7, "b"), settle=False)
    assert revoke(gateway) == {PARTITION: 5}
    gateway.advance(20.0)
    assert (written(gateway), gateway.pva.gets, gateway.bodies()) == ([], [], [])


def test_waiting_puts_go_to_the_next_owner_and_are_not_answered(gateway: Any) -> None:
    receive(gateway, put(5), put(6), put(7))
    assert written(gateway) == [5]
    assert revoke(gateway) == {PARTITION: 6}
    gateway.pva.puts[0][3].set_result(None)
    gateway.advance(20.0)
    assert written(gateway) == [5]
    assert answers(gateway) == {"5": 0}
    assert gateway.handler.get_put.pending == 0


def test_a_put_before_one_that_was_carried_out_is_refused_when_its_partition_moves(gateway: Any) -> None:
    receive(gateway, put(5), put(6), put(7, "b"))
    assert written(gateway) == [5, 7]
    assert revoke(gateway) == {}, "the next owner would carry out the put to b again"
    assert answers(gateway) == {"6": -3}
    gateway.pva.puts[0][3].set_result(None)
    gateway.advance(20.0)
    assert written(gateway) == [5, 7]


def test_a_put_that_was_refused_does_not_go_to_the_next_owner(new_gateway: Any) -> None:
    gateway = new_gateway(operation_timeout=0.3)
    receive(gateway, put(5), put(6))
    gateway.advance(0.6)
    assert answers(gateway) == {"6": -3}
    assert revoke(gateway) == {}


def test_puts_are_refused_after_the_session_has_expired(gateway: Any) -> None:
    receive(gateway, put(5), put(6))
    receive(gateway, put(7, "b"), settle=False)
    gateway.commands.on_revoked({PARTITION}, handed_over=False)
    gateway.settle()
    assert written(gateway) == [5]
    assert answers(gateway) == {"6": -3, "7": -3}


def test_puts_are_refused_if_their_offsets_could_not_be_handed_over(gateway: Any) -> None:
    receive(gateway, put(5), put(6))
    receive(gateway, put(7, "b"), get(8, "b"), settle=False)
    assert revoke(gateway, handed_over=False) == {PARTITION: 6}
    assert written(gateway) == [5]
    assert answers(gateway) == {"6": -3, "7": -3}
    assert len(gateway.pva.gets) == 1, "a get may be answered twice"


def test_a_put_that_goes_to_another_gateway_is_counted_as_such(gateway: Any) -> None:
    receive(gateway, put(5), put(6))
    assert revoke(gateway) == {PARTITION: 6}
    gateway.pva.puts[0][3].set_result(None)
    gateway.settle()
    assert gateway.metrics.results == {("put", "ok"): 1, ("put", "handed_over"): 1}


def test_a_partition_that_comes_back_does_not_revive_earlier_puts(gateway: Any) -> None:
    receive(gateway, put(5), put(6))
    revoke(gateway)
    receive(gateway, put(6), put(7, "b"))
    gateway.pva.puts[0][3].set_result(None)
    gateway.advance(1.0)
    assert sorted(written(gateway)) == [5, 6, 7]


def test_other_partitions_are_not_affected(gateway: Any) -> None:
    receive(gateway, put(5), put(6))
    assert gateway.commands.reclaim_undelivered({("commands", 1)}) == {}
    gateway.commands.on_revoked({("commands", 1)}, handed_over=True)
    gateway.pva.puts[0][3].set_result(None)
    gateway.settle()
    assert written(gateway) == [5, 6]


def test_a_trigger_is_carried_out_by_the_owner_of_its_partition_only(gateway: Any) -> None:
    source = attach(gateway)
    snapshot = {"snapshot_name": "s", "pv_name_list": ["pva://a"], "triggered": True, "type": "normal"}
    receive(gateway, (1, "repeating_snapshot", snapshot))
    gateway.update("a", 1)
    gateway.sent()
    receive(gateway, (2, "repeating_snapshot_trigger", {"snapshot_name": "s"}))
    assert answers(gateway)["2"] == 0
    source.committed = 3
    receive(gateway, (3, "repeating_snapshot_trigger", {"snapshot_name": "s"}))
    (refusal,) = gateway.bodies()
    assert (refusal["reply_id"], refusal["error"]) == ("3", -3)
    assert "not carried out" in refusal["message"]
    receive(gateway, (4, "repeating_snapshot_trigger", {"snapshot_name": "s"}), settle=False)
    assert revoke(gateway) == {PARTITION: 4}
    assert gateway.bodies() == []

"""What commands may do: denied ones get negative replies, and EPICS sees nothing of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k2eg_rx.protocol.commands import pack_fields

VALUE = base64.b64encode(pack_fields({"value": 1})).decode()


@pytest.fixture
def read_only(new_gateway: Callable[..., Any]) -> Any:
    return new_gateway(read_only=True)


def test_a_gateway_that_only_reads_refuses_puts_before_epics_sees_them(read_only: Any) -> None:
    read_only.command("put", pv_name="pva://a:b", value=VALUE)
    assert read_only.bodies() == [
        {
            "error": -12,
            "reply_id": "id",
            "message": "put of 'pva://a:b' denied: this gateway only reads ([gateway] read_only)",
        }
    ]
    assert read_only.pva.puts == []
    assert read_only.handler.get_put.pending == 0


def test_a_denied_put_is_counted_and_logged_once_a_minute(read_only: Any, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        read_only.command("put", pv_name="pva://a:b", value=VALUE)
    assert read_only.metrics.denied == {"read_only": 3}
    assert read_only.metrics.results["put", "refused"] == 3
    assert [record.getMessage() for record in caplog.records] == [
        "1 denied: principal=anonymous reply_topic=replies reason="
        "put of 'pva://a:b' denied: this gateway only reads ([gateway] read_only)"
    ]


def test_a_gateway_that_only_reads_reads(read_only: Any, reading: Callable[..., Any]) -> None:
    read_only.command("get", pv_name="pva://a")
    read_only.pva.gets[0][2].set_result(reading(1))
    read_only.command("monitor", pv_name="pva://a", monitor_dest_topic="a")
    read_only.command("snapshot", pv_name_list=["pva://a"], time_window_msec=100)
    read_only.update("a", 2)
    assert [body.get("error") for body in read_only.bodies("replies")] == [0, 0, 0]
    assert read_only.metrics.denied == {}


def test_a_malformed_put_is_malformed_also_where_puts_are_denied(read_only: Any) -> None:
    read_only.command("put", pv_name="a", value=VALUE, reply_id=...)
    assert read_only.bodies() == []


PVLIST = r"""
.*           ALLOW
nice:(.*)    ALIAS ugly:\1
secret:.*    DENY
"""
DENIED = "'pva://secret:a' denied: line 4 of the list denies it ([gateway] pvlist)"


@pytest.fixture
def listed(new_gateway: Callable[..., Any], tmp_path: Path) -> Any:
    (tmp_path / "pvlist").write_text(PVLIST)
    return new_gateway(pvlist=str(tmp_path / "pvlist"))


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("get", {"pv_name": "pva://secret:a"}),
        ("get", {"pv_name": "pva://secret:a", "reply_id": ...}),
        ("put", {"pv_name": "pva://secret:a", "value": VALUE}),
        ("monitor", {"pv_name": "pva://secret:a", "monitor_dest_topic": "t"}),
        ("multi-monitor", {"pv_name_list": ["pva://a", "pva://secret:a"]}),
        ("repeating_snapshot", {"snapshot_name": "s", "pv_name_list": ["pva://a", "pva://secret:a"]}),
    ],
)
def test_a_denied_pv_refuses_the_command(listed: Any, command: str, fields: dict[str, Any]) -> None:
    listed.command(command, **fields)
    listed.advance(10)
    (body,) = listed.bodies()
    assert (body["error"], body["message"]) == (-12, f"{command} of {DENIED}")
    assert (listed.pva.gets, listed.pva.puts, listed.pva.subscriptions) == ([], [], [])
    assert listed.metrics.denied == {"pvlist": 1}
    assert listed.metrics.results == {(command, "refused"): 1}


def test_all_denied_pvs_of_a_command_are_counted(listed: Any) -> None:
    listed.command("multi-monitor", pv_name_list=["pva://secret:a", "pva://secret:b", "pva://secret:a", "pva://c"])
    assert listed.bodies()[0]["message"] == f"multi-monitor of {DENIED} (and 1 more)"
    assert listed.metrics.denied == {"pvlist": 2}


def test_a_snapshot_has_a_negative_reply_for_a_denied_pv_and_reads_the_others(listed: Any) -> None:
    names = ["pva://secret:a", "pva://b", "pva://secret:c"]
    listed.command("snapshot", pv_name_list=names, time_window_msec=1000)
    listed.update("b", 5)
    listed.advance(1.0)
    denied, other, value, end = listed.bodies()
    assert (denied["error"], denied["message"]) == (-12, f"snapshot of {DENIED}")
    assert (other["error"], "pva://secret:c" in other["message"]) == (-12, True)
    assert (value["error"], value["b"]["value"]) == (0, 5)
    assert end["error"] == 1
    assert [subscription.address.name for subscription in listed.pva.subscriptions] == ["b"]


def test_a_snapshot_of_denied_pvs_only_ends_with_its_window(listed: Any) -> None:
    listed.command("snapshot", pv_name_list=["pva://secret:a"], time_window_msec=1000)
    listed.advance(1.1)
    assert [body["error"] for body in listed.bodies()] == [-12, 1]


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("multi-monitor", {}),
        ("snapshot", {"time_window_msec": 1000}),
        ("repeating_snapshot", {"snapshot_name": "s"}),
    ],
)
def test_too_many_names_are_refused_without_looking_at_them(
    new_gateway: Callable[..., Any], tmp_path: Path, command: str, fields: dict[str, Any]
) -> None:
    (tmp_path / "pvlist").write_text(PVLIST)
    gateway = new_gateway(pvlist=str(tmp_path / "pvlist"), max_names=2)
    gateway.command(command, pv_name_list=["pva://secret:a", "pva://b", "pva://c"], **fields)
    assert gateway.bodies()[0]["error"] == -10
    assert gateway.pva.subscriptions == []
    assert gateway.metrics.denied == {}


def test_epics_is_asked_for_the_real_pv_and_the_client_sees_the_alias(listed: Any, reading: Callable[..., Any]) -> None:
    listed.command("get", pv_name="pva://nice:a")
    address, _, future = listed.pva.gets[0]
    assert address.uri == "pva://ugly:a"
    future.set_result(reading(1))
    listed.settle()
    assert listed.bodies()[0]["nice:a"] == {"value": 1}

    listed.command("put", pv_name="pva://nice:a", value=VALUE)
    assert listed.pva.puts[0][0].uri == "pva://ugly:a"

    listed.command("monitor", pv_name="pva://nice:a", monitor_dest_topic="t")
    listed.command("snapshot", pv_name_list=["pva://nice:a"], time_window_msec=1000)
    listed.update("ugly:a", 2)
    assert {body["nice:a"]["value"] for body in listed.bodies() if "nice:a" in body} == {2}


def test_puts_to_a_pv_and_its_alias_keep_their_order(listed: Any) -> None:
    for name in ("ugly:a", "nice:a", "other"):
        listed.command("put", pv_name=f"pva://{name}", value=VALUE)
    assert [put[0].name for put in listed.pva.puts] == ["ugly:a", "other"]
    listed.pva.puts[0][3].set_result(None)
    listed.settle()
    assert [put[0].name for put in listed.pva.puts] == ["ugly:a", "other", "ugly:a"]


def test_a_file_that_cannot_be_used_fails_the_start(new_gateway: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"\[gateway\] pvlist must be a file"):
        new_gateway(pvlist="none")


ACF = """
UAG(ops) {operators}
ASG(DEFAULT) { RULE(1, READ) }
ASG(MAGNETS) { RULE(1, READ) RULE(1, WRITE) { UAG(ops) } }
ASG(PRIVATE) { RULE(1, WRITE) { UAG(ops) } }
"""
GROUPS = """
.*         ALLOW
magnet:.*  ALLOW MAGNETS 1
private    ALLOW PRIVATE 1
"""


@pytest.fixture
def shared(new_gateway: Callable[..., Any], tmp_path: Path) -> Any:
    (tmp_path / "pvlist").write_text(GROUPS)
    (tmp_path / "site.acf").write_text(ACF)
    topics = "ops:operators, web:website"
    return new_gateway(pvlist=str(tmp_path / "pvlist"), access=str(tmp_path / "site.acf"), command_topics=topics)


@pytest.mark.parametrize(
    ("topic", "pv", "may"),
    [
        ("ops", "magnet:a", "get put monitor snapshot"),
        ("web", "magnet:a", "get monitor snapshot"),
        ("commands", "magnet:a", "get monitor snapshot"),
        ("ops", "other", "get monitor snapshot"),
        ("web", "other", "get monitor snapshot"),
        ("ops", "private", "get put monitor snapshot"),
        ("web", "private", ""),
        ("commands", "private", ""),
    ],
)
def test_a_command_may_do_what_the_principal_of_its_topic_may(shared: Any, topic: str, pv: str, may: str) -> None:
    uri = f"pva://{pv}"
    fields: dict[str, dict[str, Any]] = {
        "get": {"pv_name": uri},
        "put": {"pv_name": uri, "value": VALUE},
        "monitor": {"pv_name": uri, "monitor_dest_topic": "t"},
        "snapshot": {"pv_name_list": [uri], "time_window_msec": 1000},
    }
    for command, arguments in fields.items():
        shared.command(command, topic=topic, **arguments)
    denied = [body["message"].split()[0] for body in shared.bodies() if body.get("error") == -12]
    assert " ".join(command for command in fields if command not in denied) == may
    assert len(shared.pva.puts) == ("put" in may)
    assert len(shared.pva.subscriptions) == ("monitor" in may)


def test_a_denial_names_group_principal_and_level(shared: Any) -> None:
    shared.command("put", topic="web", pv_name="pva://magnet:a", value=VALUE)
    text = "no rule of ASG(MAGNETS) lets 'website' write PVs of level 1 ([gateway] access)"
    assert shared.bodies()[0]["message"] == f"put of 'pva://magnet:a' denied: {text}"


def test_a_gateway_publishes_to_no_command_topic(shared: Any) -> None:
    for topic in ("commands", "ops", "web", "ops-gateways"):
        shared.command("monitor", topic="web", pv_name="pva://a", monitor_dest_topic=topic)
        shared.command("get", topic="web", pv_name="pva://a", reply_topic=topic)
    assert [body["error"] for body in shared.bodies()] == [-11] * 4
    assert {outgoing.topic for outgoing in shared.outgoing} == {"replies"}
    assert shared.pva.gets == []

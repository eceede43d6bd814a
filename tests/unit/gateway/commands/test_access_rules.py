"""What commands may do: denied ones get negative replies, and EPICS sees nothing of them."""

from __future__ import annotations

import base64
from collections.abc import Callable
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
        "1 denied: reply_topic=replies reason=put of 'pva://a:b' denied: this gateway only reads ([gateway] read_only)"
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

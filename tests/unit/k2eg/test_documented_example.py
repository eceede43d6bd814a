"""The example of the deployed client's documentation, line by line."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg.broker import SnapshotProperties
from k2eg.dml import dml


def test_the_documented_example_works(k: dml, gateway: Any, handle: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.set_pvs(my__pv={"value": 1.5})
    client = k

    # Get a PV value
    value = client.get("pva://my:pv", timeout=5.0)
    assert value == {"value": 1.5}

    # Put a PV value
    client.put("pva://my:pv", 42, timeout=5.0)

    # Monitor a PV
    def handler(pv_name: str, data: dict[str, Any]) -> None:
        print(f"{pv_name}: {data}")

    client.monitor("pva://my:pv", handler, timeout=5.0)
    gateway.event("my_pv", "my:pv", 42)
    handle()
    assert capsys.readouterr().out == "my:pv: {'value': 42}\n"

    # Recurring snapshot example
    def snapshot_handler(snapshot_id: str, snapshot_obj: dict[str, Any]) -> None:
        print(f"Snapshot {snapshot_id}: {sorted(snapshot_obj)}")

    properties = SnapshotProperties(
        snapshot_name="my_snapshot",
        pv_uri_list=["pva://my:pv1", "ca://my:pv2"],
        triggered=False,
    )
    client.snapshot_recurring(properties, snapshot_handler, timeout=5.0)
    header = {"message_type": 0, "snapshot_name": "my_snapshot", "timestamp": 1716123456789, "iter_index": 1}
    gateway.messages("my_snapshot", "my_snapshot", header, header | {"message_type": 2, "error": 0})
    handle()
    fields = ["header_timestamp", "iteration", "my:pv1", "my:pv2", "tail_timestamp", "timestamp"]
    assert capsys.readouterr().out == f"Snapshot my_snapshot: {fields}\n"

    # Trigger a recurring snapshot manually
    client.snapshost_trigger("my_snapshot", timeout=5.0)

    # Stop a recurring snapshot
    client.snapshot_stop("my_snapshot", timeout=5.0)

    assert gateway.names() == [
        "get",
        "get",  # reads the PV's type
        "put",
        "monitor",
        "repeating_snapshot",
        "repeating_snapshot_trigger",
        "repeating_snapshot_stop",
    ]

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""`dml` as scripts use it: results have precise types."""

from typing import Any, assert_type

import numpy as np

import k2eg
from k2eg import OperationError, OperationTimeout
from k2eg.broker import SnapshotProperties, SnapshotType
from k2eg.dml import dml
from k2eg.serialization import Generic, MessagePackSerializable, NTTable, Scalar, Vector

client = dml(environment_id="dev", app_name="myapp")
assert_type(client, dml)
assert_type(k2eg.dml("dev", "myapp", "group"), dml)

value = client.get("pva://my:pv", timeout=5.0)
assert_type(value, dict[str, Any])
print(value["value"], value["alarm"]["severity"])

for uri, got in client.get_many(["pva://my:pv", "ca://other"], timeout=5.0).items():
    assert_type(uri, str)
    assert_type(got, dict[str, Any] | Exception)
    print(got if isinstance(got, Exception) else got["value"])
assert_type(client.put_many({"pva://my:pv": 42, "ca://other": "On"}), dict[str, dict[str, Any] | Exception])

try:
    client.put("pva://my:pv", 42, timeout=5.0)
except OperationTimeout as late:
    assert_type(late.waited, float)
except OperationError as error:
    assert_type(error.error, int)

table = NTTable(labels=["element", "s"])
table.set_column("element", ["SOL9000", "XC99"])
table.set_column("s", np.zeros(2))
values: list[MessagePackSerializable] = [
    Scalar("value", 42),
    Scalar(42),
    Scalar(payload=42),
    Vector([1, 2, 3, 4]),
    Vector("key", np.arange(3)),
    Generic({"index": 1}),
    table,
    NTTable(["element", "s"]).wrap([{"element": "A", "s": 1.0}, {"element": "B", "s": 2.0}]),
    NTTable(["element", "s"]).wrap([("A", 1.0), ["B", 2.0]]),
]
for item in values:
    client.put("pva://my:pv", item)
    assert_type(item.to_dict(), dict[str, Any])
    assert_type(item.to_msgpack(), bytes)
    assert_type(item.to_base_64(), str)


def handler(pv_name: str, data: dict[str, Any]) -> None:
    print(f"{pv_name}: {data}")


client.monitor("pva://my:pv", handler, timeout=5.0)
client.monitor_many(["pva://my:pv", "ca://other"], handler)
client.monitor("pva://my:pv", lambda pv_name, data: print(pv_name, data["value"]))
client.stop_monitor("my:pv", handler)
client.stop_monitor("my:pv")

properties = SnapshotProperties(
    snapshot_name="my_snapshot", pv_uri_list=["pva://my:pv1", "ca://my:pv2"], triggered=False, type="timedbuffered"
)
properties.type = SnapshotType.NORMAL
properties.pv_field_filter_list = ["value"]
client.snapshot_recurring(properties, handler, timeout=5.0)
client.snapshost_trigger("my_snapshot", timeout=5.0)
client.snapshot_trigger("my_snapshot", tags={"run": "7"})
client.snapshot_stop("my_snapshot", timeout=5.0)

assert_type(client.snapshot(["pva://my:pv"], handler), str)
assert_type(client.snapshot_sync(["pva://my:pv"], timeout=10.0), dict[str, Any])
client.wait_for_backends(timeout=5.0)
client.close()

with dml("dev", "myapp") as again:
    assert_type(again, dml)
    again.monitor_stream("pva://my:pv").subscribe(lambda update: print(update.value))

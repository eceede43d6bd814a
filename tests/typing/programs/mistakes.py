# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Mistakes that the type checker must report; an unnecessary ignore comment is an error."""

from k2eg.dml import dml
from k2eg.serialization import NTTable, Scalar
from k2eg_rx import Client

client = dml("dev", "myapp")


def takes_one(pv_name: str) -> None:
    print(pv_name)


client.get(5)  # pyright: ignore[reportArgumentType]
client.monitor("pva://x", takes_one)  # pyright: ignore[reportArgumentType]
client.monitor("pva://x", "handler")  # pyright: ignore[reportArgumentType]
client.snapshot_recurring("name", print)  # pyright: ignore[reportArgumentType]
print(client.get("pva://x").value)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
Scalar()  # pyright: ignore[reportCallIssue]
Scalar("value", 42, 43)  # pyright: ignore[reportCallIssue]
NTTable()  # pyright: ignore[reportCallIssue]
Client("dev")  # pyright: ignore[reportCallIssue]
Client("dev", "app").monitor_stream(["pva://x"])  # pyright: ignore[reportArgumentType]
Client("dev", "app").put_stream("pva://x")  # pyright: ignore[reportCallIssue]
client.get_many(5)  # pyright: ignore[reportArgumentType]
client.put_many(["pva://x"])  # pyright: ignore[reportArgumentType]

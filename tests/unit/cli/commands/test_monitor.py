"""The command monitor: which PVs it monitors, against a scripted gateway in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from reactivex import operators as ops

from k2eg.cli.arguments import parse_arguments
from k2eg.cli.commands.monitor import Mask, updates_of
from k2eg.cli.values.pv_names import Target
from k2eg_rx import Client, ConnectionEvent, PVState, PVUpdate
from k2eg_rx.testing import ScriptedGateway

pytest_plugins = ["k2eg_rx.testing.fixtures"]


def seen(k2eg_client: Client, *texts: str) -> list[Any]:
    targets = [Target(text, text if "://" in text else f"pva://{text}", is_open="://" not in text) for text in texts]
    items: list[Any] = []
    updates_of(k2eg_client, targets, overflow="block", connection=True).subscribe(items.append)
    return items


def uris(items: list[Any]) -> set[str]:
    return {item.address.uri for item in items if isinstance(item, PVUpdate)}


def test_names_without_protocol_are_monitored_over_the_one_that_answers(
    k2eg_gateway: ScriptedGateway, k2eg_client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    k2eg_gateway.pv("both", 1.5)
    k2eg_gateway.pv("ca://old", 2.5)
    k2eg_gateway.pv("pva://known", 3.5)
    items = seen(k2eg_client, "both", "old", "pva://known")
    k2eg_gateway.advance(1.9)
    assert uris(items) == {"pva://both", "ca://old", "pva://known"}
    assert capsys.readouterr().err == "k2eg: found over ca, not pva (-p ca asks there at once): old\n"
    k2eg_gateway.advance(20.0)
    assert len([item for item in items if isinstance(item, PVUpdate)]) == 3


def test_dead_pvs_hold_no_other_back_and_are_monitored_too(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    for number in range(20):
        k2eg_gateway.pv(f"q:{number}", 1.5)
    dead = k2eg_gateway.pv("dead", 0.5, connected=False)
    items = seen(k2eg_client, "dead", *(f"q:{number}" for number in range(20)))
    k2eg_gateway.advance(0.5)
    assert len(uris(items)) == 20
    k2eg_gateway.advance(15.0)
    lost = [item.uri for item in items if isinstance(item, ConnectionEvent) and item.state is PVState.NEVER_CONNECTED]
    assert lost == ["pva://dead"]
    dead.connect()
    k2eg_gateway.advance(1.0)
    assert "pva://dead" in uris(items)


@pytest.mark.parametrize(
    ("mask", "values"), [("va", [1.0, 1.0, 1.0, 2.0, 2.0]), ("v", [1.0, 2.0]), ("a", [1.0, 1.0, 2.0])]
)
def test_a_mask_prints_changes_of_the_value_or_of_the_alarm_only(
    k2eg_gateway: ScriptedGateway, k2eg_client: Client, mask: str, values: list[float]
) -> None:
    pv = k2eg_gateway.pv("x", 1.0)
    shown: list[float] = []
    updates = k2eg_client.monitor_stream("pva://x").pipe(ops.filter(Mask(mask)))
    updates.subscribe(lambda update: shown.append(update.value))
    k2eg_gateway.advance(1.0)
    for value, severity in ((1.0, 0), (1.0, 2), (2.0, 2), (2.0, 0)):
        pv.post(value, severity=severity)
        k2eg_gateway.advance(1.0)
    assert shown == values


@pytest.mark.parametrize("mask", ["l", "vap", "x", ""])
def test_a_mask_that_cannot_be_had_is_refused(capsys: pytest.CaptureFixture[str], mask: str) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["monitor", "-m", mask, "pva://x"])
    assert "argument -m: must be v, a or va, got" in capsys.readouterr().err

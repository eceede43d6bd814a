"""Values that are put back: after every kind of end, in every type, and what is said if that fails."""

from __future__ import annotations

import pytest

from k2eg_rx import Client, Severity, first
from k2eg_rx.scans import RestoreError, restoring
from k2eg_rx.testing import ScriptedGateway

pytest_plugins = ["k2eg_rx.testing.fixtures"]

QUAD = "pva://quad"


@pytest.mark.parametrize("error", [None, KeyError("mine"), KeyboardInterrupt(), SystemExit(2)])
def test_values_are_put_back_however_the_block_ends(
    k2eg_gateway: ScriptedGateway, k2eg_client: Client, error: BaseException | None
) -> None:
    quad = k2eg_gateway.pv("quad", 10.0)

    def run() -> None:
        with restoring(k2eg_client, [QUAD]) as before:
            assert before[QUAD].value == 10.0
            first(k2eg_client.put_stream(QUAD, 6.0))
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error)) as raised:
            run()
        assert raised.value is error
    assert quad.puts == [6.0, 10.0]


@pytest.mark.parametrize(
    ("before", "changed", "choices"),
    [
        (1, 5, None),
        ("text", "other", None),
        ([1.0, 2.0], [3.0, 4.0], None),
        ("Beam", "Off", ["Off", "Beam", "Beam"]),
        ({"a": [1, 2], "b": ["x", "y"]}, {"a": [3], "b": ["z"]}, None),
    ],
)
def test_values_of_all_types_are_put_back(
    k2eg_gateway: ScriptedGateway, k2eg_client: Client, before: object, changed: object, choices: list[str] | None
) -> None:
    pv = k2eg_gateway.pv("pv", before, choices=choices)
    kept = first(k2eg_client.get_stream("pva://pv")).value
    with restoring(k2eg_client, ["pva://pv"]):
        first(k2eg_client.put_stream("pva://pv", changed))
    assert first(k2eg_client.get_stream("pva://pv")).value == kept
    assert len(pv.puts) == 2


def test_a_put_of_the_block_that_is_under_way_does_not_win(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    quad = k2eg_gateway.pv("quad", 10.0, delay=3.0)
    with restoring(k2eg_client, [QUAD]):
        put = k2eg_client.put_stream(QUAD, 6.0).subscribe()
        k2eg_gateway.advance(1.0)
        put.dispose()
        quad.delay = 0.5  # the next one happens to be quicker
    k2eg_gateway.advance(20.0)
    assert quad.value == 10.0


def test_what_was_not_put_back_is_named(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    quad, other = k2eg_gateway.pv("quad", 10.0), k2eg_gateway.pv("other", 1.0)

    def leave() -> None:
        with restoring(k2eg_client, [QUAD, "pva://other"], timeout=5.0):
            other.disconnect()
            raise KeyError("mine")

    with pytest.raises(RestoreError, match=r"1 of 2 PVs were not put back, .*: pva://other to 1\.0: ") as caught:
        leave()
    assert isinstance(caught.value.__context__, KeyError)
    assert (list(caught.value.errors), quad.puts, other.puts) == (["pva://other"], [10.0], [])


def test_a_closed_client_is_named(k2eg_gateway: ScriptedGateway) -> None:
    quad = k2eg_gateway.pv("quad", 10.0)
    k2eg_client = k2eg_gateway.client()
    with pytest.raises(RestoreError, match=r"pva://quad to 10\.0: .*closed"), restoring(k2eg_client, [QUAD]):
        k2eg_client.close()
    assert quad.puts == []


def test_a_second_interrupt_says_what_is_not_confirmed(
    k2eg_gateway: ScriptedGateway, k2eg_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    k2eg_gateway.pv("quad", 10.0, on_put=interrupt)
    with pytest.raises(KeyboardInterrupt), restoring(k2eg_client, [QUAD]):
        pass
    assert "not confirmed: pva://quad=10.0" in caplog.text


def test_the_block_is_not_entered_if_a_value_cannot_be_put_back(
    k2eg_gateway: ScriptedGateway, k2eg_client: Client
) -> None:
    k2eg_gateway.pv("quad", 10.0)
    k2eg_gateway.pv("new", 0.0, severity=Severity.INVALID)
    for uri, text in {"pva://new": "must be valid to be put back", "pva://missing": "Timeout"}.items():
        with pytest.raises(Exception, match=text), restoring(k2eg_client, [QUAD, uri], timeout=5.0):
            pytest.fail("entered")

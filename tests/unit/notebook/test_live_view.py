"""Live views in virtual time: how often they draw, and how they end."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import reactivex as rx
from reactivex.subject import Subject

from k2eg_rx import Client, PVUpdate
from k2eg_rx.notebook.live_view import View, display
from k2eg_rx.notebook.newest_rows import NewestRows
from k2eg_rx.testing import ScriptedGateway, update

pytest_plugins = ["k2eg_rx.testing.fixtures"]

PERIOD = 0.2


class Output:
    """The output of a cell."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def view(self, stream: rx.Observable[Any]) -> View:
        """Shows a stream."""
        return View(stream, NewestRows(), PERIOD, self.shown.append)


def test_drawings_have_a_bounded_rate_and_the_newest_value(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    pv, output = k2eg_gateway.pv("my:x", 0), Output()
    view = output.view(k2eg_client.monitor_stream("pva://my:x"))
    k2eg_gateway.advance(1.0)
    drawn = len(output.shown)
    for number in range(1, 1001):
        pv.post(number)
        k2eg_gateway.advance(0.001)
    k2eg_gateway.advance(PERIOD)
    assert 5 <= len(output.shown) - drawn <= 7
    assert ">1000<" in output.shown[-1]
    quiet = len(output.shown)
    k2eg_gateway.advance(10.0)
    assert len(output.shown) == quiet
    view.stop()


def test_a_stopped_view_has_no_subscription_and_shows_its_last_values(k2eg_gateway: ScriptedGateway) -> None:
    source: Subject[PVUpdate] = Subject()
    output = Output()
    view = output.view(source)
    source.on_next(update("my:x", 7))
    view.stop()
    view.stop()
    assert not source.observers
    assert len(output.shown) == 1  # before the first drawing was due
    assert ">7<" in output.shown[0]
    assert output.shown[0].endswith("<div>stopped</div>")
    assert (view.running, repr(view), view.wait()) == (False, "<View ended>", view)
    k2eg_gateway.advance(10.0)
    assert len(output.shown) == 1


def test_the_end_of_the_client_ends_the_view(k2eg_gateway: ScriptedGateway, k2eg_client: Client) -> None:
    k2eg_gateway.pv("my:x", 1.5)
    output = Output()
    view = output.view(k2eg_client.monitor_stream("pva://my:x"))
    k2eg_gateway.advance(1.0)
    k2eg_client.close()
    assert view.wait() is view
    assert output.shown[-1].endswith("<div>ended</div>")


def test_an_error_of_the_stream_is_shown_escaped_and_raised_by_wait() -> None:
    output = Output()
    view = output.view(rx.throw(ValueError("<b>wrong</b>")))
    assert output.shown[-1].endswith("<div>ended by ValueError: &lt;b&gt;wrong&lt;/b&gt;</div>")
    with pytest.raises(ValueError, match="wrong"):
        view.wait()


def test_a_stream_that_ends_during_subscription_is_shown(k2eg_gateway: ScriptedGateway) -> None:
    output = Output()
    assert output.view(rx.of(update("my:x", 1), update("my:x", 2))).running is False
    assert ">2<" in output.shown[-1]


def test_an_output_that_fails_ends_the_view(k2eg_gateway: ScriptedGateway) -> None:
    source: Subject[PVUpdate] = Subject()

    def show(_html: str) -> None:
        raise OSError("the kernel ends")

    view = View(source, NewestRows(), PERIOD, show)
    source.on_next(update("my:x", 7))
    k2eg_gateway.advance(1.0)
    assert not source.observers
    with pytest.raises(OSError, match="the kernel ends"):
        view.wait()


def test_display_needs_a_kernel() -> None:
    with pytest.raises(RuntimeError, match=r"needs a notebook's kernel: in a terminal use 'k2eg top' or 'k2eg strip'"):
        display(rx.never())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": 0.0}, "rate must be"),
        ({"rate": 50.0}, "rate must be"),
        ({"kind": "chart"}, "kind must be"),
        ({"kind": "plot", "seconds": -1.0}, "seconds must be"),
    ],
)
def test_wrong_arguments_are_errors_that_name_them(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        display(rx.never(), **options)
    with pytest.raises(ValueError, match="stream must be an Observable"):
        display("pva://my:x")  # type: ignore[arg-type]  # pyright: ignore


def test_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'k2eg\[notebook\]'"):
        display(rx.never())

"""The page of ``k2eg web`` in Chromium, on the demo's PVs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import WebSocket

from k2eg_rx import Client, first

from .conftest import TIMEOUT, Serve, Watched

Visit = Callable[..., Watched]
Screenshot = Callable[[Watched, str], Path]

SCALARS = ("demo:sine10", "demo:temperature", "demo:message", "pva://<b>nowhere")
SHAPES = ("demo:waveform", "demo:camera", "demo:table")

# The number of pixels of a canvas's part that have a colour of the theme: of its left, middle and right third.
COLOURED = """([selector, name]) => {
    const canvas = document.querySelector(selector);
    if (!canvas || !canvas.width) return [0, 0, 0];
    const style = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const wanted = [1, 3, 5].map((place) => parseInt(style.slice(place, place + 2), 16));
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const found = [0, 0, 0];
    for (let place = 0; place < canvas.width * canvas.height; place += 1) {
        const isIt = wanted.every((part, channel) => Math.abs(data[place * 4 + channel] - part) < 24);
        if (isIt && data[place * 4 + 3] > 128) found[Math.floor((place % canvas.width) * 3 / canvas.width)] += 1;
    }
    return found;
}"""


@pytest.fixture(scope="module")
def url(client: Client, serve: Serve) -> str:
    """The URL of a page whose first PV has six seconds of history."""
    enough = threading.Event()
    times: list[int] = []

    def take(item: object) -> None:
        times.append(getattr(item, "timestamp", 0))
        if times[-1] - times[0] > 6e9:
            enough.set()

    client.monitor_stream("pva://demo:sine10").subscribe(take)
    assert enough.wait(TIMEOUT)
    return serve(*SCALARS, *SHAPES, "--since", "6s")


def coloured(watched: Watched, selector: str, colour: str = "--curve0") -> list[int]:
    return watched.page.evaluate(COLOURED, [selector, colour])


def until_coloured(watched: Watched, selector: str, colour: str = "--curve0") -> None:
    watched.page.wait_for_function(f"(given) => ({COLOURED})(given).every(Boolean)", arg=[selector, colour])


def value_of(watched: Watched, name: str) -> str:
    return watched.page.locator("#rows tbody tr", has_text=name).locator("td.value").inner_text()


def test_a_chart_with_the_past_and_a_table_that_goes_on(url: str, visit: Visit, screenshot: Screenshot) -> None:
    watched = visit(url)
    until_coloured(watched, "#chart canvas")  # a curve from the left, which was before the page, to the right
    before = value_of(watched, "demo:sine10")
    assert before
    watched.until(
        f"[...document.querySelectorAll('#rows tbody tr')].some((line) => line.innerText.includes('demo:sine10')"
        f" && line.querySelector('td.value').innerText !== '{before}')"
    )
    watched.until("document.querySelector('tr.disconnected td.name')?.innerText === 'pva://<b>nowhere'")
    assert watched.page.title().startswith("demo:sine10, demo:temperature, demo:message")
    screenshot(watched, "chart-1280")


def test_arrays_images_and_tables_are_drawn(url: str, visit: Visit, screenshot: Screenshot) -> None:
    watched = visit(url)
    until_coloured(watched, "#shapes figure .u-wrap canvas")
    watched.until("document.querySelector('canvas.image')?.width === 80")
    pixels = watched.page.evaluate(
        "[...document.querySelector('canvas.image').getContext('2d').getImageData(0, 0, 80, 60).data]"
    )
    grey = pixels[::4]
    assert (min(grey), max(grey)) == (0, 255)
    assert pixels[3::4] == [255] * 4800
    watched.until("document.querySelectorAll('#shapes table tbody tr').length === 4")
    assert "BPMS:DEMO:230" in watched.texts("#shapes table td")
    screenshot(watched, "shapes-1280")


def test_a_narrow_dark_page_needs_no_scrolling_to_the_side(url: str, visit: Visit, screenshot: Screenshot) -> None:
    watched = visit(url, 400, dark=True)
    until_coloured(watched, "#chart canvas")
    watched.until("document.querySelector('canvas.image')?.width === 80")
    watched.until("document.querySelectorAll('#shapes table tbody tr').length === 4")
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 400
    screenshot(watched, "all-400")


def test_keys_and_buttons_change_the_view(url: str, visit: Visit, screenshot: Screenshot) -> None:
    watched = visit(url)
    page = watched.page
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 - playwright takes no method of a list
    page.reload()
    until_coloured(watched, "#chart canvas")
    with sockets[-1].expect_event("framesent") as paused:
        page.keyboard.press("Space")
    assert page.locator("#pause").inner_text() == "live"
    box = page.locator("#chart .u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 100)
    watched.until("/\\d/.test(document.querySelector('#rows tbody td.there').innerText)")
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 100)
    with sockets[-1].expect_event("framesent") as zoomed:  # the page asks for details of what is shown
        page.mouse.up()
    whole, part = (asked["to"] - asked["from"] for asked in (json.loads(paused.value), json.loads(zoomed.value)))
    assert part == pytest.approx(whole * 0.2, rel=0.1)
    until_coloured(watched, "#chart canvas")
    page.get_by_role("button", name="own scales").click()
    assert page.locator("#own").get_attribute("aria-pressed") == "true"
    screenshot(watched, "zoomed-1280")
    page.keyboard.press("Escape")
    assert page.locator("#pause").inner_text() == "pause"
    page.locator("#filter").fill("temp")
    assert page.locator("#rows tbody tr:visible").count() == 1


def test_texts_of_pvs_are_texts(url: str, visit: Visit, client: Client) -> None:
    text = "<img src=x onerror=alert(1)>"
    before = client.get("pva://demo:message").value
    first(client.put_stream("pva://demo:message", text))
    try:
        watched = visit(url)
        watched.until(f"[...document.querySelectorAll('td.value')].some((cell) => cell.innerText === {text!r})")
        assert watched.texts("#rows td.name") == [*SCALARS, *SHAPES]
        assert watched.page.locator("#rows img, #rows b").count() == 0
    finally:
        first(client.put_stream("pva://demo:message", before))


def test_without_the_token_there_is_no_page_and_with_it_there_is(serve: Serve, visit: Visit) -> None:
    url = serve("demo:sine10", "--since", "6s", "--token", "a-long-token")
    assert url.endswith("/?token=a-long-token")
    watched = visit(url)
    until_coloured(watched, "#chart canvas")
    response = watched.page.request.get(url.partition("?")[0])
    assert (response.status, "token" in response.text()) == (403, True)

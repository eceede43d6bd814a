"""Fixtures: the embedded stack, ``k2eg web`` on it, and Chromium.

Chromium is the machine's own (`apt-get install chromium`); the tests are left out without it. They are not among
pytest's `testpaths`: `.ci/run` asks for them by name, where there is a Chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from k2eg_rx import Client
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.embedded.stack import COMMAND_TOPIC

TIMEOUT = 60.0  # seconds until something that should happen is missing
SCREENSHOTS_VARIABLE = "K2EG_TEST_SCREENSHOTS"  # a folder that keeps them, to be looked at

_INI = "[DEFAULT]\nkafka_broker_url={broker}\nk2eg_cmd_topic={commands}\n[kafka]\nfetch.wait.max.ms=5\n"
_CHROMIUM_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Serve = Callable[..., str]


@pytest.fixture(scope="session")
def stack() -> Iterator[EmbeddedStack]:
    """Broker, IOC with the demo's records, and gateway."""
    with EmbeddedStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def client(stack: EmbeddedStack) -> Iterator[Client]:
    """A client of the stack."""
    with Client("demo", "test-browser", settings=stack.settings("test-browser")) as client:
        yield client


@pytest.fixture(scope="session")
def serve(stack: EmbeddedStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts ``k2eg web`` with arguments, and returns the URL that it prints."""
    folder = tmp_path_factory.mktemp("environments")
    (folder / "stack.ini").write_text(_INI.format(broker=stack.broker_address, commands=COMMAND_TOPIC))
    environment = os.environ | {
        "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(folder),
        "K2EG_CLI_DEFAULT_ENVIRONMENT": "stack",
    }
    with ExitStack() as servers:

        def start(*words: str) -> str:
            command = [sys.executable, "-m", "k2eg.cli", "web", *words]
            server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            servers.enter_context(server)
            servers.callback(server.terminate)
            assert server.stdout is not None
            return server.stdout.readline().strip()

        yield start


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium without a window."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        environment: dict[str, str | float | bool] = {**os.environ, "HOME": str(tmp_path_factory.mktemp("chromium"))}
        browser = playwright.chromium.launch(
            executable_path=program, args=_CHROMIUM_ARGUMENTS, timeout=TIMEOUT * 1000, env=environment
        )
        yield browser
        browser.close()


class Watched:
    """A page, the errors of its console, and what it asks for.

    Args:
        page: The page.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(TIMEOUT * 1000)
        page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("requestfailed", lambda request: self.said.append(f"{request.url}: {request.failure}"))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))

    def until(self, condition: str) -> None:
        """Waits until an expression of the page is true."""
        self.page.wait_for_function(f"() => {condition}")  # as a function: the page's policy allows no eval

    def texts(self, selector: str) -> list[str]:
        """Returns the texts of elements."""
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture
def visit(chromium: Browser, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Opens a URL in a fresh page of a width; the page has had no error and asked nothing of others at the end."""
    with ExitStack() as ends:

        def visit(url: str, width: int = 1280, *, dark: bool = False) -> Watched:
            context = chromium.new_context(
                viewport={"width": width, "height": 1000}, color_scheme="dark" if dark else "light"
            )
            ends.callback(context.close)
            watched = Watched(context.new_page())
            watched.page.goto(url)
            origin = url.partition("?")[0].partition("://")[2]
            ends.callback(lambda: _check(watched, origin))
            return watched

        yield visit


def _check(watched: Watched, origin: str) -> None:
    assert watched.said == []
    assert [url for url in watched.asked if not url.partition("://")[2].startswith(origin) and url != "data:,"] == []


@pytest.fixture
def screenshot(tmp_path: Path) -> Callable[[Watched, str], Path]:
    """Writes what a page shows to a file."""
    folder = Path(os.environ.get(SCREENSHOTS_VARIABLE) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(watched: Watched, name: str) -> Path:
        path = folder / f"{name}.png"
        watched.page.screenshot(path=path, full_page=True)
        return path

    return take

"""Makes the pictures of README: what `k2eg history`, `strip`, `top` and `web` show of the demo's PVs.

    python docs/pictures.py [--seconds 60] [--folder docs/static]

It starts a broker, an IOC and a gateway of its own, and watches the PVs before it takes the pictures. They are
terminals as SVG, without fonts of their own, and the page of `k2eg web` as PNG, for which there must be a Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from k2eg.cli.commands.monitor import updates_of
from k2eg.cli.commands.top_app import TopApp
from k2eg.cli.printing.top_rows import TopRows
from k2eg.cli.values.pv_names import Target
from k2eg_rx import Client
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.embedded.stack import COMMAND_TOPIC

PVS = ("demo:sine10", "demo:temperature", "demo:ramp10")
TOP_PVS = (*PVS, "demo:setpoint1", "demo:mode", "demo:beamsize", "demo:sum", "demo:loss", "demo:bpm1", "demo:nowhere")
WEB_PVS = (*PVS, "demo:waveform", "demo:camera")
_COLUMNS, _ROWS = 96, 24
_PIXELS = 960  # of the page, in both directions
_TIMEOUT = 60.0
_INI = "[DEFAULT]\nkafka_broker_url={broker}\nk2eg_cmd_topic={topic}\n"
_FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def on_terminal(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Runs the command line on a terminal to its end; returns what it prints."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (_ROWS, _COLUMNS))
    with subprocess.Popen(
        [sys.executable, "-m", "k2eg.cli", *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        text = b""
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.1)[0]:
                text += os.read(ours, 65536)
    os.close(theirs)
    os.close(ours)
    if process.returncode != 0:
        raise RuntimeError(f"k2eg {' '.join(words)}: {text.decode()}")
    return text.decode().replace("\r\n", "\n").rstrip("\n")


def svg_of(printed: str, command: str) -> str:
    """Returns the picture of a terminal."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.assemble(("$ ", "green"), command))
        console.print(Text.from_ansi(printed), soft_wrap=True)
        return console.export_svg(title="", unique_id=command.split()[1])


async def live_table(client: Client, seconds: float) -> str:
    """Returns the picture of `k2eg top` after some seconds."""
    targets = [Target(name, f"pva://{name}") for name in TOP_PVS]
    rows = TopRows({target.uri: target.text for target in targets}, None)
    app = TopApp(rows, lambda: client.status)
    updates = updates_of(client, targets, overflow="latest", connection=True)
    subscription = updates.subscribe(lambda item: rows.add(item, time.monotonic()), app.fail)
    try:
        async with app.run_test(size=(_COLUMNS, len(TOP_PVS) + 4)) as pilot:
            await pilot.pause(seconds)
            while "MAJOR" not in (picture := app.export_screenshot(title="k2eg top")):  # a few seconds of each ten
                await pilot.pause(0.5)
            return picture
    finally:
        subscription.dispose()


def main() -> None:
    """Makes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to watch the PVs (default: %(default)g)")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "static")
    arguments = parser.parse_args()
    with (
        EmbeddedStack() as stack,
        Client("demo", "pictures", settings=stack.settings("pictures")) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        (Path(folder) / "demo.ini").write_text(_INI.format(broker=stack.broker_address, topic=COMMAND_TOPIC))
        environment = {
            **os.environ,
            "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": folder,
            "K2EG_CLI_DEFAULT_ENVIRONMENT": "demo",
            "K2EG_CLI_SEEN_PVS": "",
            "TERM": "xterm-256color",
        }
        watched = client.monitor_many_stream([f"pva://{name}" for name in PVS]).subscribe(lambda _: None)
        time.sleep(arguments.seconds)
        since = f"{arguments.seconds:g}s"
        for command in (
            ["history", *PVS, "--since", since, "--every", "7s"],
            ["strip", *PVS, "--since", since],
        ):
            once = ["--once"] if command[0] == "strip" else []
            printed = on_terminal([*command, *once], environment)
            save(svg_of(printed, " ".join(["k2eg", *command])), arguments.folder / f"{command[0]}.svg")
        save(asyncio.run(live_table(client, min(arguments.seconds, 20.0))), arguments.folder / "top.svg")
        page(["web", *WEB_PVS, "--since", since], environment, arguments.folder / "web.png")
        watched.dispose()


def page(words: Sequence[str], environment: Mapping[str, str], path: Path) -> None:
    """Takes the picture of the page of `k2eg web`, when it shows an image and each value."""
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("there is no chromium: apt-get install chromium")
    command = [sys.executable, "-m", "k2eg.cli", *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip() if server.stdout is not None else ""
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=program, args=["--headless", "--no-sandbox"])
                shown = browser.new_page(viewport={"width": _PIXELS, "height": _PIXELS}, color_scheme="light")
                shown.set_default_timeout(_TIMEOUT * 1000)
                shown.goto(url)
                shown.wait_for_function("() => document.querySelectorAll('#shapes canvas').length > 1")
                shown.wait_for_timeout(3000)  # rates and trends, which need some updates
                shown.screenshot(path=path)
                browser.close()
        finally:
            server.terminate()
    print(f"{path}: {path.stat().st_size} bytes")


def save(svg: str, path: Path) -> None:
    """Writes a picture without its fonts, which are fetched from elsewhere."""
    path.write_text(_FONT_FACE.sub("", svg), encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

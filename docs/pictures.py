"""Makes the pictures of the recipes: runs the programs on a demo of its own, and shrinks what they draw.

    python docs/pictures.py  # two minutes; needs the extra `test`, and chromium for the picture of the web page

Pictures have few colours, so that each is a small file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure
from PIL import Image

from k2eg_rx import Client, PVUpdate
from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.settings import DEMO_BROKER_VARIABLE

ROOT = Path(__file__).parents[1]
PICTURES = Path(__file__).parent / "recipes" / "pictures"
COLOURS = 128
CORRELATED = [f"pva://demo:{name}" for name in ("bpm1", "bpm6", "bpm11", "quad:readback", "beamsize", "loss")]
SECONDS = 20.0  # of the feedback before and while it writes


def run(program: str, *arguments: object) -> None:
    """Runs an example to its end."""
    subprocess.run([sys.executable, ROOT / "examples" / program, *map(str, arguments)], check=True)


def keep(picture: Path) -> None:
    """Shrinks a picture and puts it into the documentation."""
    Image.open(picture).convert("RGB").quantize(COLOURS).save(PICTURES / picture.name, optimize=True)
    print(f"{PICTURES / picture.name}: {(PICTURES / picture.name).stat().st_size} bytes")


def draw_feedback(client: Client, picture: Path) -> None:
    """Draws the position and the corrector's current before and after the feedback begins to write."""
    updates: dict[str, list[PVUpdate]] = {"demo:bpm4": [], "demo:corrector": []}
    client.put("pva://demo:corrector", 0.0)
    uris = [f"pva://{name}" for name in updates]
    with client.monitor_many_stream(uris).subscribe(lambda update: updates[update.name].append(update)):
        time.sleep(SECONDS)
        run("feedback.py", "--write", "--count", int(SECONDS))
    start = (updates["demo:bpm4"][0].timestamp or 0) / 1e9
    end = (updates["demo:bpm4"][-1].timestamp or 0) / 1e9
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    for axes, (name, own) in zip(figure.subplots(2, sharex=True), updates.items(), strict=True):
        times = [max((update.timestamp or 0) / 1e9, start) - start for update in own]
        axes.step([*times, end - start], [*(update.value for update in own), own[-1].value], where="post")
        axes.set_ylabel(f"{name} / {own[0].units}")
        axes.grid(alpha=0.3)
    axes.set_xlabel("seconds")
    figure.savefig(picture)


def photograph_web_page(picture: Path) -> None:
    """Takes a picture of the page of the web service."""
    browser = shutil.which("chromium") or "chromium"
    service = subprocess.Popen([sys.executable, ROOT / "examples/web_service.py"], stdout=subprocess.PIPE, text=True)
    with service:
        assert service.stdout is not None
        address = service.stdout.readline().split()[1]
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=660,640"]
        patience = "--virtual-time-budget=10000"
        subprocess.run([browser, *options, patience, f"--screenshot={picture}", address], check=True)
        service.terminate()


def main() -> None:
    """Makes all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as name, EmbeddedStack() as stack:
        folder = Path(name)
        (folder / "broker").write_text(stack.broker_address)
        os.environ[DEMO_BROKER_VARIABLE] = str(folder / "broker")
        with Client("demo", "pictures") as client:
            client.monitor_many_stream(CORRELATED).subscribe()  # Kafka keeps what is monitored
            run("orbit.py", folder / "orbit.png", "--pulses", 150, "--every", 150)
            draw_feedback(client, folder / "feedback.png")
            client.put("pva://demo:corrector", 0.0)
            run("quadrupole_scan.py", folder / "scan.png")
        run("correlation.py", folder / "correlation.png")
        photograph_web_page(folder / "web.png")
        for picture in ("orbit", "scan", "feedback", "correlation", "web"):
            keep(folder / f"{picture}.png")


if __name__ == "__main__":
    main()

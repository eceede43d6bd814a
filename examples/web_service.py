"""A web service: the newest values of PVs as JSON, and a page that draws them, once a second.

    k2eg demo                       # in one terminal
    python examples/web_service.py  # in another; open the printed address in a browser

It is reachable from this machine only, and needs no web framework; `service.py` is one for asyncio.
"""

from __future__ import annotations

import argparse
import json
import signal
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from k2eg_rx import Client, PVUpdate
from k2eg_rx.operators import conflate

NAMES = [f"demo:bpm{number}" for number in range(1, 21)]

PAGE = """<!doctype html>
<title>Orbit</title>
<style>
  body { font: 16px sans-serif; margin: 2em }
  td { padding: 1px 1em } td:nth-child(2) { text-align: right; white-space: nowrap; font-family: monospace }
  meter { width: 20em } .bad { color: red }
</style>
<h1>Orbit</h1>
<table></table>
<script>
  async function show() {
    const values = await (await fetch("values")).json()
    document.querySelector("table").innerHTML = Object.entries(values).map(([pv, { value, units, severity }]) =>
      `<tr class="${severity == "NO_ALARM" ? "" : "bad"}"><td>${pv}<td>${value.toFixed(3)} ${units}` +
      `<td><meter min="-1" max="1" value="${value}"></meter>`).join("")
  }
  show(); setInterval(show, 1000)
</script>
"""


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 for a free one")
    options = parser.parse_args()
    newest: dict[str, PVUpdate] = {}

    def keep(update: PVUpdate) -> None:
        newest[update.name] = update  # one thread writes; the others read one entry: that needs no lock

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # the browser has left
                super().handle()

        def do_GET(self) -> None:
            if self.path == "/":
                self.respond("text/html", PAGE)
            elif self.path == "/values":
                shown = {name: row(newest[name]) for name in NAMES if name in newest}
                self.respond("application/json", json.dumps(shown))
            else:
                self.send_error(404)

        def respond(self, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Logs no requests."""

    with Client("demo", "example-web") as client, ThreadingHTTPServer(("127.0.0.1", options.port), Handler) as server:
        client.monitor_many_stream([f"pva://{name}" for name in NAMES]).pipe(conflate(2.0)).subscribe(keep)

        def stop(*_: object) -> None:
            Thread(target=server.shutdown).start()  # it waits for the loop below, which this thread runs

        signal.signal(signal.SIGINT, stop)  # KeyboardInterrupt could cut off a request that begins
        print(f"serving http://127.0.0.1:{server.server_port}/ (Ctrl-C to stop)", flush=True)
        server.serve_forever()


def row(update: PVUpdate) -> dict[str, object]:
    """Returns what the page shows of an update."""
    return {"value": update.value, "units": update.units, "severity": update.severity.name}


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # before it serves
        main()

"""An asyncio HTTP service that reports the RMS of an orbit, computed from several PVs.

    k2eg demo                   # in one terminal
    python examples/service.py  # in another; open the printed address in a browser

Iterates over several PVs concurrently, keeps the newest update of each, and replies to requests with JSON. Ctrl-C or
SIGTERM cancels the requests and iterations and closes the client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import signal
from contextlib import suppress
from statistics import fmean
from typing import Any

from k2eg_rx import PVUpdate, Severity, aio

DEFAULT_PVS = [f"pva://demo:bpm{number}" for number in range(1, 9)]
REQUEST_SECONDS = 5.0  # for a request to arrive; frees connections of clients that send none


class Orbit:
    """The newest positions of several monitors; used on the event loop only."""

    def __init__(self, uris: list[str]) -> None:
        self._newest: dict[str, PVUpdate | None] = dict.fromkeys(uris)

    async def follow(self, client: aio.Client, uri: str) -> None:
        """Keeps a PV's newest update until the client is closed."""
        async with client.monitor(uri, capacity=1, overflow="latest") as updates:
            async for update in updates:
                self._newest[uri] = update

    def report(self) -> dict[str, Any]:
        """Returns the RMS of the valid positions and each position; None for unknown ones."""
        valid = {
            uri: float(update.value)
            for uri, update in self._newest.items()
            if update is not None and update.severity < Severity.INVALID
        }
        rms = math.sqrt(fmean(position**2 for position in valid.values())) if valid else None
        return {"rms_mm": rms, "monitors": len(valid), "positions_mm": {uri: valid.get(uri) for uri in self._newest}}


async def respond(orbit: Orbit, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Replies to the HTTP request of a connection."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            request = await reader.readuntil(b"\r\n\r\n")
            if request.split(b" ", 2)[:2] == [b"GET", b"/"]:
                status, body = "200 OK", orbit.report()
            else:
                status, body = "404 Not Found", {"error": "there is only GET /"}
            content = json.dumps(body).encode() + b"\n"
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + content)
            await writer.drain()
    except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client has disconnected or does not speak HTTP


async def serve(environment: str, uris: list[str], port: int) -> None:
    """Serves until cancelled or until a task fails; then cancels all tasks and closes the client."""
    orbit = Orbit(uris)
    async with aio.Client(environment, "example-service") as client, asyncio.TaskGroup() as tasks:
        for uri in uris:
            tasks.create_task(orbit.follow(client, uri))

        stopping = asyncio.Event()

        def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if stopping.is_set():
                writer.close()
            else:
                reply = tasks.create_task(respond(orbit, reader, writer))
                reply.add_done_callback(
                    lambda _: writer.close()
                )  # not in `respond`, which may be cancelled before it starts

        server = await asyncio.start_server(on_connection, "127.0.0.1", port)  # reachable from this machine only
        try:
            host, chosen = server.sockets[0].getsockname()
            print(f"serving http://{host}:{chosen}/ (Ctrl-C to stop)", flush=True)
            await asyncio.Event().wait()
        finally:
            stopping.set()
            server.close()


async def serve_until_signalled(environment: str, uris: list[str], port: int) -> None:
    """Serves until SIGINT or SIGTERM."""
    service = asyncio.create_task(serve(environment, uris, port))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, service.cancel)
    with suppress(asyncio.CancelledError):
        await service
    print("stopped")


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-e", "--environment", default="demo")
    parser.add_argument("--pv", action="append", help="a PV of a monitor; can be repeated")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 for a free one")
    options = parser.parse_args()
    asyncio.run(serve_until_signalled(options.environment, options.pv or DEFAULT_PVS, options.port))


if __name__ == "__main__":
    main()

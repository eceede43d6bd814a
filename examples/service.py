"""An asyncio service: the orbit's RMS, worked out from several PVs, for whoever asks over HTTP.

    k2eg demo                   # in one terminal
    python examples/service.py  # in another; it prints its address, for a browser or curl

Iterates over the updates of several PVs at the same time, keeps the newest of each, and answers every request with what
follows from them, as JSON. Ctrl-C or SIGTERM ends it: the requests, the iterations, and then the client.
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
REQUEST_SECONDS = 5.0  # within which a request has to be sent: nobody holds a connection for ever


class Orbit:
    """The newest positions of some monitors. Belongs to the event loop."""

    def __init__(self, uris: list[str]) -> None:
        self._newest: dict[str, PVUpdate | None] = dict.fromkeys(uris)

    async def follow(self, client: aio.Client, uri: str) -> None:
        """Keeps a PV's newest update, until the client is closed."""
        async with client.monitor(uri, capacity=1, overflow="latest") as updates:
            async for update in updates:
                self._newest[uri] = update

    def report(self) -> dict[str, Any]:
        """Returns what is served: the RMS of the valid positions, and each of them; null for what is not known."""
        valid = {
            uri: float(update.value)
            for uri, update in self._newest.items()
            if update is not None and update.severity < Severity.INVALID
        }
        rms = math.sqrt(fmean(position**2 for position in valid.values())) if valid else None
        return {"rms_mm": rms, "monitors": len(valid), "positions_mm": {uri: valid.get(uri) for uri in self._newest}}


async def respond(orbit: Orbit, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers the one HTTP request of a connection."""
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
        pass  # it has gone, or does not speak HTTP


async def serve(environment: str, uris: list[str], port: int) -> None:
    """Serves until it is cancelled, or one of its tasks fails: then all others are cancelled, and the client closed."""
    orbit = Orbit(uris)
    async with aio.Client(environment, "example-service") as client, asyncio.TaskGroup() as tasks:
        for uri in uris:
            tasks.create_task(orbit.follow(client, uri))

        stopping = asyncio.Event()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if stopping.is_set():
                writer.close()
            else:
                answer = tasks.create_task(respond(orbit, reader, writer))
                answer.add_done_callback(lambda _: writer.close())  # not by `respond`, which may be cancelled unbegun

        server = await asyncio.start_server(connected, "127.0.0.1", port)  # for this machine alone
        try:
            host, chosen = server.sockets[0].getsockname()
            print(f"serving http://{host}:{chosen}/ (Ctrl-C ends it)", flush=True)
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
    parser.add_argument("--pv", action="append", help="a monitor; may be given more than once")
    parser.add_argument("--port", type=int, default=0, help="to listen on; 0 for any that is free")
    options = parser.parse_args()
    asyncio.run(serve_until_signalled(options.environment, options.pv or DEFAULT_PVS, options.port))


if __name__ == "__main__":
    main()

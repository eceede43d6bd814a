"""Notifies of alarms: those that last, and PVs that are silent, in at most one message a minute.

k2eg demo                          # in one terminal
python examples/alarm_notifier.py  # in another: prints the messages
python examples/alarm_notifier.py --mail operators@example.org --server mail.example.org
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.message import EmailMessage
from smtplib import SMTP

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg_rx import Client, first
from k2eg_rx.operators import AlarmTransition, Staleness, alarms, guarded, shared_scheduler, stale

DEFAULT_PVS = ["pva://demo:temperature", "pva://demo:loss"]
Event = AlarmTransition | Staleness


def line(event: Event) -> str:
    """Returns the line of an alarm, or of a PV that is silent or disconnected."""
    if isinstance(event, Staleness):
        return f"{event.name}: {'silent' if event.is_stale else 'back'} after {event.silence:.0f} s"
    value = f"{event.update} {event.update.units}".rstrip()
    return f"{event.name}: {event.previous.name} -> {event.current.name}, {value}"


def messages(client: Client, uris: Sequence[str], every: float) -> Observable[str]:
    """Returns a stream with a message for each period in which there was an event."""
    lasting = client.monitor_many_stream(uris).pipe(alarms(delay=1.0, clear_after=2.0))
    silent = client.monitor_many_stream(uris, connection=True).pipe(stale(30.0, pvs=uris))
    events: Observable[Event] = rx.merge(lasting, silent)

    def has_events(digest: Sequence[Event]) -> bool:
        return len(digest) > 0

    def text(digest: Sequence[Event]) -> str:
        return "\n".join(map(line, digest))

    return events.pipe(
        ops.buffer_with_time(every, scheduler=shared_scheduler()),
        ops.filter(has_events),
        ops.map(text),
        guarded(),  # an error of the subscriber ends the program, not only its thread
    )


def mail(server: str, to: str) -> Callable[[str], None]:
    """Returns a function that sends a text by mail."""

    def send(text: str) -> None:
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = "Alarms", to, to
        message.set_content(text)
        with SMTP(server, timeout=20.0) as connection:
            connection.send_message(message)

    return send


def show(text: str) -> None:
    """Prints a message."""
    print(text, end="\n\n", flush=True)


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pv", action="append", help="a PV to watch; can be repeated")
    parser.add_argument("--mail", metavar="ADDRESS", help="send the messages to this address; otherwise print them")
    parser.add_argument("--server", default="localhost", help="the mail server")
    parser.add_argument("--every", type=float, default=60.0, help="seconds from message to message")
    parser.add_argument("--count", type=int, default=1_000_000_000, help="number of messages")
    options = parser.parse_args()
    send = mail(options.server, options.mail) if options.mail else show
    with Client("demo", "example-notifier") as client:
        sent = messages(client, options.pv or DEFAULT_PVS, options.every).pipe(ops.do_action(send))
        first(sent.pipe(ops.take(options.count), ops.last()))  # waits for the end


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the example
        main()

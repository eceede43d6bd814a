"""``k2eg get``: reads PVs.

Thread safety: main thread only.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TypeVar

from reactivex import Observable

from k2eg.cli.output import print_lines, print_note
from k2eg.cli.session import cause_of, formatter_for, open_client
from k2eg_rx import K2EGError, OperationTimeout, Settings

_T = TypeVar("_T")


def _start(stream: Observable[_T]) -> Future[_T]:
    """Subscribes to a single-item Observable; the future gets its item or error."""
    future: Future[_T] = Future()
    stream.subscribe(future.set_result, future.set_exception)
    return future


def get(arguments: Namespace, settings: Settings) -> None:
    """Reads PVs concurrently and prints them in the given order.

    Raises:
        K2EGError: A PV could not be read; the other PVs are printed first.
    """
    uris: Sequence[str] = arguments.uris
    formatter = formatter_for(arguments, uris)
    failures: list[K2EGError] = []
    with open_client(settings, arguments) as client:
        for future in [_start(client.get_stream(uri, arguments.timeout)) for uri in uris]:
            try:
                print_lines(formatter.pv(future.result()))
            except OperationTimeout as error:
                failures.append(cause_of(error, client))
            except K2EGError as error:
                failures.append(error)
    if failures:
        for failure in failures[:-1]:
            print_note(str(failure))
        raise failures[-1]

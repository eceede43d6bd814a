"""Puts values back at the end of a block: `restoring`.

Thread safety: all on the thread of the block.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast

from reactivex import operators as ops

from k2eg_rx.arguments import addressed
from k2eg_rx.client import PutResult, first
from k2eg_rx.errors import K2EGError
from k2eg_rx.protocol import PVData, Severity
from k2eg_rx.scans.clients import ScanClient
from k2eg_rx.texts import get_logger, shown

_log = get_logger(__name__)


class RestoreError(K2EGError):
    """Values were not put back. The text names each PV, its value, and why.

    Attributes:
        values: The values that were to be put back, by URI.
        errors: Why that failed, by URI.
    """

    def __init__(self, values: Mapping[str, Any], errors: Mapping[str, Exception]) -> None:
        super().__init__(values, errors)
        self.values = values
        self.errors = errors

    def __str__(self) -> str:
        failed = "; ".join(f"{uri} to {shown(self.values[uri])}: {error}" for uri, error in self.errors.items())
        return f"{len(self.errors)} of {len(self.values)} PVs were not put back, check the machine: {failed}"


def value_to_put(uri: str, data: PVData) -> Any:
    """Returns the value that, put to a PV, makes it what it was.

    Raises:
        ValueError: There is none.
    """
    if data.severity in (Severity.INVALID, Severity.UNDEFINED):
        raise ValueError(
            f"{uri}: the value must be valid to be put back later, got {shown(data.value)} with {data.severity.name}:"
            " write the PV once, or leave it out"
        )
    value = data.value
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, Any]", value)
    if set(fields) == {"index", "choices"}:
        return fields["index"]  # two choices may have the same label
    if "dimension" in data.data:
        raise ValueError(f"{uri}: an image cannot be put back: leave it out")
    return fields


@contextmanager
def restoring(
    client: ScanClient, uris: Iterable[str], *, timeout: float | None = None, wait: bool = False
) -> Generator[Mapping[str, PVData]]:
    """Reads PVs, and puts their values back at the end of the block: on return, exception, and Ctrl-C.

    All of them are put back, also those that seem unchanged: a put of the block may still be under way. The puts of one
    client to one PV are carried out in order, so that the value put back wins. Each value is sent once. A process that
    is killed puts nothing back.

    Args:
        client: A `k2eg_rx.Client`, which the block uses too.
        uris: The PVs. None of them may be INVALID.
        timeout: Seconds to read, and to write, all PVs.
        wait: Whether to wait until the records have completed what the puts started.

    Returns:
        The values by URI, as they were.

    Raises:
        RestoreError: At the end: PVs were not put back, or their puts not confirmed. What the block raised is its
            ``__context__``.
        ValueError: The value of a PV cannot be put back. The block is not entered.
        K2EGError: A PV could not be read. The block is not entered.

    Example:
        >>> from k2eg_rx import first
        >>> from k2eg_rx.scans import restoring
        >>> from k2eg_rx.testing import ScriptedGateway
        >>> with ScriptedGateway() as gateway, gateway.client() as client:
        ...     magnet = gateway.pv("mag:current", 10.0)
        ...     with restoring(client, ["pva://mag:current"]):
        ...         _ = first(client.put_stream("pva://mag:current", 6.0))
        ...         print(magnet.value)
        ...     print(magnet.value)
        6.0
        10.0
    """
    results = first(client.get_many_stream([address.uri for address in addressed(uris)], timeout).pipe(ops.to_list()))
    before = {result.uri: result.result() for result in results}
    values = {uri: value_to_put(uri, data) for uri, data in before.items()}
    try:
        yield before
    finally:
        _put_back(client, values, timeout, wait=wait)


def _put_back(client: ScanClient, values: Mapping[str, Any], timeout: float | None, *, wait: bool) -> None:
    done: dict[str, PutResult] = {}

    def note(result: PutResult) -> None:
        done[result.uri] = result

    failure: Exception | None = None
    try:
        first(client.put_many_stream(values, timeout, wait=wait).pipe(ops.do_action(note), ops.to_list()))
    except Exception as error:
        failure = error
    except BaseException:  # Ctrl-C again
        missing = ", ".join(f"{uri}={shown(value)}" for uri, value in values.items() if uri not in done)
        _log.error("putting back interrupted, check the machine: not confirmed: %s", missing)
        raise
    errors = {uri: result.error for uri, result in done.items() if result.error is not None}
    errors |= {uri: failure or K2EGError("no reply") for uri in values if uri not in done}
    if errors:
        restore_error = RestoreError(values, errors)
        _log.error("%s", restore_error)
        raise restore_error
    _log.info("put back: pvs=%s", ", ".join(values))

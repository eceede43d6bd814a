"""Reads the PVs of a command, those without a protocol over PVAccess and, where that does not answer, Channel Access;
and what Kafka keeps of them.

Thread safety: the answers are decided on the thread that delivers them, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import cast

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg.cli.output import print_note
from k2eg.cli.printing.stream_printer import StreamPrinter
from k2eg.cli.session import CommandError, ExitCode, cause_of, is_of_pv
from k2eg.cli.values.pv_names import Target
from k2eg_rx import Client, GetResult, OperationError, OperationTimeout, PVData, PVUpdate, first

# Seconds until a PV is searched for over Channel Access, too. A gateway needs 0.3 s for a PV that it connects first.
_HEAD_START = 1.0
SEARCH_SECONDS = 6.0  # for a PV without a protocol over either, before it is taken for one of PVAccess
_GATEWAY_SECONDS = 10.0  # that gateways wait for a PV, those too that do not say so


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a PV after reading it.

    Attributes:
        target: The PV as asked for.
        uri: The PV that answered, or that failed last.
        data: Its value; None if it could not be read.
        error: Why not.
    """

    target: Target
    uri: str
    _: KW_ONLY
    data: PVData | None = None
    error: Exception | None = None

    @property
    def is_fallback(self) -> bool:
        """Whether the PV answered over the second protocol."""
        return self.data is not None and self.uri != self.target.uri


class _Decision:
    """Decides about the answers of PVs that are asked for over two protocols: the first value counts.

    Args:
        targets: The PVs.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._of_uri = {target.uri: target for target in targets}
        self._of_uri |= {target.other: target for target in targets if target.is_open}
        self._failed: dict[Target, GetResult] = {}
        self.waiting = dict.fromkeys(targets)

    def still_open(self) -> list[str]:
        """Returns the URIs over the second protocol of the PVs that have no answer."""
        return [target.other for target in list(self.waiting) if target.is_open]

    def take(self, result: GetResult) -> Answer | None:
        """Takes a result; returns the PV's answer if it is decided now."""
        target = self._of_uri[result.uri]
        if target not in self.waiting:
            return None
        if result.data is None and target.is_open and target not in self._failed:
            self._failed[target] = result
            return None
        del self.waiting[target]
        if result.data is None and target.is_open:
            result = self._failed[target]  # the error of the first protocol, which had more time
        return Answer(target, result.uri, data=result.data, error=result.error)


def answers(client: Client, targets: Sequence[Target], timeout: float) -> Observable[Answer]:
    """Returns the answer of each PV, in the order of arrival; ends with the last.

    Args:
        client: The client.
        targets: The PVs.
        timeout: Seconds for all of them.
    """

    def start(*_: object) -> Observable[Answer]:
        decision = _Decision(targets)
        results = client.get_many_stream([target.uri for target in targets], timeout)
        if any(target.is_open for target in targets):
            delay = min(_HEAD_START, timeout / 2)

            def ask_again(_: object) -> Observable[GetResult]:
                uris = decision.still_open()
                return client.get_many_stream(uris, timeout - delay) if uris else rx.empty()

            results = rx.merge(results, rx.timer(delay).pipe(ops.flat_map(ask_again)))
        return results.pipe(
            ops.map(decision.take),
            ops.filter(lambda answer: answer is not None),
            ops.map(lambda answer: cast("Answer", answer)),
            ops.take(len(targets)),
        )

    return rx.defer(start)


def _not_connected(over: str, seconds: float) -> str:
    return f"not connected {over}: the gateway waited {seconds:g} s for it"


def reason_of(answer: Answer, client: Client, *, gateway_answers: bool) -> tuple[str, ExitCode]:
    """Returns why a PV could not be read, without its name, and the exit code that says so.

    Args:
        answer: The PV's answer.
        client: The client.
        gateway_answers: Whether a gateway has replied about any PV.
    """
    error = answer.error
    over = "over pva and ca" if answer.target.is_open else f"over {answer.uri.partition('://')[0]}"
    if isinstance(error, OperationError):
        if not error.message.startswith("Timeout"):
            return f"the gateway answered with error {error.error}: {error.message or 'no message'}", ExitCode.FAILED
        return _not_connected(over, _GATEWAY_SECONDS), ExitCode.FAILED
    if isinstance(error, OperationTimeout) and is_of_pv(error):
        return _not_connected(over, error.waited), ExitCode.FAILED
    if isinstance(error, OperationTimeout):
        cause = cause_of(error, client)
        if cause is not error:
            return str(cause), ExitCode.NO_KAFKA
        if gateway_answers:
            return f"no answer {over} within {error.waited:g} s, though the gateway answers", ExitCode.FAILED
        hint = error.hint if "reply topic" in error.hint else "is one running? it must read the same command topic"
        return f"no gateway answered within {error.waited:g} s: {hint}", ExitCode.NO_GATEWAY
    code = ExitCode.of(error) if error is not None else ExitCode.FAILED
    return str(error), code


def _is_of_gateway(error: Exception | None) -> bool:
    """Returns whether an answer, with a value or an error, came from a gateway."""
    return error is None or isinstance(error, OperationError) or is_of_pv(error)


def failure_of(found: Sequence[Answer], client: Client) -> CommandError | None:
    """Returns the error that names all PVs which could not be read, by reason; None if there is none."""
    failed = [answer for answer in found if answer.error is not None]
    if not failed:
        return None
    heard = any(_is_of_gateway(answer.error) for answer in found)
    by_reason: dict[str, list[str]] = {}
    codes: list[ExitCode] = []
    for answer in failed:
        reason, code = reason_of(answer, client, gateway_answers=heard)
        by_reason.setdefault(reason, []).append(answer.target.text)
        codes.append(code)
    lines = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    total = len(found)
    head = f"{len(failed)} of {total} PVs failed" if total > 1 and len(failed) > 1 else ""
    code = codes[0] if len(set(codes)) == 1 else ExitCode.FAILED
    return CommandError("\n".join([head, *lines] if head else lines), code)


def found_uris(client: Client, targets: Sequence[Target], timeout: float) -> list[str]:
    """Returns the URIs of PVs; those without a protocol are read to find the one that answers, and noted.

    A PV that answers over neither keeps PVAccess.
    """
    searched = [target for target in targets if target.is_open]
    if not searched:
        return [target.uri for target in targets]
    found = first(answers(client, searched, timeout).pipe(ops.to_list()))
    if note := fallback_note(found):
        print_note(note)
    uris = {answer.target: answer.uri for answer in found if answer.data is not None}
    return [uris.get(target, target.uri) for target in targets]


def fallback_note(found: Sequence[Answer]) -> str:
    """Returns the note on PVs that were found over Channel Access; empty if there are none."""
    names = [answer.target.text for answer in found if answer.is_fallback]
    return _found_over_ca(names) if names else ""


def _found_over_ca(names: Iterable[str]) -> str:
    return f"found over ca, not pva (-p ca asks there at once): {', '.join(names)}"


def by_target(found: Sequence[Answer]) -> Mapping[Target, Answer]:
    """Returns answers by their PVs."""
    return {answer.target: answer for answer in found}


def read_history(client: Client, updates: Observable[PVUpdate], take: Callable[[PVUpdate], None]) -> None:
    """Calls a function with each update of a replay, and returns at its end.

    Raises:
        K2EGError: Kafka did not answer; the connection's error, if there is one.
    """
    printer = StreamPrinter(take, None)
    reading = updates.subscribe(printer.on_next, printer.end, printer.end)
    try:
        printer.wait()
    except OperationTimeout as error:
        raise cause_of(error, client) from error
    finally:
        reading.dispose()


def uris_with_history(client: Client, targets: Sequence[Target], interval: tuple[datetime, datetime]) -> list[str]:
    """Returns the URIs of PVs; those without a protocol are over Channel Access where only that has updates, and noted.

    A PV that has none over either keeps PVAccess. No gateway is asked: the PV may be gone.

    Args:
        client: The client.
        targets: The PVs.
        interval: The event time of the first update, and that before which the last one is.

    Raises:
        K2EGError: Kafka did not answer; the connection's error, if there is one.
    """
    searched = [target for target in targets if target.is_open]
    seen = _with_updates(client, [target.uri for target in searched], interval)
    silent = [target for target in searched if target.uri not in seen]
    seen = _with_updates(client, [target.other for target in silent], interval)
    if found := {target: target.other for target in silent if target.other in seen}:
        print_note(_found_over_ca(target.text for target in found))
    return [found.get(target, target.uri) for target in targets]


def _with_updates(client: Client, uris: Sequence[str], interval: tuple[datetime, datetime]) -> set[str]:
    """Returns the PVs that have updates in an interval; reads until each of them has one, or to the end."""
    seen = set[str]()

    def is_last(update: PVUpdate) -> bool:
        seen.add(update.address.uri)
        return len(seen) == len(uris)

    if uris:
        try:
            first(client.replay_stream(uris, *interval).pipe(ops.filter(is_last), ops.default_if_empty()))
        except OperationTimeout as error:
            raise cause_of(error, client) from error
    return seen


def no_history(uris: Iterable[str]) -> CommandError:
    """Returns the error about PVs without updates in a replay."""
    return CommandError(
        f"no history of {', '.join(uris)}: no client has monitored it in this time, or Kafka keeps it no longer"
    )

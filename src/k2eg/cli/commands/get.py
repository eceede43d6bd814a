"""``k2eg get``: reads PVs.

Thread safety: main thread only.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from k2eg.cli.commands.reading import Answer, answers, failure_of, fallback_note
from k2eg.cli.output import print_lines, print_note, print_value
from k2eg.cli.printing.display import display_of
from k2eg.cli.session import open_connected_client
from k2eg.cli.values.pv_names import Target, targets_of
from k2eg_rx import PVData, Settings, first

# Seconds after the first answer in which answers wait for those of PVs before them; after one, the other protocol is
# asked.
_ORDER_SECONDS = 2.0
_NOTICE_SECONDS = 3.0  # until a note on a terminal names the PVs that are waited for


class _Rows:
    """Shows values in the order of their PVs; after a time, no value waits for those before it.

    Args:
        targets: The PVs.
        show: Shows a value.
    """

    def __init__(self, targets: Sequence[Target], show: Callable[[PVData], None]) -> None:
        self._order = list(targets)
        self._show = show
        self._found: dict[Target, Answer] = {}
        self._shown = 0
        self._in_order = True
        self.answers: list[Answer] = []

    @property
    def waiting(self) -> list[str]:
        """The PVs without an answer."""
        answered = {answer.target for answer in self.answers}
        return [target.text for target in self._order if target not in answered]

    @property
    def is_complete(self) -> bool:
        """Whether each PV has its answer."""
        return len(self.answers) == len(self._order)

    def take(self, answer: Answer | None) -> None:
        """Takes an answer, or None when the time is over."""
        if answer is None:
            self._in_order = False
        else:
            self.answers.append(answer)
            self._found[answer.target] = answer
        if not self._in_order:
            for target in self._order[self._shown :]:
                self._show_if_found(target)
            return
        while self._shown < len(self._order) and self._order[self._shown] in self._found:
            self._show_if_found(self._order[self._shown])
            self._shown += 1

    def _show_if_found(self, target: Target) -> None:
        answer = self._found.pop(target, None)
        if answer is not None and answer.data is not None:
            self._show(answer.data)


def get(arguments: Namespace, settings: Settings) -> None:
    """Reads PVs concurrently and prints them in the given order, those that take long last.

    Raises:
        CommandError: PVs could not be read; the other PVs are printed first.
    """
    targets = targets_of(arguments.names, arguments, settings)
    formatter = replace(display_of(arguments, [target.uri for target in targets]), blocks=True)
    rows = _Rows(targets, lambda data: print_value(formatter, data))
    if head := formatter.head():
        print_lines(head)
    with open_connected_client(settings, arguments) as client:
        _show_all(answers(client, targets, arguments.timeout), rows)
        if note := fallback_note(rows.answers):
            print_note(note)
        if failure := failure_of(rows.answers, client):
            raise failure


def _show_all(found: Observable[Answer], rows: _Rows) -> None:
    """Shows answers on the calling thread until there are no more."""

    def with_end_of_order(shared: Observable[Answer]) -> Observable[Answer | None]:
        over = shared.pipe(ops.take(1), ops.delay(_ORDER_SECONDS), ops.map(lambda _: None))
        return rx.merge(shared, over)

    def note() -> None:
        if sys.stderr.isatty():
            print_note(f"still waiting for {', '.join(rows.waiting)}")

    notice: Observable[Any] = rx.timer(_NOTICE_SECONDS).pipe(ops.do_action(lambda _: note()), ops.ignore_elements())
    first(
        rx.merge(found.pipe(ops.publish(with_end_of_order), ops.do_action(rows.take)), notice).pipe(
            ops.filter(lambda _: rows.is_complete),
            ops.take(1),
        )
    )

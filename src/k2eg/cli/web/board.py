"""What the page shows of the PVs: their series, their rows, and the newest array, image or table of each.

Thread safety: the client's threads add items to the book and to the board, the threads of connections read; each part
has a lock.
"""

from __future__ import annotations

import json
import math
import struct
import threading
import time
from collections.abc import Callable, Sequence

from k2eg.cli.charts.pictures import is_image, picture_of
from k2eg.cli.charts.series import Curve, SeriesBook
from k2eg.cli.charts.thinning import elements_of, thinned
from k2eg.cli.printing.formatting import jsonable, printable
from k2eg.cli.printing.top_rows import TopRows
from k2eg.cli.values.pv_names import Target
from k2eg_rx import ConnectionEvent, PVUpdate
from k2eg_rx.protocol import columns_of

_ELEMENTS = 2000  # of an array: as many as a screen has columns
_PICTURE = (480, 360)  # pixels: 0.1 s of processor time
_TABLE_ROWS = 100
_CELL = 200  # characters

Shape = bytes  # a message for the page


class Board:
    """The data of the page.

    Args:
        targets: The PVs.
        status: Returns the client's state as text.
        monotonic: Returns the monotonic time in seconds.

    Attributes:
        names: Names of the PVs.
        book: Their series.
        rows: Their rows.
        status: As given.
        monotonic: As given.
    """

    def __init__(
        self, targets: Sequence[Target], status: Callable[[], str], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.names = [target.text for target in targets]
        self.book = SeriesBook(Curve(target.uri, target.name) for target in targets)
        self.rows = TopRows({target.uri: target.text for target in targets})
        self.status = status
        self.monotonic = monotonic
        self._lock = threading.Lock()
        self._number = {target.uri: number for number, target in enumerate(targets)}
        self._newest: dict[int, tuple[int, PVUpdate]] = {}
        self._shapes: dict[int, tuple[int, Shape]] = {}
        self._count = 0

    def take(self, item: PVUpdate | ConnectionEvent) -> None:
        """Takes a live update or a change of a connection, for rows and shapes. Any thread.

        `book` takes its own, with those of the past, after which live ones wait there.
        """
        self.rows.add(item, self.monotonic())
        if isinstance(item, PVUpdate) and isinstance(item.value, list | dict | bytes) and item.label is None:
            with self._lock:
                self._count += 1
                self._newest[self._number[item.address.uri]] = self._count, item

    def shapes(self, seen: dict[int, int]) -> list[Shape]:
        """Returns the messages for the arrays, images and tables that are newer than those seen.

        Args:
            seen: The number of the newest one seen of each PV; it is brought up to date.
        """
        with self._lock:
            found = [(pv, count, item) for pv, (count, item) in self._newest.items() if seen.get(pv, 0) < count]
        messages: list[Shape] = []
        for pv, count, item in found:
            seen[pv] = count
            with self._lock:
                known = self._shapes.get(pv)
            if known is None or known[0] != count:  # several connections may make it at the same time
                known = count, shape_of(pv, item)
                with self._lock:
                    self._shapes[pv] = known
            messages.append(known[1])
        return messages


def shape_of(number: int, update: PVUpdate) -> Shape:
    """Returns a message for the page: the length of its head, the head in JSON, and the pixels of an image."""
    head: dict[str, object] = {"pv": number}
    try:
        about, pixels = _shape(update)
    except Exception as error:  # of one PV, such as values in too many levels: the others are shown
        reason = str(error) if isinstance(error, ValueError) else f"cannot be shown: {error}"
        about, pixels = {"kind": "none", "text": printable(reason)}, b""
    text = json.dumps(head | about, allow_nan=False).encode()
    return struct.pack(">I", len(text)) + text + pixels


def _shape(update: PVUpdate) -> tuple[dict[str, object], bytes]:
    head: dict[str, object] = {"kind": "none", "text": ""}
    pixels = b""
    if is_image(update.data):
        picture = picture_of(update.data, *_PICTURE)
        pixels = picture.pixels
        (width, height), low, high = picture.size, picture.low, picture.high
        head |= {"kind": "image", "width": picture.width, "height": picture.height, "channels": picture.channels}
        head["text"] = f"{width} x {height}, {low:g} to {high:g}"
    elif columns := columns_of(update.data):
        cells = {
            printable(str(name)): [_cell(each) for each in column[:_TABLE_ROWS]] for name, column in columns.items()
        }
        count = max(map(len, columns.values()), default=0)
        text = f"{count} rows" if count <= _TABLE_ROWS else f"{_TABLE_ROWS} of {count} rows"
        head |= {"kind": "table", "names": list(cells), "columns": list(cells.values()), "text": text}
    elif (points := elements_of(update.value)) is not None:
        kept = thinned(points, _ELEMENTS)
        head |= {"kind": "array", "x": [x for x, _ in kept], "y": [None if math.isnan(y) else y for _, y in kept]}
        head["text"] = f"{len(points)} values {printable(update.units)}".rstrip()
    return head, pixels


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(jsonable(value))
    return printable(text[:_CELL])

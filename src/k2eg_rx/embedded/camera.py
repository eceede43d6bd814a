"""A camera that shows the beam of the demo: an NTNDArray, for a server of this process.

Thread safety: PVAccess threads report the first and the last client; a thread of its own makes the images.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from p4p import nt as p4p_nt
from p4p.client import thread as p4p_thread
from p4p.server import raw as p4p_raw

from k2eg_rx.texts import get_logger

_nt: Any = p4p_nt
_thread: Any = p4p_thread
_raw: Any = p4p_raw
_log = get_logger(__name__)

ROWS, COLUMNS = 60, 80  # small: an image is a record of 5 kB
PIXEL = 0.1  # mm
_PERIOD = 0.5  # seconds between images
_READ_SECONDS = 1.0  # for the beam's size and position
_CLOSE_SECONDS = 2.0


def image(size: float, position: float, generator: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns what the camera sees of a beam.

    Args:
        size: The beam's width and height, mm.
        position: Its horizontal distance from the middle, mm.
        generator: Makes the noise.
    """
    across = np.exp(-((((np.arange(COLUMNS) - COLUMNS / 2) * PIXEL - position) / size) ** 2) / 2)
    upwards = np.exp(-((((np.arange(ROWS) - ROWS / 2) * PIXEL) / size) ** 2) / 2)
    noise = generator.normal(10.0, 2.0, (ROWS, COLUMNS))
    return np.clip(200.0 * np.outer(upwards, across) + noise, 0, 255).astype(np.uint8)


class Camera:
    """Makes two images a second, while at least one client is connected to `pv`.

    Attributes:
        pv: The PV, to be served.

    Args:
        size_pv: The PV of the beam's size.
        position_pv: The PV of its position.
        client_environment: The EPICS variables for a client of these PVs.
    """

    def __init__(self, size_pv: str, position_pv: str, client_environment: Mapping[str, str]) -> None:
        self._names = [size_pv, position_pv]
        self._environment = {name: value for name, value in client_environment.items() if "_PVA_" in name}
        self._generator = np.random.default_rng()
        self._watched = threading.Event()
        self._ending = threading.Event()
        self._started = threading.Lock()
        self._maker: threading.Thread | None = None
        self.pv: Any = _raw.SharedPV(handler=self, nt=_nt.NTNDArray(), initial=image(0.36, 0.0, self._generator))

    def onFirstConnect(self, _pv: object) -> None:  # noqa: N802 - p4p's name
        """Called on a PVAccess thread: starts the images."""
        self._watched.set()
        with self._started:
            if self._maker is None and not self._ending.is_set():
                self._maker = threading.Thread(target=self._make_images, name="k2eg-camera", daemon=True)
                self._maker.start()

    def onLastDisconnect(self, _pv: object) -> None:  # noqa: N802 - p4p's name
        """Called on a PVAccess thread: pauses the images."""
        self._watched.clear()

    def _make_images(self) -> None:
        with _thread.Context("pva", conf=self._environment, useenv=False) as context:
            while not self._ending.is_set():
                try:
                    size, position = map(float, context.get(self._names, timeout=_READ_SECONDS))
                    self.pv.post(image(size, position, self._generator), timestamp=time.time())
                except Exception as error:
                    _log.debug("no image: error=%s", error)
                self._ending.wait(_PERIOD)
                self._watched.wait()

    def close(self) -> None:
        """Ends the images. Idempotent."""
        with self._started:
            self._ending.set()
            self._watched.set()
        if self._maker is not None:
            self._maker.join(_CLOSE_SECONDS)

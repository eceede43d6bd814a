"""The file in which a running demo leaves its broker's address, so that environment ``demo`` finds it.

In: an address. Out: a file that only its user can read, locked for as long as the demo runs; a dead demo's is replaced.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from k2eg_rx.settings import Settings, demo_broker_file

_CONNECT_SECONDS = 1.0  # the broker is on this machine: it answers at once or not at all
_ATTEMPTS = 10  # each fails only if another demo starts or ends at the same instant


class DemoError(Exception):
    """The demo cannot run, or none is running; the text says why and what to do."""


def _lock(descriptor: int) -> bool:
    """Takes a file's lock, unless somebody holds it. The kernel gives it back whatever ends the holder."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at the path still."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


class Announcement:
    """Says where the demo's broker is; there is one for each user.

    The lock tells a running demo's file from one that a killed demo has left: whether the broker answers would not,
    for a broker may outlive the demo, and a port be taken by something else.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or demo_broker_file()
        self._descriptor: int | None = None

    def check(self) -> None:
        """Makes sure, early, that no other demo is running.

        Raises:
            DemoError: One is.
        """
        with suppress(FileNotFoundError):
            descriptor = os.open(self._path, os.O_RDONLY)
            try:
                if not _lock(descriptor):
                    raise self._already_running()
            finally:
                os.close(descriptor)

    def publish(self, address: str) -> None:
        """Leaves the address.

        Raises:
            DemoError: Another demo has come first, or the file cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}-", dir=self._path.parent)  # mode 0600
            try:
                # Written and locked before it is in place: nobody sees half an address, or a file that seems dead.
                os.write(descriptor, f"{address}\n".encode())
                _ = _lock(descriptor)
                self._place(Path(name))
            except BaseException:
                os.close(descriptor)
                raise
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name)
        except OSError as error:
            raise DemoError(f"cannot leave the broker's address in {self._path}: {error.strerror}") from error
        self._descriptor = descriptor

    def _place(self, ready: Path) -> None:
        for _ in range(_ATTEMPTS):
            with suppress(FileExistsError):
                self._path.hardlink_to(ready)
                return
            with suppress(FileNotFoundError):
                left = os.open(self._path, os.O_RDONLY)
                try:
                    if not _lock(left):
                        raise self._already_running()
                    if _is_at(left, self._path):  # whoever else wants to replace it needs the lock we hold
                        ready.rename(self._path)
                        return
                finally:
                    os.close(left)
        raise self._already_running()

    def _already_running(self) -> DemoError:
        with suppress(OSError):
            address = self._path.read_text().strip()
            return DemoError(f"a demo of yours is running already, with its broker at {address}: use or stop that one")
        return DemoError("another demo of yours is just starting or ending: try again")

    def withdraw(self) -> None:
        """Removes the file, if it is still ours. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            if _is_at(descriptor, self._path):
                self._path.unlink()
        os.close(descriptor)


def require_demo(settings: Settings) -> None:
    """Makes sure, if the settings are those of a demo, that its broker is there.

    Raises:
        DemoError: It is not: the demo was killed, and its file is stale.
    """
    try:
        announced = demo_broker_file().read_text().strip()
    except OSError:
        return
    if announced != settings.broker_url:
        return
    host, _, port = announced.partition(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError):
        raise DemoError(
            f"no demo is running: nothing answers at {announced}, which the last one left; start one by `k2eg demo`"
        ) from None

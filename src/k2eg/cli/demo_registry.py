"""The file that tells environment ``demo`` the address of a running demo's broker.

Each user has one. It is readable by that user only and locked while the demo runs; the file of a demo that was killed
has no lock and is replaced.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from k2eg_rx.settings import Settings, demo_broker_file

_CONNECT_SECONDS = 1.0  # a broker on this machine answers at once or not at all
_ATTEMPTS = 10  # an attempt fails only if another demo starts or ends at the same instant


class DemoError(Exception):
    """The demo cannot run, or no demo is running. The text says why and what to do."""


def _lock(descriptor: int) -> bool:
    """Locks an open file and returns whether that succeeded. The kernel unlocks it when the process ends."""
    try:
        import fcntl  # noqa: PLC0415 - does not exist on Windows, where the other commands work
    except ImportError:
        raise DemoError("`k2eg demo` needs POSIX file locks, which this platform lacks: run it on Linux") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


class DemoRegistration:
    """Registers the broker of the one demo that a user may run.

    The lock, not the broker, shows whether the demo is alive: a broker may outlive its demo, and its port may be taken
    by another program.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or demo_broker_file()
        self._descriptor: int | None = None

    def check(self) -> None:
        """Checks, before anything is started, that no other demo is running.

        Raises:
            DemoError: Another demo is running.
        """
        with suppress(FileNotFoundError):
            descriptor = os.open(self._path, os.O_RDONLY)
            try:
                if not _lock(descriptor):
                    raise self._already_running()
            finally:
                os.close(descriptor)

    def register(self, address: str) -> None:
        """Writes the broker's address.

        Raises:
            DemoError: Another demo registered first, or the file cannot be written.
        """
        import tempfile  # noqa: PLC0415 - 2 ms, which each command would pay

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}-", dir=self._path.parent)  # mode 0600
            try:
                # Written and locked before it is moved: readers see neither half an address nor an unlocked file.
                os.write(descriptor, f"{address}\n".encode())
                _ = _lock(descriptor)
                self._move_into_place(Path(name))
            except BaseException:
                os.close(descriptor)
                raise
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name)
        except OSError as error:
            raise DemoError(f"cannot write the broker's address to {self._path}: {error.strerror}") from error
        self._descriptor = descriptor

    def _move_into_place(self, ready: Path) -> None:
        for _ in range(_ATTEMPTS):
            with suppress(FileExistsError):
                self._path.hardlink_to(ready)
                return
            with suppress(FileNotFoundError):
                stale = os.open(self._path, os.O_RDONLY)
                try:
                    if not _lock(stale):
                        raise self._already_running()
                    if _is_at(stale, self._path):  # other demos need the lock held here to replace the file
                        ready.rename(self._path)
                        return
                finally:
                    os.close(stale)
        raise self._already_running()

    def _already_running(self) -> DemoError:
        with suppress(OSError):
            address = self._path.read_text().strip()
            return DemoError(f"a demo of yours is running already, with its broker at {address}: use or stop that one")
        return DemoError("another demo of yours is starting or stopping: try again")

    def unregister(self) -> None:
        """Removes the file unless another demo has replaced it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with suppress(OSError):
            if _is_at(descriptor, self._path):
                self._path.unlink()
        os.close(descriptor)


def require_running_demo(settings: Settings) -> None:
    """Checks that the broker answers if the settings are those of a demo.

    Raises:
        DemoError: It does not answer: the demo was killed and its file is stale.
    """
    try:
        registered = demo_broker_file().read_text().strip()
    except OSError:
        return
    if registered != settings.broker_url:
        return
    host, _, port = registered.partition(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError):
        raise DemoError(
            f"no demo is running: the last one's broker, {registered}, does not answer; start a demo with `k2eg demo`"
        ) from None

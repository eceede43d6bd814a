"""Errors of recordings."""

from __future__ import annotations

from pathlib import Path

from k2eg_rx.errors import K2EGError
from k2eg_rx.texts import printable


class RecordingError(K2EGError):
    """A recording cannot be written or read.

    Attributes:
        path: The file.
        reason: What is wrong, and what to do.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.reason}")


def reason_of(error: Exception) -> str:
    """Returns the text of an error, without the file name that the operating system adds."""
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__

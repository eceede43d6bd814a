"""What goes wrong with a recording, told with the file it is about.

In: errors of the operating system and of pyarrow. Out: `RecordingError`. Any thread.
"""

from __future__ import annotations

from pathlib import Path

from k2eg_rx.errors import K2EGError


class RecordingError(K2EGError):
    """A recording cannot be written or read.

    Attributes:
        path: The file it is about.
        reason: What is wrong with it, and what to do.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def reason_of(error: Exception) -> str:
    """Returns what an error says, without the file's name that the operating system adds."""
    told = error.strerror if isinstance(error, OSError) else None
    return told or str(error) or type(error).__name__

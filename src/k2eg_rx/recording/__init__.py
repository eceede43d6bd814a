"""Recordings: streams into Parquet files that survive a crash, and the files as the same streams again.

Needs the extra ``recording``. What it is made of: `rows` (items and rows), `arrow` (pyarrow, with types), `storage`
(one file and its journal), `recorder` (files in a row), `sink` (`record`), `library` (which files a recording has),
`player` (`replay_file`).
"""

from k2eg_rx.recording.errors import RecordingError
from k2eg_rx.recording.record import record
from k2eg_rx.recording.replay import recover, replay_file

__all__ = ["RecordingError", "record", "recover", "replay_file"]

"""Records streams to Parquet files that survive a crash, and replays them.

Needs the extra ``recording``.
"""

from k2eg_rx.recording.errors import RecordingError
from k2eg_rx.recording.record import record
from k2eg_rx.recording.replay import recover, replay_file
from k2eg_rx.recording.resuming import positions

__all__ = ["RecordingError", "positions", "record", "recover", "replay_file"]

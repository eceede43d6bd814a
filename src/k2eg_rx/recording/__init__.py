"""Records streams to Parquet files that survive a crash, and replays them.

Needs the extra ``recording``.
"""

from k2eg_rx.recording.errors import RecordingError
from k2eg_rx.recording.record import record
from k2eg_rx.recording.replay import recover, replay_file

__all__ = ["RecordingError", "record", "recover", "replay_file"]

"""Data frames: finite streams, snapshots, batches and aligned data as pandas or xarray objects.

Needs the extra ``analysis``.
"""

from k2eg_rx.frames.item_kinds import Framable
from k2eg_rx.frames.to_frames import Form, to_dataframe, to_xarray

__all__ = ["Form", "Framable", "to_dataframe", "to_xarray"]

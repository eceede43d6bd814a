"""pandas and xarray objects from finite streams, snapshots, batches and aligned updates.

Needs the extra ``analysis``.
"""

from k2eg_rx.frames.item_kinds import Framable
from k2eg_rx.frames.to_frames import Form, to_dataframe, to_xarray

__all__ = ["Form", "Framable", "to_dataframe", "to_xarray"]

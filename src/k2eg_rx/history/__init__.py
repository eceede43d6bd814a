"""The history of PVs that Kafka still holds: found by time, read in order, and joined to live updates."""

from k2eg_rx.history.pacing import play
from k2eg_rx.history.reader import HistoryQuery, HistoryReader
from k2eg_rx.history.replay import Replays
from k2eg_rx.history.selection import EVER, Interval
from k2eg_rx.history.splice import CatchUp, Splice
from k2eg_rx.history.time_points import Moment, Positions

__all__ = [
    "EVER",
    "CatchUp",
    "HistoryQuery",
    "HistoryReader",
    "Interval",
    "Moment",
    "Positions",
    "Replays",
    "Splice",
    "play",
]

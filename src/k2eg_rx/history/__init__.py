"""What Kafka still keeps of PVs: found by time, told in order, and joined to the present without gap or duplicate.

- `moments`: the times that callers give, checked
- `selection`: which records belong to an interval of some PVs
- `merging`: their order, in bounded memory
- `reading`: the way from a moment to its updates
- `telling`: the steps of it, on a thread of its own or in virtual time
- `splice`: the past of a monitored PV, and then its live updates
"""

from k2eg_rx.history.pacing import play
from k2eg_rx.history.reader import Past, Reading
from k2eg_rx.history.replay import Replays
from k2eg_rx.history.selection import Interval
from k2eg_rx.history.splice import CatchUp, Splice
from k2eg_rx.history.time_points import Moment

__all__ = [
    "CatchUp",
    "Interval",
    "Moment",
    "Past",
    "Reading",
    "Replays",
    "Splice",
    "play",
]

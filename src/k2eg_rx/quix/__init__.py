"""PVs as a `StreamingDataFrame` of quixstreams: windows, joins and state over several processes, and puts from results.

- `pv_frame`: the events of PVs as a frame, keyed by PV; needs the extra ``quix``
- `committed_results`: what such a program has written to a topic, as a stream for `put_to`; needs no extra

quixstreams keeps state, its recovery and the transactions. This package adds what it cannot know: monitors, the records
of gateways, and which of them repeat others.
"""

from k2eg_rx.quix.committed import CommittedResult, committed_results
from k2eg_rx.quix.keyed_events import pv_frame

__all__ = ["CommittedResult", "committed_results", "pv_frame"]

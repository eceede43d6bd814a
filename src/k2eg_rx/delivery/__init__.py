"""From the poll thread to subscribers: queues, backpressure, dispatch."""

from k2eg_rx.delivery.buffers import Buffer, Overflow, RecordRun, buffer_for, run_buffer_for
from k2eg_rx.delivery.dispatcher import DEFAULT_CAPACITY, Dispatcher, LabelledObservable, label_of, overflow_of
from k2eg_rx.delivery.gates import ReplayGate
from k2eg_rx.delivery.subscriber_queue import SubscriberInput, SubscriberQueue, source_is_behind

__all__ = [
    "DEFAULT_CAPACITY",
    "Buffer",
    "Dispatcher",
    "LabelledObservable",
    "Overflow",
    "RecordRun",
    "ReplayGate",
    "SubscriberInput",
    "SubscriberQueue",
    "buffer_for",
    "label_of",
    "overflow_of",
    "run_buffer_for",
    "source_is_behind",
]

"""Operators for streams of process variables, for `.pipe`, beside those of reactivex."""

from k2eg_rx.operators.changes import changed
from k2eg_rx.operators.fields import MissingFieldError, field, timestamps, value

__all__ = ["MissingFieldError", "changed", "field", "timestamps", "value"]

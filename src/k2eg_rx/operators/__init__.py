"""Operators for streams of process variables, for `.pipe`, beside those of reactivex."""

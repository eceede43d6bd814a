"""Operators on streams of PV updates, for `.pipe`."""

"""Charts of PVs over time, as text: what `k2eg strip` shows, without a terminal."""

"""Commands and what they produce: replies, events, snapshots."""

"""Command handling: from records of the command topic to replies, events and snapshots."""

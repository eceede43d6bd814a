"""The K2EG wire protocol without I/O: commands, replies, events and structures, to and from bytes."""

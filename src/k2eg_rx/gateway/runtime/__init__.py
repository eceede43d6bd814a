"""Event loop, options and metrics, shared by all parts of a gateway."""

"""What all parts of a gateway share: options, metrics, the event loop."""

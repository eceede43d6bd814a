"""The documented K2EG client API, as subscriptions to the streams of `k2eg_rx`."""

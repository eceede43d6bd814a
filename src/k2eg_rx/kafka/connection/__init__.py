"""One librdkafka client and its broker: configuration, errors, TLS, health and reconnection."""

"""A Kafka broker in this process and a real EPICS IOC beside it, for the demo and for tests."""

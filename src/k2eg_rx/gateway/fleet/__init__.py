"""Several gateways as one: what is wanted is a log in Kafka, and each part of it has one owner at a time."""

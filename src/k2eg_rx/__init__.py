"""EPICS process variables as reactive streams over Apache Kafka."""

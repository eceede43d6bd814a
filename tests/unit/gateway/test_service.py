"""What a gateway's own way to Kafka is told."""

from k2eg_rx.gateway.service import patient
from k2eg_rx.settings import Settings


def test_events_are_compressed_and_outlast_an_outage_unless_the_environment_says_how() -> None:
    own = patient(Settings("test", "broker:9092", "commands", "replies")).kafka
    assert (own["compression.type"], own["message.timeout.ms"]) == ("snappy", "300000")
    asked = {"compression.type": "none", "message.timeout.ms": "5"}
    told = patient(Settings("test", "broker:9092", "commands", "replies", asked)).kafka
    assert asked.items() <= told.items()

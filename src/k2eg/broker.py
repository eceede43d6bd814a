"""Properties of recurring snapshots, and the name `Broker`, under the documented module name."""

from __future__ import annotations

from k2eg_rx import Settings, SnapshotProperties, SnapshotType
from k2eg_rx.concurrency import current_runtime

__all__ = ["Broker", "SnapshotProperties", "SnapshotType"]


class Broker:
    """The topics of an environment, for scripts that make a `Broker` to check or show its configuration.

    It has no connection: `k2eg.dml.dml` has one of its own, and sends and receives. Methods of other K2EG clients'
    brokers that do so are missing here, with a text that says so.

    Attributes:
        settings: The environment's settings.

    Args:
        environment_id: The environment: the name of its ``.ini`` file.
        app_name: The application: it names the topic for replies.
        group_name: Has no effect here, as all arguments after it.
        app_instance_unique_id: Has no effect.
        startup_tout: Has no effect.

    Raises:
        ValueError: The environment does not exist or is invalid, or `app_name` is invalid.
    """

    def __init__(
        self,
        environment_id: str,
        app_name: str,
        group_name: object = None,  # noqa: ARG002 - for scripts that pass them
        app_instance_unique_id: str = "1",  # noqa: ARG002
        startup_tout: float = 10,  # noqa: ARG002
    ) -> None:
        self.settings: Settings = current_runtime().settings(environment_id, app_name)

    def get_reply_topic(self) -> str:
        """Returns the topic for replies to this application."""
        return self.settings.reply_topic

    def close(self) -> None:
        """Does nothing, since there is no connection."""

    def __getattr__(self, name: str) -> object:
        raise AttributeError(
            f"k2eg.broker.Broker has no {name}: it has no connection to Kafka; use the methods of k2eg.dml.dml, or"
            " k2eg_rx.Client for streams"
        )

"""`k2eg.broker.Broker`: what scripts use of it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from k2eg.broker import Broker


def test_it_has_the_topics_of_the_environment(gateway: Any) -> None:
    broker = Broker("local", "my-app", uuid.uuid4(), "2", 5)
    assert broker.get_reply_topic() == broker.settings.reply_topic
    broker.close()
    assert gateway.commands == []


def test_an_invalid_environment_or_app_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", raising=False)
    with pytest.raises(ValueError, match="no-such"):
        Broker("no-such", "my-app")


def test_what_needs_a_connection_says_what_to_use_instead(gateway: Any) -> None:
    broker: Any = Broker("local", "my-app")
    with pytest.raises(AttributeError, match=r"Broker has no send_command: .* use the methods of k2eg\.dml\.dml"):
        broker.send_command("{}")
    assert not hasattr(broker, "add_topic")
    assert gateway.commands == []

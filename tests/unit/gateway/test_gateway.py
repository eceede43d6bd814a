"""What one application asks for does not keep others waiting: slices, bounds, and queues of triggers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from k2eg_rx.transport.interfaces import Record

NewGateway = Callable[..., Any]
MANY = [f"pva://many{number}" for number in range(1000)]


def send(gateway: Any, *commands: dict[str, Any]) -> None:
    """Sends commands that arrive together, and runs what is due."""
    common = {"reply_topic": "replies", "reply_id": "id", "serialization": "json"}
    bodies = [json.dumps(common | command).encode() for command in commands]
    gateway.commands.receive([Record("commands", 0, 0, None, body, (), -1) for body in bodies])
    gateway.settle()


def get(name: str = "pva://x") -> dict[str, Any]:
    return {"command": "get", "pv_name": name, "reply_topic": "others", "reply_id": "get"}


def on_get(gateway: Any, action: Callable[[], int]) -> list[int]:
    """Records the result of an action at each get."""
    seen: list[int] = []
    original = gateway.pva.get

    def call(*arguments: Any) -> Any:
        seen.append(action())
        return original(*arguments)

    gateway.pva.get = call
    return seen


def of_names(command: str, names: list[str], **more: Any) -> dict[str, Any]:
    return {"command": command, "pv_name_list": names, "snapshot_name": "s", "time_window_msec": 1000} | more


COMMANDS_OF_NAMES = pytest.mark.parametrize("command", ["multi-monitor", "snapshot", "repeating_snapshot"])


@COMMANDS_OF_NAMES
def test_a_get_does_not_wait_for_all_names_of_a_command(gateway: Any, command: str) -> None:
    subscribed = on_get(gateway, lambda: len(gateway.pva.subscriptions))
    send(gateway, of_names(command, MANY), get())
    assert subscribed[0] <= 50
    assert len(gateway.pva.subscriptions) == 1000


def test_a_snapshots_window_starts_when_all_pvs_are_subscribed_to(gateway: Any) -> None:
    send(gateway, of_names("snapshot", MANY))
    gateway.advance(0.99)
    gateway.update("many999", 5)
    assert gateway.bodies() == [{"error": 0, "reply_id": "id", "many999": {"value": 5}}]
    gateway.advance(0.02)
    assert gateway.bodies() == [{"error": 1, "reply_id": "id"}]
    assert not [each for each in gateway.pva.subscriptions if each.open]


def test_ending_a_snapshot_of_many_pvs_lets_others_in_between(gateway: Any) -> None:
    send(gateway, of_names("repeating_snapshot", MANY))
    still_open = on_get(gateway, lambda: sum(each.open for each in gateway.pva.subscriptions))
    send(gateway, {"command": "repeating_snapshot_stop", "snapshot_name": "s"}, get())
    assert still_open[0] >= 950
    assert not any(each.open for each in gateway.pva.subscriptions)


def test_monitors_that_expire_together_let_others_in_between(gateway: Any) -> None:
    send(gateway, of_names("multi-monitor", MANY))
    still_open = on_get(gateway, lambda: sum(each.open for each in gateway.pva.subscriptions))
    gateway.handler.expire({})
    gateway.advance(3601)
    gateway.handler.expire({})
    send(gateway, get())
    assert still_open[0] >= 900
    assert len(gateway.handler.monitors) == 0


def test_an_iteration_of_many_pvs_is_published_in_slices_and_in_order(gateway: Any) -> None:
    send(gateway, of_names("repeating_snapshot", MANY, triggered=True))
    for name in MANY:
        gateway.pva.update(name.removeprefix("pva://"), 1)
    gateway.settle()
    gateway.sent()
    published = on_get(gateway, lambda: len(gateway.outgoing))
    before = len(gateway.outgoing)
    send(gateway, {"command": "repeating_snapshot_trigger", "snapshot_name": "s"}, get())
    assert published[0] - before <= 50
    kinds = [body["message_type"] for body in gateway.bodies("s")]
    assert kinds == [0, *[1] * 1000, 2]


def test_a_window_that_ends_while_the_last_iteration_is_published_goes_on(gateway: Any) -> None:
    send(gateway, of_names("repeating_snapshot", MANY[:100], time_window_msec=0))
    for name in MANY[:100]:
        gateway.pva.update(name.removeprefix("pva://"), 1)
    gateway.settle()
    published = on_get(gateway, lambda: len(gateway.outgoing))
    for _ in range(20):
        gateway.advance(0.001)
        send(gateway, get())
    kinds = [(body["iter_index"], body["message_type"]) for body in gateway.bodies("s")]
    iterations = kinds[-1][0]
    assert kinds == [(index, kind) for index in range(1, iterations + 1) for kind in (0, *[1] * 100, 2)]
    assert 1 < iterations <= 25
    assert published == sorted(published)


def test_a_flood_of_triggers_lets_others_in_between_and_is_bounded(new_gateway: NewGateway) -> None:
    gateway = new_gateway(max_waiting_triggers=20)
    send(gateway, of_names("repeating_snapshot", ["pva://a"], triggered=True))
    gateway.update("a", 1)
    gateway.sent()
    tails = on_get(gateway, lambda: sum(record.topic == "s" for record in gateway.outgoing) // 3)
    triggers = [{"command": "repeating_snapshot_trigger", "snapshot_name": "s", "reply_id": f"{n}"} for n in range(50)]
    send(gateway, *triggers, get())
    assert tails == [1], "the first one is carried out at once, the others in turn"
    sent = gateway.sent()
    replies = [each.body for each in sent if each.topic == "replies"]
    refused = [body for body in replies if body["error"] == -10]
    assert len(refused) == 29
    assert "20 triggers waiting, no more may wait ([gateway] max_waiting_triggers)" in refused[0]["message"]
    assert [each.body["iter_index"] for each in sent if each.topic == "s"] == [
        n for n in range(1, 22) for _ in range(3)
    ]


def test_triggers_that_wait_come_before_the_end_and_a_new_start(gateway: Any) -> None:
    start = of_names("repeating_snapshot", ["pva://a"], triggered=True)
    trigger = {"command": "repeating_snapshot_trigger", "snapshot_name": "s"}
    stop = {"command": "repeating_snapshot_stop", "snapshot_name": "s"}
    send(gateway, start, trigger, trigger, trigger, stop, trigger, stop, start, trigger)
    sent = gateway.sent()
    iterations = [each.body["iter_index"] for each in sent if each.topic == "s" and each.body["message_type"] == 2]
    assert iterations == [1, 2, 3, 4, 1]
    texts = [each.body["message"] for each in sent if each.topic == "replies"]
    assert texts[-4:] == [
        "Snapshot 's' has not been found",
        "Snapshot 's' is already stopped",
        "The snapshot 's' has been started",
        "Snapshot 's' has been armed",
    ], "commands after a stop wait until it is carried out"


@COMMANDS_OF_NAMES
def test_too_many_names_are_refused_with_the_bound_and_the_option(new_gateway: NewGateway, command: str) -> None:
    gateway = new_gateway(max_names=2)
    send(gateway, of_names(command, MANY[:3]))
    body = gateway.bodies()[0]
    assert body["error"] == -10
    assert "at most 2 PV names ([gateway] max_names), got 3" in body["message"]
    assert not gateway.pva.subscriptions
    gateway.sent()
    send(gateway, of_names(command, MANY[:2]))
    assert all(body["error"] == 0 for body in gateway.bodies())
    assert len(gateway.pva.subscriptions) == 2


def release(gateway: Any, command: str) -> None:
    """Ends what a command has started."""
    if command == "multi-monitor":
        gateway.handler.expire({})
        gateway.advance(3601)
        gateway.handler.expire({})
    elif command == "repeating_snapshot":
        send(gateway, {"command": "repeating_snapshot_stop", "snapshot_name": "s"})
    gateway.advance(2.0)
    gateway.sent()


@COMMANDS_OF_NAMES
@pytest.mark.parametrize("option", ["max_pvs_per_application", "max_pvs"])
def test_pvs_are_bounded_until_they_are_released(new_gateway: NewGateway, command: str, option: str) -> None:
    gateway = new_gateway(**{option: 30})
    more = of_names("snapshot", ["pva://y"], reply_topic="replies" if option.endswith("application") else "others")
    send(gateway, of_names(command, MANY[:30]))
    gateway.sent()
    send(gateway, more)
    refused, complete = gateway.bodies()
    assert refused["error"] == -10
    assert f"may have 30 pvs ([gateway] {option}); 30 are in use, 1 more were requested" in refused["message"]
    assert complete["error"] == 1, "clients wait for a completion"
    if option.endswith("application"):
        send(gateway, more | {"reply_topic": "others"})
        assert len(gateway.pva.open("y")) == 1, "others have their own bound"
    release(gateway, command)
    send(gateway, more)
    assert len(gateway.pva.open("y")) == 1


@pytest.mark.parametrize("option", ["max_topics_per_application", "max_topics"])
def test_topics_are_bounded(new_gateway: NewGateway, option: str) -> None:
    gateway = new_gateway(**{option: 3})
    send(gateway, of_names("multi-monitor", MANY[:2]), of_names("repeating_snapshot", MANY[:5]))
    assert [body["error"] for body in gateway.bodies("replies")] == [0, 0]
    send(gateway, of_names("multi-monitor", MANY[:3]), of_names("repeating_snapshot", MANY[:5], snapshot_name="t"))
    refused = gateway.bodies("replies")
    assert [body["error"] for body in refused] == [-10, -10]
    assert all(f"may have 3 topics ([gateway] {option}); 3 are in use" in body["message"] for body in refused)
    assert len(gateway.handler.monitors) == 2
    send(gateway, of_names("multi-monitor", MANY[:2]), of_names("repeating_snapshot", MANY[:5]))
    assert [body["error"] for body in gateway.bodies("replies")] == [0, 0], "what is active already costs nothing"


def test_an_activation_that_fails_gives_its_share_back(new_gateway: NewGateway, monkeypatch: Any) -> None:
    gateway = new_gateway(max_pvs=100)
    with monkeypatch.context() as patch:
        ensure = gateway.handler.topics.ensure
        patch.setattr(
            gateway.handler.topics, "ensure", lambda topic, n: 1 / 0 if topic == "many60" else ensure(topic, n)
        )
        send(gateway, of_names("multi-monitor", MANY[:100]))
    assert gateway.bodies()[-1]["error"] == -2
    assert (len(gateway.handler.monitors), any(each.open for each in gateway.pva.subscriptions)) == (0, False)
    send(gateway, of_names("multi-monitor", MANY[:100]))
    assert gateway.bodies()[0]["error"] == 0

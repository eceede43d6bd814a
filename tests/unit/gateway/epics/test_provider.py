"""What all providers share: the callbacks of a subscription."""

from __future__ import annotations

from typing import Any

import pytest

from k2eg_rx.gateway.epics.provider import NotSentError, ProviderError, ProviderTimeout, Subscriber
from k2eg_rx.pv import PVAddress


def test_an_update_that_cannot_be_read_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    updates: list[Any] = []
    lost: list[int] = []
    subscriber = Subscriber(PVAddress.parse("pva://a"), updates.append, lambda _: None, lambda: lost.append(1))
    for value in ("1", "one", "none", "4"):
        subscriber.read(lambda value=value: {"value": int(value)})
    assert updates == [{"value": 1}, {"value": 4}]
    assert len(lost) == 2
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "update cannot be read, further ones of this PV count only: pv=pva://a error=V"
    )
    subscriber.closed = True
    subscriber.read(lambda: {"value": int("none")})
    assert len(lost) == 2


@pytest.mark.parametrize("kind", [NotSentError, ProviderError, ProviderTimeout])
def test_errors_can_be_made_anew_from_their_text(kind: type[ProviderError]) -> None:
    text = str(kind() if kind is NotSentError else kind("text"))
    assert str(kind(text)) == text, "p4p does so with what a callback raises"

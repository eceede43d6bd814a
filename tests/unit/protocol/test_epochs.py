"""Epochs of events: older ones of the same fleet are left out."""

from __future__ import annotations

from k2eg_rx.protocol.epochs import EPOCH_HEADER, EpochFilter, epoch_text


def headers(text: bytes | None) -> list[tuple[str, bytes | str | None]]:
    return [("k2eg-ser-type", b"Msgpack"), *([] if text is None else [(EPOCH_HEADER, text)]), ("k2eg-protocol", b"pva")]


def test_older_events_of_a_fleet_do_not_pass() -> None:
    epochs = EpochFilter()
    texts = [b"f:5", b"f:5", b"f:7", b"f:5", b"f:6", b"f:7", b"f:8"]
    assert [epochs.passes(headers(text)) for text in texts] == [True, True, True, False, False, True, True]
    assert epochs.dropped == 2


def test_events_of_other_fleets_and_without_an_epoch_pass() -> None:
    epochs = EpochFilter()
    assert all(
        epochs.passes(headers(text)) for text in (b"f:5", b"g:3", None, b"f:5", b"g:3", b"f:x", b"nonsense", b"")
    )
    assert not epochs.passes(headers(b"g:2"))
    assert epochs.passes([])


def test_the_filter_keeps_few_fleets() -> None:
    epochs = EpochFilter()
    assert all(epochs.passes(headers(epoch_text(f"f{number}", 5).encode())) for number in range(1000))
    assert len(epochs._greatest) <= 16

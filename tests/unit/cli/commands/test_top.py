"""``k2eg top`` where there is no terminal."""

from __future__ import annotations

import pytest

from k2eg.cli import main


def test_without_a_terminal_it_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K2EG_CLI_DEFAULT_ENVIRONMENT", "local")
    assert main(["top", "my:x"]) == 2
    assert capsys.readouterr().err == "k2eg: a live table needs a terminal: `k2eg monitor` prints updates as text\n"

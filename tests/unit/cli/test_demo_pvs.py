"""The list of the demo's PVs."""

from __future__ import annotations

import re
from pathlib import Path

from k2eg.cli.demo_pvs import CATALOGUE, PVS, catalogue_lines, records_of
from k2eg_rx.embedded import DEMO_DATABASE
from k2eg_rx.pv import PVAddress

BESIDE_THE_DATABASE = {"demo:table", "demo:camera"}


def test_what_is_listed_and_shown_exists() -> None:
    served = dict(records_of([DEMO_DATABASE])).keys() | BESIDE_THE_DATABASE
    listed = {name for names, _ in CATALOGUE for name in re.findall(r"[a-z0-9:]*demo[a-z0-9:]+", names)}
    assert listed <= served
    assert {PVAddress.parse(uri).name for uri in PVS} <= served


def test_records_of_the_users_are_listed(tmp_path: Path) -> None:
    database = tmp_path / "mine.db"
    database.write_text('record(ai, "my:a") {}\n  grecord ( calc , my:b ) {}\n# record(ai, "no")\n')
    assert [line.split() for line in catalogue_lines([database])[-2:]] == [
        ["my:a", "ai", "of", "your", "database"],
        ["my:b", "calc", "of", "your", "database"],
    ]
    assert all(len(line) <= 120 for line in catalogue_lines())

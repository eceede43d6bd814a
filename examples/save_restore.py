"""Saves the settings of a machine to a file, shows what differs from it, and restores that after a question.

k2eg demo                                               # in one terminal
python examples/save_restore.py save settings.json      # in another
python examples/save_restore.py compare settings.json
python examples/save_restore.py restore settings.json   # shows the differences, asks, writes, and reads back
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k2eg_rx import Client, PVData, Severity

SETTINGS = [f"pva://demo:{name}" for name in ("setpoint1", "setpoint2", "quad", "corrector", "mode")]
Difference = tuple[Any, Any]  # the saved value and the present one


def plain(data: PVData) -> Any:
    """Returns a value as JSON has it: a number, a string, of an enum the label."""
    return data.value if data.label is None else data.label


def read(client: Client, uris: Sequence[str]) -> dict[str, Any]:
    """Returns the values of all PVs.

    Raises:
        SystemExit: A PV did not answer, or its value is INVALID: no part of the settings is better than a wrong one.
    """
    values: dict[str, Any] = {}
    for uri, got in client.get_many(uris, timeout=10.0).items():
        if got.data is None or got.data.severity >= Severity.INVALID:
            raise SystemExit(f"{uri}: {got.error or 'its value is INVALID'}")
        values[uri] = plain(got.data)
    return values


def is_same(one: Any, other: Any) -> bool:
    """Returns whether two values are equal, but for rounding."""
    return one == other or (isinstance(one, float) and isinstance(other, float) and math.isclose(one, other))


def differences(client: Client, path: Path) -> dict[str, Difference]:
    """Returns and prints the settings that are not as saved."""
    saved: dict[str, Any] = json.loads(path.read_text())
    now = read(client, list(saved))
    different = {uri: (saved[uri], now[uri]) for uri in saved if not is_same(saved[uri], now[uri])}
    for uri, (was, present) in different.items():
        print(f"{uri}: {was} saved, now {present}")
    return different


def restore(client: Client, different: dict[str, Difference]) -> None:
    """Writes the saved values, all or after a refusal as many as possible."""
    if not different or input(f"write these {len(different)} values? [y/N] ") != "y":
        return
    results = client.put_many({uri: saved for uri, (saved, _) in different.items()}, timeout=10.0)
    for uri, result in results.items():
        print(f"{uri}: {result.error or 'written'}")


def main() -> None:
    """Runs the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["save", "compare", "restore"])
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    with Client("demo", "example-settings") as client:
        if options.action == "save":
            with options.file.open("x") as file:  # an existing file is not overwritten
                json.dump(read(client, SETTINGS), file, indent=1)
            return
        different = differences(client, options.file)
        if options.action == "restore":
            restore(client, different)
            different = differences(client, options.file)
        print(f"{len(different)} settings differ")


if __name__ == "__main__":
    main()

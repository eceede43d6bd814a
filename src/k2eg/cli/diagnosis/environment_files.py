"""Finds the faults of environment files."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

from k2eg_rx.gateway import GatewayOptions
from k2eg_rx.settings import line_of, unknown_names


def environment_faults(path: Path) -> list[str]:
    """Returns the faults of a file: unknown sections and keys, and options of a gateway that it has not or cannot have.

    Raises:
        ValueError: The file cannot be read.
    """
    faults = unknown_names(path)
    text = path.read_text()
    parser = ConfigParser(interpolation=None, default_section="")
    parser.read_string(text)
    if parser.has_section("gateway"):
        for name, value in parser.items("gateway"):
            try:
                GatewayOptions.from_section({name: value})
            except ValueError as error:
                faults.append(f"{path}:{line_of(text, 'gateway', name)}: {error}")
    return faults

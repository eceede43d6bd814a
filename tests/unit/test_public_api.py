"""The root package: its version and its public names."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import k2eg_rx

ROOT = Path(__file__).parents[2]


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert k2eg_rx.__version__ == project["version"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'k2eg_rx' has no attribute 'Generic'"):
        _ = k2eg_rx.Generic  # pyright: ignore[reportAttributeAccessIssue]

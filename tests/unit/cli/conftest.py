"""What tests of the command line share."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def _local_time(zone: str) -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def utc() -> Iterator[None]:
    """Local time is UTC."""
    with _local_time("UTC"):
        yield


@pytest.fixture
def half_hour_zone() -> Iterator[None]:
    """Local time is half an hour off the full hour."""
    with _local_time("XST-5:30"):
        yield

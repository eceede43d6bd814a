"""Names of packages that are imported when they are used first."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from k2eg_rx.lazy_names import lazy_names


def test_a_name_is_imported_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("package"), ModuleType("package.module")
    monkeypatch.setitem(sys.modules, "package", package)
    monkeypatch.setitem(sys.modules, "package.module", module)
    module.__dict__["name"] = "value"
    get = lazy_names("package", {"module": ("name",)})
    assert "name" not in vars(package)
    assert get("name") == "value"
    assert vars(package)["name"] == "value"


def test_another_name_is_an_attribute_error_of_the_package() -> None:
    with pytest.raises(AttributeError, match=r"^module 'k2eg_rx' has no attribute 'x'$"):
        lazy_names("k2eg_rx", {"errors": ("K2EGError",)})("x")

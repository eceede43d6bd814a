"""`ScriptedPV` without a running gateway."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from k2eg_rx import Severity
from k2eg_rx.testing import PutRejectedError, ScriptedGateway, ScriptedPV
from k2eg_rx.testing.scripted_pvs import kind_of


@pytest.fixture
def make() -> Any:
    """Returns a function that creates PVs."""
    return ScriptedGateway().pv


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.5, "double"),
        (1, "long"),
        (True, "boolean"),
        ("x", "string"),
        ([], "double[]"),
        ([1, 2], "long[]"),
        ([1, 2.5], "double[]"),
        ([1, "x"], "any[]"),
        (["x"], "string[]"),
        ([True], "boolean[]"),
        ({"a": 1}, "structure"),
        (None, "any"),
        (np.float32(1.5), "float"),
        (np.zeros(2, dtype=np.uint16), "ushort[]"),
        (np.zeros(0, dtype=np.int8), "byte[]"),
        (np.array(["x"]), "string[]"),
    ],
)
def test_kind_of_returns_the_pvdata_name_of_a_values_type(value: object, kind: str) -> None:
    assert kind_of(value) == kind


def test_types_has_the_types_of_a_pvs_fields(make: Any) -> None:
    assert make("x", 1.0).types["value"] == "double"
    assert make("s", 1, kind="short").types["value"] == "short"
    assert make("e", 0, choices=["a", "b"]).types["value"] == "enum"
    assert make("t", {"a": [1], "b": ["x"]}).types["value"] == {"a": "long[]", "b": "string[]"}
    assert make("c", fields={"a": 1, "sub": {"b": 2.0}}).types["sub"] == "structure"


def test_a_post_changes_value_alarm_and_time(make: Any) -> None:
    pv: ScriptedPV = make("x", 1.0, severity=Severity.INVALID, message="UDF")
    assert (pv.severity, pv.structure("pva")["alarm"]["message"]) == (Severity.INVALID, "UDF")
    pv.post(2, severity=1, message="HIGH")
    made = pv.structure("ca")
    assert (pv.value, pv.severity, made["alarm"]["message"]) == (2.0, Severity.MINOR, "HIGH")
    pv.post()
    assert (pv.value, pv.severity) == (2.0, Severity.NO_ALARM)
    pv.post(fields={"display": {"units": "A"}})
    assert pv.structure("pva")["display"]["units"] == "A"
    assert pv.structure("pva")["display"]["precision"] == 0


def test_a_put_ignores_unknown_fields(make: Any) -> None:
    pv: ScriptedPV = make("x", 1.0, severity=2)
    pv.put({"value": 2.0, "nothing": 1})
    pv.put({"value": 3.0, "display": {"units": "A"}})
    assert pv.puts == [2.0, {"value": 3.0, "display": {"units": "A"}}]
    assert (pv.value, pv.severity) == (3.0, Severity.NO_ALARM)
    for wrong in ({"nothing": 1}, {"value": "text"}, {"value": [1.0]}):
        with pytest.raises(PutRejectedError, match=r"No fields to update|cannot put"):
            pv.put(wrong)
    assert len(pv.puts) == 2


def test_an_enum_accepts_indices_and_labels(make: Any) -> None:
    pv: ScriptedPV = make("e", "Off", choices=["Off", "On"])
    pv.put({"value": {"index": 1}})
    pv.put({"value": "Off"})
    pv.put({"value": {"index": "On"}})
    pv.put({"value": 1})
    assert (pv.puts, pv.label) == ([1, 0, 1, 1], "On")
    with pytest.raises(PutRejectedError, match="is not one of its labels: 'Off', 'On'"):
        pv.put({"value": {"index": "Standby"}})
    with pytest.raises(ValueError, match="is no enum"):
        _ = make("x", 1.0).label


def test_invalid_pvs_are_rejected(make: Any) -> None:
    with pytest.raises(ValueError, match="must be a label or an index"):
        make("e", "Maybe", choices=["Off", "On"])
    with pytest.raises(ValueError, match="white space"):
        make("a b", 1.0)
    with pytest.raises(ValueError, match="short"):
        make("s", 40_000, kind="short")

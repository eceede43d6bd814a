"""Files of StripTool and Phoebus."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2eg.cli.charts.chart_files import FileCurve, is_chart_file, read_chart_file

STRIPTOOL = """\
StripConfig                   1.2
Strip.Time.Timespan           300
Strip.Curve.1.Name            gun:vacuum
Strip.Curve.1.Min             1e-10
Strip.Curve.1.Max             1e-06
Strip.Curve.1.Scale           1
Strip.Curve.1.PlotStatus      1
Strip.Curve.0.Name            gun:current
Strip.Curve.0.Units           mA
Strip.Curve.0.Min             -5.000000
Strip.Curve.0.Max             120.000000
Strip.Curve.2.Name            gun:hidden
Strip.Curve.2.PlotStatus      0
"""

PHOEBUS = """\
<?xml version="1.0" encoding="UTF-8"?>
<databrowser>
  <axes>
    <axis><min>0.0</min><max>10.0</max><autoscale>false</autoscale><log_scale>false</log_scale></axis>
    <axis><min>0.1</min><max>10.0</max><autoscale>true</autoscale><log_scale>true</log_scale></axis>
  </axes>
  <pvlist>
    <pv><visible>true</visible><name>gun:current</name><axis>0</axis></pv>
    <pv><visible>true</visible><name>ca://gun:vacuum</name><axis>1</axis></pv>
    <pv><visible>true</visible><name>pva://gun:nowhere</name><axis>7</axis></pv>
    <pv><visible>false</visible><name>gun:hidden</name><axis>0</axis></pv>
    <pv><visible>true</visible><name>sim://sine</name><axis>0</axis></pv>
    <pv><visible>true</visible><name>=1+2</name><axis>0</axis></pv>
    <formula><name>twice</name></formula>
  </pvlist>
</databrowser>
"""


def test_striptool(tmp_path: Path) -> None:
    path = tmp_path / "gun.STP"
    path.write_text(STRIPTOOL)
    assert is_chart_file(str(path))
    assert read_chart_file(str(path)) == [
        FileCurve("gun:current", (-5.0, 120.0)),
        FileCurve("gun:vacuum", (1e-10, 1e-6), is_log=True),
    ]


def test_phoebus(tmp_path: Path) -> None:
    path = tmp_path / "gun.plt"
    path.write_text(PHOEBUS)
    assert read_chart_file(str(path)) == [
        FileCurve("gun:current", (0.0, 10.0)),
        FileCurve("ca://gun:vacuum", None, is_log=True),
        FileCurve("pva://gun:nowhere"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.plt", "<databrowser", "is not valid XML"),
        ("a.plt", "<databrowser/>", "names no visible PV"),
        ("a.stp", "StripConfig 1.2", "names no visible PV"),
        ("a.plt", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares a document type"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_chart_file(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_chart_file(str(tmp_path / "none.stp"))

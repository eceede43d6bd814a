"""Extras: the core does not import their packages, and functions that need one name the extra to install."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from k2eg_rx import ColumnBatch, StreamClient
from k2eg_rx.frames import to_dataframe, to_xarray
from k2eg_rx.metrics import collector, serve
from k2eg_rx.quix import pv_frame
from k2eg_rx.recording import record, recover, replay_file

_HEAVY = ("numpy", "pandas", "xarray", "pyarrow", "prometheus_client", "IPython", "quixstreams")
_CLIENT: Any = object()


@pytest.mark.parametrize(
    "module",
    ["k2eg_rx", "k2eg", "k2eg_rx.frames", "k2eg_rx.metrics", "k2eg_rx.notebook", "k2eg_rx.quix", "k2eg_rx.recording"],
)
def test_importing_imports_no_package_of_an_extra(module: str) -> None:
    script = f"import sys, {module}; print([name for name in {_HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("package", "extra", "call", "what"),
    [
        ("pandas", "analysis", to_dataframe, "to_dataframe"),
        ("numpy", "analysis", to_dataframe, "to_dataframe"),
        ("xarray", "analysis", to_xarray, "to_xarray"),
        ("numpy", "analysis", lambda: StreamClient.monitor_columns(_CLIENT, ["pva://x"], count=1), "monitor_columns"),
        ("pyarrow", "recording", lambda: ColumnBatch({}).to_arrow(), "ColumnBatch.to_arrow"),
        ("pyarrow", "recording", lambda: record("run.parquet"), "record"),
        ("pyarrow", "recording", lambda: replay_file("."), "replay_file"),
        ("pyarrow", "recording", lambda: recover("."), "recover"),
        ("quixstreams", "quix", lambda: pv_frame(_CLIENT, _CLIENT, ["pva://x"]), "pv_frame"),
        ("prometheus_client", "metrics", lambda: collector(_CLIENT), "k2eg_rx.metrics.collector"),
        ("prometheus_client", "metrics", lambda: serve(_CLIENT), "k2eg_rx.metrics.serve"),
    ],
)
def test_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, package: str, extra: str, call: object, what: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert callable(call)
    with pytest.raises(ModuleNotFoundError) as caught:
        call()
    assert str(caught.value) == f"{what} needs {package}, not installed here: pip install 'k2eg[{extra}]'"
    assert caught.value.name == package

"""Every parameter of the public API, with values that it cannot mean: refused at the call, by a short text.

The walk calls each public function and method with hostile values for one parameter after another. It accepts a
ValueError or TypeError, and the values listed in ``tests/data/accepted_arguments.txt``, which is to be reviewed like
code: `python -m pytest tests/unit/test_arguments.py --update-public-api` writes it anew.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reactivex as rx

import k2eg_rx
from k2eg.broker import SnapshotProperties
from k2eg.dml import dml
from k2eg_rx import Client, K2EGError, PVAddress, aio, frames, operators, recording, testing
from k2eg_rx.arguments import at_least_one, non_negative, period_of, positive, pv_names, timeout_of, whole
from k2eg_rx.gateway import GatewayOptions
from k2eg_rx.testing import ScriptedGateway, VirtualClock, series

# of the streams of puts that are made here and never subscribed to
pytestmark = pytest.mark.filterwarnings("ignore:put_(many_)?stream.* was never subscribed to:UserWarning")

ACCEPTED = Path(__file__).parents[1] / "data" / "accepted_arguments.txt"
URI = "pva://my:x"
LONGEST_TEXT = 500  # characters of an error: a value is shown shortened, perhaps twice


class Evil:
    """Raises in every method that a check might call without thinking."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __hash__(self) -> int:
        raise RuntimeError("hash")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")


HOSTILE: Mapping[str, Any] = {
    "evil": Evil(),
    "object": object(),
    "complex": 1j,
    "None": None,
    "True": True,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "1e308": 1e308,
    "1e-308": 1e-308,
    "10**400": 10**400,
    "10**5000": 10**5000,
    "-1": -1,
    "0": 0,
    "numpy-nan": np.float64("nan"),
    "''": "",
    "'no'": "no",
    "100-kB-URI": "pva://" + "x" * 100_000,
    "control-URI": "pva://a\nb",
    "surrogate-URI": "pva://a\udc80b",
    "bytes": b"pva://my:x",
    "[]": [],
    "{}": {},
    "[1]": [1],
    "{1:1}": {1: 1},
    "function": lambda *_: None,
    "naive-datetime": datetime(2020, 1, 1),
    "far-datetime": datetime(9999, 1, 1, tzinfo=UTC),
    "far-timedelta": timedelta.max,
}

# Values for the parameters that have no default
GOOD: Mapping[str, Any] = {
    "after": 5,
    "app_name": "app",
    "count": 3,
    "environment_id": "test",
    "handler": lambda *_: None,
    "limits": (0.0, 1.0),
    "name": "s",
    "path": "alarm.severity",
    "properties": SnapshotProperties("s", [URI]),
    "pv": "my:x",
    "pv_name": "my:x",
    "pv_uri_list": [URI],
    "pv_url": URI,
    "pvs": ["my:x"],
    "rate": 5.0,
    "seconds": 1.0,
    "snapshot_name": "s",
    "start": timedelta(seconds=9),
    "stream": rx.of(1),
    "target": 1.0,
    "tolerance": 0.1,
    "uri": URI,
    "uris": [URI],
    "value": 1.0,
    "values": {URI: 1.0},
}

# Functions that need other values than these, or of which only some parameters mean something at the call
WINDOW = {"duration": 1.0}
Call = tuple[str, Callable[..., Any], Mapping[str, Any]]


def methods_of(thing: Any, names: str, prefix: str) -> Iterator[Call]:
    yield from ((f"{prefix}.{name}", getattr(thing, name), {}) for name in names.split())


def calls(folder: Path, client: Client) -> Iterator[Call]:
    """Yields each call: its name, the function, and the arguments that differ from `GOOD`."""
    numbers = iter(range(100_000))
    recorded = folder / "run.parquet"
    rx.from_iterable(series("my:x", [1.0])).pipe(recording.record(recorded)).run()

    def new_record(path: Any = None, **options: Any) -> Any:
        return recording.record(folder / f"{next(numbers)}.parquet" if path is None else path, **options)

    new_record.__signature__ = inspect.signature(recording.record)  # type: ignore[attr-defined]
    updates = series("my:x", [1.0])
    streams = [name for name in dir(Client) if name.endswith("_stream") and name != "status_stream"]
    yield from methods_of(client, " ".join(streams), "Client")
    yield from methods_of(client, "get put get_many put_many snapshot", "Client")
    yield "Client.close", lambda timeout=5.0: Client("test", "app").close(timeout), {}
    yield "Client", closed(Client), {}
    yield "dml", closed(dml), {}
    yield "first", k2eg_rx.first, {}
    (folder / "test.ini").write_text("[DEFAULT]\nkafka_broker_url=b:1\nk2eg_cmd_topic=c\n")
    yield "load_settings", k2eg_rx.load_settings, {"folder": folder}
    yield "environments", k2eg_rx.environments, {}
    yield "PVAddress.parse", PVAddress.parse, {}
    for name in operators.__all__:
        thing = getattr(operators, name)
        if inspect.isfunction(thing) and inspect.signature(thing).parameters:
            yield f"operators.{name}", piped(thing), WINDOW if name == "window_statistics" else {"client": client}
    yield "recording.record", piped(new_record), {"path": None}
    yield "recording.replay_file", recording.replay_file, {"path": recorded}
    yield "recording.recover", recording.recover, {"path": recorded}
    yield "frames.to_dataframe", frames.to_dataframe, {"items": updates}
    yield "frames.to_xarray", frames.to_xarray, {"items": updates}
    yield "GatewayOptions", GatewayOptions, {}
    yield "GatewayOptions.from_section", GatewayOptions.from_section, {"section": {}}
    yield "testing.series", lambda pv, values, every=1.0: list(series(pv, values, every=every)), {"values": [1.0]}
    yield "testing.snapshot", testing.snapshot, {"values": {"my:x": 1.0}}
    yield "VirtualClock.advance", lambda seconds: VirtualClock().advance(seconds), {}
    yield "VirtualClock", VirtualClock, {}


def piped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that makes an operator and applies it, which does not subscribe."""

    def call(**arguments: Any) -> Any:
        return rx.never().pipe(function(**arguments))

    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return call


def closed(make: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that makes a client and closes it."""

    def call(**arguments: Any) -> None:
        make(**arguments).close()

    call.__signature__ = inspect.signature(make)  # type: ignore[attr-defined]
    return call


def outcome(call: Callable[[], Any]) -> str:
    """Returns "refused" for a short ValueError or TypeError, "accepted", or what is wrong."""
    try:
        call()
    except (ValueError, TypeError) as error:
        text = str(error)
        return "refused" if len(text) <= LONGEST_TEXT and text else f"a text of {len(text)} characters"
    except K2EGError:
        return "accepted"  # it got as far as the gateway or the file
    except Exception as error:
        return f"{type(error).__name__} {str(error)[:60]}"
    return "accepted"


def walk(name: str, function: Callable[..., Any], special: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields parameter, hostile value and outcome of each call of a function."""
    parameters = {
        parameter.name: parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
    }
    required = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
    given = {key: special[key] if key in special else GOOD[key] for key in required}
    given |= {key: value for key, value in special.items() if key in parameters}
    assert outcome(lambda: function(**given)) == "accepted", name
    for parameter in parameters:
        for label, value in HOSTILE.items():
            yield parameter, label, outcome(lambda p=parameter, v=value: function(**(given | {p: v})))


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, str]]:
    """The outcomes by function and parameter, then by hostile value."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    with ScriptedGateway() as scripted, scripted.client() as client:
        scripted.pv("my:x", 1.0)
        client.monitor_stream(URI).subscribe()
        client.snapshot_recurring_stream(SnapshotProperties("s", [URI])).subscribe()
        for name, function, special in calls(tmp_path_factory.mktemp("recordings"), client):
            for parameter, label, result in walk(name, function, special):
                found.setdefault((name, parameter), {})[label] = result
    return found


def test_hostile_values_are_refused_at_the_call(walked: dict[tuple[str, str], dict[str, str]]) -> None:
    wrong = [
        f"{name}({parameter}={label}): {result}"
        for (name, parameter), results in walked.items()
        for label, result in results.items()
        if result not in {"refused", "accepted"}
    ]
    assert wrong == []


def test_what_is_accepted_is_as_listed(
    walked: dict[tuple[str, str], dict[str, str]], request: pytest.FixtureRequest
) -> None:
    lines = [
        f"{name}({parameter}): {' '.join(accepted)}"
        for (name, parameter), results in walked.items()
        if (accepted := [label for label, result in results.items() if result == "accepted"])
    ]
    listing = "\n".join(sorted(lines)) + "\n"
    if request.config.getoption("--update-public-api"):
        ACCEPTED.write_text(listing)
    assert listing == ACCEPTED.read_text(), "what is accepted changed: see this module's docstring"


@pytest.mark.parametrize("value", [np.float32(2.0), np.int64(2), 2, 2.0, np.float64(2.0)])
def test_numbers_of_numpy_count_as_numbers(value: Any) -> None:
    assert (positive(value, "x"), non_negative(value, "x"), timeout_of(value), period_of(value)) == (2.0, 2.0, 2.0, 0.5)


def test_whole_numbers_of_numpy_count_as_such() -> None:
    assert type(at_least_one(np.int64(2), "x")) is int  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x must be a whole number of at least 1"):
        whole(1.5, "x", 1)  # type: ignore[arg-type]


def test_pvs_are_named_once_by_name_or_uri() -> None:
    assert pv_names(["my:x", URI, "ca://my:y"]) == ("my:x", "my:y")


@pytest.mark.parametrize("timeout", [math.inf, 1e308, math.nan, True, "1", 10**400])
def test_an_asyncio_client_refuses_at_the_call(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be a finite number above 0"):
        aio.Client("test", "app", timeout=timeout)


def test_blocking_calls_refuse_what_their_streams_refuse() -> None:
    with ScriptedGateway() as scripted, dml("test", "app") as client:
        scripted.pv("my:x", 1.0)
        for call in (
            lambda: client.get(URI, math.inf),
            lambda: client.monitor(URI, None),  # type: ignore[arg-type]
            lambda: client.monitor_many(URI, print),
            lambda: client.stop_monitor(None),  # type: ignore[arg-type]
            lambda: client.stop_monitor("my:x", 5),  # type: ignore[arg-type]
            lambda: client.snapshot([URI], 5),  # type: ignore[arg-type]
            lambda: client.snapshot_recurring(None, print),  # type: ignore[arg-type]
        ):
            assert outcome(call) == "refused"


def test_an_iterator_of_uris_is_read_once() -> None:
    with ScriptedGateway() as scripted, dml("test", "app") as client:
        scripted.pv("my:x", 1.5)
        read = client.get_many(iter([URI]))  # type: ignore[arg-type]
        assert {uri: got["value"] for uri, got in read.items() if isinstance(got, dict)} == {URI: 1.5}


@pytest.mark.parametrize(
    "operator",
    [
        lambda on_drop: operators.align(["a"], on_drop=on_drop),
        lambda on_drop: operators.window_statistics(1.0, on_drop=on_drop),
    ],
)
def test_a_callback_that_takes_other_arguments_is_refused_at_the_call(operator: Callable[[Any], object]) -> None:
    with pytest.raises(ValueError, match=r"on_drop must take 2 arguments, the update and the reason; got .*'\(item\)'"):
        operator(lambda item: None)
    operator(lambda item, reason: None)
    operator(dict)  # does not show its signature


def test_functions_of_the_test_kit_that_take_other_arguments_are_refused_at_the_call() -> None:
    with ScriptedGateway() as gateway:
        with pytest.raises(ValueError, match="on_put must take 1 argument, the value"):
            gateway.pv("x", 1, on_put=lambda: None)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="answer must take 1 argument, the command"):
            gateway.faults.script(lambda: None)  # pyright: ignore[reportArgumentType]

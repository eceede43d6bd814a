"""The exceptions: hierarchy, texts, attributes, pickling."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from k2eg_rx import errors
from k2eg_rx.errors import (
    ClientClosedError,
    EmptyStreamError,
    ForkError,
    K2EGError,
    OperationError,
    OperationTimeout,
    PutWithheldError,
    TransportError,
    WireError,
)

EXAMPLES: list[K2EGError] = [
    OperationError(-2, "std::bad_cast", "put", "pva://x"),
    OperationTimeout("get", "pva://x", 2.5, "the gateway may be down"),
    TransportError("no broker"),
    WireError("shape", "no value"),
    ClientClosedError("closed"),
    EmptyStreamError("the stream: completed without an item"),
    ForkError("forked"),
    PutWithheldError("pva://x", "not connected"),
]


def test_there_is_an_example_of_every_error() -> None:
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)}
    assert kinds - {K2EGError} == {type(error) for error in EXAMPLES}


def test_every_error_is_a_k2eg_error() -> None:
    assert all(isinstance(error, K2EGError) and not isinstance(error, ValueError) for error in EXAMPLES)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_pickling(error: K2EGError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


def test_an_operation_error_shows_operation_subject_code_and_message() -> None:
    error = OperationError(-2, "std::bad_cast", "put", "pva://x")
    assert str(error) == "put of pva://x: the gateway answered with error -2: std::bad_cast"
    assert (error.error, error.message, error.operation, error.subject) == (-2, "std::bad_cast", "put", "pva://x")
    assert str(OperationError(-1, "")) == "the gateway answered with error -1: no message"


def test_a_timeout_shows_operation_subject_and_duration() -> None:
    error = OperationTimeout("get", "pva://x", 2.5)
    assert str(error) == "Timeout: get of pva://x: no reply within 2.5 s"  # scripts match the first word
    assert str(OperationTimeout("replay", "pva://x", 2.0, missing="nothing")).endswith("nothing within 2 s")
    assert str(OperationTimeout("put", "pva://x", 5.0, "it may still be carried out")).endswith(
        "within 5 s; it may still be carried out"
    )
    assert isinstance(error, TimeoutError)


def test_a_wire_error_has_a_kind_to_count_by() -> None:
    error = WireError("header", "no header")
    assert (error.kind, error.text, str(error)) == ("header", "no header", "header: no header")

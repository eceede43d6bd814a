"""pvData types as numpy types, and errors of refused puts. The type rules are in `k2eg_rx.protocol`."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from k2eg_rx.gateway.epics.provider import ProviderError
from k2eg_rx.protocol import checked_elements, shown

# The text of the deployed gateway, which clients may match.
NOTHING_TO_PUT = "No fields to update in the provided Msgpack object"

# numpy types of pvData's numeric types (pvData Reference, "Scalar types").
DTYPES: dict[str, np.dtype[Any]] = {
    "boolean": np.dtype(np.bool_),
    "byte": np.dtype(np.int8),
    "ubyte": np.dtype(np.uint8),
    "short": np.dtype(np.int16),
    "ushort": np.dtype(np.uint16),
    "int": np.dtype(np.int32),
    "uint": np.dtype(np.uint32),
    "long": np.dtype(np.int64),
    "ulong": np.dtype(np.uint64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}

Array = NDArray[Any] | list[str]


def refusal(pv_name: str, field: str, kind: str, value: object, why: object) -> ProviderError:
    """Returns the error of a refused put: PV, field, type, value and reason."""
    return ProviderError(f"{pv_name}: the field {field!r} is of type {kind}; {shown(value)} {why}")


def checked_array(kind: str, value: object) -> Array:
    """Returns a value as an array of a type: a numpy array, or a list of strings.

    Raises:
        TypeMismatch: It is not an array, or an element does not fit.
    """
    elements = checked_elements(kind, cast("NDArray[Any]", value).tolist() if isinstance(value, np.ndarray) else value)
    return elements if kind == "string" else np.array(elements, dtype=DTYPES[kind])

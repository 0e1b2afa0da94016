"""Attributes of a stream from what a file says of itself: small JSON values, bounded. Pure; any thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from hiss import limits
from hiss.model import Attrs


def json_value(value: Any) -> Any:
    """A number, a text, a list of them, or what is JSON already; None where it is neither, or too large."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value if len(value) <= limits.INTAKE_TEXT_CHARS_MAX else None
    if isinstance(value, bool | int | float | dict):
        return value
    array = np.asarray(value)
    if array.size == 1 and array.ndim:
        return json_value(array.reshape(-1)[0])
    if array.size > limits.INTAKE_ATTR_VALUES_MAX or array.ndim > 2:
        return None
    if array.dtype.kind in "biuf":
        return array.tolist()
    if array.dtype.kind in "SUO":
        values = [json_value(item) if isinstance(item, bytes | str) else None for item in array.reshape(-1).tolist()]
        return None if None in values else values[0] if not array.ndim else values
    return None


def bounded(found: Mapping[str, Any]) -> Attrs:
    """What can be an attribute of `found`, in its order, up to `limits.INTAKE_ATTRS_BYTES_MAX`; how many were left
    out for their number stands in `attributes_left_out`."""
    kept: dict[str, Any] = {}
    room, left_out = limits.INTAKE_ATTRS_BYTES_MAX, 0
    for key, value in found.items():
        plain = json_value(value)
        if plain is None:
            continue
        size = len(json.dumps({key: plain}))
        if size > room:
            left_out += 1
            continue
        room -= size
        kept[key] = plain
    return {**kept, "attributes_left_out": left_out} if left_out else kept

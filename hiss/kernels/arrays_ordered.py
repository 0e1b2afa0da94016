"""Whole-array primitives in which order matters: running sums, products and extremes, joining, counting, the first of
the largest.

Operands have three axes, (outer, count, inner); the middle one is worked along. Constant; any thread.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss.kernels.arrays_rows import ArrayPrimitive, Attrs, Kind

Array = npt.NDArray[Any]
RUNNING: Final = {
    "running_add": np.add,
    "running_multiply": np.multiply,
    "running_minimum": np.minimum,
    "running_maximum": np.maximum,
}


def _same(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    return kinds[0]


def _running(name: str) -> ArrayPrimitive:
    ufunc = RUNNING[name]
    return ArrayPrimitive(
        name,
        _same,
        lambda attrs, values: ufunc.accumulate(values, axis=1, dtype=values.dtype),
        lambda kinds, attrs: 4 * math.prod(kinds[0][1]),
    )


def _joined(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
    dtype, (outer, _, inner) = kinds[0]
    return dtype, (outer, sum(shape[1] for _, shape in kinds), inner)


def _arg_extreme(name: str) -> ArrayPrimitive:
    function = {"argmin": np.argmin, "argmax": np.argmax}[name]

    def result(kinds: tuple[Kind, ...], attrs: Attrs) -> Kind:
        outer, _, inner = kinds[0][1]
        return np.dtype(np.int64), (outer, inner)

    return ArrayPrimitive(
        name, result, lambda attrs, values: function(values, axis=1), lambda kinds, attrs: 2 * math.prod(kinds[0][1])
    )


ROWS: Final = (
    *map(_running, RUNNING),
    ArrayPrimitive(
        "concatenate",
        _joined,
        lambda attrs, *parts: np.concatenate(parts, axis=1),
        lambda kinds, attrs: 2 * math.prod(_joined(kinds, attrs)[1]),
    ),
    ArrayPrimitive(  # (start, step, count)
        "arange",
        lambda kinds, attrs: (np.dtype(np.int64), (attrs[2],)),
        lambda attrs: attrs[0] + attrs[1] * np.arange(attrs[2]),
        lambda kinds, attrs: attrs[2],
    ),
    *map(_arg_extreme, ("argmin", "argmax")),
)

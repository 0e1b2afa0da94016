"""Whole-array primitives in which order matters: running sums, products, extremes; selection by rank.

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


ROWS: Final = tuple(map(_running, RUNNING))

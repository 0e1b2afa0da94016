"""The meaning of a program: each node by NumPy, one frame at a time, in the order of the graph.

The other back ends must give what this gives. What differs from NumPy is here and in the lowering: casts from float to
integer saturate (NaN gives 0), integer division by zero gives 0, float sums follow the one stated order (`LANES`
interleaved lanes, then a pairwise tree; see `primitives.Reduction`). Pure; any thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss.kernels.arrays import ARRAYS
from hiss.kernels.dtypes import BOOL, F64, DType
from hiss.kernels.ir import Node, Program, Shape
from hiss.kernels.primitives import LANES, PRIMITIVES, REDUCTIONS

Array = npt.NDArray[Any]
_CHUNK = 1 << 10  # rows of LANES elements that are converted at once


def evaluate(
    program: Program,
    frame: Array | None = None,
    columns: Sequence[Any] = (),
    states: Sequence[Array] = (),
    order: Sequence[Node] | None = None,
) -> tuple[Array, ...]:
    """The outputs for one frame.

    Parameters
    ----------
    frame : array of the program's dtype and shape
        Never written to. The outputs may be views of it.
    columns : sequence of scalars
        In the order of `program.columns`.
    states : sequence of arrays
        In the order of `program.states`.
    order : sequence of Node, optional
        `program.nodes`, where the caller has it.
    """
    nodes = program.nodes if order is None else order
    last = last_uses(nodes)
    kept = set(map(id, program.outputs))
    values: dict[int, Array] = {}
    leaves: dict[str, Callable[..., Any]] = {
        "frame": lambda: frame,
        "state": lambda place: states[place],
        "array": lambda slot: program.arrays[slot],
        "scalar": lambda slot: program.scalars[slot],
        "column": lambda slot: columns[slot],
    }
    with np.errstate(all="ignore"):
        for place, node in enumerate(nodes):
            if node.op == "const":
                values[id(node)] = np.asarray(node.attrs[0], node.dtype)
            elif node.op in leaves:
                values[id(node)] = np.asarray(leaves[node.op](*node.attrs), node.dtype)
            else:
                values[id(node)] = compute(node, [values[id(arg)] for arg in node.args])
            for arg in node.args:
                if last[id(arg)] == place and id(arg) not in kept:
                    values.pop(id(arg), None)
    return tuple(values[id(output)] for output in program.outputs)


def last_uses(nodes: Sequence[Node]) -> dict[int, int]:
    """For each node that is used, the place of its last user."""
    return {id(arg): place for place, node in enumerate(nodes) for arg in node.args}


def compute(node: Node, args: list[Array]) -> Array:
    """One node from its operands."""
    match node.op:
        case "cast":
            return cast(args[0], node.dtype)
        case "broadcast":
            return np.broadcast_to(args[0], node.shape)
        case "reshape":
            return args[0].reshape(node.shape)
        case "permute":
            return args[0].transpose(node.attrs)
        case "slice":
            return args[0][_slices(node)]
    if node.op in REDUCTIONS:
        return reduce(node.op, args[0], node.attrs, node.shape)
    if node.op in ARRAYS:
        return np.asarray(ARRAYS[node.op].numpy(node.attrs, *args), node.dtype).reshape(node.shape)
    return np.asarray(PRIMITIVES[node.op].numpy(*args), node.dtype)


def _slices(node: Node) -> tuple[slice, ...]:
    starts, steps = node.attrs
    parts = []
    for start, step, count in zip(starts, steps, node.shape, strict=True):
        stop = start + step * count
        parts.append(slice(start, None if stop < 0 else stop, step))
    return tuple(parts)


def cast(values: Array, dtype: DType) -> Array:
    """`astype`, but from float to integer saturating, NaN to 0."""
    if values.dtype.kind != "f" or dtype.kind not in "iu":
        return values != 0 if dtype == BOOL else values.astype(dtype)
    bounds = np.iinfo(dtype)
    wide = values.astype(F64)
    whole = np.where(np.isnan(wide), 0.0, np.trunc(wide))
    high = whole >= float(bounds.max)  # 2.0**63 for int64: the first float beyond
    low = whole <= float(bounds.min)
    result = np.where(high | low, 0.0, whole).astype(dtype)
    return np.asarray(np.where(high, bounds.max, np.where(low, bounds.min, result)), dtype)


def reduce(name: str, values: Array, axes: tuple[int, ...], shape: Shape) -> Array:
    """A reduction over `axes`, in the stated order where it shows."""
    ufunc = PRIMITIVES[REDUCTIONS[name].join].numpy
    assert isinstance(ufunc, np.ufunc)
    if values.dtype.kind not in REDUCTIONS[name].ordered_kinds:
        if not values.size and REDUCTIONS[name].start is None:
            return np.full(shape, REDUCTIONS[name].of_nothing(values.dtype), values.dtype)
        return np.asarray(ufunc.reduce(values, axis=axes, dtype=values.dtype))
    kept = [axis for axis in range(values.ndim) if axis not in axes]
    rows = values.transpose(*kept, *axes).reshape(math.prod(shape), math.prod(values.shape[axis] for axis in axes))
    start = REDUCTIONS[name].start
    assert start is not None
    return _ordered(ufunc, rows, float(start)).reshape(shape)


def _ordered(ufunc: np.ufunc, rows: Array, start: float) -> Array:
    """Join each row of `rows` (n, m): lanes first, then the tree. Returns (n,)."""
    count, length = rows.shape
    lanes = np.full((count, 1, LANES), start, rows.dtype)
    for first in range(0, length, _CHUNK * LANES):
        part = rows[:, first : first + _CHUNK * LANES]
        padded = np.full((count, -(-part.shape[1] // LANES) * LANES), start, rows.dtype)
        padded[:, : part.shape[1]] = part
        stacked = np.concatenate((lanes, padded.reshape(count, padded.shape[1] // LANES, LANES)), axis=1)
        lanes = ufunc.reduce(stacked, axis=1, keepdims=True)
    tree = lanes[:, 0, :]
    width = LANES // 2
    while width:
        tree = ufunc(tree[:, :width], tree[:, width : 2 * width])
        width //= 2
    return np.asarray(tree[:, 0])

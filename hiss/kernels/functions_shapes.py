"""The functions of the language that make, turn and join arrays, and what is known of them. Part of `functions`."""

from __future__ import annotations

from typing import Final

from hiss.kernels import lowering_joins as joins
from hiss.kernels import lowering_shapes as shapes
from hiss.kernels.functions_rows import TableFunction, row

SECTIONS: Final[dict[str, list[TableFunction]]] = {
    "Shape": [
        row("reshape", "a, shape", "nm", "as a", shapes.reshape, "row-major; one size may be -1"),
        row("ravel", "a", "nm", "as a", shapes.ravel),
        row("flatten", "a", "m", "as a", shapes.ravel),
        row("transpose", "a, axes=None", "nm", "as a", shapes.transpose),
        row("T", "a", "a", "as a", shapes.transpose, "attribute"),
        row("swapaxes", "a, axis1, axis2", "nm", "as a", shapes.swapaxes),
        row("squeeze", "a, axis=None", "nm", "as a", shapes.squeeze),
        row("expand_dims", "a, axis", "n", "as a", shapes.expand_dims),
        row("flip", "m, axis=None", "n", "as m", shapes.flip),
        row("broadcast_to", "array, shape", "n", "as array", shapes.broadcast_to),
        row("getitem", "a, key", "o", "as a", shapes.getitem, "`a[...]`: static integers, slices, `...`, `None`"),
        row("fliplr", "m", "n", "as m", joins.flip_axis(1, 2)),
        row("flipud", "m", "n", "as m", joins.flip_axis(0, 1)),
        row(
            "rot90",
            "m, k=1, axes=(0, 1)",
            "n",
            "as m",
            joins.rot90,
            "k quarter turns from the first axis to the second",
        ),
        row("moveaxis", "a, source, destination", "n", "as a", joins.moveaxis, "one axis"),
        row("roll", "a, shift, axis=None", "n", "as a", joins.roll, "along one axis, or of the array laid flat"),
        row("concatenate", "arrays, axis=0", "n", "the common dtype", joins.concatenate, "of a tuple of arrays"),
        row("stack", "arrays, axis=0", "n", "the common dtype", joins.stack, "of a tuple of arrays of one shape"),
        row(
            "pad",
            "array, pad_width, mode='constant', *, constant_values=None",
            "n",
            "as array",
            joins.pad,
            "modes 'constant', 'edge', 'reflect', 'symmetric', 'wrap'",
        ),
    ],
    "New arrays": [
        row("zeros", "shape, dtype=None", "n", "float64 or dtype", shapes.filled(0)),
        row("ones", "shape, dtype=None", "n", "float64 or dtype", shapes.filled(1)),
        row("full", "shape, fill_value, dtype=None", "n", "of the value, or dtype", shapes.full),
        row("zeros_like", "a, dtype=None", "n", "as a, or dtype", shapes.filled_like(0)),
        row("ones_like", "a, dtype=None", "n", "as a, or dtype", shapes.filled_like(1)),
        row("full_like", "a, fill_value, dtype=None", "n", "as a, or dtype", shapes.full_like),
        row(
            "arange", "start, stop=None, step=1", "n", "int64", joins.arange, "of static integers; `np.arange(n) * 0.5`"
        ),
    ],
    "Known before the kernel runs": [
        row("shape", "a", "a", "static tuple", shapes.shape_of, "attribute"),
        row("ndim", "a", "a", "static integer", shapes.ndim_of, "attribute"),
        row("size", "a", "a", "static integer", shapes.size_of, "attribute"),
        row("dtype", "a", "a", "static dtype", shapes.dtype_of, "attribute"),
        row("len", "a", "o", "static integer", shapes.length_of, "`len(a)`"),
    ],
}

"""Builds the typed form: values, NumPy's promotion made explicit, broadcasting and views, with the bounds on them.

A value is a `Node` or a `Static`: a Python object known before the kernel runs (a literal, a size, a dtype, a scalar
parameter that is weak). What does not fit raises `Misfit`; the specialiser adds the place in the source and chooses the
class of the error. One builder serves one kernel; one thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.kernels import lengths
from hiss.kernels.arrays import ARRAYS
from hiss.kernels.arrays_ordered import RUNNING
from hiss.kernels.dtypes import BOOL, F64, I64, DType, default, holds, promote
from hiss.kernels.interpreter import cast
from hiss.kernels.ir import Interner, Node, Shape
from hiss.kernels.lengths import Length, is_variable
from hiss.kernels.primitives import PRIMITIVES


@dataclass(frozen=True, slots=True, eq=False)
class Static:
    """A Python value, and the parameters that it came from: those are passed to compiled code, not printed into it."""

    value: Any
    names: frozenset[str] = frozenset()


Value = Node | Static
_NUMBERS = (bool, int, float)
SELECT: Final = "select"  # x[mask]: a node of the builder alone, taken apart into the outputs of the program
_OPEN: Final = frozenset({"bincount", "group_sum", "take", "concatenate", *RUNNING})  # go along a length not yet known


class Misfit(Exception):
    """Values that do not go together; `limit` names the bound, if one was passed."""

    def __init__(self, reason: str, *values: Value, limit: str = "", found: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.values, self.limit, self.found = reason, values, limit, found


@dataclass(slots=True)
class Builder:
    """Makes the nodes of one program."""

    interner: Interner = field(default_factory=Interner)
    scalars: list[np.generic] = field(default_factory=list)
    scalar_names: list[frozenset[str]] = field(default_factory=list)
    array_names: list[str] = field(default_factory=list)
    array_values: list[npt.NDArray[Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _slots: dict[tuple[int, DType], int] = field(default_factory=dict)
    _kept: list[Static] = field(default_factory=list)  # so that an id in `_slots` stays taken

    # ---------------------------------------------------------------------------------------------- leaves

    def make(self, op: str, args: tuple[Node, ...], dtype: DType, shape: Shape, attrs: tuple[Any, ...] = ()) -> Node:
        if len(shape) > limits.RANK_MAX:
            raise Misfit("too many dimensions", *args, limit="RANK_MAX", found=len(shape))
        if any(arg.op == SELECT for arg in args):
            raise Misfit("a selection x[mask] is the last thing that a map does; nothing is made of it", *args)
        if op in ARRAYS and is_variable(size for arg in args for size in arg.shape):
            self._check_open(op, args)
        if any(isinstance(size, Length) and math.prod(shape[:k]) != 1 for k, size in enumerate(shape)):
            raise Misfit(f"the axis of variable length comes first, not as in {shape}", *args)
        nbytes = lengths.known_size(shape) * dtype.itemsize
        if nbytes > limits.KERNEL_TEMPORARY_BYTES_MAX:
            raise Misfit(f"an array {shape} of {dtype} is too large", limit="KERNEL_TEMPORARY_BYTES_MAX", found=nbytes)
        return self.interner.node(op, args, dtype, shape, attrs)

    def _check_open(self, op: str, args: tuple[Node, ...]) -> None:
        """Whether a primitive of whole arrays can do with a length that is known when the packet comes."""
        if op not in _OPEN:
            raise Misfit(f"{op} does not go along the axis of variable length", *args)
        if op == "take" and is_variable(args[0].shape) and not is_variable(args[1].shape):
            raise Misfit("a packet may be empty: what is taken of it by index is as many as it has", *args)

    def const(self, value: float, dtype: DType) -> Node:
        """A literal of `dtype`, 0-d."""
        return self.make("const", (), dtype, (), (_scalar(value, dtype).item(),))

    def strong(self, static: Static, dtype: DType) -> Node:
        """A Python scalar as a value of `dtype`."""
        value = static.value
        if isinstance(value, Length):
            return self._length(value, dtype)
        if not isinstance(value, _NUMBERS):
            raise Misfit(f"expected a number or an array, found {kind_of(static)}", static)
        if not holds(dtype, value):
            raise Misfit(f"the integer {value} does not fit {dtype}", static)
        if not static.names:
            return self.const(value, dtype)
        key = id(static), dtype
        if key not in self._slots:
            self._slots[key] = self.add_scalar(_scalar(value, dtype), static.names)
            self._kept.append(static)
        return self.make("scalar", (), dtype, (), (self._slots[key],))

    def _length(self, value: Length, dtype: DType) -> Node:
        """A size that depends on the packet."""
        node = self.make("length", (), I64, (), (value,))
        if dtype.kind != "f" and dtype.itemsize < I64.itemsize:
            raise Misfit(f"the length of a packet may not fit {dtype}; convert to int64 first", node)
        return self.cast(node, dtype)

    def add_scalar(self, value: np.generic, names: frozenset[str]) -> int:
        self.scalars.append(value)
        self.scalar_names.append(names)
        return len(self.scalars) - 1

    # ---------------------------------------------------------------------------------------------- values

    def node(self, value: Value) -> Node:
        """Any number or array as a node; a Python scalar takes its default dtype."""
        if isinstance(value, Node):
            if value.op == SELECT:
                raise Misfit("a selection x[mask] is the last thing that a map does; nothing is made of it", value)
            return value
        if isinstance(value.value, Length):
            return self._length(value.value, I64)
        if not isinstance(value.value, _NUMBERS):
            raise Misfit(f"expected a number or an array, found {kind_of(value)}", value)
        return self.strong(value, default(value.value))

    def known(self, value: Value, what: str) -> Any:
        """The Python value of something that must be known before the kernel runs."""
        if isinstance(value, Node):
            raise Misfit(f"{what} must be known before the kernel runs; found {describe(value)}", value)
        return value.value

    def common_dtype(self, *values: Value) -> DType:
        """In which dtype `values` meet."""
        if all(isinstance(value, Static) for value in values):
            return np.result_type(*(self.node(value).dtype for value in values))
        for value in values:
            if isinstance(value, Static) and not isinstance(value.value, _NUMBERS):
                raise Misfit(f"expected a number or an array, found {kind_of(value)}", value)
        dtypes = [value.dtype for value in values if isinstance(value, Node)]
        weak = [value.value for value in values if isinstance(value, Static)]
        return promote(dtypes, [int if isinstance(one, Length) else type(one) for one in weak])

    def cast(self, value: Value, dtype: DType) -> Node:
        """The value in `dtype`; a Python scalar must fit it."""
        if isinstance(value, Static):
            return self.strong(value, dtype)
        if value.dtype == dtype:
            return value
        return self.make("cast", (value,), dtype, value.shape)

    def together(self, values: Sequence[Value], dtype: DType | None = None) -> list[Node]:
        """The values in one dtype (the common one, unless it is given) and broadcast to one shape."""
        dtype = dtype or self.common_dtype(*values)
        return self.one_shape([self.cast(value, dtype) for value in values])

    def one_shape(self, nodes: Sequence[Node]) -> list[Node]:
        try:
            shape = lengths.broadcast_shape([node.shape for node in nodes])
        except ValueError:
            shapes = " and ".join(describe(node) for node in nodes)
            raise Misfit(f"shapes do not broadcast: {shapes}", *nodes) from None
        return [self.broadcast(node, shape) for node in nodes]

    # ---------------------------------------------------------------------------------------------- operations

    def point(self, name: str, *nodes: Node) -> Node:
        """A primitive on operands of one dtype and shape."""
        dtype = PRIMITIVES[name].result(tuple(node.dtype for node in nodes))
        if dtype is None:
            raise Misfit(f"{name} is not defined for {nodes[-1].dtype}", *nodes)
        return self.make(name, nodes, dtype, nodes[0].shape)

    def arrays(self, name: str, *nodes: Node, attrs: tuple[Any, ...] = ()) -> Node:
        """A primitive of whole arrays."""
        dtype, shape = ARRAYS[name].result(tuple((node.dtype, node.shape) for node in nodes), attrs)
        return self.make(name, nodes, dtype, shape, attrs)

    def reduce(self, name: str, node: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
        shape = tuple(size for axis, size in enumerate(node.shape) if axis not in axes)
        result = self.make(name, (node,), node.dtype, shape, axes) if axes else node
        if keepdims:
            return self.reshape(result, tuple(1 if axis in axes else n for axis, n in enumerate(node.shape)))
        return result

    def broadcast(self, node: Node, shape: Shape) -> Node:
        return node if node.shape == shape else self.make("broadcast", (node,), node.dtype, shape)

    def reshape(self, node: Node, shape: Shape) -> Node:
        if math.prod(shape) != node.size:
            raise Misfit(f"{describe(node)} cannot take the shape {shape}", node)
        return node if node.shape == shape else self.make("reshape", (node,), node.dtype, shape)

    def permute(self, node: Node, axes: tuple[int, ...]) -> Node:
        if axes == tuple(range(len(axes))):
            return node
        return self.make("permute", (node,), node.dtype, tuple(node.shape[axis] for axis in axes), axes)

    def slice(self, node: Node, starts: Shape, steps: Shape, shape: Shape) -> Node:
        if shape == node.shape and all(step == 1 for step in steps):
            return node
        return self.make("slice", (node,), node.dtype, shape, (starts, steps))

    def truth(self, value: Value) -> Node:
        """Whether each element is not zero (a NaN is not)."""
        node = self.node(value)
        return node if node.dtype == BOOL else self.cast(node, BOOL)

    def names_of(self, value: Value) -> frozenset[str]:
        """The parameters that a value depends on."""
        if isinstance(value, Static):
            return value.names
        found: frozenset[str] = frozenset()
        stack, seen = [value], set[int]()
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.op == "array":
                found |= {self.array_names[node.attrs[0]]}
            elif node.op == "scalar":
                found |= self.scalar_names[node.attrs[0]]
            stack.extend(node.args)
        return found


def _scalar(value: float, dtype: DType) -> np.generic:
    """A Python scalar in `dtype`; a float saturates in an integer dtype, as arrays of them do."""
    saturating = isinstance(value, float) and dtype.kind in "iu"
    with np.errstate(all="ignore"):
        scalar: np.generic = dtype.type(cast(np.asarray(value), dtype) if saturating else value)
    return scalar


def describe(value: Value) -> str:
    """A value for messages: its dtype and shape, or the Python value's kind."""
    if isinstance(value, Static):
        return kind_of(value)
    return f"{value.dtype} {value.shape}" if value.shape else f"one {value.dtype}"


def kind_of(static: Static) -> str:
    """A Python value for messages."""
    value = static.value
    if isinstance(value, _NUMBERS):
        return f"the number {value!r}"
    if isinstance(value, np.dtype):
        return f"the dtype {value}"
    return {tuple: "a tuple", slice: "a slice"}.get(type(value), repr(value))


__all__ = ["F64", "I64", "Builder", "Misfit", "Static", "Value", "describe", "kind_of"]

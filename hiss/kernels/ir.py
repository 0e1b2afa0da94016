"""The typed form of a kernel: a DAG of few primitives, each node with its dtype and shape, conversions explicit.

Forms of a node, by `op`:

    leaves      frame, state (attrs: place), array, scalar, column (attrs: slot), const (attrs: value), length (attrs:
                the `Length` that it is); all but frame, state and array are 0-d
    point       a primitive of `primitives.PRIMITIVES`; all operands have the node's shape
    cast        one operand, another dtype
    views       broadcast; reshape; permute (attrs: axes); slice (attrs: starts, steps)
    reduction   sum, prod, min, max (attrs: the axes, ascending, which are dropped)
    arrays      a primitive of whole arrays (`arrays.ARRAYS`); its row says what dtype and shape the operands give

Of a packet the first axis that is not 1 has a `Length` for its size; a program `at` a number is that for packets of so
many.

`verify` states what holds of every node; each pass returns a program that it has passed. Nodes are interned: equal
nodes are the same object. Immutable once made; any thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.kernels.arrays import ARRAYS
from hiss.kernels.dtypes import SUPPORTED, DType
from hiss.kernels.lengths import Length, at, is_variable
from hiss.kernels.primitives import PRIMITIVES, REDUCTIONS

Shape = tuple[int, ...]
LEAVES: Final = frozenset({"frame", "state", "array", "scalar", "column", "const", "length"})
VIEWS: Final = frozenset({"broadcast", "reshape", "permute", "slice"})


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One value of the program. Compared by identity: equal nodes are interned into one.

    `line` is the line of the kernel's source that asked for it first, for those who read generated code; 0: none did.
    """

    op: str
    args: tuple[Node, ...]
    dtype: DType
    shape: Shape
    attrs: tuple[Any, ...] = ()
    line: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(slots=True)
class Interner:
    """Makes nodes, each distinct one once (so that common subexpressions are computed once), for a line of source."""

    known: dict[tuple[Any, ...], Node] = field(default_factory=dict)
    line: int = 0

    def node(self, op: str, args: tuple[Node, ...], dtype: DType, shape: Shape, attrs: tuple[Any, ...] = ()) -> Node:
        text = repr(attrs) if op == "const" else attrs  # 0.0 and -0.0, True and 1, nan and nan
        key = (op, tuple(map(id, args)), dtype, shape, text)
        if key not in self.known:
            self.known[key] = Node(op, args, dtype, shape, attrs, self.line)
        return self.known[key]


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A kernel function for one frame type, its parameters bound.

    `outputs` are one node for a map or filter, one for each part of the state for `init` and `step`; the `step` of a
    scan has its result after those. `arrays` hold what
    `array` leaves stand for, C-contiguous; `scalars` the NumPy scalars of `scalar` leaves; `columns` the names and
    dtypes of columns. `states` are the (dtype, shape) of `state` leaves. With `selects` the outputs are the items of a
    packet and which of them the result has.
    """

    dtype: DType
    shape: Shape
    outputs: tuple[Node, ...]
    arrays: tuple[npt.NDArray[Any], ...] = ()
    scalars: tuple[np.generic, ...] = ()
    columns: tuple[tuple[str, DType], ...] = ()
    states: tuple[tuple[DType, Shape], ...] = ()
    selects: bool = False

    @property
    def variable(self) -> bool:
        """Whether it is for packets."""
        return is_variable(self.shape)

    @property
    def nodes(self) -> list[Node]:
        return list(in_order(self.outputs))

    def at(self, count: int) -> Program:
        """The same for packets of one length."""
        interner = Interner()
        new: dict[int, Node] = {}
        for node in self.nodes:
            op = "const" if node.op == "length" else node.op
            args = tuple(new[id(arg)] for arg in node.args)
            new[id(node)] = interner.node(op, args, node.dtype, at(node.shape, count), at(node.attrs, count))
        return replace(self, shape=at(self.shape, count), outputs=tuple(new[id(output)] for output in self.outputs))


def in_order(roots: Iterable[Node]) -> Iterator[Node]:
    """Every node that `roots` need, operands first, each once. No recursion: chains may be long."""
    done: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(tuple(roots))]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            yield node
            continue
        stack.append((node, True))
        stack.extend((arg, False) for arg in reversed(node.args))


def verify(program: Program) -> Program:
    """Return `program` if it is well formed; an AssertionError is a bug of the compiler, never a user's error."""
    for node in program.nodes:
        assert node.dtype in SUPPORTED.values(), f"{node.op} has dtype {node.dtype}"
        assert len(node.shape) <= limits.RANK_MAX, f"{node.op} {node.shape}"
        assert all(size > 0 for size in node.shape), f"{node.op} {node.shape}"
        if node.op in LEAVES:
            _verify_leaf(program, node)
        elif node.op in VIEWS:
            _verify_view(node)
        elif node.op in REDUCTIONS:
            (arg,) = node.args
            axes = node.attrs
            assert list(axes) == sorted(set(axes) & set(range(len(arg.shape)))), node.op
            assert node.shape == tuple(n for axis, n in enumerate(arg.shape) if axis not in axes), node.op
            assert node.dtype == arg.dtype, f"{node.op} changes the dtype"
        elif node.op in ARRAYS:
            kinds = tuple((arg.dtype, arg.shape) for arg in node.args)
            assert ARRAYS[node.op].result(kinds, node.attrs) == (node.dtype, node.shape), node.op
        elif node.op == "cast":
            assert [arg.shape for arg in node.args] == [node.shape]
            assert node.args[0].dtype != node.dtype
        else:
            primitive = PRIMITIVES[node.op]
            assert len(node.args) == primitive.arity, f"{node.op} has {len(node.args)} operands"
            assert all(arg.shape == node.shape for arg in node.args), f"{node.op}: operands differ in shape"
            assert primitive.result(tuple(arg.dtype for arg in node.args)) == node.dtype, f"{node.op}: dtypes"
    return program


def _verify_leaf(program: Program, node: Node) -> None:
    assert not node.args
    expected: tuple[DType, Shape]
    match node.op:
        case "frame":
            expected = program.dtype, program.shape
        case "state":
            expected = program.states[node.attrs[0]]
        case "array":
            array = program.arrays[node.attrs[0]]
            assert array.flags.c_contiguous, "a parameter is not contiguous"
            expected = array.dtype, array.shape
        case "scalar":
            expected = program.scalars[node.attrs[0]].dtype, ()
        case "column":
            expected = program.columns[node.attrs[0]][1], ()
        case "length":
            expected = np.dtype(np.int64), ()
            assert isinstance(node.attrs[0], Length)
        case _:
            expected = node.dtype, ()
            assert isinstance(node.attrs[0], bool | int | float)
    assert (node.dtype, node.shape) == expected, f"{node.op} {node.attrs}: {node.dtype} {node.shape}, not {expected}"


def _verify_view(node: Node) -> None:
    (arg,) = node.args
    assert node.dtype == arg.dtype, f"{node.op} changes the dtype"
    match node.op:
        case "broadcast":
            tail = node.shape[len(node.shape) - len(arg.shape) :]
            assert len(arg.shape) <= len(node.shape)
            assert all(a in (1, n) for a, n in zip(arg.shape, tail, strict=True)), "broadcast"
        case "reshape":
            assert arg.size == node.size, "reshape changes the size"
        case "permute":
            assert sorted(node.attrs) == list(range(len(arg.shape)))
            assert node.shape == tuple(arg.shape[axis] for axis in node.attrs)
        case "slice":
            starts, steps = node.attrs
            for start, step, count, size in zip(starts, steps, node.shape, arg.shape, strict=True):
                if isinstance(size, Length):
                    assert (start, step, count) == (0, 1, size), "a part of a packet"
                    continue
                assert 0 <= start < size, "slice out of bounds"
                assert 0 <= start + step * (count - 1) < size, "slice out of bounds"

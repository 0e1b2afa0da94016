"""Which values of a program are stored, and in which loops the rest is computed: fusion for a compiled back end.

A *nest* is one loop over a domain that makes one stored value (an output, a reduction, a temporary) from buffers;
everything between is computed anew for each element that needs it. Nests of one domain that do not need each other
share their loop. Stored are: outputs, reductions, whole arrays, single values, what a reshape must copy, and what would
otherwise be computed so often that storing it is cheaper. So a pointwise map is one pass over memory, and so is a
count. Pure; any thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from hiss.kernels import views
from hiss.kernels.arrays import ARRAYS
from hiss.kernels.ir import LEAVES, VIEWS, Interner, Node, Program, Shape, in_order, verify
from hiss.kernels.lengths import weight
from hiss.kernels.passes import rewrite
from hiss.kernels.primitives import PRIMITIVES, REDUCTIONS
from hiss.kernels.views import Strided, View

_VIEWS_MAX: Final = 6  # distinct views through which one value is computed again rather than stored
_STORE_COST: Final = 4  # of writing one element of a temporary, or reading it, in additions
_COST_MAX: Final = 1 << 30
BUFFERS: Final = frozenset({"frame", "array", "state"})  # leaves that are arrays


class Family(Enum):
    """What a nest does, and so which module of a back end prints it."""

    POINTS = "points"  # one value for each element of the domain
    REDUCTION = "reduction"
    ARRAYS = "arrays"  # a primitive of whole arrays, from operands that lie contiguously in buffers


@dataclass(slots=True, eq=False)
class Nest:
    """One stored value. `output` is the place of the program's output that it is, else None."""

    root: Node
    copy: bool  # the root is only copied into the output
    output: int | None = None
    level: int = 0

    @property
    def family(self) -> Family:
        if self.copy:
            return Family.POINTS
        if self.root.op in REDUCTIONS:
            return Family.REDUCTION
        return Family.ARRAYS if self.root.op in ARRAYS else Family.POINTS

    @property
    def reduces(self) -> bool:
        return self.family is Family.REDUCTION

    @property
    def domain(self) -> Shape:
        return self.root.args[0].shape if self.reduces else self.root.shape

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of the domain that are reduced."""
        return self.root.attrs if self.reduces else ()

    def starts(self) -> list[Node]:
        """What its loop computes for each element of the domain."""
        if self.copy:
            return [self.root]
        return list(self.root.args)


@dataclass(slots=True)
class Schedule:
    """The nests of a program, in groups that share a loop, in the order in which they run."""

    program: Program
    groups: list[list[Nest]]
    stored: dict[int, Nest]  # by id of the node
    strides: dict[int, Strided | None] = field(default_factory=dict)

    def strided(self, node: Node) -> Strided | None:
        """Where a node lies in a buffer, or None where it is computed."""
        if id(node) not in self.strides:
            found: Strided | None = None
            if node.op in BUFFERS or (id(node) in self.stored and node.shape):
                found = Strided(node, 0, views.contiguous(node.shape))
            elif node.op in VIEWS:
                inner = self.strided(node.args[0])
                found = None if inner is None else views.strided(node, inner)
            self.strides[id(node)] = found
        return self.strides[id(node)]


def schedule(program: Program) -> Schedule:
    """The schedule of a program, which is first brought into the form that the schedule is for."""
    program = sink_reshapes(program)
    stored, copies = _stored(program)
    result = Schedule(program, [], stored)
    nests = [stored[id(node)] for node in program.nodes if id(node) in stored] + copies
    for nest in nests:
        needed = [stored[key].level for key in _reads(nest, stored)]
        nest.level = 1 + max(needed, default=0)
    groups: dict[tuple[int, Shape, Family, tuple[int, ...]], list[Nest]] = {}
    for nest in sorted(nests, key=lambda nest: nest.level):
        groups.setdefault((nest.level, nest.domain, nest.family, nest.axes), []).append(nest)
    result.groups = list(groups.values())
    return result


def sink_reshapes(program: Program) -> Program:
    """Move reshapes below pointwise operations, towards the arrays, where they cost nothing."""
    known: dict[tuple[int, Shape], Node] = {}

    def change(node: Node, interner: Interner) -> Node:
        return _sunk(node.args[0], node.shape, interner, known) if node.op == "reshape" else node

    return verify(rewrite(program, change))


def _sunk(root: Node, shape: Shape, interner: Interner, known: dict[tuple[int, Shape], Node]) -> Node:
    """`root`, whose own reshapes have been moved, in another shape. No recursion: chains may be long."""
    stack = [root]
    while stack:
        node = stack[-1]
        key = id(node), shape
        if key in known:
            stack.pop()
        elif node.shape == shape:
            known[key] = node
        elif node.op == "broadcast" and not node.args[0].shape:
            known[key] = interner.node("broadcast", node.args, node.dtype, shape)
        elif node.op not in PRIMITIVES and node.op != "cast":
            base = node.args[0] if node.op == "reshape" else node
            same = base.shape == shape
            known[key] = base if same else interner.node("reshape", (base,), node.dtype, shape)
        else:
            missing = [arg for arg in node.args if (id(arg), shape) not in known]
            stack += missing
            if not missing:
                args = tuple(known[id(arg), shape] for arg in node.args)
                known[key] = interner.node(node.op, args, node.dtype, shape, node.attrs)
    return known[id(root), shape]


def _stored(program: Program) -> tuple[dict[int, Nest], list[Nest]]:
    """The nests of stored values by their node's id, and those that only copy into an output."""
    stored: dict[int, Nest] = {}
    copies: list[Nest] = []
    for place, output in enumerate(program.outputs):
        root = output
        while root.op == "reshape":  # the same memory
            root = root.args[0]
        computed = root.op not in LEAVES and root.op not in VIEWS
        if computed and root.shape and output.shape and id(root) not in stored:
            stored[id(root)] = Nest(root, False, place)
        else:
            copies.append(Nest(output, True, place))
    demand = _Demand(stored)
    for nest in copies:
        demand.add(nest.root, nest, views.identity(len(nest.domain)))
    for node in reversed(program.nodes):
        demand.settle(node)
    return stored, copies


class _Demand:
    """Walks a program from its outputs and decides what is stored: by whom, and how often, a value is needed."""

    def __init__(self, stored: dict[int, Nest]) -> None:
        self.stored = stored
        self.uses: dict[int, dict[tuple[int, View], Nest]] = {}
        self.costs: dict[int, int] = {}

    def add(self, node: Node, nest: Nest, view: View) -> None:
        self.uses.setdefault(id(node), {})[id(nest), view] = nest

    def settle(self, node: Node) -> None:
        """Decide on one node; all that need it have been settled."""
        if node.op in LEAVES:
            return
        if node.op not in VIEWS and id(node) not in self.stored and self.is_stored(node):
            self.stored[id(node)] = Nest(node, False)
        uses = self.uses.get(id(node), {})
        if id(node) in self.stored:
            nest = self.stored[id(node)]
            here = views.identity(len(nest.domain))
            if nest.family is Family.ARRAYS:
                self.whole(nest)
                return
            if not nest.copy:
                for start in nest.starts():
                    self.add(start, nest, here)
                return
            uses = {(id(nest), here): nest}
        for (_, view), nest in uses.items():
            rank = len(nest.domain)
            if node.op not in VIEWS:
                for arg in node.args:
                    self.add(arg, nest, view)
                continue
            inner = views.through(node, view, rank)
            if inner is not None:
                self.add(node.args[0], nest, inner)
            elif not _in_buffer(node):
                self.copied(node.args[0])

    def whole(self, nest: Nest) -> None:
        """Have the operands of a primitive of whole arrays lie contiguously, each in a buffer."""
        for arg in nest.root.args:
            if arg.shape and not _in_buffer(arg, contiguously=True):
                base = arg
                while base.op == "reshape" and base.args[0].shape:  # of what lies contiguously it costs nothing
                    base = base.args[0]
                self.copied(base)
            else:
                self.add(arg, nest, views.identity(len(arg.shape)))

    def copied(self, node: Node) -> None:
        """Store what cannot be taken as it lies."""
        if id(node) not in self.stored:
            self.stored[id(node)] = Nest(node, node.op in VIEWS)

    def is_stored(self, node: Node) -> bool:
        if node.op in REDUCTIONS or node.op in ARRAYS or not node.shape:
            return True
        uses = self.uses.get(id(node), {})
        if len(uses) > _VIEWS_MAX:
            return True
        times = sum(weight(math.prod(nest.domain)) for nest in uses.values())
        size = weight(node.size)
        again = (times - size) * self.cost(node)
        return again > _STORE_COST * (size + times)

    def cost(self, node: Node) -> int:
        """Of computing one element from arrays."""
        if id(node) not in self.costs:
            for inner in in_order([node]):
                own = PRIMITIVES[inner.op].cost if inner.op in PRIMITIVES else int(inner.op == "cast")
                below = (
                    0
                    if inner.op in REDUCTIONS or inner.op in ARRAYS
                    else sum(self.costs[id(arg)] for arg in inner.args)
                )
                self.costs[id(inner)] = min(own + below, _COST_MAX)
        return self.costs[id(node)]


def _in_buffer(node: Node, contiguously: bool = False) -> bool:
    """Whether a view lies in the buffer of a leaf, a reduction or a whole array, whatever else is stored."""
    chain = [node]
    while chain[-1].op in VIEWS:
        chain.append(chain[-1].args[0])
    base = chain.pop()
    if base.op not in BUFFERS and not ((base.op in REDUCTIONS or base.op in ARRAYS) and base.shape):
        return False
    place: Strided | None = Strided(base, 0, views.contiguous(base.shape))
    for view in reversed(chain):
        place = None if place is None else views.strided(view, place)
    return place is not None and (not contiguously or views.is_contiguous(node.shape, place.strides))


def _reads(nest: Nest, stored: dict[int, Nest]) -> set[int]:
    """The stored values (ids of nodes) that a nest needs directly."""
    found: set[int] = set()
    stack, seen = list(nest.starts()), set[int]()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if id(node) in stored and stored[id(node)] is not nest:
            found.add(id(node))
        else:
            stack.extend(node.args)
    return found

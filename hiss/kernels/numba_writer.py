"""What every family of printers writes with: the text so far, names, buffers, and the lines of a loop's body.

One `Writer` makes one generated file; the families (`numba_points`, `numba_reductions`, `numba_arrays`) print one group
of nests each into it, `numba_printer` puts the file together. One thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hiss.kernels import numba_operations, numba_prelude, numba_states, views
from hiss.kernels.dtypes import DType
from hiss.kernels.ir import VIEWS, Node, Shape
from hiss.kernels.numba_operations import literal, unsigned
from hiss.kernels.numba_places import Body, Line, Place
from hiss.kernels.schedule import BUFFERS, Nest, Schedule
from hiss.kernels.views import View, contiguous


class Writer:
    """The text of one generated function, as it grows.

    Attributes
    ----------
    prelude : set of str
        Functions of `numba_prelude` that are called.
    routines : dict
        Texts of other functions that are called, by their names.
    names : dict
        Variables of stored single values, by the id of their node.
    temporaries : list
        Scratch arrays: (dtype, size, name).
    accumulators : list of str
        Lines before the loop over blocks.
    source : sequence of str
        The lines of the kernel's source, where they are to stand beside what was made of them: to be read, and never
        to be compiled.
    """

    def __init__(self, plan: Schedule, source: Sequence[str] = ()) -> None:
        self.plan, self.program = plan, plan.program
        self.source, self.told = source, 0
        self.count = 0
        self.prelude: set[str] = set()
        self.routines: dict[str, str] = {}
        self.names: dict[int, str] = {}
        self.temporaries: list[tuple[DType, int, str]] = []
        self.accumulators: list[str] = []
        self.text: list[tuple[int, str]] = []
        self.depth = 2
        self.buffers = self._buffers()

    # ------------------------------------------------------------------------------------------ buffers

    def _buffers(self) -> dict[int, tuple[str, str]]:
        """The name and base of each buffer, by the id of the node that it holds."""
        found: dict[int, tuple[str, str]] = {}
        for node in self.program.nodes:
            if node.op in BUFFERS:
                letter = {"array": "a", "state": "z"}.get(node.op)
                found[id(node)] = (f"{letter}{node.attrs[0]}", "") if letter else ("frame", "f")
        in_place = numba_states.in_place(self.plan)
        for key, nest in self.plan.stored.items():
            k = nest.output
            if nest.root.shape and k is not None and self.is_state(k):
                new = f"z{k}" if k in in_place else self.temporary(nest.root.dtype, nest.root.size, f"n{k}")
                found[key] = new, ""
            elif nest.root.shape and k is not None:
                found[key] = f"o{k}", f"p{k}"
            elif nest.root.shape:
                found[key] = self.temporary(nest.root.dtype, nest.root.size, f"w{len(self.temporaries)}"), ""
        for nest in numba_states.copies(self.plan):
            assert nest.output is not None
            if self.is_state(nest.output) and nest.output not in in_place:
                self.temporary(nest.root.dtype, nest.root.size, f"n{nest.output}")
        return found

    def is_state(self, output: int) -> bool:
        """Whether an output is the new value of a state; the others are results of a block."""
        return output < len(self.program.states)

    def temporary(self, dtype: DType, size: int, name: str) -> str:
        self.temporaries.append((dtype, size, name))
        return name

    def copied_back(self) -> list[int]:
        """The states that were written beside themselves."""
        names = {name for _, _, name in self.temporaries}
        return [place for place in range(len(self.program.states)) if f"n{place}" in names]

    def written(self, nest: Nest) -> Place | None:
        """Where a nest writes its element; None for a single value that stays in a variable."""
        strides = contiguous(nest.domain)
        if nest.copy and nest.output is not None:
            k = nest.output
            if self.is_state(k):
                names = {name for _, _, name in self.temporaries}
                return Place(f"n{k}" if f"n{k}" in names else f"z{k}", "", 0, strides)
            return Place(f"o{k}", f"p{k}", 0, strides)
        if not nest.root.shape:
            return None
        return Place(*self.buffers[id(nest.root)], 0, strides)

    # ------------------------------------------------------------------------------------------ values

    def line(self, text: str) -> None:
        self.text.append((self.depth, text))

    def fresh(self, letter: str = "v") -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def value(self, body: Body, node: Node, view: View, own: Node | None = None) -> str:
        """The name or literal of a node's element in `body`, its lines added. `own`, the nest's root, is not read."""
        stack = [(node, view)]
        while stack:
            current, at = stack[-1]
            key = id(current), at
            if key in body.known:
                stack.pop()
                continue
            direct = None if current is own else self._direct(body, current, at)
            if direct is not None:
                body.known[key] = direct
                continue
            if current.op in VIEWS:
                inner = views.through(current, at, body.rank)
                assert inner is not None, "a reshape of what is not stored"
                needed = [(current.args[0], inner)]
            else:
                needed = [(arg, at) for arg in current.args]
            missing = [entry for entry in needed if (id(entry[0]), entry[1]) not in body.known]
            if missing:
                stack += reversed(missing)
                continue
            operands = tuple(body.known[id(arg), inner_view] for arg, inner_view in needed)
            body.known[key] = operands[0] if current.op in VIEWS else self._operation(body, current, operands)
        return body.known[id(node), view]

    def _direct(self, body: Body, node: Node, view: View) -> str | None:
        """A literal, a single value, or a load; None where the node is computed."""
        match node.op:
            case "const":
                return literal(node.attrs[0], node.dtype)
            case "scalar":
                return f"s{node.attrs[0]}"
            case "length":
                return f"np.int64({node.attrs[0]})"
            case "column":
                return f"d{node.attrs[0]}"
        if id(node) in self.plan.stored and not node.shape:
            return self.names[id(node)]
        place = self.plan.strided(node)
        if place is None:
            return None
        buffer, base = self.buffers[id(place.owner)]
        name = self.fresh()
        body.lines.append(Line(name, Place(buffer, base, *place.at(view, body.rank)), None))
        body.names.add(name)
        return name

    def _operation(self, body: Body, node: Node, operands: tuple[str, ...]) -> str:
        name = self.fresh()
        body.lines.append(Line(name, None, node, operands))
        body.names.add(name)
        return name

    def expression(self, node: Node, operands: list[str]) -> str:
        dtype = node.args[-1].dtype
        if node.op == "cast":
            text, called = numba_prelude.conversion(dtype, node.dtype, operands[0])
            self.prelude |= {called} if called else set()
            return text
        return self.join(node.op, dtype, operands)

    def join(self, primitive: str, dtype: DType, operands: list[str]) -> str:
        text = numba_operations.printed(primitive, dtype, operands)
        called = numba_prelude.call(primitive, dtype)
        self.prelude |= {called} if f"{called}(" in text else set()
        return text

    def emit(self, body: Body, index: Sequence[str | int], suffix: str = "") -> None:
        """Print a body's lines for one element; `suffix` keeps the names of several copies apart."""
        for one in body.lines:
            if one.place is not None:
                self.line(f"{one.name}{suffix} = {one.place.text(index)}")
            else:
                assert one.node is not None
                self.tell(one.node)
                operands = [name + suffix if name in body.names else name for name in one.operands]
                self.line(f"{one.name}{suffix} = {self.expression(one.node, operands)}")

    def tell(self, node: Node) -> None:
        """Where there is a source to be shown beside it: the line that asked for what follows."""
        if self.source and 0 < node.line != self.told:
            self.told = node.line
            self.line(f"# {node.line}: {self.source[node.line - 1].strip()}")

    # ------------------------------------------------------------------------------------------ loops

    def loops(self, sizes: Shape, inner: Callable[[list[str | int]], None]) -> None:
        """Loops over `sizes` around what `inner` prints; it gets the index, literal where the size is 1."""
        index: list[str | int] = []
        depth = self.depth
        for size in sizes:
            if size == 1:
                index.append(0)
                continue
            name = self.fresh("i")
            self.line(f"for {name} in range({unsigned(size)}):")
            self.depth += 1
            index.append(name)
        inner(index)
        self.depth = depth

    def accumulator(self, dtype: DType, size: int) -> str:
        name = self.fresh("r")
        self.accumulators.append(f"{name} = np.empty({size}, np.{dtype.name})")
        return name

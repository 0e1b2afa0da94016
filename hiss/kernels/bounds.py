"""The bounds on a typed program: memory for temporaries and operations per byte, before anything is compiled.

Both are computed as the interpreter would run the program, so that whether a kernel is accepted does not depend on the
back end. Pure; any thread.
"""

from __future__ import annotations

from hiss import limits
from hiss.kernels.arrays import ARRAYS
from hiss.kernels.interpreter import last_uses
from hiss.kernels.ir import LEAVES, VIEWS, Node, Program
from hiss.kernels.lengths import known_size
from hiss.kernels.primitives import PRIMITIVES
from hiss.kernels.source import SourceText, Where

_CAST_COST = 1
_REDUCE_COST = 1
_BYTES_SMALLEST = 4096  # a tiny frame may still be worked on
_PACKET_BYTES = 1 << 20  # a packet of so many is what they are checked for; a longer one's temporaries when it comes


def check(program: Program, source: SourceText) -> None:
    """Raise `LimitExceeded` where the program needs more than `limits` allow."""
    if program.variable:
        item = known_size(program.shape) * program.dtype.itemsize
        program = program.at(max(1, _PACKET_BYTES // item))
    peak = temporary_bytes(program)
    if peak > limits.KERNEL_TEMPORARY_BYTES_MAX:
        raise source.too_much(Where(1, 1), "bytes of temporaries for each block", "KERNEL_TEMPORARY_BYTES_MAX", peak)
    given = sum(node.nbytes for node in program.nodes if node.op in LEAVES)
    per_byte = operations(program) // max(given, _BYTES_SMALLEST)
    if per_byte > limits.KERNEL_OPS_PER_BYTE_MAX:
        raise source.too_much(Where(1, 1), "operations for each byte", "KERNEL_OPS_PER_BYTE_MAX", per_byte)


def temporary_bytes(program: Program) -> int:
    """The most bytes of computed values that are alive at once for one block."""
    nodes = program.nodes
    last = last_uses(nodes)
    owner: dict[int, Node] = {}  # a view keeps what it is a view of
    ends: dict[int, int] = {}
    for node in nodes:
        owner[id(node)] = owner[id(node.args[0])] if node.op in VIEWS else node
        root = id(owner[id(node)])
        ends[root] = max(ends.get(root, 0), last.get(id(node), len(nodes)))
    free: dict[int, int] = {}
    alive = peak = 0
    for place, node in enumerate(nodes):
        if node.op not in LEAVES and node.op not in VIEWS:
            alive += node.nbytes
            free[ends[id(node)]] = free.get(ends[id(node)], 0) + node.nbytes
        peak = max(peak, alive)
        alive -= free.pop(place, 0)
    return peak


def operations(program: Program) -> int:
    """The cost of one block, in additions."""
    return sum(_cost(node) for node in program.nodes)


def _cost(node: Node) -> int:
    if node.op in LEAVES or node.op in VIEWS:
        return 0
    if node.op in PRIMITIVES:
        return PRIMITIVES[node.op].cost * node.size
    if node.op in ARRAYS:
        return ARRAYS[node.op].cost(tuple((arg.dtype, arg.shape) for arg in node.args), node.attrs)
    return (_CAST_COST if node.op == "cast" else _REDUCE_COST) * node.args[0].size

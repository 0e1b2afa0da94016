"""Which states of a reduction or scan may be written where they lie. Pure; any thread."""

from __future__ import annotations

from hiss.kernels import views
from hiss.kernels.ir import VIEWS, Node
from hiss.kernels.schedule import Family, Nest, Schedule
from hiss.kernels.views import View


def copies(plan: Schedule) -> list[Nest]:
    """The nests that only copy a value into an output."""
    return [nest for group in plan.groups for nest in group if nest.copy and nest.output is not None]


def in_place(plan: Schedule) -> set[int]:
    """The states that may be written where they lie: of `plan.program.outputs`, the first ones are the new states.

    Safe where the loop that writes state k reads it at the element that it writes only, and no later loop reads
    it: within one iteration all loads come before the stores.
    """
    if not plan.program.states:
        return set()
    safe = set(range(len(plan.program.states)))
    written: dict[int, int] = {}
    for turn, group in enumerate(plan.groups):
        for nest in group:
            if nest.output is not None:
                written[nest.output] = turn
                if nest.family is not Family.POINTS:
                    safe.discard(nest.output)
    for turn, group in enumerate(plan.groups):
        for nest in group:
            for state, same in _state_reads(plan, nest):
                if turn > written[state] or (turn == written[state] and not same):
                    safe.discard(state)
    return safe


def _state_reads(plan: Schedule, nest: Nest) -> list[tuple[int, bool]]:
    """The states that a nest reads: place, and whether only at the index of the loop."""
    found = []
    rank = len(nest.domain)
    if nest.family is Family.ARRAYS:
        return [(state.attrs[0], False) for start in nest.starts() for state in _states_below(plan, start)]
    stack = [(start, views.identity(rank)) for start in nest.starts()]
    seen: set[tuple[int, View]] = set()
    while stack:
        node, view = stack.pop()
        if (id(node), view) in seen:
            continue
        seen.add((id(node), view))
        if node.op == "state":
            same = nest.family is Family.POINTS and node.shape == nest.domain and view == views.identity(rank)
            found.append((node.attrs[0], same))
        elif id(node) in plan.stored and node is not nest.root:
            continue
        elif node.op in VIEWS:
            inner = views.through(node, view, rank)
            if inner is None:  # a reshape of a buffer: some other element
                found += [(at.attrs[0], False) for at in _states_below(plan, node)]
            else:
                stack.append((node.args[0], inner))
        else:
            stack += [(arg, view) for arg in node.args]
    return found


def _states_below(plan: Schedule, node: Node) -> list[Node]:
    """The state leaf that a node is, or is a view of."""
    while node.op in VIEWS and id(node) not in plan.stored:
        node = node.args[0]
    return [node] if node.op == "state" else []

"""Passes over the typed form: what needs no frame is computed when the kernel is bound.

Each pass takes a verified program and returns one. Values do not change: what is computed here, the interpreter
computes, and so both back ends start from the same numbers. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.kernels.arrays import ARRAYS
from hiss.kernels.interpreter import evaluate
from hiss.kernels.ir import LEAVES, VIEWS, Interner, Node, Program, verify
from hiss.kernels.lengths import is_variable

_HOISTED_BYTES_MAX: Final = 64 * limits.MiB  # of a whole array that is computed once, when the kernel is bound
_VARIABLE: Final = frozenset({"frame", "state", "column", "length"})


def optimise(program: Program) -> Program:
    """All passes, in their order."""
    return prune(hoist(fold(program)))


def rewrite(program: Program, change: Callable[[Node, Interner], Node]) -> Program:
    """The program with each node replaced by `change(node with new operands, interner)`."""
    interner = Interner()
    new: dict[int, Node] = {}
    for node in program.nodes:
        interner.line = node.line
        copy = interner.node(node.op, tuple(new[id(arg)] for arg in node.args), node.dtype, node.shape, node.attrs)
        new[id(node)] = change(copy, interner)
    return replace(program, outputs=tuple(new[id(output)] for output in program.outputs))


def fold(program: Program) -> Program:
    """Single values that are made of literals only become literals."""

    def change(node: Node, interner: Interner) -> Node:
        if node.shape or node.op in LEAVES or any(arg.op != "const" for arg in node.args):
            return node
        (value,) = evaluate(replace(program, outputs=(node,)))
        return interner.node("const", (), node.dtype, (), (value.item(),))

    return verify(rewrite(program, change))


def hoist(program: Program) -> Program:
    """Values that depend on parameters only become parameters.

    Not where that would cost memory: a conversion or a view of an array is as cheap to make as to read, and an outer
    product is larger than what it is made of. An index map that a primitive of whole arrays reads is converted here.
    """
    nodes = program.nodes
    fixed: set[int] = set()
    for node in nodes:
        known = node.op not in _VARIABLE and not is_variable(node.shape)
        if known and node.op != "const" and all(_fixed(arg, fixed) for arg in node.args):
            fixed.add(id(node))
    whole = _operands_of_arrays(nodes)
    chosen = {
        id(node)
        for node in nodes
        if id(node) in fixed
        and node.op not in LEAVES
        and node.op not in VIEWS
        and (_pays(node) or (id(node) in whole and node.nbytes <= _HOISTED_BYTES_MAX))
    }
    inner = {id(arg) for node in nodes if id(node) in chosen for arg in node.args}
    outer = {id(arg) for node in nodes if id(node) not in chosen for arg in node.args} | set(map(id, program.outputs))
    roots = [node for node in nodes if id(node) in chosen and (id(node) in outer or id(node) not in inner)]
    if not roots:
        return program
    values = evaluate(replace(program, outputs=tuple(roots)))
    return verify(_with_values(program, dict(zip(map(id, roots), values, strict=True))))


def _operands_of_arrays(nodes: list[Node]) -> set[int]:
    """What primitives of whole arrays read, views left out: it would be written for each block anew."""
    found = set()
    for node in nodes:
        for arg in node.args if node.op in ARRAYS else ():
            while arg.op in VIEWS:
                arg = arg.args[0]
            found.add(id(arg))
    return found


def _fixed(node: Node, fixed: set[int]) -> bool:
    return node.op == "const" or id(node) in fixed


def _pays(node: Node) -> bool:
    if node.op == "cast" and node.shape:
        return False
    if node.op in ARRAYS:
        return node.nbytes <= _HOISTED_BYTES_MAX
    leaves = {id(leaf): leaf.nbytes for leaf in _leaves(node)}
    return not node.shape or node.nbytes <= max(4 * sum(leaves.values()), limits.KiB)


def _leaves(node: Node) -> list[Node]:
    found, stack, seen = [], [node], set[int]()
    while stack:
        current = stack.pop()
        if id(current) not in seen:
            seen.add(id(current))
            found += [current] if not current.args else []
            stack.extend(current.args)
    return found


def _with_values(program: Program, values: dict[int, npt.NDArray[Any]]) -> Program:
    """The program with the nodes of `values` (by id) replaced by parameters that hold them."""
    arrays, scalars = list(program.arrays), list(program.scalars)
    interner = Interner()
    new: dict[int, Node] = {}
    for node in program.nodes:
        interner.line = node.line
        if id(node) in values:
            value = values[id(node)]
            if node.shape:
                arrays.append(np.ascontiguousarray(value))
                new[id(node)] = interner.node("array", (), node.dtype, node.shape, (len(arrays) - 1,))
            else:
                scalars.append(node.dtype.type(value))
                new[id(node)] = interner.node("scalar", (), node.dtype, (), (len(scalars) - 1,))
        else:
            args = tuple(new[id(arg)] for arg in node.args)
            new[id(node)] = interner.node(node.op, args, node.dtype, node.shape, node.attrs)
    outputs = tuple(new[id(output)] for output in program.outputs)
    return replace(program, outputs=outputs, arrays=tuple(arrays), scalars=tuple(scalars))


def prune(program: Program) -> Program:
    """Drop parameters and columns that no node reads, and number the others in the order of their first use."""
    order: dict[str, dict[int, int]] = {"array": {}, "scalar": {}, "column": {}}
    for node in program.nodes:
        if node.op in order:
            order[node.op].setdefault(node.attrs[0], len(order[node.op]))

    def change(node: Node, interner: Interner) -> Node:
        if node.op not in order:
            return node
        return interner.node(node.op, (), node.dtype, node.shape, (order[node.op][node.attrs[0]],))

    pruned = rewrite(program, change)
    return verify(
        replace(
            pruned,
            arrays=tuple(program.arrays[slot] for slot in order["array"]),
            scalars=tuple(program.scalars[slot] for slot in order["scalar"]),
            columns=tuple(program.columns[slot] for slot in order["column"]),
        )
    )

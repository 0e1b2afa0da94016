"""Counts in 16 bits where that is enough: four times as many go into a vector as of the 64 bits in which sums are kept.

The loop form adds up truths in 64 bits, which Numba's compiler narrows by itself and a driver's does not. Here a loop
of a known number of turns that adds a truth to a sum in each is taken in parts, each with a counter of its own, which
is added to the sum after the part. Works on the syntax tree of the loop form, before it is typed. Pure; any thread.
"""

from __future__ import annotations

import ast
from typing import Final

_TURNS_MIN: Final = 16
_PART: Final = 1 << 15  # turns, of which a counter of 16 bits can hold each


def narrow(tree: ast.FunctionDef) -> None:
    """Put counters into a function, where they fit."""
    _Counts().visit(tree)
    ast.fix_missing_locations(tree)


class _Counts(ast.NodeTransformer):
    def visit_For(self, loop: ast.For) -> ast.For:
        self.generic_visit(loop)
        turns = _turns(loop)
        if turns is None or turns <= _TURNS_MIN or not isinstance(loop.target, ast.Name):
            return loop
        before, after = "", ""
        for place, statement in enumerate(loop.body):
            found = _adds_truth(statement, loop.body)
            if found is not None:
                total, truth = found
                counter = f"{total}_count"
                before += f"    {counter} = np.uint16(0)\n"
                loop.body[place] = ast.parse(f"{counter} = np.uint16({counter} + np.uint16({truth}))").body[0]
                after += f"    {total} = np.int64({total} + np.int64({counter}))\n"
        if not before:
            return loop
        name = loop.target.id
        part = f"for {name}_first in range(U(0), U({turns}), U({_PART})):\n"
        part += f"    {name}_end = min({name}_first + U({_PART}), U({turns}))\n"
        (outer,) = ast.parse(
            f"{part}{before}    for {name} in range({name}_first, {name}_end):\n        pass\n{after}"
        ).body
        assert isinstance(outer, ast.For)
        (inner,) = (statement for statement in outer.body if isinstance(statement, ast.For))
        inner.body = [statement for statement in loop.body if not _is_unused(statement, loop.body)]
        for node in (outer, *outer.body, *inner.body):
            ast.copy_location(node, loop)
        return outer


def _turns(loop: ast.For) -> int | None:
    """How often `for i in range(U(n))` turns."""
    match loop.iter:
        case ast.Call(
            func=ast.Name(id="range"), args=[ast.Call(func=ast.Name(id="U"), args=[ast.Constant(value=int(n))])]
        ):
            return n
    return None


def _adds_truth(statement: ast.stmt, body: list[ast.stmt]) -> tuple[str, str] | None:
    """(r, t) of `r = np.int64(U(r) + U(v))` where `v = np.int64(t)`, `t` is a truth, and nothing else looks at `r`."""
    match statement:
        case ast.Assign(
            targets=[ast.Name(id=total)],
            value=ast.Call(
                func=ast.Attribute(attr="int64"),
                args=[
                    ast.BinOp(
                        left=ast.Call(func=ast.Name(id="U"), args=[ast.Name(id=left)]),
                        op=ast.Add(),
                        right=ast.Call(func=ast.Name(id="U"), args=[ast.Name(id=value)]),
                    )
                ],
            ),
        ) if left == total:
            pass
        case _:
            return None
    truth = None
    for other in body:
        match other:
            case ast.Assign(
                targets=[ast.Name(id=name)],
                value=ast.Call(func=ast.Attribute(attr="int64"), args=[ast.Name(id=inner)]),
            ) if name == value:
                truth = inner
    if truth is None or not _is_truth(truth, body):
        return None
    return (total, truth) if _occurrences(total, body) == 2 else None


def _is_truth(name: str, body: list[ast.stmt]) -> bool:
    """Whether a variable holds a comparison, or truths joined."""
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Compare()) if found == name:
                return True
            case ast.Assign(
                targets=[ast.Name(id=found)],
                value=ast.BinOp(
                    left=ast.Name(id=a), op=ast.BitAnd() | ast.BitOr() | ast.BitXor(), right=ast.Name(id=b)
                ),
            ) if found == name:
                return _is_truth(a, body) and _is_truth(b, body)
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.UnaryOp(op=ast.Not(), operand=ast.Name(id=a))) if (
                found == name
            ):
                return _is_truth(a, body)
    return False


def _occurrences(name: str, body: list[ast.stmt]) -> int:
    return sum(isinstance(node, ast.Name) and node.id == name for part in body for node in ast.walk(part))


def _is_unused(statement: ast.stmt, body: list[ast.stmt]) -> bool:
    """Whether it is `v = np.int64(t)` of a `v` that nobody needs any more."""
    match statement:
        case ast.Assign(
            targets=[ast.Name(id=name)], value=ast.Call(func=ast.Attribute(attr="int64"), args=[ast.Name()])
        ):
            return _occurrences(name, body) == 1
    return False

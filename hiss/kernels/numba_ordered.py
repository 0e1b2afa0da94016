"""Numba routines of `arrays_ordered`. See `numba_arrays`."""

from __future__ import annotations

from typing import Final

from hiss.kernels.arrays_ordered import RUNNING
from hiss.kernels.ir import Node
from hiss.kernels.lengths import Length
from hiss.kernels.numba_operations import printed
from hiss.kernels.numba_routines import Routine, RoutineMaker

_RUNNING: Final = """\
(values, v, out, o):
    # along the middle axis of ({outer}, {count}, {inner})
    for row in range(U({outer})):
        first = row * U({count} * {inner})
        for j in range(U({inner})):
            out[o + first + j] = values[v + first + j]
        for k in range(U(1), U({count})):
            here = first + k * U({inner})
            for j in range(U({inner})):
                a = out[o + here + j - U({inner})]
                b = values[v + here + j]
                out[o + here + j] = {joined}
"""
_UNLESS_EMPTY: Final = ":\n    if n == 0:\n        return\n"
_ARANGE: Final = """\
(out, o):
    for k in range(U({count})):
        out[o + k] = np.int64(np.int64({start}) + np.int64(np.int64({step}) * np.int64(k)))
"""
_ARG_EXTREME: Final = """\
(values, v, out, o):
    # along the middle axis of ({outer}, {count}, {inner})
    for row in range(U({outer})):
        for j in range(U({inner})):
            first = v + row * U({count} * {inner}) + j
            best = values[first]
            place = np.int64(0)
            for k in range(U(1), U({count})):
                a = values[first + k * U({inner})]
                if {better}:
                    best = a
                    place = np.int64(k)
            out[o + row * U({inner}) + j] = place
"""


def _running(node: Node) -> Routine:
    outer, count, inner = node.shape
    joined = printed(node.op.removeprefix("running_"), node.dtype, ["a", "b"])
    text = _RUNNING.format(outer=outer, count=count, inner=inner, joined=joined)
    return Routine(text.replace(":\n", _UNLESS_EMPTY, 1) if isinstance(count, Length) else text)


def _concatenate(node: Node) -> Routine:
    """One run of copies for each operand: (outer, count, inner) lies in rows of count * inner."""
    outer, count, inner = node.shape
    arguments, lines, first = list[str](), list[str](), 0
    for k, arg in enumerate(node.args):
        size = arg.shape[1] * inner
        arguments += [f"x{k}", f"i{k}"]
        lines.append(f"        for j in range(U({size})):")
        lines.append(
            f"            out[o + row * U({count * inner}) + U({first}) + j] = x{k}[i{k} + row * U({size}) + j]"
        )
        first += size
    body = "\n".join(lines)
    return Routine(f"({', '.join(arguments)}, out, o):\n    for row in range(U({outer})):\n{body}\n")


def _arange(node: Node) -> Routine:
    start, step, count = node.attrs
    return Routine(_ARANGE.format(start=start, step=step, count=count))


def _arg_extreme(node: Node) -> Routine:
    outer, count, inner = node.args[0].shape
    better = "a < best" if node.op == "argmin" else "a > best"
    if node.args[0].dtype.kind == "f":
        better = f"(best == best) & (({better}) | (a != a))"
    return Routine(_ARG_EXTREME.format(outer=outer, count=count, inner=inner, better=better))


ROUTINES: Final[dict[str, RoutineMaker]] = {
    **dict.fromkeys(RUNNING, _running),
    "concatenate": _concatenate,
    "arange": _arange,
    **dict.fromkeys(("argmin", "argmax"), _arg_extreme),
}

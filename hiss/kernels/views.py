"""Index arithmetic of views: which element of its operand an element of a node is.

A *view* maps a loop's index (i_0 … i_m) to an index of a node: for each axis of the node a pair (start, coefficients),
the index being start + sum of coefficient * i_k. An *access* maps the loop's index to a place in a flat, C-contiguous
buffer: an offset and one stride for each loop axis, in elements. Pure; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hiss.kernels.ir import Node, Shape

View = tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Strided:
    """A node whose elements lie at offset + sum of stride * index in the buffer of `owner`."""

    owner: Node
    offset: int
    strides: tuple[int, ...]

    def at(self, view: View, rank: int) -> tuple[int, tuple[int, ...]]:
        """The access of a loop of `rank` axes that sees the node through `view`: (offset, strides)."""
        offset = self.offset + sum(start * stride for (start, _), stride in zip(view, self.strides, strict=True))
        totals = [0] * rank
        for (_, coefficients), stride in zip(view, self.strides, strict=True):
            for axis, coefficient in enumerate(coefficients):
                totals[axis] += coefficient * stride
        return offset, tuple(totals)


def contiguous(shape: Shape) -> tuple[int, ...]:
    """The strides of a C-contiguous array, in elements."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def is_contiguous(shape: Shape, strides: tuple[int, ...]) -> bool:
    """Whether elements of these strides lie in row-major order, one after the other."""
    expected = contiguous(shape)
    return all(size == 1 or a == b for size, a, b in zip(shape, strides, expected, strict=True))


def identity(rank: int) -> View:
    """Each axis of the node is the loop axis of that number."""
    return tuple((0, tuple(int(axis == k) for k in range(rank))) for axis in range(rank))


def through(node: Node, view: View, rank: int) -> View | None:
    """The view of a view node's operand, given that of the node; None where no such view exists (a true reshape)."""
    (arg,) = node.args
    nowhere = (0, (0,) * rank)
    match node.op:
        case "broadcast":
            tail = view[len(view) - len(arg.shape) :]
            return tuple(nowhere if size == 1 else entry for size, entry in zip(arg.shape, tail, strict=True))
        case "permute":
            found = dict(zip(node.attrs, view, strict=True))
            return tuple(found[axis] for axis in range(len(view)))
        case "slice":
            starts, steps = node.attrs
            return tuple(
                (first + step * start, tuple(step * coefficient for coefficient in coefficients))
                for first, step, (start, coefficients) in zip(starts, steps, view, strict=True)
            )
    assert node.op == "reshape"
    if not same_but_ones(node.shape, arg.shape):
        return None
    wide = iter(entry for size, entry in zip(node.shape, view, strict=True) if size > 1)
    return tuple(next(wide) if size > 1 else nowhere for size in arg.shape)


def same_but_ones(first: Shape, second: Shape) -> bool:
    """Whether two shapes differ in axes of size 1 only."""
    return [size for size in first if size > 1] == [size for size in second if size > 1]


def strided(node: Node, arg: Strided) -> Strided | None:
    """A view node in the buffer of its operand, or None where a reshape would have to copy."""
    if node.op != "reshape":
        view = through(node, identity(len(node.shape)), len(node.shape))
        assert view is not None
        return Strided(arg.owner, *arg.at(view, len(node.shape)))
    strides = _reshaped(node.args[0].shape, arg.strides, node.shape)
    return None if strides is None else Strided(arg.owner, arg.offset, strides)


def _reshaped(old: Shape, strides: tuple[int, ...], new: Shape) -> tuple[int, ...] | None:
    """The strides of `new` over the same elements, axes matched in runs of equal size, as NumPy does; None: a copy."""
    wide = [(size, stride) for size, stride in zip(old, strides, strict=True) if size > 1]
    found: list[int] = [0] * len(new)
    places = [axis for axis, size in enumerate(new) if size > 1]
    i = j = 0
    while i < len(wide):
        i2, j2, a, b = i + 1, j + 1, wide[i][0], new[places[j]]
        while a != b:
            if a < b:
                a *= wide[i2][0]
                i2 += 1
            else:
                b *= new[places[j2]]
                j2 += 1
        run = wide[i:i2]
        if any(one[1] != two[1] * two[0] for one, two in pairwise(run)):
            return None
        step = run[-1][1]
        for axis in reversed(places[j:j2]):
            found[axis] = step
            step *= new[axis]
        i, j = i2, j2
    return tuple(found)

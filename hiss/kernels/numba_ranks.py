"""Numba routines of `arrays_ranks`. See `numba_arrays`.

The element of a rank is found by halving the range of the keys and counting how many lie below: counting vectorises,
sorting does not. The search starts at the result of the row before, as far around it as that was from its own start,
since rows of a detector are alike. The next greater element, which medians of even counts need, is the smallest of the
differences to it as they wrap around. Where the middle axis is not the last, several neighbours are laid out at once.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hiss.kernels.ir import Node
from hiss.kernels.numba_routines import Routine, RoutineMaker
from hiss.kernels.numba_sort_keys import from_key, to_key
from hiss.kernels.sort_keys import key_dtype

_TILE: Final = 32  # rows that are laid out at once
_RUN: Final = 1 << 14  # elements that are counted in a narrow counter
_ROUTINE: Final = """\
({operands}, out, o, keys):
    # ranks along the middle axis of ({outer}, {count}, {inner})
    guess, reach = {K}({half}), {K}(1)
    for tile in range(U(0), U({results}), U({tile})):
        wide = min(U({tile}), U({results}) - tile)
{layout}
        for j in range(wide):
            line = j * U({pitch})
            low, below = {K}(0), U(0)  # the key that was found last, and how many are not above it
            for rank in range(U({ranks})):
                wanted = {wanted}
                if wanted == U({last}):  # the largest
                    low = {K}(0)
                    for k in range(line, line + U({count})):
                        low = keys[k] if keys[k] > low else low
                elif wanted >= below:
                    probe = guess
                    if rank > U(0):  # how far it is to the next greater key
                        gap = {K}({every})
                        for k in range(line, line + U({count})):
                            step = {K}({K}(keys[k] - low) - {K}(1))
                            gap = step if step < gap else gap
                        low = {K}({K}(low + gap) + {K}(1))
                        probe = low
                    high = {K}({every})
                    below = U({count})
                    down = up = False
                    step = reach
                    while low < high:  # the wanted key is not below `low`, not above `high`
                        found = U(0)
                        for run in range(U(0), U({count}), U({run})):
                            few = {C}(0)
                            for k in range(line + run, line + min(run + U({run}), U({count}))):
                                few = {C}(few + {C}(keys[k] <= probe))
                            found += U(few)
                        if found > wanted:
                            high, below, down = probe, found, True
                        else:
                            low, up = {K}(probe + {K}(1)), True
                        left = {K}(high - low)
                        if up and down:
                            probe = {K}(low + {K}(left >> {K}(1)))
                        else:  # stride out from the guess
                            stride = step if step < left else left
                            probe = {K}(high - stride) if down else {K}(low + stride)
                            step = {K}({every}) if step > {K}({half}) else {K}(step + step)
                    if rank == U(0):
                        reach = {K}({K}(low - guess) | {K}(1)) if low > guess else {K}({K}(guess - low) | {K}(1))
                        guess = low
                at = tile + j
                key = low
                out[o + {place}] = {result}
"""
_ROWS: Final = """\
        for j in range(wide):
            for k in range(U({count})):
                value = values[v + (tile + j) * U({count}) + k]
                keys[j * U({pitch}) + k] = {key}"""
_COLUMNS: Final = """\
        plane, beside = tile // U({inner}), tile % U({inner})
        for k in range(U({count})):
            for j in range(wide):
                value = values[v + (plane * U({count}) + k) * U({inner}) + beside + j]
                keys[j * U({pitch}) + k] = {key}"""


def _routine(node: Node, operands: str, wanted: str, ranks: int) -> Routine:
    outer, count, inner = node.args[0].shape
    dtype = node.dtype
    key = key_dtype(dtype)
    tile = 1 if inner == 1 else _tile(inner)
    pitch = count if inner == 1 else _pitch(count, key.itemsize)
    sizes = {"count": count, "inner": inner, "pitch": pitch}
    layout = (_ROWS if inner == 1 else _COLUMNS).format(**sizes, key=to_key(dtype, "value"))
    counter = np.uint16 if key.itemsize <= 2 else key.type  # as wide as the keys, so that both fill a vector alike
    text = _ROUTINE.format(
        operands=operands,
        outer=outer,
        count=count,
        inner=inner,
        pitch=pitch,
        last=count - 1,
        results=outer * inner,
        tile=tile,
        layout=layout,
        ranks=ranks,
        wanted=wanted,
        run=min(_RUN, count),
        K=f"np.{key.name}",
        C=f"np.{np.dtype(counter).name}",
        every=np.iinfo(key).max,
        half=np.iinfo(key).max // 2,
        place=_place(ranks, inner),
        result=from_key(dtype, "key"),
    )
    return Routine(text, ((key, tile * pitch),))


def _tile(inner: int) -> int:
    """The most rows, up to `_TILE`, that are a divisor of `inner`, so that no tile crosses planes."""
    return next(size for size in range(min(_TILE, inner), 0, -1) if inner % size == 0)


def _pitch(count: int, itemsize: int) -> int:
    """From one line of keys to the next: no power of two, so that lines do not push one another out of the cache."""
    return (-(-count * itemsize // 64) | 1) * 64 // itemsize


def _place(ranks: int, inner: int) -> str:
    if inner == 1:
        return f"at * U({ranks}) + rank"
    return f"(at // U({inner}) * U({ranks}) + rank) * U({inner}) + at % U({inner})"


def _ranked(node: Node) -> Routine:
    listed = ", ".join(f"U({rank})" for rank in node.attrs)
    return _routine(node, "values, v", f"({listed},)[rank]", len(node.attrs))


def _ranked_by(node: Node) -> Routine:
    count = node.args[0].shape[1]
    return _routine(node, "values, v, ranks, r", f"U(min(max(ranks[r + tile + j], 0), {count - 1}))", 1)


ROUTINES: Final[dict[str, RoutineMaker]] = {"ranked": _ranked, "ranked_by": _ranked_by}

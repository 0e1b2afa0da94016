"""Sorting networks: fixed lists of comparisons, which compiled code runs for many neighbourhoods at once.

A comparator (i, j), i < j, leaves the smaller of two values in place i and the larger in j. Batcher's odd-even merge
sort (K. E. Batcher, AFIPS 1968, doi:10.1145/1468075.1468121; D. E. Knuth, TAOCP vol. 3, 5.2.2, algorithm M), of which
only what the wanted places need is kept. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Comparator:
    """Places `low` and `high`; whether the smaller and the larger are needed afterwards."""

    low: int
    high: int
    needs_low: bool = True
    needs_high: bool = True


def network(count: int, wanted: Iterable[int]) -> list[Comparator]:
    """What puts the right values in the places `wanted` of `count`."""
    needed = set(wanted)
    kept: list[Comparator] = []
    for low, high in reversed(_merge_sort(count)):
        if low in needed or high in needed:
            kept.append(Comparator(low, high, low in needed, high in needed))
            needed |= {low, high}
    return kept[::-1]


def _merge_sort(count: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    top = 1
    while top < count:
        top *= 2
    span = top // 2
    while span:
        step, offset, distance = top // 2, 0, span
        while True:
            found += [(i, i + distance) for i in range(count - distance) if i & span == offset]
            if step == span:
                break
            distance, step, offset = step - span, step // 2, span
        span //= 2
    return found


def middle_of_sorted(rows: int, columns: int) -> list[tuple[int, int]]:
    """Where the median of a block may be whose columns and then rows have been sorted.

    As many of the other places are surely below it as above it, so the median of those given is that of the block.
    """
    middle = rows * columns // 2
    return [
        (i, j)
        for i in range(rows)
        for j in range(columns)
        if (i + 1) * (j + 1) - 1 <= middle and (rows - i) * (columns - j) - 1 <= middle
    ]

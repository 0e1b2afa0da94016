"""Where the boxes of a directed graph go: a layered drawing, causes above effects.

The method is that of K. Sugiyama, S. Tagawa and M. Toda (IEEE Trans. Syst. Man Cybern. 11, 109, 1981): each node gets
a layer below all its causes; an edge across several layers gets a waypoint in each; the order within layers is
improved by repeated sweeps of barycentres, and kept where it has the fewest crossings; then nodes move towards the
mean of their neighbours as far as the order and the gaps between boxes allow. Pure functions.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_ORDER_SWEEPS: Final = 12
_PLACE_SWEEPS: Final = 25  # odd: the last one goes down, so that chains of single causes end up straight
_WAYPOINT_PX: Final = 12.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """Middles of the boxes, and for each edge the points that it passes from box to box; y grows downwards."""

    places: Mapping[str, Point]
    ways: Mapping[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float


def layered(
    sizes: Mapping[str, tuple[float, float]],
    edges: Sequence[tuple[str, str]],
    *,
    gap_x: float = 28.0,
    gap_y: float = 54.0,
) -> Layout:
    """Lay out boxes of the given sizes (width, height). Edges go from cause to effect; those that close a circle are
    drawn upwards."""
    forward = _without_circles(list(sizes), edges)
    layer = _layers(list(sizes), forward)
    chains = {edge: _chain(edge, layer) for edge in forward}
    rows = _rows(layer, chains)
    links = [pair for chain in chains.values() for pair in pairwise(chain)]
    rows = _ordered(rows, links)
    width = {node: sizes[node][0] if node in sizes else _WAYPOINT_PX for row in rows for node in row}
    x = _placed(rows, links, width, gap_x)
    left = min(x[node] - width[node] / 2 for node in x) if x else 0.0
    x = {node: place - left for node, place in x.items()}
    y, height = _row_middles(rows, sizes, gap_y)
    places = {node: (x[node], y[layer[node]]) for node in sizes}
    row_of = {node: number for number, row in enumerate(rows) for node in row}
    ways: dict[tuple[str, str], tuple[Point, ...]] = {}
    for (cause, effect), chain in chains.items():
        points = tuple((x[node], y[row_of[node]]) for node in chain)
        ways[cause, effect] = points
        ways[effect, cause] = points[::-1]
    total = max((x[node] + width[node] / 2 for node in x), default=0.0)
    return Layout(places, {edge: ways[edge] for edge in edges if edge[0] != edge[1]}, total, height)


def crossings(rows: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> int:
    """How often edges between neighbouring rows cross."""
    place = {node: number for row in rows for number, node in enumerate(row)}
    row_of = {node: number for number, row in enumerate(rows) for node in row}
    between: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for upper, lower in links:
        between[row_of[upper]].append((place[upper], place[lower]))
    total = 0
    for pairs in between.values():
        seen: list[int] = []
        for _, lower_place in sorted(pairs):
            total += len(seen) - bisect_right(seen, lower_place)
            insort(seen, lower_place)
    return total


def _without_circles(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges, each once, those that close a circle turned round."""
    after: dict[str, list[str]] = defaultdict(list)
    for cause, effect in dict.fromkeys(edges):
        if cause != effect:
            after[cause].append(effect)
    state: dict[str, int] = {}  # 1: on the way, 2: done
    turned: set[tuple[str, str]] = set()
    for start in nodes:
        stack = [] if start in state else [(start, iter(after[start]))]
        state.setdefault(start, 1)
        while stack:
            node, rest = stack[-1]
            for effect in rest:
                if state.get(effect) == 1:
                    turned.add((node, effect))
                elif effect not in state:
                    state[effect] = 1
                    stack.append((effect, iter(after[effect])))
                    break
            else:
                state[node] = 2
                stack.pop()
    every = (
        (effect, cause) if (cause, effect) in turned else (cause, effect) for cause in after for effect in after[cause]
    )
    return list(dict.fromkeys(every))


def _layers(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Each node below all its causes; one with no cause just above its nearest effect."""
    causes: dict[str, list[str]] = defaultdict(list)
    effects: dict[str, list[str]] = defaultdict(list)
    for cause, effect in edges:
        causes[effect].append(cause)
        effects[cause].append(effect)
    waiting = {node: len(causes[node]) for node in nodes}
    ready = [node for node in nodes if not waiting[node]]
    layer = dict.fromkeys(nodes, 0)
    for node in ready:  # grows while it is gone through
        for effect in effects[node]:
            layer[effect] = max(layer[effect], layer[node] + 1)
            waiting[effect] -= 1
            if not waiting[effect]:
                ready.append(effect)
    for node in reversed(ready):
        if not causes[node] and effects[node]:
            layer[node] = min(layer[effect] for effect in effects[node]) - 1
    return layer


def _chain(edge: tuple[str, str], layer: Mapping[str, int]) -> list[str]:
    """An edge's nodes from layer to layer, waypoints between its ends."""
    cause, effect = edge
    waypoints = [f"\0{cause}\0{effect}\0{number}" for number in range(layer[cause] + 1, layer[effect])]
    return [cause, *waypoints, effect]


def _rows(layer: Mapping[str, int], chains: Mapping[tuple[str, str], list[str]]) -> list[list[str]]:
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node, number in layer.items():
        rows[number].append(node)
    for (cause, _), chain in chains.items():
        for number, waypoint in enumerate(chain[1:-1], layer[cause] + 1):
            rows[number].append(waypoint)
    return rows


def _neighbours(links: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = defaultdict(list)
    below: dict[str, list[str]] = defaultdict(list)
    for upper, lower in links:
        above[lower].append(upper)
        below[upper].append(lower)
    return above, below


def _ordered(rows: list[list[str]], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The rows in the order with the fewest crossings that the sweeps come by."""
    above, below = _neighbours(links)
    best, fewest = [list(row) for row in rows], crossings(rows, links)
    for sweep in range(_ORDER_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        beside = above if down else below
        for row in rows[1:] if down else rows[-2::-1]:
            place = {node: number for other in rows for number, node in enumerate(other)}
            middle = {
                node: sum(place[other] for other in beside[node]) / len(beside[node]) if beside[node] else place[node]
                for node in row
            }
            row.sort(key=middle.__getitem__)
        count = crossings(rows, links)
        if count < fewest:
            best, fewest = [list(row) for row in rows], count
    return best


def _placed(
    rows: Sequence[Sequence[str]], links: Sequence[tuple[str, str]], width: Mapping[str, float], gap: float
) -> dict[str, float]:
    """The x of each node's middle."""
    above, below = _neighbours(links)
    x: dict[str, float] = {}
    for row in rows:
        edge = 0.0
        for node in row:
            x[node] = edge + width[node] / 2
            edge += width[node] + gap
    for sweep in range(_PLACE_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            wanted = []
            for node in row:
                near = (above if down else below)[node] or (below if down else above)[node]
                wanted.append(sum(x[other] for other in near) / len(near) if near else x[node])
            x.update(zip(row, _spread(row, wanted, width, gap), strict=True))
    return x


def _spread(row: Sequence[str], wanted: Sequence[float], width: Mapping[str, float], gap: float) -> list[float]:
    """The places nearest to those wanted (least squares) that keep the order and the gaps.

    With the gaps taken off it is isotonic regression, solved by pooling neighbours that are in each other's way.
    """
    offsets = [0.0]
    for before, after in pairwise(row):
        offsets.append(offsets[-1] + (width[before] + width[after]) / 2 + gap)
    pools: list[tuple[float, int]] = []  # mean, members
    for place, offset in zip(wanted, offsets, strict=False):
        mean, count = place - offset, 1
        while pools and pools[-1][0] > mean:
            other, members = pools.pop()
            mean = (mean * count + other * members) / (count + members)
            count += members
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    return [place + offset for place, offset in zip(flat, offsets, strict=False)]


def _row_middles(
    rows: Sequence[Sequence[str]], sizes: Mapping[str, tuple[float, float]], gap: float
) -> tuple[list[float], float]:
    middles = []
    edge = 0.0
    for row in rows:
        height = max((sizes[node][1] for node in row if node in sizes), default=0.0)
        middles.append(edge + height / 2)
        edge += height + gap
    return middles, max(edge - gap, 0.0)

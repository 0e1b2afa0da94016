"""A part of a provenance graph: one direction, and what has a name, path, pattern, recipe or time. Pure functions.

What is left out is bridged, so that what is left stays connected as it was: an edge with the role `…` stands for all
that led from one kept node to the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from hiss.meow_bridge.trigger import matches
from hiss.workflow import ProvenanceGraph, ProvenanceNode

BRIDGE: Final = "…"
_Edge = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class GraphFilter:
    """What is kept; an empty text keeps all. The node that was asked for is always kept."""

    name: str = ""  # a glob over labels: `*sum*`
    path: str = ""  # a trigger's glob over paths of streams: `scan/**`
    pattern: str = ""  # a glob over the names of jobs' patterns; streams beside such jobs are kept
    recipe: str = ""  # likewise
    since: str = ""  # ISO 8601 in UTC, or the beginning of it: of when jobs and streams were made
    until: str = ""  # likewise; `2026-11-20` is all of that day
    causes: bool = True  # what led to it
    effects: bool = True  # what it led to


def filtered(graph: ProvenanceGraph, by: GraphFilter) -> ProvenanceGraph:
    """The nodes that fit, with edges between them."""
    if not graph.nodes:
        return graph
    nodes = {node.id: node for node in graph.nodes}
    root = graph.nodes[0].id
    within = {root}
    if by.causes:
        within |= _reached(root, [(effect, cause) for cause, effect, _ in graph.edges])
    if by.effects:
        within |= _reached(root, [(cause, effect) for cause, effect, _ in graph.edges])
    edges = [edge for edge in graph.edges if edge[0] in within and edge[1] in within]
    kept = {id for id in within if _fits(nodes[id], by)} | {root}
    if by.pattern or by.recipe:
        kept = _with_data(kept & {id for id in within if nodes[id].kind == "job"}, edges, nodes, by) | {root}
    return ProvenanceGraph(tuple(node for node in graph.nodes if node.id in kept), tuple(_bridged(edges, kept)))


def _fits(node: ProvenanceNode, by: GraphFilter) -> bool:
    attrs = node.attrs
    if by.name and not fnmatchcase(node.label, by.name):
        return False
    if by.path and not (node.kind == "stream" and matches(by.path, str(attrs.get("path", "")))):
        return False
    for name, glob in (("pattern", by.pattern), ("recipe", by.recipe)):
        if glob and not (node.kind == "job" and fnmatchcase(str(attrs.get(name, "")), glob)):
            return False
    made = str(attrs.get("created", ""))
    if (by.since or by.until) and not made:
        return False
    return not (by.since and made < by.since) and not (by.until and made > by.until + "~")


def _with_data(jobs: set[str], edges: list[_Edge], nodes: Mapping[str, ProvenanceNode], by: GraphFilter) -> set[str]:
    """The jobs, and the data beside them as far as its path is asked for."""
    beside = {id for edge in edges for id in edge[:2] if edge[0] in jobs or edge[1] in jobs}
    path_only = GraphFilter(path=by.path)
    return jobs | {id for id in beside if nodes[id].kind != "job" and (not by.path or _fits(nodes[id], path_only))}


def _reached(start: str, steps: list[tuple[str, str]]) -> set[str]:
    following: dict[str, list[str]] = {}
    for here, there in steps:
        following.setdefault(here, []).append(there)
    seen, waiting = {start}, deque([start])
    while waiting:
        for there in following.get(waiting.popleft(), ()):
            if there not in seen:
                seen.add(there)
                waiting.append(there)
    return seen


def _bridged(edges: list[_Edge], kept: set[str]) -> dict[_Edge, None]:
    """The edges between kept nodes, and one for each way that leads through others."""
    found: dict[_Edge, None] = {edge: None for edge in edges if edge[0] in kept and edge[1] in kept}
    following: dict[str, list[str]] = {}
    for cause, effect, _ in edges:
        following.setdefault(cause, []).append(effect)
    for start in kept:
        waiting = deque(effect for effect in following.get(start, ()) if effect not in kept)
        seen = set(waiting)
        while waiting:
            for effect in following.get(waiting.popleft(), ()):
                if effect in kept:
                    if effect != start:
                        found[start, effect, BRIDGE] = None
                elif effect not in seen:
                    seen.add(effect)
                    waiting.append(effect)
    return found

"""A provenance graph as lines for a terminal: what led to the stream, then what it led to. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hiss.workflow import ProvenanceGraph, ProvenanceNode

_Neighbours = Mapping[str, list[tuple[str, str]]]  # node -> (neighbour, role)


def provenance_text(graph: ProvenanceGraph) -> str:
    """Two trees that start from the graph's first node, the one that was asked for.

    A node that was shown before is named again, with `(see above)` where there is more to it.
    """
    if not graph.nodes:
        return ""
    nodes = {node.id: node for node in graph.nodes}
    causes: dict[str, list[tuple[str, str]]] = {name: [] for name in nodes}
    effects: dict[str, list[tuple[str, str]]] = {name: [] for name in nodes}
    for cause, effect, role in graph.edges:
        causes[effect].append((cause, role))
        effects[cause].append((effect, role))
    asked = graph.nodes[0]
    lines = [_line(asked)]
    for heading, neighbours in (("came from", causes), ("led to", effects)):
        lines += ["", heading, *_tree(asked.id, nodes, neighbours)] if neighbours[asked.id] else []
    return "\n".join(lines)


def _tree(start: str, nodes: Mapping[str, ProvenanceNode], neighbours: _Neighbours) -> Iterator[str]:
    shown = {start}
    stack = [(name, role, "", last) for name, role, last in _branches(neighbours[start])]
    while stack:
        name, role, indent, last = stack.pop()
        again = name in shown and bool(neighbours[name])
        yield f"{indent}{'└─' if last else '├─'} {role}: {_line(nodes[name])}{' (see above)' if again else ''}"
        if name not in shown:
            shown.add(name)
            below = indent + ("   " if last else "│  ")
            stack += [(other, how, below, end) for other, how, end in _branches(neighbours[name])]


def _branches(neighbours: list[tuple[str, str]]) -> list[tuple[str, str, bool]]:
    """In reverse, as they are taken from a stack; the last of them is marked."""
    return [(name, role, number == len(neighbours) - 1) for number, (name, role) in enumerate(neighbours)][::-1]


def _line(node: ProvenanceNode) -> str:
    attrs = node.attrs
    parts = {
        "stream": ("blocks", "completeness", "digest", "note"),
        "job": ("state", "seconds", "note"),
        "kernel": ("kind", "hash"),
    }.get(node.kind, ("collection",))
    told = [_told(name, attrs[name]) for name in parts if attrs.get(name) not in (None, "")]
    what = node.label if node.label == node.kind else f"{node.kind} {node.label}"
    return what + (f" ({', '.join(told)})" if told else "")


def _told(name: str, value: Any) -> str:
    return f"{value} s" if name == "seconds" else str(value)[:12] if name == "hash" else str(value)

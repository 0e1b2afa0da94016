"""A provenance graph as one HTML page that needs nothing else: no network, no script but its own.

The drawing is SVG, laid out by `layout`; it can be read without the script, which adds moving, zooming, showing what
belongs to a node under the pointer, and a node's details at a click. All text in it comes from streams and jobs, so
all of it is escaped, and the page forbids itself (Content-Security-Policy) to load anything. Pure functions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Final

from hiss.meow_bridge.graph_style import SCRIPT, STYLE
from hiss.meow_bridge.layout import Point, layered
from hiss.workflow import ProvenanceGraph, ProvenanceNode

_LABEL_CHARS: Final = 34
_LABEL_EM: Final = 13.0  # size of a label's font
_DETAIL_EM: Final = 11.0
_WIDTHS: Final = {  # of characters, in sizes of the font: of wide fonts, so that narrower ones fit as well
    **dict.fromkeys("iIjl|!'.,:;", 0.40),
    **dict.fromkeys("frt()[]{}/-*\\ ", 0.48),
    **dict.fromkeys("mwMW@%", 1.11),
    **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ&+=<>#~…·", 0.87),
}
_WIDTH: Final = 0.72  # of any other
_WIDTH_FOREIGN: Final = 1.1  # beyond Latin letters
_PAD_PX: Final = 34.0
_BOX_PX: Final = (120.0, 46.0)  # least width, height
_MARGIN_PX: Final = 36.0
_KINDS: Final = {"instrument": "instrument", "file": "stream", "stream": "stream", "kernel": "kernel", "job": "job"}


def provenance_page(graph: ProvenanceGraph, title: str) -> str:
    """The page's text. The graph's first node is the one that was asked for; it is marked."""
    nodes = {node.id: node for node in graph.nodes}
    sizes = {name: _size(node) for name, node in nodes.items()}
    layout = layered(sizes, [(cause, effect) for cause, effect, _ in graph.edges])
    roles: dict[tuple[str, str], list[str]] = {}
    for cause, effect, role in graph.edges:
        roles.setdefault((cause, effect), []).append(role)
    half = {name: size[1] / 2 for name, size in sizes.items()}
    ways_in = Counter(effect for cause, effect in roles if cause != effect)
    edges = "".join(
        _edge(cause, effect, ", ".join(dict.fromkeys(names)), layout.ways[cause, effect], half, ways_in[effect] > 1)
        for (cause, effect), names in roles.items()
        if cause != effect
    )
    asked = graph.nodes[0].id if graph.nodes else ""
    boxes = "".join(_box(node, layout.places[name], sizes[name], name == asked) for name, node in nodes.items())
    width, height = layout.width + 2 * _MARGIN_PX, layout.height + 2 * _MARGIN_PX
    counts = {kind: sum(node.kind == kind for node in graph.nodes) for kind in _KINDS}
    legend = "".join(
        f'<span class="chip {kind}"><i></i>{count} {kind}{"s" if count != 1 else ""}</span>'
        for kind, count in counts.items()
        if count
    )
    details = {
        name: {"kind": node.kind, "label": node.label, "attrs": dict(node.attrs)} for name, node in nodes.items()
    }
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p>{legend}</p>"
        '<nav><button id="fit" type="button">fit</button><button id="less" type="button">−</button>'
        '<button id="more" type="button">+</button></nav>'
        f"{_filters(graph)}</header>"
        '<main><div id="view">'
        f'<svg id="graph" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'data-width="{width:.0f}" data-height="{height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 1 L9 5 L0 9 z"/></marker></defs>'
        f'<g id="all" transform="translate({_MARGIN_PX:.0f} {_MARGIN_PX:.0f})">{edges}{boxes}</g></svg></div>'
        '<aside id="details"><p class="hint">Point at a box to see what led to it and what it led to; '
        "click it for all that is known of it. Drag to move, wheel to zoom.</p></aside></main>"
        f'<script type="application/json" id="nodes">{_json(details)}</script><script>{SCRIPT}</script></body></html>\n'
    )


def _filters(graph: ProvenanceGraph) -> str:
    """What is to be seen, by name or path, pattern, recipe and time; the rest is dimmed."""

    def choice(name: str) -> str:
        found = sorted({str(node.attrs[name]) for node in graph.nodes if node.kind == "job" and name in node.attrs})
        options = "".join(f"<option>{escape(each)}</option>" for each in found)
        return f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>'

    times = sorted(str(node.attrs["created"]) for node in graph.nodes if "created" in node.attrs)
    span = (times[0], times[-1]) if times else ("", "")
    return (
        '<form id="filter"><label>name or path <input name="text" type="search" placeholder="part of it"/></label>'
        f"{choice('pattern')}{choice('recipe')}"
        f'<label>from <input name="from" placeholder="{escape(span[0])}"/></label>'
        f'<label>to <input name="to" placeholder="{escape(span[1])}"/></label>'
        '<output id="shown"></output></form>'
    )


def _json(value: object) -> str:
    """JSON that cannot end the script element that holds it."""
    return json.dumps(value, default=str).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _shown(label: str) -> str:
    """The label, its middle left out where it is long: both ends of a path say more."""
    if len(label) <= _LABEL_CHARS:
        return label
    half = (_LABEL_CHARS - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


def _detail(node: ProvenanceNode) -> str:
    """The second line of a box."""
    attrs = node.attrs
    if node.kind == "job":
        seconds = f" · {attrs['seconds']:.3g} s" if "seconds" in attrs else ""
        return f"{attrs.get('state', attrs.get('note', ''))}{seconds}"
    if node.kind == "kernel":
        return f"{attrs.get('kind', '')} · {str(attrs.get('hash', ''))[:10]}"
    if node.kind == "file":
        return f"file · {str(attrs.get('digest', ''))[:10]}"
    if node.kind == "stream":
        return str(attrs.get("blocks") or attrs.get("note", ""))
    return str(attrs.get("collection", ""))


def _text_px(text: str, em_px: float) -> float:
    """A width that the text does not exceed in the fonts that browsers take for `system-ui`."""
    return em_px * sum(_WIDTHS.get(character, _WIDTH if character < "\u0250" else _WIDTH_FOREIGN) for character in text)


def _size(node: ProvenanceNode) -> tuple[float, float]:
    text = max(_text_px(_shown(node.label), _LABEL_EM), _text_px(_shown(_detail(node)), _DETAIL_EM))
    return max(_BOX_PX[0], text + _PAD_PX), _BOX_PX[1]


def _box(node: ProvenanceNode, place: Point, size: tuple[float, float], asked: bool) -> str:
    width, height = size
    kind = _KINDS.get(node.kind, "stream")
    state = "".join(
        f" {word}"
        for word, holds in (
            ("asked", asked),
            (
                "failed",
                node.attrs.get("state") in ("failed", "cancelled", "aborted") or bool(node.attrs.get("quarantined")),
            ),
            ("gone", "note" in node.attrs),
        )
        if holds
    )
    radius = {"instrument": height / 2, "kernel": 3, "job": 12}.get(kind, 7)
    return (
        f'<g class="node {kind}{state}" data-id="{escape(node.id, quote=True)}" tabindex="0" '
        f'transform="translate({place[0] - width / 2:.1f} {place[1] - height / 2:.1f})">'
        f"<title>{escape(f'{node.kind} {node.label}')}</title>"
        f'<rect width="{width:.1f}" height="{height:.1f}" rx="{radius}"/>'
        f'<text class="label" x="{width / 2:.1f}" y="20">{escape(_shown(node.label))}</text>'
        f'<text class="detail" x="{width / 2:.1f}" y="36">{escape(_shown(_detail(node)))}</text></g>'
    )


def _edge(cause: str, effect: str, role: str, way: Sequence[Point], half: dict[str, float], many_ways_in: bool) -> str:
    """From the lower rim of one box to the upper rim of the other, by its waypoints, as vertical-ended curves.

    The role stands near the end where the edge has most room: the cause, if several edges meet at the effect.
    """
    down = way[0][1] <= way[-1][1]
    sign = 1 if down else -1
    points = list(way)
    points[0] = (way[0][0], way[0][1] + sign * half[cause])
    points[-1] = (way[-1][0], way[-1][1] - sign * (half[effect] + 1))
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        bend = (y1 - y0) / 2
        path += f" C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
    x, y = _on_curve(points[0], points[1], 0.4) if many_ways_in else _on_curve(points[-2], points[-1], 0.6)
    return (
        f'<g class="edge" data-from="{escape(cause, quote=True)}" data-to="{escape(effect, quote=True)}">'
        f'<path d="{path}" marker-end="url(#tip)"/>'
        f'<text x="{x:.1f}" y="{y + 3:.1f}">{escape(_shown(role))}</text></g>'
    )


def _on_curve(start: Point, end: Point, t: float) -> Point:
    """The point of the cubic Bézier curve that `_edge` draws between two points, at the parameter `t`."""
    (x0, y0), (x1, y1) = start, end
    bend = (y1 - y0) / 2
    a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
    return (a + b) * x0 + (c + d) * x1, a * y0 + b * (y0 + bend) + c * (y1 - bend) + d * y1

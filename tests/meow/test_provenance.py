"""The graph of what led to what where the buffer is in memory, its drawing, and the page."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import StreamNotFound
from hiss.meow_bridge import Engine, provenance_page, provenance_text
from hiss.meow_bridge.layout import crossings, layered
from hiss.model import Caller
from hiss.workflow import ProvenanceGraph, ProvenanceNode

from .conftest import finished, pattern, script
from .memory_store import MemoryStore

MakeEngine = Callable[..., Engine]


def chain(engine: Engine, store: MemoryStore) -> None:
    """a/in -> job -> a/mid -> job -> a/end, with a/other read by the second job."""
    engine.add(script("r", "1"))
    for name, trigger in (("first", "a/in"), ("second", "a/mid")):
        engine.add(pattern(name, trigger, "r"))
    other = store.seal("a/other", attrs={"instrument": "camera"})
    commit = store.commit_attempt

    def with_output(attempt: str, kind: str, event: dict[str, object]):  # type: ignore[no-untyped-def]
        if kind == "job.finished" and attempt not in store._committed:
            store.seal({"a/in": "a/mid", "a/mid": "a/end"}[str(event["path"])], caller=Caller(attempt, "a"))
        return commit(attempt, kind, event)

    store.commit_attempt = with_output  # type: ignore[assignment, method-assign]
    reads = store.attempt_reads

    def with_reads(attempt: str):  # type: ignore[no-untyped-def]
        job = engine.job(attempt.partition(".")[0])
        if job.path == "a/mid" and not reads(attempt):
            store.read_by(attempt, other)
        return reads(attempt)

    store.attempt_reads = with_reads  # type: ignore[method-assign]
    store.seal("a/in")
    finished(engine, 2)


def test_from_the_instrument_to_the_end_and_back(engine: Engine, store: MemoryStore) -> None:
    chain(engine, store)
    first, second = engine.jobs()[::-1]
    whole = {
        ("instrument:a:", "stream:a/in@1", "data"),
        ("stream:a/in@1", f"job:{first.id}", "trigger"),
        (f"job:{first.id}", "stream:a/mid@1", "write"),
        ("stream:a/mid@1", f"job:{second.id}", "trigger"),
        (f"job:{second.id}", "stream:a/end@1", "write"),
        ("stream:a/other@1", f"job:{second.id}", "read"),
        ("instrument:a:camera", "stream:a/other@1", "data"),
    }
    assert set(engine.provenance("a/end").edges) == whole
    assert set(engine.provenance("a/in", 1).edges) == {edge for edge in whole if "other" not in edge[0] + edge[1]}
    asked = engine.provenance("a/other")
    assert asked.nodes[0].id == "stream:a/other@1"
    assert {node.id for node in asked.nodes} == {
        "stream:a/other@1", "instrument:a:camera", f"job:{second.id}", "stream:a/end@1",
    }  # fmt: skip
    job = next(node for node in asked.nodes if node.kind == "job")
    assert (job.attrs["pattern"], job.attrs["state"], len(job.attrs["recipe hash"])) == ("second", "done", 32)
    with pytest.raises(StreamNotFound):
        engine.provenance("a/nowhere")
    store.delete("a/mid", 1)
    assert set(engine.provenance("a/end").edges) == whole, "what is gone is still known"
    assert provenance_text(engine.provenance("a/end")).splitlines()[3:6] == [
        f"└─ write: job r {second.id[:8]} (done, {_seconds(engine, second.id)} s)",
        "   ├─ trigger: stream a/mid (no longer in the buffer)",
        f"   │  └─ write: job r {first.id[:8]} (done, {_seconds(engine, first.id)} s)",
    ]


def _seconds(engine: Engine, job_id: str) -> float:
    job = engine.job(job_id)
    return round((job.finished_ns - job.started_ns) / 1e9, 3)


def test_the_graph_is_bounded(engine: Engine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    chain(engine, store)
    monkeypatch.setattr(limits, "PROVENANCE_NODES_MAX", 3)
    graph = engine.provenance("a/end")
    assert len(graph.nodes) <= 5
    assert graph.nodes[0].attrs["truncated"] is True
    names = {node.id for node in graph.nodes}
    assert all(cause in names and effect in names for cause, effect, _ in graph.edges)


# ---------------------------------------------------------------------------------------------------------- drawing

EDGES = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=30)


@given(EDGES, st.integers(1, 15))
def test_boxes_keep_apart_and_causes_stand_above(pairs: list[tuple[int, int]], count: int) -> None:
    nodes = [f"n{number}" for number in range(count)]
    edges = [(nodes[a % count], nodes[b % count]) for a, b in pairs]
    sizes = {node: (60.0 + 7 * number, 40.0) for number, node in enumerate(nodes)}
    layout = layered(sizes, edges)
    boxes = [(*layout.places[node], *sizes[node]) for node in nodes]
    for number, (x0, y0, w0, h0) in enumerate(boxes):
        assert x0 - w0 / 2 + 1e-6 >= 0
        assert x0 + w0 / 2 <= layout.width + 1e-6
        assert 0 <= y0 - h0 / 2 < y0 + h0 / 2 <= layout.height + 1e-6
        for x1, y1, w1, h1 in boxes[:number]:
            assert abs(x0 - x1) >= (w0 + w1) / 2 - 1e-6 or abs(y0 - y1) >= (h0 + h1) / 2
    assert set(layout.ways) == {edge for edge in edges if edge[0] != edge[1]}
    for (cause, effect), way in layout.ways.items():
        assert (way[0], way[-1]) == (layout.places[cause], layout.places[effect])
        assert way[0][1] != way[-1][1]
    acyclic = [(a, b) for a, b in edges if nodes.index(a) < nodes.index(b)]
    layout = layered(sizes, acyclic)
    assert all(layout.places[cause][1] < layout.places[effect][1] for cause, effect in acyclic)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20, unique=True))
def test_crossings_are_counted(pairs: list[tuple[int, int]]) -> None:
    rows = [[f"u{n}" for n in range(6)], [f"l{n}" for n in range(6)]]
    expected = sum(a < c and b > d for a, b in pairs for c, d in pairs)
    assert crossings(rows, [(f"u{a}", f"l{b}") for a, b in pairs]) == expected


def test_a_tangle_is_untangled() -> None:
    """Two rows in opposite order: drawn without a crossing."""
    order = list(range(8))
    random.Random(3).shuffle(order)
    names = [*(f"u{n}" for n in range(8)), *(f"l{n}" for n in order)]
    layout = layered(dict.fromkeys(names, (50.0, 20.0)), [(f"u{n}", f"l{n}") for n in range(8)])
    uppers = sorted(range(8), key=lambda n: layout.places[f"u{n}"][0])
    assert uppers == sorted(range(8), key=lambda n: layout.places[f"l{n}"][0])
    assert all(layout.places[f"u{n}"][0] == pytest.approx(layout.places[f"l{n}"][0]) for n in range(8))


# ---------------------------------------------------------------------------------------------------------- page


class Reader(HTMLParser):
    """What a browser would see: elements, attributes, text; and whether all is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "path", "rect", "link", "img"):
            self.open.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u2028<!--"


def test_the_page_holds_everything_and_runs_nothing_foreign() -> None:
    nodes = (
        ProvenanceNode("stream:" + NASTY, "stream", NASTY, {"attributes": {NASTY: NASTY}, "blocks": NASTY}),
        ProvenanceNode("job:1", "job", "reconstruct", {"state": "failed", "seconds": 1.25}),
        ProvenanceNode("kernel:1", "kernel", "flatfield", {"hash": "ab" * 32, "kind": "map"}),
        ProvenanceNode("odd:1", "something new", "?", {}),
    )
    edges = (("stream:" + NASTY, "job:1", NASTY), ("job:1", "kernel:1", "x"), ("kernel:1", "job:1", "back"))
    page = provenance_page(ProvenanceGraph(nodes, edges), f"Title {NASTY}")
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert reader.links == []
    assert reader.handlers == []
    assert (reader.tags.count("script"), "img" in reader.tags) == (2, False)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    held = re.search(r'<script type="application/json" id="nodes">(.*?)</script>', page, re.DOTALL)
    assert held is not None
    data = json.loads(held[1])
    assert data["stream:" + NASTY]["attrs"]["attributes"] == {NASTY: NASTY}
    assert len(re.findall(r'<g class="node ', page)) == 4
    assert len(re.findall(r'<g class="edge"', page)) == 3


@pytest.mark.parametrize(
    "label",
    [
        "2026/beamtime42/scan_000/_jobs/9966fd0e9d8a4b27c1.ipynb",
        "9" * 40,
        "W" * 34,
        "mmmmmmmmmmmmmmmmmm",
        "DETECTOR-EIGER-16M/RUN-0042/FRAMES",
        "short",
        "Größe/μ-CT/Öl",
    ],
)
def test_a_label_fits_into_its_box(label: str) -> None:
    """Measured in DejaVu Sans, wider than what most browsers take for `system-ui`."""
    textpath = pytest.importorskip("matplotlib.textpath")
    fonts = pytest.importorskip("matplotlib.font_manager")
    page = provenance_page(ProvenanceGraph((ProvenanceNode("s", "stream", label, {"blocks": label}),), ()), "t")
    box = re.search(r'<rect width="([\d.]+)"', page)
    shown = re.findall(r'<text class="(label|detail)"[^>]*>([^<]*)</text>', page)
    assert box is not None
    assert len(shown) == 2
    for kind, text in shown:
        font = fonts.FontProperties(family="DejaVu Sans", weight="bold" if kind == "label" else "normal")
        width = textpath.TextPath((0, 0), text, size=13 if kind == "label" else 11, prop=font).get_extents().width
        assert width + 10 <= float(box[1]), f"{text} takes {width:.0f} px"


def test_an_empty_graph_is_a_page_too() -> None:
    assert "<svg" in provenance_page(ProvenanceGraph((), ()), "nothing")
    assert provenance_text(ProvenanceGraph((), ())) == ""


def test_text_names_a_node_with_several_causes_once_in_full() -> None:
    nodes = tuple(ProvenanceNode(name, "job", name, {}) for name in "dbca")
    edges = (("a", "b", "x"), ("a", "c", "x"), ("b", "d", "y"), ("c", "d", "z"), ("0", "a", "w"))
    nodes += (ProvenanceNode("0", "instrument", "instrument", {"collection": "s"}),)
    assert provenance_text(ProvenanceGraph(nodes, edges)).splitlines() == [
        "job d",
        "",
        "came from",
        "├─ y: job b",
        "│  └─ x: job a",
        "│     └─ w: instrument (s)",
        "└─ z: job c",
        "   └─ x: job a (see above)",
    ]

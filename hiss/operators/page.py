"""The pages: a list of streams, and the newest block of one of them, which looks again by itself. Pure; any thread.

No script and nothing from elsewhere. Whatever comes from a buffer is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final
from urllib.parse import quote

from hiss.model import NodeStatus, StreamInfo, now_text

_STYLE: Final = """\
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; font-weight: 600; } h1 small { font-weight: 400; color: GrayText; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.open { color: light-dark(#08660f, #6fd67a); } .aborted { color: light-dark(#a3260b, #ff9a7d); }
img { max-width: 100%; border: 1px solid color-mix(in srgb, currentColor 25%, transparent); }
p { color: GrayText; }
"""
_REFRESH_S: Final = 2


def index_page(status: NodeStatus, streams: Iterable[StreamInfo], left_out: int) -> str:
    """All streams, with links to their newest blocks."""
    rows = "\n".join(map(_row, streams)) or '<tr><td colspan="6">No streams yet.</td></tr>'
    more = f"<p>{left_out} older streams are not shown; <code>hiss ls</code> shows them.</p>" if left_out else ""
    body = (
        f"<h1>hiss <small>{escape(status.node)}, version {escape(status.version)}</small></h1>\n"
        f"<p>{status.streams} streams, {status.streams_open} open; {status.blocks_received} blocks received since "
        f"{now_text(status.started_ns)}; room for {_size(status.room_bytes)}. "
        '<a href="/metrics">metrics</a>, <a href="/healthz">health</a></p>\n'
        '<table><tr><th>stream</th><th>state</th><th>element</th><th class="n">blocks</th><th class="n">size</th>'
        f'<th class="n">gaps</th></tr>\n{rows}</table>\n{more}'
    )
    return _document("hiss", body, None)


def _row(info: StreamInfo) -> str:
    state, whole = info.state.name.lower(), info.completeness
    shape = " × ".join("…" if size is None else str(size) for size in info.frame.shape)
    element = "bytes" if info.frame.opaque else f"{info.frame.numpy_dtype} {shape}"
    return (
        f'<tr><td><a href="/latest/{quote(info.path)}">{escape(info.path)}</a></td><td class="{state}">{state}</td>'
        f'<td>{escape(element)}</td><td class="n">{whole.blocks}</td><td class="n">{_size(whole.bytes)}</td>'
        f'<td class="n">{whole.gaps}</td></tr>'
    )


def latest_page(info: StreamInfo) -> str:
    """The newest block of a stream; looks again while it is open."""
    state, whole = info.state.name.lower(), info.completeness
    text = f"{state}, {whole.blocks} blocks, {whole.gaps} gaps"
    body = (
        f'<p><a href="/">all streams</a></p><h1>{escape(info.path)} <small>{escape(text)}</small></h1>\n'
        f'<img src="/latest/{quote(info.path)}.png" alt="the newest block of {escape(info.path)}">'
    )
    return _document(info.path, body, None if info.state.final else _REFRESH_S)


def _document(title: str, body: str, refresh_s: int | None) -> str:
    refresh = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s}">'
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>{refresh}'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"

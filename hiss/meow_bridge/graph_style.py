"""The look and the script of the provenance page. Constants only."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --paper: #f7f8fa; --card: #fff; --ink: #1d2430; --soft: #667085; --line: #aab3c2;
  --rim: #e2e6ed; --instrument: #b45309; --stream: #1d6fb8; --kernel: #7c3aed; --job: #0f8a5f; --bad: #c62828; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161d; --card: #1b212b; --ink: #e6e9ef; --soft: #98a2b3;
  --line: #566175; --rim: #2c3442; --instrument: #f0a04b; --stream: #5aa9ee; --kernel: #b794f6; --job: #45c796;
  --bad: #ff7b72; } }
* { box-sizing: border-box; }
html, body { height: 100%; margin: 0; }
body { display: flex; flex-direction: column; background: var(--paper); color: var(--ink);
  font: 14px/1.45 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
header { display: flex; align-items: center; gap: 20px; padding: 12px 20px; background: var(--card);
  border-bottom: 1px solid var(--rim); flex-wrap: wrap; }
h1 { font-size: 16px; font-weight: 600; margin: 0; }
header p { margin: 0; display: flex; gap: 14px; color: var(--soft); flex: 1; }
.chip i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px;
  background: var(--tint); }
nav { display: flex; gap: 6px; }
button { font: inherit; min-width: 34px; padding: 3px 10px; border: 1px solid var(--rim); border-radius: 6px;
  background: var(--paper); color: var(--ink); cursor: pointer; }
main { display: flex; flex: 1; min-height: 0; }
#view { flex: 1; min-width: 0; overflow: hidden; cursor: grab; }
#view.moving { cursor: grabbing; }
svg { display: block; width: 100%; height: 100%; touch-action: none; }
aside { width: 340px; overflow: auto; padding: 18px 20px; background: var(--card); border-left: 1px solid var(--rim); }
aside h2 { font-size: 15px; margin: 0 0 2px; overflow-wrap: anywhere; }
aside .kind { color: var(--tint); font-weight: 600; margin: 0 0 12px; }
aside dl { margin: 0; }
aside dt { color: var(--soft); font-size: 12px; margin-top: 9px; }
aside dd { margin: 0; overflow-wrap: anywhere; }
aside pre { margin: 3px 0 0; padding: 9px; background: var(--paper); border-radius: 6px; overflow: auto;
  font: 12px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; white-space: pre-wrap; }
.hint { color: var(--soft); }
.instrument { --tint: var(--instrument); } .stream { --tint: var(--stream); }
.kernel { --tint: var(--kernel); } .job { --tint: var(--job); } .failed { --tint: var(--bad); }
.node { cursor: pointer; outline: none; }
.node rect { fill: color-mix(in srgb, var(--tint) 9%, var(--card)); stroke: var(--tint); stroke-width: 1.4; }
.node.asked rect { stroke-width: 3; fill: color-mix(in srgb, var(--tint) 20%, var(--card)); }
.node.gone rect { stroke-dasharray: 5 4; }
.node:focus-visible rect, .node.chosen rect { filter: drop-shadow(0 0 5px var(--tint)); }
text { text-anchor: middle; fill: var(--ink); }
.label { font: 600 13px system-ui, "Segoe UI", Roboto, sans-serif; }
.detail { font: 11px system-ui, "Segoe UI", Roboto, sans-serif; fill: var(--soft); }
.edge path { fill: none; stroke: var(--line); stroke-width: 1.4; }
.edge text { font: 11px system-ui, "Segoe UI", Roboto, sans-serif; fill: var(--soft); paint-order: stroke;
  stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
marker path { fill: var(--line); }
.node.out, .edge.out { opacity: .08; pointer-events: none; }
#filter { flex-basis: 100%; display: flex; flex-wrap: wrap; gap: 10px; align-items: center; color: var(--soft);
  font-size: 12px; }
#filter input, #filter select { font: inherit; width: 13em; padding: 3px 6px; color: var(--ink);
  background: var(--card); border: 1px solid var(--rim); border-radius: 5px; }
.looking .node, .looking .edge { opacity: .16; transition: opacity .12s; }
.looking .near { opacity: 1; }
.looking .edge.near path { stroke: var(--ink); }
@media (max-width: 800px) { main { flex-direction: column; } aside { width: auto; max-height: 40%; border-left: 0;
  border-top: 1px solid var(--rim); } }
"""

SCRIPT: Final = """
"use strict";
const nodes = JSON.parse(document.getElementById("nodes").textContent);
const svg = document.getElementById("graph"), view = document.getElementById("view");
const details = document.getElementById("details"), all = document.getElementById("all");
const full = { w: +svg.dataset.width, h: +svg.dataset.height };
let box = { x: 0, y: 0, w: full.w, h: full.h };
const boxes = new Map([...svg.querySelectorAll(".node")].map(g => [g.dataset.id, g]));
const edges = [...svg.querySelectorAll(".edge")];

function show() { svg.setAttribute("viewBox", `${box.x} ${box.y} ${box.w} ${box.h}`); }
function fit() { place(0); }
function place(least) {
  const r = view.getBoundingClientRect();
  const scale = Math.max(least, Math.min(1.15, r.width / full.w, r.height / full.h));
  box.w = r.width / scale; box.h = r.height / scale;
  box.x = (full.w - box.w) / 2; box.y = Math.min(0, (full.h - box.h) / 2);
  const asked = svg.querySelector(".asked");
  if (asked && (box.w < full.w || box.h < full.h)) {  // too large to be read as a whole: around what was asked for
    const b = asked.getBBox(), at = asked.transform.baseVal[0].matrix;
    if (box.w < full.w) box.x = at.e + b.width / 2 - box.w / 2;
    if (box.h < full.h) box.y = Math.min(Math.max(0, at.f + b.height / 2 - box.h / 2), full.h - box.h);
  }
  show();
}
function zoom(factor, px, py) {
  const r = view.getBoundingClientRect();
  const fx = px === undefined ? .5 : (px - r.left) / r.width, fy = py === undefined ? .5 : (py - r.top) / r.height;
  const w = Math.min(Math.max(box.w * factor, 120), full.w * 8), h = box.h * w / box.w;
  box.x += (box.w - w) * fx; box.y += (box.h - h) * fy; box.w = w; box.h = h; show();
}
document.getElementById("fit").onclick = fit;
document.getElementById("more").onclick = () => zoom(.8);
document.getElementById("less").onclick = () => zoom(1.25);
view.addEventListener("wheel", e => { e.preventDefault(); zoom(e.deltaY > 0 ? 1.12 : .89, e.clientX, e.clientY); },
  { passive: false });
let grip = null;
view.addEventListener("pointerdown", e => { grip = { x: e.clientX, y: e.clientY, moved: false }; });
window.addEventListener("pointermove", e => {
  if (!grip) return;
  const scale = box.w / view.getBoundingClientRect().width, dx = e.clientX - grip.x, dy = e.clientY - grip.y;
  if (!grip.moved && Math.hypot(dx, dy) < 4) return;
  grip.moved = true; view.classList.add("moving");
  box.x -= dx * scale; box.y -= dy * scale; grip.x = e.clientX; grip.y = e.clientY; show();
});
window.addEventListener("pointerup", () => { grip = null; view.classList.remove("moving"); });
window.addEventListener("resize", () => place(.6));

function reach(start, from, to) {
  const found = new Set([start]), waiting = [start];
  while (waiting.length) {
    const here = waiting.pop();
    for (const e of edges) if (e.dataset[from] === here && !found.has(e.dataset[to])) {
      found.add(e.dataset[to]); waiting.push(e.dataset[to]);
    }
  }
  return found;
}
function look(id) {
  const up = reach(id, "to", "from"), down = reach(id, "from", "to");
  all.classList.add("looking");
  for (const [name, g] of boxes) g.classList.toggle("near", up.has(name) || down.has(name));
  for (const e of edges) {
    const a = e.dataset.from, b = e.dataset.to;
    e.classList.toggle("near", (up.has(a) && up.has(b)) || (down.has(a) && down.has(b)));
  }
}
function add(parent, tag, text, name) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (name) e.className = name;
  parent.appendChild(e); return e;
}
function tell(id) {
  const node = nodes[id];
  details.replaceChildren();
  details.className = node.kind;
  add(details, "h2", node.label); add(details, "p", node.kind, "kind");
  const list = add(details, "dl");
  for (const [name, value] of Object.entries(node.attrs)) {
    if (value === "" || value === null) continue;
    add(list, "dt", name);
    const dd = add(list, "dd");
    if (name === "source" || String(value).includes("\\n")) add(dd, "pre", value);
    else if (typeof value === "object") add(dd, "pre", Object.entries(value).map(([k, v]) =>
      `${k} = ${typeof v === "string" ? v : JSON.stringify(v)}`).join("\\n"));
    else dd.textContent = value;
  }
  for (const g of boxes.values()) g.classList.remove("chosen");
  boxes.get(id).classList.add("chosen");
}
const form = document.getElementById("filter");
function holds(node) {
  const want = Object.fromEntries(new FormData(form)), attrs = node.attrs, job = node.kind === "job";
  const text = want.text.toLowerCase(), when = String(attrs.created || "");
  const names = [node.label, attrs.path, attrs.id].join(" ").toLowerCase();
  if (text && !names.includes(text)) return false;
  if (want.pattern && !(job && attrs.pattern === want.pattern)) return false;
  if (want.recipe && !(job && attrs.recipe === want.recipe)) return false;
  if (want.from && !(when && when >= want.from)) return false;
  if (want.to && !(when && when <= want.to + "~")) return false;
  return true;
}
function sift() {
  const open = [...new FormData(form).values()].every(v => !v);
  let count = 0;
  const kept = new Set();
  for (const [id, g] of boxes) if (open || holds(nodes[id])) { kept.add(id); count++; }
  const near = new Set(kept);
  if (!open) for (const e of edges) {
    if (kept.has(e.dataset.from) && nodes[e.dataset.from].kind === "job") near.add(e.dataset.to);
    if (kept.has(e.dataset.to) && nodes[e.dataset.to].kind === "job") near.add(e.dataset.from);
  }
  for (const [id, g] of boxes) g.classList.toggle("out", !near.has(id));
  for (const e of edges) e.classList.toggle("out", !(near.has(e.dataset.from) && near.has(e.dataset.to)));
  document.getElementById("shown").textContent = open ? "" : `${count} of ${boxes.size}`;
}
form.addEventListener("input", sift);
form.addEventListener("submit", e => e.preventDefault());

for (const [id, g] of boxes) {
  g.addEventListener("pointerenter", () => { if (!grip) look(id); });
  g.addEventListener("pointerleave", () => all.classList.remove("looking"));
  g.addEventListener("click", () => { if (!grip || !grip.moved) tell(id); });
  g.addEventListener("focus", () => look(id));
  g.addEventListener("blur", () => all.classList.remove("looking"));
  g.addEventListener("keydown", e => { if (e.key === "Enter") tell(id); });
}
place(.6);
"""

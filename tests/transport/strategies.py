"""Hypothesis strategies for everything that crosses the wire."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hiss import limits
from hiss.drain_policy import Drain, DrainPolicy, DrainState, DrainTarget
from hiss.extent import Extent
from hiss.model import (
    Ack,
    AckLevel,
    AppendStart,
    ArrayParam,
    Attachment,
    BlockStatus,
    BoundKernel,
    CollectionInfo,
    Column,
    ColumnParam,
    Completeness,
    Event,
    Feedback,
    FrameSpec,
    Keep,
    KernelDef,
    KernelInfo,
    KernelKind,
    LedgerEntry,
    NodeStatus,
    ScalarParam,
    Selection,
    StageInfo,
    StreamInfo,
    StreamParam,
    StreamSpec,
    StreamState,
    columns_dtype,
)
from hiss.space import Archive, Evicted, Eviction, Reservation, Retention
from hiss.workflow import (
    Job,
    JobState,
    Pattern,
    ProvenanceGraph,
    ProvenanceNode,
    Recipe,
    RecipeKind,
    Rule,
    StreamRef,
)

int64 = st.integers(-(2**63), 2**63 - 1)
count = st.integers(0, 2**63 - 1)
name = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_\-]{0,20}", fullmatch=True)
path = st.lists(name, min_size=1, max_size=3).map("/".join)
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.loads(json.dumps(value)))
attrs = st.dictionaries(st.text(max_size=8), json_value, max_size=4).map(lambda value: json.loads(json.dumps(value)))
dtype = st.sampled_from(["|b1", "|u1", "<u2", "<i4", "<i8", "<u8", "<f4", "<f8", "<c8"])


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def tuples(strategy: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=most).map(tuple)


sizes = tuples(st.integers(1, 9))
frame = st.builds(FrameSpec, dtype, sizes | sizes.map(lambda shape: (None, *shape))) | st.just(FrameSpec(None, ()))
column = st.builds(Column, name, st.sampled_from(["<f8", "<i4", "|b1", "|S16", "<u2"]), text)
columns = st.lists(column, max_size=4, unique_by=lambda c: c.name).map(
    lambda found: tuple(c for c in found if c.name not in ("index", "time_ns"))
)
array = hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))
scalar = st.builds(
    ScalarParam, st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False), optional(dtype)
)
param = (
    scalar
    | st.builds(ArrayParam, array)
    | st.builds(StreamParam, path, optional(count), optional(st.sampled_from(["mean", "maximum"])))
    | st.builds(ColumnParam, name)
)
kernel_def = st.builds(KernelDef, name, st.sampled_from(KernelKind), text)
bound_kernel = st.one_of(
    st.builds(BoundKernel, kernel_def, st.dictionaries(name, param, max_size=3), st.floats(0.001, 1000.0)),
    st.builds(
        BoundKernel,
        kernel_def.map(lambda kernel: replace(kernel, kind=KernelKind.FILTER)),
        feedback_every=st.integers(0, (1 << 63) - 1),
    ),
    st.builds(
        BoundKernel,
        kernel_def.map(lambda kernel: replace(kernel, kind=KernelKind.REDUCE)),
        every=st.integers(0, (1 << 63) - 1),
    ),
)
kernel_info = st.builds(KernelInfo, kernel_def, text, count)
stage = st.builds(
    StageInfo,
    name,
    st.sampled_from(KernelKind),
    text,
    text,
    attrs,
    st.floats(0, 100),
    st.booleans(),
    every=st.integers(0, (1 << 63) - 1),
    attached=st.booleans(),
    feedback_every=st.integers(0, (1 << 63) - 1),
)
pipeline = st.lists(bound_kernel, max_size=2).map(tuple)
stream_spec = st.builds(StreamSpec, frame, columns, st.sampled_from(AckLevel), attrs, st.sampled_from(Keep), pipeline)
ledger_entry = st.builds(LedgerEntry, int64, int64, text, text)
completeness = st.builds(Completeness, count, count, count, optional(int64), optional(int64), tuples(ledger_entry))
stream_info = st.builds(
    StreamInfo,
    id=text,
    collection=path,
    name=name,
    version=count,
    frame=frame,
    columns=columns,
    ack=st.sampled_from(AckLevel),
    keep=st.sampled_from(Keep),
    attrs=attrs,
    stages=tuples(stage, 2),
    state=st.sampled_from(StreamState),
    completeness=completeness,
    digest=text,
    created_ns=int64,
    final_ns=int64,
    raw_of=optional(text),
    raw_id=optional(text),
    produced_by=optional(text),
    abort_reason=text,
    expendable=st.booleans(),
    archives=tuples(st.builds(Archive, st.from_regex(r"[ -~]{1,40}", fullmatch=True), int64), 2),
    eviction=optional(st.builds(Eviction, int64, text)),
)
reservation = st.builds(Reservation, text, path, count, count, int64, int64)
seconds = st.floats(0, 1e12)
drain_target = st.builds(
    DrainTarget,
    st.sampled_from(["/a/{collection}/{stream}.nxs", "s3://bucket/{collection}/{version}-{stream}", "/whole.x"]),
    st.sampled_from(["auto", "nexus", "zarr"]),
    st.sampled_from(["auto", "none", "zstd"]),
    st.sampled_from(["seal", "pressure", "manual", "at 02:30", "every 6h"]),
    st.integers(-1000, 1000),
    st.integers(0, (1 << 62) - 1),
)
drain_policy = st.builds(DrainPolicy, st.lists(drain_target, max_size=3, unique_by=lambda each: each.url).map(tuple))
drain = st.builds(
    Drain, st.text("0123456789abcdef", min_size=16, max_size=16), path, count, text, drain_target,
    st.sampled_from(DrainState), count, text, optional(int64), int64, int64, st.booleans(),
)  # fmt: skip
retention = st.builds(Retention, optional(seconds), optional(seconds), st.booleans(), st.booleans())
evicted = st.builds(Evicted, path, count, count, text, text)
selection = st.builds(
    Selection,
    start=optional(int64),
    stop=optional(int64),
    step=st.integers(1, 2**40),
    newest=st.booleans(),
    data=st.booleans(),
    kernels=pipeline,
    from_disk=st.booleans(),
)
append_start = st.builds(AppendStart, count, int64, tuples(st.tuples(int64, int64)), text, st.sampled_from(AckLevel))
ack = st.builds(Ack, count, count, count, count)
feedback = st.builds(Feedback, json_value, int64)
collection = st.builds(
    CollectionInfo,
    path=path,
    attrs=attrs,
    expect=tuples(name),
    joins=st.dictionaries(name, tuples(name), max_size=2),
    sealed=st.booleans(),
    created_ns=int64,
    streams=tuples(name),
    kernels=tuples(st.builds(Attachment, st.sampled_from(["*", "proj*", "a?[bc]"]), stage, st.booleans(), int64), 2),
)
event = st.builds(Event, text, count, text, int64, path, text, count, attrs)
status = st.builds(NodeStatus, text, text, text, count, text, *([count] * 10), attrs, *([count] * 3), last_event=count)

variable = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
stream_ref = st.builds(StreamRef, text, path, count, text)
seconds = st.floats(0.001, 1e6)
timeouts_s = st.floats(1e-3, limits.JOB_TIMEOUT_MAX_S)
retries = st.integers(0, 100)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    kind = draw(st.sampled_from(RecipeKind))
    word = draw(st.from_regex(r"[a-z]{1,8}", fullmatch=True))
    body, entry = {
        RecipeKind.FUNCTION: (f"def f_{word}(a):\n    return a\n", f"f_{word}"),
        RecipeKind.SCRIPT: (f"x = {word!r}\nprint(x)\n", ""),
        RecipeKind.NOTEBOOK: (json.dumps({"cells": [{"source": draw(text)}], "nbformat": 4}), ""),
        RecipeKind.COMMAND: (json.dumps(["echo", word, draw(text)]), ""),
    }[kind]
    return Recipe(draw(name), body, kind=kind, entry=entry, timeout_s=draw(timeouts_s), retries=draw(retries))


EVENTS: list[dict[str, Any]] = [
    {"event": "stream.sealed"},
    {"event": "stream.aborted"},
    {"event": "stream.progress", "every": 100},
    {"event": "stream.stalled", "stalled_s": 2.5},
    {"event": "timer", "every_s": 60.5},
    {"event": "timer", "cron": "*/5 2 * * 1-5"},
]


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    names = draw(st.lists(variable, min_size=4, max_size=4, unique=True).filter(lambda n: all(map(_plain, n))))
    return Pattern(
        name=draw(name),
        trigger=draw(path) + "/a",
        recipe=draw(name),
        **draw(st.sampled_from(EVENTS)),
        input=names[0],
        variables={names[1]: draw(json_value)},
        outputs={names[2]: draw(text)},
        sweep={names[3]: draw(st.lists(st.integers(), max_size=3) | st.just({"start": 0, "stop": 1, "step": 0.1}))},
        where=draw(attrs),
        complete_only=draw(st.booleans()),
        writes=draw(optional(path)),
        timeout_s=draw(optional(timeouts_s)),
        retries=draw(optional(retries)),
        jobs_at_once=draw(optional(st.integers(1, 2**40))),
        jobs_an_hour=draw(optional(st.integers(1, 2**40))),
        jobs_expected=draw(optional(st.integers(1, 2**40))),
        chain_jobs=draw(optional(st.integers(1, 2**40))),
        lifetime_s=draw(optional(seconds)),
        catch_up=draw(st.sampled_from(["none", "one", "all"])),
        rights=draw(st.sampled_from([(), ("rules",)])),
    )


def _plain(word: str) -> bool:
    return word.isidentifier()


rule = st.builds(Rule, text, name, name, text, text, int64)
job = st.builds(
    Job,
    id=text,
    rule=text,
    pattern=name,
    recipe=name,
    event=text,
    path=path,
    version=count,
    variables=attrs,
    state=st.sampled_from(JobState),
    attempts=st.integers(0, 2**31 - 1),
    created_ns=int64,
    started_ns=int64,
    finished_ns=int64,
    host=text,
    error=text,
    output=text,
    reads=tuples(stream_ref),
    writes=tuples(stream_ref),
    chain=st.integers(1, 2**40),
)
node = st.builds(ProvenanceNode, text, text, text, attrs)
provenance = st.builds(ProvenanceGraph, tuples(node), tuples(st.tuples(text, text, text)))


@st.composite
def extents(draw: st.DrawFn, data: bool = True) -> Extent:
    """Extents as a server sends them, with gaps, causes and source digests."""
    index = draw(st.lists(int64, min_size=1, max_size=12, unique=True))
    many = len(index)
    status = np.array(draw(st.lists(st.sampled_from(BlockStatus), min_size=many, max_size=many)), np.uint8)
    length = np.array(draw(st.lists(st.integers(0, 40), min_size=many, max_size=many)), np.int64)
    length[status != BlockStatus.STORED] = 0
    payload = np.frombuffer(draw(st.binary(min_size=int(length.sum()), max_size=int(length.sum()))), np.uint8)
    types = columns_dtype(draw(columns))
    records = np.frombuffer(draw(st.binary(min_size=types.itemsize * many, max_size=types.itemsize * many)), np.uint8)
    packed = np.zeros(many, types)
    if types.itemsize:
        packed.view(np.uint8)[:] = records
    extent = Extent.of(index, payload, length, columns=packed, status=status)
    changed = draw(st.booleans())
    return Extent(
        index=extent.index,
        time_ns=np.array(draw(st.lists(int64, min_size=many, max_size=many)), np.int64),
        length=length,
        digest=extent.digest,
        columns=packed,
        data=payload if data else np.zeros(0, np.uint8),
        received_ns=np.array(draw(st.lists(count, min_size=many, max_size=many)), np.int64),
        status=status,
        cause=np.array(draw(st.lists(st.integers(0, 15), min_size=many, max_size=many)), np.uint8),
        source_digest=extent.digest ^ np.uint64(draw(st.integers(0, 2**64 - 1))) if changed else extent.digest,
    )


def same(a: Extent, b: Extent) -> bool:
    """Whether two extents hold the same, dtypes included."""
    return all(
        getattr(a, field).dtype == getattr(b, field).dtype
        and getattr(a, field).tobytes() == getattr(b, field).tobytes()
        and getattr(a, field).shape == getattr(b, field).shape
        for field in Extent.__dataclass_fields__
    )

"""What led to a stream, back to the instrument, and what it led to.

The graph is put together from two sources: what the buffer records of each stream (its pipeline with the hash of each
kernel and the streams among its parameters, its raw companion, the job that wrote it) and what `jobs.db` records of
each job (trigger, reads and writes with digests, the hashes of pattern and recipe). Nodes are

    instrument:COLLECTION:NAME  where a stream that no job wrote comes from; the name is the attribute `instrument` of
                                stream or collection
    stream:PATH@VERSION      one version of a stream; of a watched file, with `file:` before its path, one content
    kernel:STREAM-ID:N       the N-th stage of one stream's pipeline: one use of a kernel
    job:ID

Callable from any thread; it only reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

from hiss import limits
from hiss.errors import InvalidInput, JobNotFound, NotFound
from hiss.meow_bridge.file_paths import is_file, local_path
from hiss.meow_bridge.identity import job_of_attempt
from hiss.meow_bridge.jobs import JobTable
from hiss.meow_bridge.lineage import Lineage
from hiss.model import Attrs, KernelKind, StageInfo, StreamInfo, now_text
from hiss.store import Store
from hiss.tokens import is_within
from hiss.workflow import Job, JobState, KernelUse, ProvenanceGraph, ProvenanceNode

INSTRUMENT: Final = "instrument"
_SOURCE_CHARS_MAX: Final = 4_000  # of a kernel's source in its node
_TEXT_CHARS_MAX: Final = 500  # of any one value shown of a job

_Edge = tuple[str, str, str]
_Key = tuple[str, int]  # path, version


def provenance_graph(
    store: Store, jobs: JobTable, lineage: Lineage, path: str, version: int | None = None
) -> ProvenanceGraph:
    """All that led to a version of a stream (the newest unless one is named) and all that it led to.

    Above `limits.PROVENANCE_NODES_MAX` nodes the rest is left out, and the stream's own node says so (`truncated`).

    Raises
    ------
    StreamNotFound
    """
    if is_file(path):
        if version is None:
            raise InvalidInput(f"{path}: which version of the file? `hiss job ls` and `job show` tell them")
        return _Tracing(store, jobs, lineage).graph((path, version))
    info = store.stream(path, version)
    return _Tracing(store, jobs, lineage).graph((info.path, info.version))


def within(prefix: str, graph: ProvenanceGraph) -> ProvenanceGraph:
    """What of a graph somebody may see who sees what is below `prefix` only: streams and instruments there, the jobs
    that all their neighbours are among, and the kernels of those streams."""
    if not prefix:
        return graph

    def is_there(node: ProvenanceNode) -> bool:
        return is_within(str(node.attrs.get("path", node.attrs.get("collection", ""))), prefix)

    places = {node.id for node in graph.nodes if node.kind in ("stream", "file", INSTRUMENT) and not is_there(node)}
    near: dict[str, set[str]] = {}
    for cause, effect, _ in graph.edges:
        near.setdefault(cause, set()).add(effect)
        near.setdefault(effect, set()).add(cause)
    gone = places | {
        node.id for node in graph.nodes if node.kind in ("job", "kernel") and near.get(node.id, set()) & places
    }
    nodes = tuple(node for node in graph.nodes if node.id not in gone)
    return ProvenanceGraph(nodes, tuple(edge for edge in graph.edges if not {edge[0], edge[1]} & gone))


class _Tracing:
    """One question to the buffer and `jobs.db`; remembers what they answered."""

    def __init__(self, store: Store, jobs: JobTable, lineage: Lineage) -> None:
        self._lineage = lineage
        self._store = store
        self._jobs = jobs
        self._nodes: dict[str, ProvenanceNode] = {}
        self._file_digests: dict[_Key, str] = {}
        self._edges: dict[_Edge, None] = {}
        self._streams: dict[_Key, StreamInfo | None] = {}
        self._collections: dict[str, Attrs] = {}
        self._all: list[StreamInfo] | None = None
        self._users: dict[_Key, list[StreamInfo]] = {}

    def graph(self, root: _Key) -> ProvenanceGraph:
        full = self._walk(root, self._causes) | self._walk(root, self._effects)
        key = _stream_node(root)
        if full:
            node = self._nodes[key]
            self._nodes[key] = ProvenanceNode(node.id, node.kind, node.label, {**node.attrs, "truncated": True})
        edges = [edge for edge in self._edges if edge[0] in self._nodes and edge[1] in self._nodes]
        return ProvenanceGraph((self._nodes[key], *(n for at, n in self._nodes.items() if at != key)), tuple(edges))

    def _walk(self, root: _Key, neighbours: Callable[[_Key | Job], Iterator[_Key | Job]]) -> bool:
        """Everything that can be reached, breadth first; whether that was cut short."""
        waiting: deque[_Key | Job] = deque([root])
        seen: set[str] = set()
        while waiting:
            thing = waiting.popleft()
            name = self._node_of(thing)
            if name in seen:
                continue
            seen.add(name)
            if len(self._nodes) >= limits.PROVENANCE_NODES_MAX:
                return True
            waiting.extend(neighbours(thing))
        return False

    # ---- one step back

    def _causes(self, thing: _Key | Job) -> Iterator[_Key | Job]:
        if isinstance(thing, Job):
            yield from self._inputs(thing)
            return
        if is_file(thing[0]):
            return
        info = self._info(thing)
        if info is None:
            yield from self._writer_of_deleted(thing)
            return
        parent = self._by_id(info, info.attrs.get("reduction_of"))
        if parent is not None:
            self._reduction(parent, info)
            yield (parent.path, parent.version)
            return
        raw = self._by_id(info, info.raw_id)
        entry = self._pipeline(info, raw)
        yield from self._parameter_streams(info)
        if raw is not None:
            yield (raw.path, raw.version)
            return
        yield from self._origin(info, entry)

    def _inputs(self, job: Job) -> Iterator[_Key]:
        """What a job was triggered by and read."""
        trigger = (job.path, job.version)
        if job.version:
            self._edge(_stream_node(trigger), _job_node(job.id), "trigger")
            yield trigger
        for ref in job.reads:
            if (ref.path, ref.version) != trigger:
                self._edge(_stream_node((ref.path, ref.version)), _job_node(job.id), "read")
                yield (ref.path, ref.version)

    def _origin(self, info: StreamInfo, entry: str) -> Iterator[Job]:
        """The job that wrote a stream, or the instrument; `entry` is what its blocks came into first."""
        if info.produced_by is None:
            name = str(info.attrs.get(INSTRUMENT) or self._collection_attrs(info.collection).get(INSTRUMENT) or "")
            instrument = f"{INSTRUMENT}:{info.collection}:{name}"
            self._node(instrument, INSTRUMENT, name or INSTRUMENT, {"collection": info.collection})
            self._edge(instrument, entry, "data")
            return
        job_id = job_of_attempt(info.produced_by)
        self._edge(_job_node(job_id), entry, "write")
        try:
            yield self._jobs.job(job_id)
        except JobNotFound:
            self._node(_job_node(job_id), "job", job_id[:12], {"id": job_id, "note": "not in this rule engine's jobs"})

    def _writer_of_deleted(self, key: _Key) -> Iterator[Job]:
        for job in self._jobs.jobs_touching(*key):
            if any((ref.path, ref.version) == key for ref in job.writes):
                self._edge(_job_node(job.id), _stream_node(key), "write")
                yield job

    def _pipeline(self, info: StreamInfo, raw: StreamInfo | None) -> str:
        """The stages of a stream as a chain that ends in it; returns the node that the blocks come into first."""
        stages = [(n, stage) for n, stage in enumerate(info.stages) if stage.kind is not KernelKind.REDUCE]
        chain = [self._stage(info, number, stage) for number, stage in stages] + [
            _stream_node((info.path, info.version))
        ]
        if raw is not None and stages:
            self._edge(_stream_node((raw.path, raw.version)), chain[0], "blocks")
        elif raw is not None:
            self._edge(_stream_node((raw.path, raw.version)), chain[0], "raw")
        for before, after in pairwise(chain):
            self._edge(before, after, "blocks")
        return chain[0]

    def _stage(self, info: StreamInfo, number: int, stage: StageInfo) -> str:
        name = f"kernel:{info.id}:{number}"
        self._node(
            name,
            "kernel",
            stage.name,
            {
                "hash": stage.hash,
                "kind": stage.kind.name.lower(),
                "parameters": {key: _parameter_text(value) for key, value in stage.params.items()},
                "source": stage.source[:_SOURCE_CHARS_MAX],
                **({"quarantined": True} if stage.quarantined else {}),
            },
        )
        return name

    def _parameter_streams(self, info: StreamInfo) -> Iterator[_Key]:
        for number, name, key, reduced in _stream_parameters(info):
            role = f"{name} ({reduced})" if reduced else name
            if info.stages[number].kind is not KernelKind.REDUCE:
                self._edge(_stream_node(key), f"kernel:{info.id}:{number}", role)
                yield key

    def _reduction(self, parent: StreamInfo, info: StreamInfo) -> None:
        """A stream that holds a reduction of another one."""
        for number, stage in enumerate(parent.stages):
            if stage.kind is KernelKind.REDUCE and stage.name == info.attrs.get("reduction"):
                name = self._stage(parent, number, stage)
                self._edge(_stream_node((parent.path, parent.version)), name, "blocks")
                self._edge(name, _stream_node((info.path, info.version)), "result")
                return
        self._edge(_stream_node((parent.path, parent.version)), _stream_node((info.path, info.version)), "reduction")

    # ---- one step on

    def _effects(self, thing: _Key | Job) -> Iterator[_Key | Job]:
        if isinstance(thing, Job):
            for ref in thing.writes:
                key = (ref.path, ref.version)
                info = self._info(key)
                entry = _stream_node(key) if info is None else self._pipeline(info, None)
                if info is None or info.raw_id is None:
                    self._edge(_job_node(thing.id), entry, "write")
                yield key
            return
        for job in self._jobs.jobs_touching(*thing):
            if any(key == thing for key in self._inputs(job)):
                yield job
        yield from self._users_of(thing)

    def _users_of(self, key: _Key) -> Iterator[_Key]:
        """Streams with this one as raw companion, as parameter of a kernel, or as what they are a reduction of."""
        self._read_all()
        for info in self._users.get(key, ()):
            for _ in self._causes((info.path, info.version)):
                pass  # for its edges
            yield (info.path, info.version)

    def _read_all(self) -> None:
        if self._all is not None:
            return
        self._all = [
            info
            for collection in self._store.collections()
            for info in self._store.streams(collection.path, all_versions=True)
        ]
        places = {info.id: (info.path, info.version) for info in self._all}
        for info in self._all:
            self._streams[info.path, info.version] = info
            used = {key for _, _, key, _ in _stream_parameters(info)}
            used |= {places[id] for id in (info.raw_id, info.attrs.get("reduction_of")) if id in places}
            for key in used:
                self._users.setdefault(key, []).append(info)

    # ---- looking up

    def _info(self, key: _Key) -> StreamInfo | None:
        """What the buffer tells of a stream; None if it holds it no more."""
        if is_file(key[0]):
            return None
        if key not in self._streams:
            try:
                self._streams[key] = self._store.stream(*key)
            except NotFound:
                self._streams[key] = None
        return self._streams[key]

    def _collection_attrs(self, path: str) -> Attrs:
        if path not in self._collections:
            self._collections[path] = self._store.collection(path).attrs
        return self._collections[path]

    def _by_id(self, near: StreamInfo, stream_id: Any) -> StreamInfo | None:
        """A stream of the same collection, by its id."""
        if not stream_id:
            return None
        known = [info for info in self._streams.values() if info is not None and info.id == stream_id]
        if known:
            return known[0]
        for info in self._store.streams(near.collection, all_versions=True):
            self._streams[info.path, info.version] = info
            if info.id == stream_id:
                return info
        return None

    # ---- nodes and edges

    def _node_of(self, thing: _Key | Job) -> str:
        """Make the node of a stream or job, and return its id."""
        if isinstance(thing, Job):
            hashes = self._jobs.content_hashes(thing.id)
            recorded = self._recorded(thing)
            attrs = {**_job_attrs(thing, *hashes), **recorded}
            return self._node(_job_node(thing.id), "job", f"{thing.recipe} {thing.id[:8]}", attrs)
        if is_file(thing[0]):
            path = local_path(thing[0])
            digest = self._file_digests.get(thing, "")
            about = {"path": path, "version": thing[1], **({"digest": digest} if digest else {})}
            return self._node(_stream_node(thing), "file", f"{path} v{thing[1]}" if thing[1] > 1 else path, about)
        info = self._info(thing)
        attrs = {"version": thing[1], "note": "no longer in the buffer"} if info is None else _stream_attrs(info)
        label = thing[0] if thing[1] == 1 else f"{thing[0]} v{thing[1]}"
        return self._node(_stream_node(thing), "stream", label, {"path": thing[0], **attrs})

    def _recorded(self, job: Job) -> dict[str, Any]:
        """What was kept with a job of its inputs and of the kernels that shaped its data."""
        trigger = self._lineage.trigger(job.id)
        if trigger is not None and is_file(trigger.path):
            self._file_digests[trigger.path, trigger.version] = trigger.digest
        inputs = dict.fromkeys([*([trigger] if trigger else []), *job.reads])
        kernels = self._lineage.kernels(job.id)
        return {
            **({"inputs": {f"{ref.path} v{ref.version}": ref.digest for ref in inputs}} if inputs else {}),
            **(
                {"kernels": {f"{use.path} v{use.version} #{use.stage}": _kernel_text(use) for use in kernels}}
                if kernels
                else {}
            ),
        }

    def _node(self, name: str, kind: str, label: str, attrs: dict[str, Any]) -> str:
        if name not in self._nodes:
            self._nodes[name] = ProvenanceNode(name, kind, label, attrs)
        return name

    def _edge(self, cause: str, effect: str, role: str) -> None:
        self._edges[cause, effect, role] = None


def _stream_node(key: _Key) -> str:
    return f"stream:{key[0]}@{key[1]}"


def _job_node(job: str) -> str:
    return f"job:{job}"


def _stream_parameters(info: StreamInfo) -> Iterator[tuple[int, str, _Key, str | None]]:
    """The stage's place, the parameter's name, the stream and the reduction of each parameter that is a stream."""
    for number, stage in enumerate(info.stages):
        for name, value in stage.params.items():
            if "stream" in value and value.get("version"):
                yield number, name, (value["stream"], int(value["version"])), value.get("reduce")


def _parameter_text(value: Any) -> str:
    if "stream" in value:
        what = f"{value['reduce']} of " if value.get("reduce") else ""
        return f"{what}{value['stream']} version {value.get('version')}"
    if "scalar" in value:
        return f"{value['scalar']}" + (f" ({value['dtype']})" if value.get("dtype") else "")
    if "column" in value:
        return f"column {value['column']}"
    return f"array {tuple(value.get('shape', ()))} {value.get('dtype', '')} {str(value.get('array', ''))[:16]}"


def _stream_attrs(info: StreamInfo) -> dict[str, Any]:
    dtype = "bytes" if info.frame.opaque else info.frame.numpy_dtype.name
    return {
        "version": info.version,
        "id": info.id,
        "state": info.state.name.lower(),
        "digest": info.digest,
        "blocks": f"{_blocks_text(info)} of {dtype} {'' if info.frame.opaque else _shape_text(info)}".strip(),
        "bytes": info.completeness.bytes,
        "completeness": str(info.completeness),
        "created": now_text(info.created_ns),
        **({"final": now_text(info.final_ns)} if info.final_ns else {}),
        **({"attributes": dict(info.attrs)} if info.attrs else {}),
    }


def _kernel_text(use: KernelUse) -> str:
    params = ", ".join(f"{name}={_parameter_text(value)}" for name, value in use.params.items())
    return f"{use.kind} {use.name} {use.hash}({params})"


def _blocks_text(info: StreamInfo) -> str:
    return "1 block" if info.completeness.blocks == 1 else f"{info.completeness.blocks} blocks"


def _shape_text(info: StreamInfo) -> str:
    return " x ".join("n" if size is None else str(size) for size in info.frame.shape)


def _job_attrs(job: Job, pattern_hash: str, recipe_hash: str) -> dict[str, Any]:
    seconds = (job.finished_ns - job.started_ns) / 1e9 if job.finished_ns and job.started_ns else None
    return {
        "id": job.id,
        "state": job.state.name.lower(),
        "pattern": job.pattern,
        "pattern hash": pattern_hash,
        "recipe": job.recipe,
        "recipe hash": recipe_hash,
        "rule": job.rule,
        "event": job.event,
        "variables": {name: _short(value) for name, value in job.variables.items()},
        "attempts": job.attempts,
        "host": job.host,
        "created": now_text(job.created_ns),
        **({"started": now_text(job.started_ns)} if job.started_ns else {}),
        **({"finished": now_text(job.finished_ns)} if job.finished_ns else {}),
        **({"seconds": round(seconds, 3)} if seconds is not None else {}),
        **({"error": job.error} if job.state is JobState.FAILED else {}),
    }


def _short(value: Any) -> Any:
    text = str(value)
    return value if len(text) <= _TEXT_CHARS_MAX else text[:_TEXT_CHARS_MAX] + "…"

"""What a job's record holds of its data, exports of the graph that others can read, and jobs that are run once more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.client import Buffer
from hiss.errors import Conflict
from hiss.limits import MiB
from hiss.meow_bridge import provenance_page
from hiss.meow_bridge.graph_filter import BRIDGE, GraphFilter, filtered
from hiss.testing.conformance import wait_for
from hiss.workflow import Job, JobState, ProvenanceGraph, ProvenanceNode, RecipeKind


@hiss.kernel
def gained(frame, gain=2, dark=0):  # type: ignore[no-untyped-def]
    return (frame - dark) * gain


def summed(input, scale):  # type: ignore[no-untyped-def]
    """Reads a second stream, by no version: the newest one."""
    import numpy as np

    other = np.asarray(hiss.job().buffer["scan/other"])
    return {"sum": (np.asarray(input).sum(axis=0) * scale + other.sum())[None], "n": np.array([scale])}


def noisy(input):  # type: ignore[no-untyped-def]
    import numpy as np

    return {"fixed": np.arange(3), "noise": np.frombuffer(__import__("os").urandom(64), "u1")}


def relayed(input):  # type: ignore[no-untyped-def]
    import numpy as np

    return {"relay": np.asarray(input) + 1}


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with hiss.open(tmp_path / "data", arena_bytes=32 * MiB, segment_bytes=16 * MiB, backend="numpy") as buffer:
        scan = buffer.collection("scan", attrs={"instrument": "camera 1"})
        for name in ("dark", "other"):
            with scan.create_stream(name, dtype="i8", shape=(2, 2)) as stream:
                stream.extend(np.full((3, 2, 2), 1, "i8"))
        dark = scan["dark"].mean()
        with scan.create_stream(
            "raw", dtype="i8", shape=(2, 2), kernels=[gained.bind(gain=3, dark=dark)], keep="both"
        ) as stream:
            stream.extend(np.arange(20, dtype="i8").reshape(5, 2, 2))
        yield buffer


def done(buffer: Buffer, recipe: Any, trigger: str = "scan/raw", **more: Any) -> Job:
    """The one job of a recipe, when it has ended."""
    name = recipe.__name__
    buffer.meow.add(hiss.Recipe(name, recipe, retries=0))
    buffer.meow.add(hiss.Pattern(name, trigger=trigger, recipe=name, **more))
    found = wait_for(lambda: [job for job in buffer.meow.jobs() if job.recipe == name and job.state.final], 60)
    del found
    (job,) = [job for job in buffer.meow.jobs() if job.recipe == name]
    assert job.state is JobState.DONE, job.error + job.output
    return buffer.meow.job(job.id)


def test_a_jobs_record_holds_versions_digests_and_kernels(buffer: Buffer) -> None:
    job = done(buffer, summed, variables={"scale": 7})
    digests = {path: buffer[path].info.digest for path in ("scan/raw", "scan/other", "scan/dark", "scan/sum", "scan/n")}
    assert job.trigger is not None
    assert (job.trigger.path, job.trigger.version, job.trigger.digest) == ("scan/raw", 1, digests["scan/raw"])
    assert {ref.path: ref.digest for ref in job.reads} == {path: digests[path] for path in ("scan/raw", "scan/other")}
    assert {ref.path: ref.digest for ref in job.writes} == {path: digests[path] for path in ("scan/sum", "scan/n")}
    (use,) = job.kernels
    assert (use.path, use.name, use.kind) == ("scan/raw", "gained", "map")
    assert use.hash == buffer["scan/raw"].info.stages[0].hash
    assert use.params["gain"]["scalar"] == 3
    assert use.params["dark"]["digest"] == digests["scan/dark"]
    buffer.store.delete_stream(buffer["scan/raw"].info.id)
    assert buffer.meow.job(job.id).kernels == job.kernels, "the record outlives the stream"
    node = next(node for node in buffer.meow.provenance("scan/sum").nodes if node.kind == "job")
    assert node.attrs["inputs"]["scan/raw v1"] == digests["scan/raw"]
    assert use.hash in node.attrs["kernels"]["scan/raw v1 #0"]


def test_a_job_that_is_run_again_makes_the_same(buffer: Buffer) -> None:
    """It reads what it read, though there are newer versions of data, recipe and pattern by now, and leaves nothing."""
    job = done(buffer, summed, variables={"scale": 7})
    with buffer.collection("scan").create_stream("other", dtype="i8", shape=(2, 2), new_version=True) as stream:
        stream.extend(np.full((1, 2, 2), 1000, "i8"))
    buffer.meow.add(hiss.Recipe("summed", "raise SystemExit('another one')", kind=RecipeKind.SCRIPT, retries=0))
    events = buffer.status().streams
    again = buffer.meow.rerun_job(job.id[:16])
    assert (again.same, again.error) == (True, ""), again
    assert {(each.path, each.version, each.same) for each in again.outputs} == {
        ("scan/sum", 1, True),
        ("scan/n", 1, True),
    }
    assert all(each.digest == each.again for each in again.outputs)
    assert buffer.status().streams == events
    assert buffer["scan/sum"].version == 1


def test_a_job_that_makes_something_else_is_told_of(buffer: Buffer) -> None:
    job = done(buffer, noisy)
    again = buffer.meow.rerun_job(job.id)
    assert not again.same
    assert {each.path: each.same for each in again.outputs} == {"scan/fixed": True, "scan/noise": False}


def test_what_cannot_be_run_again(buffer: Buffer) -> None:
    job = done(buffer, summed, variables={"scale": 7})
    buffer.store.delete_stream(buffer["scan/other"].info.id)
    with pytest.raises(Conflict, match="no longer there"):
        buffer.meow.rerun_job(job.id)
    buffer.meow.add(hiss.Recipe("bad", "1/0", kind=RecipeKind.SCRIPT, retries=0))
    buffer.meow.add(hiss.Pattern("bad", trigger="scan/raw", recipe="bad"))
    wait_for(lambda: [each for each in buffer.meow.jobs() if each.state is JobState.FAILED], 60)
    failed = next(each for each in buffer.meow.jobs() if each.recipe == "bad")
    with pytest.raises(Conflict, match="failed"):
        buffer.meow.rerun_job(failed.id)


def test_a_file_that_was_overwritten_since_is_another(buffer: Buffer, tmp_path: Path) -> None:
    pytest.importorskip("watchdog", reason="pip install 'hiss[watch]'")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("one two three")

    def counted(input):  # type: ignore[no-untyped-def]
        return {"words": np.array([len(open(input).read().split())])}

    job = done(buffer, counted, trigger=f"file:{tmp_path}/in/*.txt")
    assert job.trigger is not None
    assert job.trigger.digest
    assert int(np.asarray(buffer["files/counted/words"])[0]) == 3
    assert buffer.meow.rerun_job(job.id).same
    kinds = {node.kind for node in buffer.meow.provenance("files/counted/words").nodes}
    assert kinds == {"file", "job", "stream"}
    (tmp_path / "in" / "a.txt").write_text("one two")
    with pytest.raises(Conflict, match="digest"):
        buffer.meow.rerun_job(job.id)


# ---- the graph


@pytest.fixture
def graph(buffer: Buffer) -> ProvenanceGraph:
    done(buffer, summed, variables={"scale": 7})
    done(buffer, relayed, trigger="scan/sum")
    return buffer.meow.provenance("scan/relay")


def labels(graph: ProvenanceGraph, kind: str = "") -> set[str]:
    return {node.label.split()[0] for node in graph.nodes if kind in ("", node.kind)}


def test_filters(graph: ProvenanceGraph) -> None:
    assert filtered(graph, GraphFilter()) == graph
    assert labels(filtered(graph, GraphFilter(recipe="summed")), "job") == {"summed"}
    assert labels(filtered(graph, GraphFilter(pattern="rel*"))) == {"relayed", "scan/sum", "scan/relay"}
    assert labels(filtered(graph, GraphFilter(path="scan/*")), "job") == set()
    only = filtered(graph, GraphFilter(path="scan/raw"))
    assert labels(only) == {"scan/raw", "scan/relay"}
    assert [edge[2] for edge in only.edges] == [BRIDGE]
    assert labels(filtered(graph, GraphFilter(name="*gained*"))) == {"gained", "scan/relay"}
    assert filtered(graph, GraphFilter(causes=False)).nodes == graph.nodes[:1]
    assert filtered(graph, GraphFilter(effects=False)) == graph
    year = str(graph.nodes[0].attrs["created"])[:4]
    assert labels(filtered(graph, GraphFilter(since=year, until=year)), "job") == {"summed", "relayed"}
    assert filtered(graph, GraphFilter(since=f"{int(year) + 1}")).nodes == graph.nodes[:1]


def test_prov_is_read_by_others(graph: ProvenanceGraph) -> None:
    model = pytest.importorskip("prov.model", reason="pip install 'hiss[provenance]'")
    from hiss.meow_bridge.prov_document import prov_json

    document = model.ProvDocument.deserialize(content=prov_json(graph), format="json")
    records = document.get_records()
    classes = ("Activity", "Entity", "Usage", "Generation", "Derivation", "Communication")
    count = {name: sum(isinstance(each, getattr(model, f"Prov{name}")) for each in records) for name in classes}
    kinds = [node.kind for node in graph.nodes]
    assert count["Activity"] == kinds.count("job") + kinds.count("kernel")
    assert count["Entity"] == kinds.count("stream") + kinds.count("instrument") + 2, "and two recipes"
    relations = sum(count[kind] for kind in classes[2:])
    assert relations == len(set(graph.edges))
    text = json.dumps(json.loads(prov_json(graph)))
    assert all(str(node.attrs["digest"]) in text for node in graph.nodes if node.attrs.get("digest"))


def test_a_run_crate_follows_its_profile(graph: ProvenanceGraph, tmp_path: Path) -> None:
    """What https://w3id.org/ro/wfrun/process/0.5 asks for, as a reader of the crate finds it."""
    rocrate = pytest.importorskip("rocrate.rocrate", reason="pip install 'hiss[provenance]'")
    from hiss.meow_bridge.run_crate import PROFILE, write_run_crate

    write_run_crate(graph, "T", provenance_page(graph, "T"), "https://spdx.org/licenses/CC0-1.0", tmp_path / "crate")
    crate = rocrate.ROCrate(tmp_path / "crate")
    root = crate.root_dataset
    assert PROFILE in [entity.id for entity in root["conformsTo"]]
    assert all(root.get(name) for name in ("name", "description", "license", "datePublished", "mentions"))
    assert [part.id for part in root["hasPart"]] == ["provenance.html"]
    actions = [entity for entity in crate.get_entities() if entity.type == "CreateAction"]
    assert {action.id for action in actions} == {entity.id for entity in root["mentions"]}
    assert len(actions) == sum(node.kind in ("job", "kernel") for node in graph.nodes)
    for action in actions:
        assert action["instrument"].type == "SoftwareApplication"
        assert action["instrument"]["identifier"]
        assert action["object"]
        assert action["result"]
        assert action["name"]
    job = next(action for action in actions if action["name"].startswith("summed"))
    assert job["startTime"] <= job["endTime"]
    assert job["actionStatus"] == "http://schema.org/CompletedActionStatus"
    found = {entity["name"]: entity["identifier"] for entity in job["object"] if entity.type == "CreativeWork"}
    digests = {node.label: node.attrs["digest"] for node in graph.nodes if node.kind == "stream"}
    assert found == {name: digests[name] for name in ("scan/raw", "scan/other")}
    values = {entity["name"]: entity["value"] for entity in job["object"] if entity.type == "PropertyValue"}
    assert values["scale"] == 7
    dangling = [entity.id for entity in crate.get_entities() for value in entity._jsonld.values() if value is None]
    assert not dangling


def test_the_page_has_its_filters(graph: ProvenanceGraph) -> None:
    page = provenance_page(graph, "T")
    assert '<select name="pattern"><option value="">all</option><option>relayed</option><option>summed</option>' in page
    hostile = ProvenanceNode("job:x", "job", "x", {"pattern": "<script>", "recipe": '"', "created": "2026"})
    assert "<script>" not in provenance_page(ProvenanceGraph((hostile,), ()), "T").split("<form")[1].split("</form")[0]

"""Jobs with a real buffer: what functions, scripts, commands and notebooks read and write with `hiss.job()`."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.errors import InvalidRecipe, JobNotFound
from hiss.job import CurrentJob
from hiss.limits import MiB
from hiss.recipe_run import command_words, store_result
from hiss.workflow import Job, JobState

from .conftest import wait_for


@pytest.fixture(scope="module")
def buffer() -> Iterator[hiss.Buffer]:
    directory = Path(tempfile.mkdtemp(prefix="hiss"))
    with hiss.open(directory, arena_bytes=32 * MiB, backend="numpy") as buf:
        yield buf
    shutil.rmtree(directory)


def content(stream: hiss.Stream) -> bytes:
    """Of a stream of one opaque block."""
    block = stream.latest()
    assert block is not None
    return bytes(block.data)


FRAMES = np.arange(60, dtype="u2").reshape(3, 4, 5)


def run(buffer: hiss.Buffer, recipe: hiss.Recipe, **more: Any) -> Job:
    """The one job of a recipe in a collection of its own name."""
    top = recipe.name
    buffer.meow.add(recipe)
    buffer.meow.add(hiss.Pattern(top, f"{top}/*/proj", recipe.name, **more))
    with buffer.collection(f"{top}/s1").create_stream(
        "proj", dtype="u2", shape=(4, 5), columns={"angle": "f8 deg"}
    ) as stream:
        stream.extend(FRAMES, angle=np.array([0.0, 1.5, 3.0]))

    def done() -> list[Job]:
        return [job for job in buffer.meow.jobs() if job.recipe == recipe.name and job.state.final]

    (job,) = wait_for(done, f"the job of {top}")
    return job


def sums(input, factor, result):  # type: ignore[no-untyped-def]
    job = hiss.job()
    angles = job.input.columns["angle"]
    job.output("big-endian", np.arange(3, dtype=">i4"))
    job.output("converted", [1.5, 2.5], dtype="f4", attrs={"a": 1})
    job.output("angles", angles, columns={"half": "f4 deg"}, rows={"half": angles / 2, "index": [5, 6, 7]})
    with job.output("deeper/made", dtype="i4", shape=(2,)) as stream:
        stream.append(np.array([1, 2], "i4"))
    job.output_bytes("picture.png", b"\x89PNG", "image/png")
    return {"result": np.asarray(input).sum(axis=(1, 2)) * factor, "mean": np.asarray(input).mean(axis=0)}


def test_a_function(buffer: hiss.Buffer) -> None:
    job = run(
        buffer,
        hiss.Recipe("function", sums, retries=0),
        variables={"factor": 2},
        outputs={"result": "{STREAM}-sum"},
        writes="",
    )
    assert job.state is JobState.DONE, job.output
    at = "function/s1"
    assert np.asarray(buffer[f"{at}/proj-sum"]).tolist() == (2 * FRAMES.sum(axis=(1, 2))).tolist()
    assert np.array_equal(np.asarray(buffer[f"{at}/mean"]), FRAMES.mean(axis=0))
    angles = buffer[f"{at}/angles"]
    assert (angles.index.tolist(), angles.columns["half"].tolist()) == ([5, 6, 7], [0.0, 0.75, 1.5])
    picture = buffer[f"{at}/picture.png"]
    assert (content(picture), picture.attrs["media_type"]) == (b"\x89PNG", "image/png")
    assert np.asarray(buffer["deeper/made"]).tolist() == [[1, 2]]
    assert np.asarray(buffer[f"{at}/big-endian"]).tolist() == [0, 1, 2]
    converted = buffer[f"{at}/converted"]
    assert (np.asarray(converted).tolist(), converted.dtype, converted.attrs["a"]) == ([1.5, 2.5], np.dtype("f4"), 1)
    assert {ref.path for ref in job.writes} == {
        f"{at}/proj-sum", f"{at}/mean", f"{at}/angles", f"{at}/picture.png", "deeper/made",
        f"{at}/big-endian", f"{at}/converted",
    }  # fmt: skip
    assert [(ref.path, ref.version) for ref in job.reads] == [(f"{at}/proj", 1)]
    assert buffer[f"{at}/mean"].info.produced_by == job.id


def test_a_job_may_write_below_its_own_top_level_only(buffer: hiss.Buffer) -> None:
    body = "import hiss\nhiss.job().output('elsewhere/x', [1, 2])"
    job = run(buffer, hiss.Recipe("outside", body, kind=hiss.workflow.RecipeKind.SCRIPT, retries=0))
    assert job.state is JobState.FAILED
    assert job.error.startswith("PermissionRefused: ")
    assert "elsewhere" not in [each.path for each in buffer.collections()]


def test_nothing_of_a_failed_job_is_seen(buffer: hiss.Buffer) -> None:
    body = "import hiss\nhiss.job().output('made', [1, 2])\n1/0"
    job = run(buffer, hiss.Recipe("halfway", body, kind=hiss.workflow.RecipeKind.SCRIPT, retries=1))
    assert (job.state, job.attempts, job.writes) == (JobState.FAILED, 2, ())
    assert [stream.info.name for stream in buffer["halfway/s1"].streams()] == ["proj"]


def test_an_output_that_is_there_gets_a_new_version(buffer: hiss.Buffer) -> None:
    buffer.collection("again/s1").create_stream("made", dtype="i8", shape=()).close()
    body = "import hiss\nhiss.job().output('made', [1, 2])"
    job = run(buffer, hiss.Recipe("again", body, kind=hiss.workflow.RecipeKind.SCRIPT, retries=0))
    assert [(ref.path, ref.version) for ref in job.writes] == [("again/s1/made", 2)], job.output


def test_a_program_that_a_command_starts_finds_its_job(buffer: hiss.Buffer) -> None:
    code = "import hiss; job = hiss.job(); print(job.variables['n'], job.input.shape, job.id == '{JOB}')"
    job = run(
        buffer,
        hiss.Recipe("program", [sys.executable, "-c", "{code}"], retries=0),
        variables={"n": 7, "code": code},
    )
    assert job.output == "7 (3, 4, 5) True\n"


def test_a_notebook_is_kept_as_it_was_executed(buffer: hiss.Buffer) -> None:
    pytest.importorskip("papermill")
    cells = [
        "import hiss, numpy as np\ncentre = 1",
        "frames = np.asarray(hiss.job().input)\nhiss.job().output('total', [frames.sum() + centre])\nprint(input)",
    ]
    body = json.dumps(
        {
            "cells": [
                {"cell_type": "code", "metadata": {}, "source": cell, "outputs": [], "execution_count": None}
                for cell in cells
            ],
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 4,
        }
    )
    job = run(
        buffer,
        hiss.Recipe("notebook", body, kind=hiss.workflow.RecipeKind.NOTEBOOK, retries=0),
        variables={"centre": 1000},
    )
    assert job.state is JobState.DONE, job.output
    assert job.output.strip() == "notebook/s1/proj"
    assert np.asarray(buffer["notebook/s1/total"]).tolist() == [1000 + FRAMES.sum()]
    kept = buffer[f"notebook/s1/_jobs/{job.id}.ipynb"]
    assert kept.attrs["media_type"] == "application/x-ipynb+json"
    executed = json.loads(content(kept))
    assert [cell["execution_count"] for cell in executed["cells"]] == [1, 2, 3]


def test_provenance_of_a_result(buffer: hiss.Buffer) -> None:
    """Through job, kernels and raw companion back to the instrument, and on to what came of it."""

    @hiss.kernel
    def corrected(frame, dark, offset):  # type: ignore[no-untyped-def]
        return frame.astype(np.float32) - dark + offset

    scan = buffer.collection("prov/s1")
    with scan.create_stream("dark", dtype="u2", shape=(4, 5), attrs={"instrument": "PCO edge"}) as stream:
        stream.extend(FRAMES)
    body = "import hiss, numpy as np\nhiss.job().output('sum', [np.asarray(hiss.job().input).sum()])"
    buffer.meow.add(hiss.Recipe("prov", body, kind=hiss.workflow.RecipeKind.SCRIPT, retries=0))
    buffer.meow.add(hiss.Pattern("prov", "prov/*/proj", "prov"))
    bound = corrected.bind(dark=scan["dark"].mean(), offset=1)
    with scan.create_stream("proj", dtype="u2", shape=(4, 5), keep="both", kernels=[bound]) as stream:
        stream.extend(FRAMES)
    (job,) = wait_for(lambda: [j for j in buffer.meow.jobs() if j.recipe == "prov" and j.state.final], "the job")
    expected = {
        ("instrument PCO edge", "stream prov/s1/dark", "data"),
        ("instrument instrument", "stream prov/s1/proj.raw", "data"),
        ("stream prov/s1/dark", "kernel corrected", "dark (mean)"),
        ("stream prov/s1/proj.raw", "kernel corrected", "blocks"),
        ("kernel corrected", "stream prov/s1/proj", "blocks"),
        ("stream prov/s1/proj", f"job prov {job.id[:8]}", "trigger"),
        (f"job prov {job.id[:8]}", "stream prov/s1/sum", "write"),
    }

    def edges(path: str) -> set[tuple[str, str, str]]:
        graph = buffer.meow.provenance(path)
        assert graph.nodes[0].label == path
        name = {node.id: f"{node.kind} {node.label}" for node in graph.nodes}
        return {(name[cause], name[effect], role) for cause, effect, role in graph.edges}

    assert edges("prov/s1/sum") == expected
    below = {edge for edge in expected if edge[0].split()[0] != "instrument" and "proj.raw" not in edge[0]}
    assert edges("prov/s1/dark") == below | {("instrument PCO edge", "stream prov/s1/dark", "data")}
    kernel = next(node for node in buffer.meow.provenance("prov/s1/sum").nodes if node.kind == "kernel")
    assert kernel.attrs["parameters"] == {"dark": "mean of prov/s1/dark version 1", "offset": "1"}
    assert len(kernel.attrs["hash"]) >= 32


def test_outside_of_a_job() -> None:
    with pytest.raises(JobNotFound, match="in a job's process only"):
        hiss.job()


def test_the_name_works_as_module_and_as_function() -> None:
    import hiss.job as module

    with pytest.raises(JobNotFound):
        module()  # type: ignore[operator]


def test_words_of_a_command() -> None:
    variables = {"a": "x y", "b": [1], "c": None}
    assert command_words(["{a}", "-{b}{c}", "{d}", "{}", "{{a}}"], variables) == [
        "x y",
        "-[1]null",
        "{d}",
        "{}",
        "{x y}",
    ]


class Recorded(CurrentJob):
    """Keeps what would be stored."""

    def __init__(self, variables: dict[str, Any]) -> None:
        super().__init__({"job": "j", "variables": variables, "path": "a/b", "version": 1})
        self.stored: dict[str, Any] = {}

    def output(self, name: str, array: Any = None, **_: Any) -> None:  # type: ignore[override]
        self.stored[name] = array

    def output_bytes(self, name: str, data: bytes, media_type: str = "") -> None:
        self.stored[name] = data


@pytest.mark.parametrize(
    ("result", "outputs", "stored"),
    [
        (None, {}, {}),
        (5, {}, {"r": 5}),
        (5, {"o": "{X}"}, {"out": 5}),
        (b"x", {"o": "{X}"}, {"out": b"x"}),
        (5, {"o": "{X}", "p": "y"}, {"r": 5}),
        ({"o": 1, "q": b"2"}, {"o": "{X}"}, {"out": 1, "q": b"2"}),
    ],
)
def test_what_a_function_returns(result: Any, outputs: dict[str, str], stored: dict[str, Any]) -> None:
    job = Recorded({"o": "out", "p": "y"})
    store_result(job, result, "r", outputs)
    assert job.stored == stored


def test_a_tuple_says_not_which_is_which() -> None:
    with pytest.raises(InvalidRecipe, match="dict"):
        store_result(Recorded({}), (1, 2), "r", {})

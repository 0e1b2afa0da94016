"""Recipes that work with files: their input as one, and those that they leave as streams of the job; what they need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss import limits
from hiss.errors import MissingExtra
from hiss.job_files import stream_name
from hiss.limits import MiB
from hiss.meow_bridge.packages import check_packages
from hiss.model import check_path
from hiss.workflow import Job, JobState, RecipeKind

from .conftest import wait_for

FRAMES = np.arange(60, dtype="u2").reshape(3, 4, 5)


@pytest.fixture(scope="module")
def buffer() -> Iterator[hiss.Buffer]:
    directory = Path(tempfile.mkdtemp(prefix="hiss"))
    with hiss.open(directory, arena_bytes=32 * MiB, backend="numpy") as buf:
        yield buf
    shutil.rmtree(directory)


def run(buffer: hiss.Buffer, name: str, body: str, **recipe: Any) -> Job:
    """The one job of a script, in a collection of its own name."""
    buffer.meow.add(hiss.Recipe(name, body, kind=RecipeKind.SCRIPT, retries=0, **recipe))
    buffer.meow.add(hiss.Pattern(name, f"{name}/s1/proj", name))
    with buffer.collection(f"{name}/s1").create_stream("proj", dtype="u2", shape=(4, 5)) as stream:
        stream.extend(FRAMES)

    def done() -> list[Job]:
        return [job for job in buffer.meow.jobs() if job.recipe == name and job.state.final]

    (job,) = wait_for(done, f"the job of {name}")
    return job


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("stream", "import hiss; print(np := __import__('numpy').asarray(hiss.job().input).sum(), input)"),
        ("npy", "import numpy as np; print(np.load(input).sum(), input.rpartition('/')[2])"),
        ("path", "import numpy as np; print(np.fromfile(input, '<u2').sum(), input.rpartition('/')[2])"),
        ("nexus", "import h5py; f = h5py.File(input); print(f['entry/proj/data'][()].sum(), input.rpartition('/')[2])"),
    ],
)
def test_the_input_as_it_is_wanted(buffer: hiss.Buffer, form: str, body: str) -> None:
    job = run(buffer, f"in-{form}", body, input_as=form)
    assert job.state is JobState.DONE, job.error
    names = {"stream": f"in-{form}/s1/proj", "npy": "proj.npy", "path": "proj", "nexus": "proj.nxs"}
    assert job.output == f"{FRAMES.sum()} {names[form]}\n"
    assert [ref.path for ref in job.reads] == [f"in-{form}/s1/proj"], "what is read as a file is recorded too"
    assert job.writes == ()


LEAVES = """
import numpy as np, os
np.save("volume.npy", np.arange(6.0).reshape(3, 2))
open("notes, 1.txt", "w").write("well")
os.makedirs("sub/.hidden")
open("sub/table.csv", "w").write("a,b")
open("sub/.hidden/x", "w").write("x")
open("empty", "w")
os.symlink("/etc/passwd", "link")
np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
"""


def test_what_it_leaves_comes_back_as_streams(buffer: hiss.Buffer) -> None:
    job = run(buffer, "leaves", LEAVES)
    assert job.state is JobState.DONE, job.error
    top = "leaves/s1"
    written = {f"{top}/volume.npy", f"{top}/notes__1.txt", f"{top}/sub/table.csv", f"{top}/objects.npy"}
    assert {ref.path for ref in job.writes} == written
    assert np.asarray(buffer[f"{top}/volume.npy"]).tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    notes = buffer[f"{top}/notes__1.txt"]
    assert (notes.attrs["media_type"], notes.attrs["file"]) == ("text/plain", "notes, 1.txt")
    assert bytes(notes.latest().data) == b"well"
    assert buffer[f"{top}/sub/table.csv"].attrs["media_type"] == "text/csv"
    assert buffer[f"{top}/objects.npy"].info.frame.opaque, "an array of objects is nothing but bytes"


def test_what_a_failing_recipe_leaves_is_not_seen(buffer: hiss.Buffer) -> None:
    job = run(buffer, "fails", LEAVES + "1/0")
    assert job.state is JobState.FAILED
    assert [info.name for info in buffer.store.streams("fails/s1")] == ["proj"]


def test_too_many_files_fail_the_job(buffer: hiss.Buffer) -> None:
    body = f"for n in range({limits.JOB_FILES_MAX + 1}): open(f'{{n}}', 'w').write('x')"
    job = run(buffer, "many", body)
    assert job.state is JobState.FAILED
    assert f"it left {limits.JOB_FILES_MAX + 1} files" in job.error
    assert [info.name for info in buffer.store.streams("many/s1")] == ["proj"]


def test_a_command_leaves_files_and_its_status(buffer: hiss.Buffer) -> None:
    buffer.meow.add(hiss.Recipe("copy", ["cp", "{input}", "copied.npy"], input_as="npy", retries=0))
    buffer.meow.add(hiss.Pattern("copy", "copy/s1/proj", "copy"))
    with buffer.collection("copy/s1").create_stream("proj", dtype="u2", shape=(4, 5)) as stream:
        stream.extend(FRAMES)
    (job,) = wait_for(
        lambda: [job for job in buffer.meow.jobs() if job.recipe == "copy" and job.state.final], "the copy"
    )
    assert job.state is JobState.DONE, job.error
    assert np.asarray(buffer["copy/s1/copied.npy"]).tolist() == FRAMES.tolist()


@pytest.mark.parametrize("name", ["a b/ü.txt", "-x", "x.", "...", "a" * 300, "/".join("abcdefghijklmnopqrstu")])
def test_names_of_files_become_names_of_streams(name: str) -> None:
    check_path(stream_name(Path(name)), "stream")


# -------------------------------------------------------------------------------------------------------------- needs


def test_packages_are_looked_for_before_it_starts(buffer: hiss.Buffer) -> None:
    job = run(buffer, "needs", "print('ran')", packages=["numpy>=2", "no-such-thing>=1.5", "numpy<2"])
    assert (job.state, job.output.count("ran")) == (JobState.FAILED, 0)
    assert "no-such-thing>=1.5, which is not installed" in job.error
    assert "pip install 'no-such-thing>=1.5' 'numpy<2'" in job.error
    assert run(buffer, "has", "print('ran')", packages=["numpy>=2,<1000"]).output == "ran\n"


@pytest.mark.parametrize(("bound", "fits"), [(">=1.2", True), ("==1.2", True), ("<1.2", False), ("!=1.2.0", False)])
def test_versions_are_numbers(monkeypatch: pytest.MonkeyPatch, bound: str, fits: bool) -> None:
    monkeypatch.setattr("hiss.meow_bridge.packages.metadata.version", lambda name: "1.2rc1")
    if fits:
        check_packages("r", [f"thing{bound}"])
    else:
        with pytest.raises(MissingExtra, match=r"and 1\.2rc1 is installed"):
            check_packages("r", [f"thing{bound}"])

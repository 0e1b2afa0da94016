"""The examples of MEOW in `examples/` run as their commands say, and leave what they promise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hiss

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def data() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="hiss"))  # a short path, for the socket
    yield directory
    shutil.rmtree(directory)


def run(script: str, *words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HISS_")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_line_is_appended_twice(data: Path) -> None:
    said = run("meow_foundational/append_twice.py", "--data", str(data))
    text = "The first line was here before.\nA line from the first job.\nA line from the second job.\n"
    assert said.endswith(text)
    with hiss.open(data, backend="numpy") as buf:
        assert bytes(buf["text/end/note.txt"].latest().data).decode() == text
        assert [(job.pattern, job.chain) for job in buf.meow.jobs()] == [("twice", 2), ("once", 1)]
        jobs = [node.label.split()[0] for node in buf.meow.provenance("text/end/note.txt").nodes if node.kind == "job"]
        assert jobs == ["append", "append"]


def test_a_configuration_makes_a_pattern_and_changes_it(data: Path) -> None:
    said = run("meow_self_modifying/configured_filters.py", "--data", str(data))
    assert said.count("pattern filter-soft") == 3
    with hiss.open(data, backend="numpy") as buf:
        assert {each.name: dict(each.variables) for each in buf.meow.patterns()} == {
            "configured": {},
            "filter-soft": {"sigma": 4.0},
        }
        assert all(job.state.name == "DONE" for job in buf.meow.jobs()), "the job that changed the rule was spared"
        for name in ("first", "second"):
            raw, soft = np.asarray(buf[f"images/raw/{name}"])[0], np.asarray(buf[f"images/soft/{name}"])[0]
            assert buf[f"images/soft/{name}"].info.version == 2
            assert soft.mean() == pytest.approx(raw.mean(), rel=1e-4), "a filter keeps the mean"
            assert np.asarray(buf.stream(f"images/soft/{name}", 1))[0].std() > soft.std(), "more was smoothed"
            assert soft[:8].std() < raw[:8].std() / 5


def test_foams_are_made_again_until_they_are_good_and_pores_are_counted(data: Path, data_dir: Path) -> None:
    pytest.importorskip("skimage")
    h5py = pytest.importorskip("h5py")
    phantom = data_dir / "SYNTHETIC_foam_phantom_224.h5"
    if not phantom.is_file():
        pytest.skip(f"no {phantom}")
    page = data / "page.html"
    run("meow_foam/foam.py", "--data", str(data / "buf"), "--phantom", str(phantom), "--page", str(page))
    with h5py.File(phantom) as file:
        spheres = file["spheres"][...].astype(float)  # x, y, z, radius; the volume is 3 wide
        size = file["volume"].shape[0]
    with hiss.open(data / "buf", backend="numpy") as buf:
        table = np.asarray(buf["foam/table/phantom"])
        found = (table[:, 2::-1] - (size - 1) / 2) * 3 / size
        nearest = np.array([((found - sphere[:3]) ** 2).sum(axis=1).argmin() for sphere in spheres])
        off = np.linalg.norm(found[nearest] - spheres[:, :3], axis=1)
        matched = len(set(nearest[off < spheres[:, 3] / 2]))
        assert matched >= 1473, f"{matched} of {len(spheres)} pores"
        assert len(table) - matched <= 30, "pores that are none"
        checks = {
            (verdict["volume"], verdict["version"]): verdict["porosity"]
            for collection in ("accepted", "discarded")
            for stream in buf.store.streams(f"foam/{collection}", all_versions=True)
            for verdict in [json.loads(bytes(buf.stream(stream.path, stream.version).latest().data))]
        }
        few = [checks["foam/volume/few", version] for version in (1, 2, 3)]
        assert few[0] < few[1] < 0.2 <= few[2], "discarded twice, then accepted"
        assert checks["foam/volume/phantom", 1] == pytest.approx(0.685, abs=0.005)
        for name in ("few", "many"):
            made = buf[f"foam/volume/{name}"].attrs["pores"]
            assert abs(len(buf[f"foam/table/{name}"]) - made) <= 0.05 * made
        kinds = [node.label.split()[0] for node in buf.meow.provenance("foam/table/few").nodes if node.kind == "job"]
        assert {name: kinds.count(name) for name in set(kinds)} == {
            "generate": 3, "check": 3, "regenerate": 2, "segment": 1, "analyse": 1,
        }  # fmt: skip
    assert "<svg" in page.read_text("utf-8")

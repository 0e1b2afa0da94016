"""Draining a real buffer: kernels, raw companions, gaps and aborted streams arrive in the file as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import hiss
from hiss.client import Buffer
from hiss.drain import drain
from hiss.errors import StreamNotFinal
from hiss.limits import MiB

FRAMES = np.random.default_rng(2).integers(0, 4000, (9, 8, 6), np.uint16)


@hiss.kernel
def scaled(frame, gain, offset):
    return (frame.astype(np.float32) - offset) * gain


@hiss.filter
def bright(frame, least):
    return np.max(frame) >= least


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with hiss.open(tmp_path / "buffer", backend="numpy", segment_bytes=16 * MiB, arena_bytes=16 * MiB) as found:
        yield found


def test_a_pipeline_arrives_with_its_kernels_and_gaps(buffer: Buffer, tmp_path: Path) -> None:
    scan = buffer.collection("beam/scan1", attrs={"title": "a scan"})
    with scan.create_stream("dark", dtype="uint16", shape=(8, 6)) as stream:
        stream.extend(FRAMES[:2])
    threshold = int(np.sort(FRAMES.max(axis=(1, 2)))[2])
    kernels = [bright.bind(least=threshold), scaled.bind(gain=0.5, offset=scan["dark"].mean())]
    spec = {"dtype": "uint16", "shape": (8, 6), "columns": {"angle": "f8 deg"}, "keep": "both", "kernels": kernels}
    with scan.create_stream("proj", **spec) as stream:
        for number in (0, 1, 2, 3, 5, 6, 7, 8):
            stream.append(FRAMES[number], index=number, angle=number * 1.5)
    report = drain(buffer.store, "beam/scan1", tmp_path / "scan.nxs")
    result = buffer["beam/scan1/proj"]
    assert {stream.path for stream in report.streams} == {f"beam/scan1/{name}" for name in ("dark", "proj", "proj.raw")}
    with h5py.File(tmp_path / "scan.nxs") as file:
        entry = file["entry"]
        np.testing.assert_array_equal(entry["proj/data"], np.asarray(result))
        np.testing.assert_array_equal(entry["proj.raw/data"], np.asarray(result.raw))
        np.testing.assert_array_equal(entry["proj/angle"], result.columns["angle"])
        reasons = {text.decode() for text in entry["hiss/proj/ledger/reason"]}
        assert reasons == {"never received", "vetoed"}
        assert [entry[f"process_{n}_proj/program"][()] for n in (1, 2)] == [
            b"hiss kernel bright",
            b"hiss kernel scaled",
        ]
        assert entry["process_2_proj/version"][()].decode() == scaled.hash
        assert entry["process_2_proj/parameters/gain"][()] == 0.5
        offset = json.loads(entry["process_2_proj/parameters/offset"][()])
        assert (offset["stream"], offset["reduce"]) == ("beam/scan1/dark", "mean")
        source = dict(zip(entry["proj.raw/index"], entry["hiss/proj.raw/block_digest"], strict=True))
        for index, digest in zip(entry["proj/index"], entry["hiss/proj/block_source_digest"], strict=True):
            assert source[index] == digest


def test_a_result_that_is_computed_when_read_is_drained_as_one(buffer: Buffer, tmp_path: Path) -> None:
    scan = buffer.collection("beam/scan1")
    kernels = [scaled.bind(gain=2.0, offset=10)]
    with scan.create_stream("proj", dtype="uint16", shape=(8, 6), keep="raw", kernels=kernels) as stream:
        stream.extend(FRAMES)
    drain(buffer.store, "beam/scan1/proj", tmp_path / "proj.nxs")
    with h5py.File(tmp_path / "proj.nxs") as file:
        expected = scaled(FRAMES[4], 2.0, 10)
        np.testing.assert_array_equal(file["entry/proj/data"][4], expected)


def test_an_aborted_stream_is_drained_and_marked(buffer: Buffer, tmp_path: Path) -> None:
    scan = buffer.collection("beam/scan1")
    stream = scan.create_stream("proj", dtype="uint16", shape=(8, 6))
    stream.extend(FRAMES[:3])
    with pytest.raises(StreamNotFinal):
        drain(buffer.store, "beam/scan1/proj", tmp_path / "proj.nxs")
    stream.abort("the shutter closed")
    report = drain(buffer.store, "beam/scan1/proj", tmp_path / "proj.nxs")
    assert report.streams[0].state == "aborted"
    with h5py.File(tmp_path / "proj.nxs") as file:
        np.testing.assert_array_equal(file["entry/proj/data"], FRAMES[:3])
        assert file["entry/hiss/proj/abort_reason"][()] == b"the shutter closed"


def test_an_old_version_can_be_drained(buffer: Buffer, tmp_path: Path) -> None:
    scan = buffer.collection("beam/scan1")
    for part in (FRAMES[:2], FRAMES[2:7]):
        with scan.create_stream("proj", dtype="uint16", shape=(8, 6), new_version=True) as stream:
            stream.extend(part)
    for version, count in ((1, 2), (2, 5), (None, 5)):
        report = drain(buffer.store, "beam/scan1/proj", tmp_path / f"{version}.nxs", version=version)
        assert report.blocks == count

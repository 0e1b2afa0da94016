"""Recorded data in, and out to NeXus, Zarr and S3, and back: every byte equal, and one flipped bit is found."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from s3_server import BUCKET, S3Server, flipped

import hiss
from hiss.client import Buffer
from hiss.drain import drain, verify_file
from hiss.drain.s3_target import S3Target
from hiss.drain.targets import LocalTarget, Target, fetched
from hiss.limits import MiB

Streams = dict[str, Any]
PACKET_BYTES = 50_000


def recorded(data_dir: Path, most: int | None) -> Streams:
    """Streams by name; of the large series the first `most` frames, and of those of the PILATUS a part. The packets of
    the event detector differ in length."""
    found: Streams = {}
    with h5py.File(data_dir / "tomo_dls_91x135x160.h5") as file:
        found["projections"] = file["projections"][()]
    with h5py.File(data_dir / "pilatus6m_gridscan_5f.h5") as file:
        found["grid"] = file["frames"][:most, : most and 600]
    for module in (1, 2, 3):
        parts = []
        for part in range(1 if most else 2):
            with h5py.File(data_dir / f"lambda_asapo_m{module}_part0000{part}.nxs") as file:
                parts.append(file["entry/instrument/detector/data"][:most])
        found[f"m{module}"] = np.concatenate(parts)
    events = (data_dir / "tpx3_ornl_background.tpx3").read_bytes()
    cuts = np.cumsum(np.random.default_rng(1).integers(1, PACKET_BYTES, len(events) // 8)) * 8
    ends = [0, *cuts[cuts < len(events)].tolist(), len(events)]
    found["tpx3"] = [events[first:stop] for first, stop in itertools.pairwise(ends)]
    with h5py.File(data_dir / "das_idas005_1000x1152.h5") as file:
        found["das"] = file["Acquisition/Raw[0]/RawData"][()]
    return found


@pytest.fixture(scope="module", params=[2, pytest.param(None, marks=pytest.mark.torture)], ids=["some", "all"])
def scan(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Buffer, Streams]]:
    streams = recorded(data_dir, request.param)
    sizes = {"segment_bytes": 64 * MiB, "arena_bytes": 128 * MiB}
    with hiss.open(tmp_path_factory.mktemp("real") / "buffer", backend="numpy", **sizes) as buffer:
        collection = buffer.collection("real/scan")
        for name, frames in streams.items():
            if isinstance(frames, list):
                with collection.create_stream(name) as s:
                    for packet in frames:
                        s.append(packet)
            else:
                with collection.create_stream(name, dtype=frames.dtype, shape=frames.shape[1:]) as s:
                    s.extend(frames)
        collection.join("lambda", ["m1", "m2", "m3"])
        yield buffer, streams


def blocks_of(path: Path, only: set[str] | None = None) -> Streams:
    """What other programs read there: h5py, zarr-python."""
    if path.is_dir():
        zarr = pytest.importorskip("zarr", reason="zarr is not installed: pip install 'hiss[zarr]'")
        groups = {each.parent.name: zarr.open_group(each.parent, mode="r") for each in path.glob("*/zarr.json")}
        chosen = {name: group for name, group in groups.items() if only is None or name in only}
        return {name: (group["data"][...], _offset(group)) for name, group in chosen.items()}
    with h5py.File(path) as file:
        names = only or {name for name in file["entry/hiss"] if name != "contents"}
        groups = {name: file[f"entry/{name}"] for name in names}
        return {name: (group["data"][()], _offset(group)) for name, group in groups.items()}


def _offset(group: Any) -> Any:
    return group["offset"][...] if "offset" in group else None


def flip_in_each(path: Path, names: list[str]) -> None:
    """One bit of each stream's blocks, as they lie in the file."""
    for name in names:
        if path.is_dir():
            file = max((each for each in (path / name / "data/c").rglob("*") if each.is_file()), key=_size)
            position = _size(file) // 3
        else:
            with h5py.File(path) as opened:
                chunk = opened[f"entry/{name}/data"].id.get_chunk_info(0)
            file, position = path, chunk.byte_offset + chunk.size // 2
        with file.open("r+b") as out:
            out.seek(position)
            byte = out.read(1)
            out.seek(position)
            out.write(flipped(byte, 0))


def _size(file: Path) -> int:
    return file.stat().st_size


@pytest.mark.parametrize("name", ["scan.nxs", "scan.zarr"])
@pytest.mark.parametrize("where", ["local", "s3"])
def test_recorded_data_come_back_with_every_byte(
    scan: tuple[Buffer, Streams], request: pytest.FixtureRequest, tmp_path: Path, name: str, where: str
) -> None:
    buffer, streams = scan
    target: Target = LocalTarget(tmp_path / name)
    options = None
    if where == "s3":
        server: S3Server = request.getfixturevalue("s3")
        options = server.options
        target = S3Target(f"s3://{BUCKET}/real/{name}", options, tmp_path / "scratch")
    report = drain(buffer.store, "real/scan", target)
    assert report.recorded
    assert report.bytes == sum(_bytes(frames) for frames in streams.values())
    assert {stream.path for stream in report.streams} == {f"real/scan/{each}" for each in streams}
    archives = buffer["real/scan/m1"].info.archives
    assert archives[-1].location.startswith(f"{target.location}::")
    with fetched(target.location, s3=options, scratch=tmp_path) as path:
        found = blocks_of(path)
        assert set(found) == set(streams)
        for each, frames in streams.items():
            assert_same(found[each], frames)
        assert verify_file(path).ok
        flip_in_each(path, list(streams))
        verified = {stream.path.rpartition("/")[2]: stream for stream in verify_file(path).streams}
        unharmed = {each for each in streams if not verified[each].damage}
        assert len(unharmed) <= 1
        for each in unharmed:  # a bit of a run of zeros, as LZ4 writes it, may say the same as the other bit
            assert_same(blocks_of(path, {each})[each], streams[each])


def assert_same(found: tuple[Any, Any], frames: Any) -> None:
    data, offset = found
    if isinstance(frames, list):
        assert [data[first:stop].tobytes() for first, stop in itertools.pairwise(offset)] == frames
    else:
        np.testing.assert_array_equal(data, frames)
        assert data.dtype == frames.dtype


def _bytes(frames: Any) -> int:
    return sum(map(len, frames)) if isinstance(frames, list) else frames.nbytes

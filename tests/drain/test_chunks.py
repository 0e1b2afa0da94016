"""Chunks that are encoded outside HDF5 are, byte for byte, those that HDF5 makes; memory stays bounded."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from memory_store import MemoryStore

from hiss import limits
from hiss.drain import drain
from hiss.drain.chunks import ChunkWriter, Threads, read_chunks
from hiss.drain.coding import Undecodable, decoder, encoder
from hiss.drain.compression import filters
from hiss.errors import MissingExtra
from hiss.limits import MiB
from hiss.model import FrameSpec

COMPRESSIONS = ("none", "gzip", "zstd", "bitshuffle-lz4")


@pytest.fixture
def threads() -> Iterator[Threads]:
    with Threads() as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Iterator[h5py.File]:
    pytest.importorskip("hdf5plugin", reason="hdf5plugin is not installed")
    with h5py.File(tmp_path / "x.h5", "w") as found:
        yield found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    compression=st.sampled_from(COMPRESSIONS),
    dtype=st.sampled_from(["u1", "i2", "u4", "f8", "c16"]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=20),
    chunk_rows=st.integers(1, 50),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    spread=st.integers(1, 255),
)
def test_chunks_are_what_hdf5_would_have_stored(
    file: h5py.File, threads: Threads, compression: str, dtype: str, shape: tuple[int, ...], chunk_rows: int,
    cuts: list[int], spread: int,
) -> None:  # fmt: skip
    rows = sum(cuts)
    values = np.random.default_rng(rows).integers(0, spread, (rows, *shape)).astype(dtype)
    options = {"chunks": (chunk_rows, *shape), "maxshape": (None, *shape), "dtype": dtype, **filters(compression)[1]}
    group = file.create_group(str(len(file)))
    ours = group.create_dataset("ours", shape=(0, *shape), **options)
    writer = ChunkWriter(ours, threads)
    for part in np.split(values, np.cumsum(cuts)[:-1]) if cuts else []:
        lent = part.copy()
        writer.append(lent)
        lent[...] = 0  # the caller's again
    done = writer.close()
    assert done == rows
    theirs = group.create_dataset("theirs", shape=(done, *shape), **options)
    theirs[...] = values
    file.flush()
    np.testing.assert_array_equal(ours[...], values)
    assert ours.id.get_num_chunks() == -(-done // chunk_rows)
    for first in range(0, done, chunk_rows):
        place = (first, *([0] * len(shape)))
        assert ours.id.read_direct_chunk(place) == theirs.id.read_direct_chunk(place)
    read = [chunk.copy() for chunk in read_chunks(theirs, threads)]
    np.testing.assert_array_equal(np.concatenate([values[:0], *read]), values)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_our_own_coding_is_used_for_each_compression(file: h5py.File, compression: str) -> None:
    data = file.create_dataset("data", shape=(1, 8), chunks=(1, 8), dtype="u2", **filters(compression)[1])
    assert encoder(data) is not None
    assert decoder(data) is not None


@pytest.mark.parametrize("shape", [(1, 16), (1, 1000), (1, 4096), (1, 5003), (2, 70_000)])
def test_a_chunk_whose_lengths_lie_is_refused_before_it_is_decoded(file: h5py.File, shape: tuple[int, int]) -> None:
    """The decoder itself believes them and would read beyond the chunk."""
    data = file.create_dataset("x", shape, np.uint16, chunks=shape, **filters("bitshuffle-lz4")[1])
    encode, decode = encoder(data), decoder(data)
    assert encode is not None
    assert decode is not None
    values = np.random.default_rng(1).integers(0, 99, shape).astype(np.uint16)
    stored, out = bytes(encode(values.reshape(-1).view(np.uint8))), np.zeros(values.nbytes, np.uint8)
    decode(stored, out)
    np.testing.assert_array_equal(out, values.reshape(-1).view(np.uint8))
    for changed in (
        stored[:12] + b"\xff\xff\xff\xff" + stored[16:],
        stored[:12] + (int.from_bytes(stored[12:16], "big") + 1).to_bytes(4, "big") + stored[16:],
        stored[:-1],
        stored[:14],
        stored + b"\0",
    ):
        with pytest.raises(Undecodable, match="do not add up"):
            decode(changed, out)


def test_a_filter_that_only_hdf5_has_is_left_to_it(file: h5py.File, threads: Threads) -> None:
    values = np.arange(70, dtype=np.uint32).reshape(7, 10)
    data = file.create_dataset(
        "data", shape=(7, 10), chunks=(3, 10), maxshape=(None, 10), dtype="u4", compression="lzf"
    )
    assert encoder(data) is None
    writer = ChunkWriter(data, threads)
    writer.append(values[:5])
    writer.append(values[5:])
    assert writer.close() == 7
    np.testing.assert_array_equal(np.concatenate(list(read_chunks(data, threads))), values)


@pytest.mark.parametrize("compression", ["none", "gzip", "bitshuffle-lz4"])
def test_memory_is_bounded_by_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    if compression == "bitshuffle-lz4":
        pytest.importorskip("hdf5plugin", reason="hdf5plugin is not installed")
    monkeypatch.setattr(limits, "DRAIN_WINDOW_BYTES", 2 * MiB)
    store = MemoryStore()
    block = np.random.default_rng(0).integers(0, 256, (MiB // 4,), np.uint8)
    store.add("s", [block] * 80, frame=FrameSpec("uint8", block.shape), blocks_per_extent=4)
    drain(store, "beam/scan1/s", tmp_path / "warm.nxs", compression=compression)
    tracemalloc.start()
    try:
        drain(store, "beam/scan1/s", tmp_path / "s.nxs", compression=compression)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * MiB  # of 20


def test_without_hdf5plugin_gzip_is_taken_and_the_line_that_installs_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    assert filters("auto")[0] == "gzip"
    for name in ("zstd", "bitshuffle-lz4"):
        with pytest.raises(MissingExtra, match=r"pip install 'hiss\[hdf5\]'"):
            filters(name)

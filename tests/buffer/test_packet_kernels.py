"""Kernels on packets: blocks of variable length, on the way in and on the way out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss import Buffer, hk
from hiss.errors import BlockMissing, SpecMismatch

MiB = 1 << 20


@hiss.kernel
def long_hits(hits, least=20):
    return hits[hits >= least]


@hiss.filter
def several(hits, least=2):
    return len(hits) >= least


@hiss.kernel
def spectrum(hits):
    return hk.group_sum(np.ones_like(hits, np.uint32), hits, length=50)


@hiss.kernel
def squares(hits):
    return np.stack((hits.astype(np.uint64), hits.astype(np.uint64) ** 2), axis=1)


@pytest.fixture(params=["numpy", "numba"])
def buffer(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Buffer]:
    with hiss.open(tmp_path / "b", arena_bytes=8 * MiB, segment_bytes=8 * MiB, backend=request.param) as opened:
        yield opened


def packets(seed: int = 3, count: int = 40) -> list[Any]:
    """Of 0 to 300 hits; among them an empty one and one of one hit."""
    rng = np.random.default_rng(seed)
    sizes = [0, 1, *rng.integers(0, 300, count - 2).tolist()]
    return [rng.integers(0, 60, size).astype(np.uint16) for size in sizes]


def written(buffer: Buffer, sent: list[Any], kernels: list[Any], keep: str = "result") -> Any:
    with buffer.collection("c").create_stream("s", dtype="u2", shape=(None,), kernels=kernels, keep=keep) as stream:
        for packet in sent:
            stream.append(packet)
    return buffer["c/s"]


def same(found: Any, expected: list[Any]) -> bool:
    assert len(found) == len(expected)
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("keep", ["result", "raw", "both"])
def test_items_are_selected(buffer: Buffer, keep: str) -> None:
    sent = packets()
    stream = written(buffer, sent, [long_hits.bind(least=25)], keep)
    assert same(stream.read(), [packet[packet >= 25] for packet in sent])
    if keep != "result":
        assert same(stream.raw.read(), sent)
    assert stream.info.frame.shape == (None,)


@pytest.mark.parametrize("keep", ["result", "raw", "both"])
def test_results_of_one_shape_and_larger_items(buffer: Buffer, keep: str) -> None:
    sent = packets()
    stream = written(buffer, sent, [spectrum], keep)
    expected = [np.bincount(packet[packet < 50], minlength=50).astype(np.uint64) for packet in sent]
    assert np.array_equal(stream.read(), expected)
    grown = [np.stack((p.astype(np.uint64), p.astype(np.uint64) ** 2), axis=1) for p in sent]
    with buffer["c"].create_stream("grown", dtype="u2", shape=(None,), kernels=[squares], keep=keep) as producer:
        for packet in sent:
            producer.append(packet)
    assert same(buffer["c/grown"].read(), grown)


def test_whole_packets_are_vetoed(buffer: Buffer) -> None:
    sent = packets()
    stream = written(buffer, sent, [several.bind(least=100), long_hits.bind(least=25)])
    good = [packet[packet >= 25] for packet in sent if len(packet) >= 100]
    assert same(stream.read(), good)
    with pytest.raises(BlockMissing, match="veto"):
        stream[0]


def test_on_the_way_out(buffer: Buffer) -> None:
    sent = packets()
    stream = written(buffer, sent, [])
    assert same(stream.read(kernels=[long_hits.bind(least=30)]), [packet[packet >= 30] for packet in sent])
    assert same(stream.read(3, 20, kernels=[several]), [packet for packet in sent[3:20] if len(packet) > 1])
    expected = [np.bincount(packet[packet < 50], minlength=50) for packet in sent]
    assert np.array_equal(stream.read(kernels=[spectrum]), expected)


def test_a_result_larger_than_an_extent_comes_in_pieces(buffer: Buffer) -> None:
    """Eight bytes of result for each byte that comes in: what lands together is what fits with its result."""
    sent = [np.full(size, 7, np.uint16) for size in (90_000, 3, 100_000, 0, 80_000)]
    stream = written(buffer, sent, [squares])
    assert same(stream.read(), [np.stack((p.astype(np.uint64), p.astype(np.uint64) ** 2), axis=1) for p in sent])


def test_what_is_recorded_can_be_had_again(buffer: Buffer) -> None:
    stream = written(buffer, packets(), [several, long_hits], "both")
    replayed = buffer.store.replay(stream.info.id)
    assert (replayed.blocks, replayed.same, replayed.different) == (40, 40, 0)


def test_what_variable_blocks_do_not_have(buffer: Buffer) -> None:
    scan = buffer.collection("c")

    @hiss.scan
    class running:
        def init(hits):
            return 0

        def step(state, hits):
            return state + 1, state

    with pytest.raises(SpecMismatch, match="a scan takes blocks of one shape"):
        scan.create_stream("s", dtype="u2", shape=(None,), kernels=[running])
    with pytest.raises(SpecMismatch, match="blocks of one shape"):
        scan.create_stream("s", dtype="u2", shape=(None,), kernels=[long_hits, "mean"])
    with pytest.raises(SpecMismatch, match="without a dtype"):
        scan.create_stream("s", kernels=[long_hits])
    assert scan.info.streams == ()

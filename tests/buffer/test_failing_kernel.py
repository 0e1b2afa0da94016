"""A server under load whose kernel fails on every tenth extent: no block is lost, and every gap and raw block is
accounted for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hiss
from hiss.access import Access
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.kernels import Pipeline
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import LedgerEntry
from hiss.node import Node
from hiss.transport.server import GrpcServer

SHAPE = (32, 64)
BLOCKS, EVERY = 600, 10
PRODUCERS = 3


@hiss.kernel
def doubled(frame):
    return frame * 2


class EveryTenth:
    """An executable that fails on every tenth extent, and remembers which blocks were in it.

    Each block's first pixel is its index; an extent is one call, for it is smaller than a slice.
    """

    def __init__(self, working: Any) -> None:
        self.working, self.backend = working, working.backend
        self.extents, self.failed = 0, list[int]()

    def run(self, frames: Any, columns: Any, rows: Any, outs: Any) -> None:
        self.extents += 1
        if self.extents % EVERY == 0:
            self.failed += frames[rows, 0, 0].tolist()
            raise MemoryError("no room, this time")
        self.working.run(frames, columns, rows, outs)


@pytest.fixture
def broken() -> dict[str, EveryTenth]:
    """The executables that fail, by their stream."""
    return {}


@pytest.fixture
def address(tmp_path: Path, broken: dict[str, EveryTenth], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    options = StorageOptions(arena_bytes=64 * MiB, segment_bytes=16 * MiB)
    node = Node(tmp_path / "data", options, backend="numpy")
    real = node.readout.pipeline

    def failing(info: Any, came_as: Any) -> Pipeline:
        pipeline = real(info, came_as)
        if info.name.startswith("bad"):
            (stage,) = pipeline._stages
            broken[info.name] = EveryTenth(stage.executable)
            stage.executable = broken[info.name]  # type: ignore[assignment]
        return pipeline

    monkeypatch.setattr(node.readout, "pipeline", failing)
    tokens = Access.of_directory(tmp_path / "data")
    server = GrpcServer(
        ["127.0.0.1:0"],
        store_for=lambda caller: LocalStore(node, caller),
        authenticate=lambda token, peer: tokens.authenticate(token, 0, peer),
        meow=None,
    )
    server.start()
    yield f"127.0.0.1:{server.ports[0]}", tokens.owner_token
    server.stop(5.0)
    node.close()


def _frames() -> Any:
    frames = np.random.default_rng(2).integers(0, 30_000, (BLOCKS, *SHAPE)).astype(np.uint16)
    frames[:, 0, 0] = np.arange(BLOCKS)
    return frames


def _produce(buffer: Buffer, name: str, keep: str, frames: Any) -> None:
    with buffer.collection("c").create_stream(
        name, dtype="u2", shape=SHAPE, keep=keep, kernels=[doubled], extent_bytes=5 * frames[0].nbytes
    ) as stream:
        stream.extend(frames)


def _ranges(blocks: list[int]) -> list[LedgerEntry]:
    runs = np.split(np.array(blocks), np.flatnonzero(np.diff(blocks) != 1) + 1)
    return [LedgerEntry(int(run[0]), int(run[-1]), "doubled", "kernel-failed") for run in runs]


def test_a_kernel_that_fails_on_every_tenth_extent(address: Any, broken: dict[str, EveryTenth]) -> None:
    where, token = address
    frames = _frames()
    names = {f"bad{k}": keep for k, keep in zip(range(PRODUCERS), ("result", "both", "raw"), strict=True)}
    names |= {"good": "result"}
    with hiss.connect(where, token=token) as buffer:
        producers = [
            threading.Thread(target=_produce, args=(buffer, name, keep, frames)) for name, keep in names.items()
        ]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join(120)
            assert not producer.is_alive()
        for name, keep in names.items():
            stream = buffer[f"c/{name}"]
            failed = sorted(broken[name].failed) if name in broken else []
            kept = np.setdiff1d(np.arange(BLOCKS), failed)
            assert bool(failed) == (name in broken)
            assert len(failed) < BLOCKS / 5
            assert stream.index.tolist() == kept.tolist()
            np.testing.assert_array_equal(np.asarray(stream), frames[kept] * 2)
            assert list(stream.ledger) == (_ranges(failed) if failed else [])
            assert stream.info.completeness.gaps == len(failed)
            raw = failed if keep == "result" else list(range(BLOCKS))
            assert stream.raw.index.tolist() == raw, "what failed is kept as it came, whatever `keep` says"
            np.testing.assert_array_equal(np.asarray(stream.raw), frames[raw])
            report = stream.info.stages[0].report
            assert (report["blocks"], report.get("failed", 0)) == (BLOCKS, len(failed))
            assert report.get("faults", 0) == report["extents"] // EVERY * (name in broken)
            assert not stream.info.stages[0].quarantined, "an extent that went well ends the row"

"""The benchmarks run, at a size that says nothing: their cases, peers and units are those of their pages."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hiss

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes that they start
    yield
    assert not multiprocessing.active_children()


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine where none is installed: each is reported as absent, with its line."""
    import benchmarks.peers

    monkeypatch.setattr(benchmarks.peers, "HOME", tmp_path / "none")


def by_case(results) -> dict[str, dict]:
    out = {}
    for result in results:
        assert {"case", "metric", "unit", "value", "min", "max", "rounds", "peers"} <= result.keys()
        assert result["min"] <= result["value"] <= result["max"]
        out[result["case"]] = result
    json.dumps(out)
    return out


def test_ingest_embedded():
    from benchmarks import ingest

    found = by_case(ingest.run(True, side=64, segment_bytes=1 << 20, lanes=("embedded",)))
    assert {"copy", "direct-write", "h5py", "sqlite"} == found["ingest/embedded/durable/8MiB"]["peers"].keys()
    assert "direct-write" in found["ingest/fresh/embedded/durable/8MiB"]["peers"]
    assert all(result["value"] > 0 for result in found.values())


def test_ingest_kernels():
    from benchmarks import ingest_kernels

    found = by_case(ingest_kernels.run(True, side=64, segment_bytes=1 << 20))
    assert {name.rpartition("/")[2] for name in found} == {
        *("calibrate", "veto", "bin2x2", "common-mode", "median3x3", "azimuthal", "calibrate-veto-bin2x2")
    }
    assert all({"no-kernel", "copy"} == result["peers"].keys() for result in found.values())


def test_kernels_of_the_library_give_what_their_peers_give(tmp_path):
    from benchmarks import kernels
    from hiss.kernels import Compiler

    compiler = Compiler(tmp_path / "cache", "numpy")
    names = []
    for workload in kernels.of_library(64, 1):
        (peer,) = workload.peers.values()
        kernels._compare(kernels._pipeline(workload, compiler), peer, workload)
        names.append(workload.name)
    assert {"dark_flat", "jungfrau", "photons", "hot_pixels", "spots", "azimuthal", "common_mode"} <= set(names)


def test_egress(no_peers):
    from benchmarks import egress

    found = by_case(egress.run(True, frame_bytes=64 << 10, arena_bytes=16 << 20))
    assert {"copy"} == found["egress/embedded/arena/8MiB"]["peers"].keys()
    assert {"copy", "direct-read", "h5py"} == found["egress/embedded/disk/8MiB"]["peers"].keys()
    beside = found["egress/grpc/arena/64KiB"]["peers"]
    assert {"bare-socket", "grpc-bytes", "copy"} <= {name for name, peer in beside.items() if "value" in peer}


def test_reading_through_to_an_archive(tmp_path):
    from benchmarks import drain

    with hiss.open(tmp_path / "buffer", arena_bytes=16 << 20, segment_bytes=8 << 20) as buffer:
        frames = [np.arange(5000, dtype=np.uint32)]
        found = by_case(drain.read_through(buffer, frames, tmp_path, 2, (16, 32)))
    assert found.keys() == {"readthrough/start", "readthrough/8MiB"}
    assert found["readthrough/8MiB"]["peers"].keys() == {"h5py", "h5py-open"}
    assert all(result["unit"] == "ms" and result["value"] > 0 for result in found.values())


def test_small():
    from benchmarks import small

    found = by_case(small.run(True, scale=0.01))
    assert {"direct-write", "h5py", "sqlite"} == found["small/embedded/durable/4KiB-extend"]["peers"].keys()
    assert {"small/streams/3x10/1-in-turn", "small/streams/3x10/32-in-flight"} <= found.keys()
    assert 0 < found["small/index/3000-blocks"]["value"] <= 24


def test_recovery():
    from benchmarks import recovery

    found = by_case(recovery.run(True, log_bytes=20_000_000, records=300))
    assert found.keys() == {"recovery/0.3k-records", "recovery/20MB/8MiB", "recovery/20MB/64KiB"}


def test_soak(tmp_path):
    from benchmarks import soak

    out = tmp_path / "out"
    run = soak.run(True, seconds=2.0, log_bytes=8 << 20, frame_bytes=64 << 10, arena_bytes=16 << 20, out=out)
    found = by_case(run)
    series = json.loads((out / "soak.json").read_text())
    assert series["wrong_blocks"] == 0
    assert series["blocks_compared"] > 0
    assert series["blocks_written"] > 0
    assert len(series["seconds"]) == len(series["resident_bytes"]) == len(series["gb_per_s"]) > 1
    assert found["soak/speed"]["value"] >= 0
    if "matplotlib" in sys.modules:
        assert (out / "soak.png").stat().st_size > 1000


def test_ingest_by_lanes_and_its_picture(no_peers, tmp_path):
    from benchmarks import ingest_wire, plot
    from benchmarks.measure import machine
    from hiss.testing.certificates import certificates
    from hiss.testing.processes import DataProcess

    for name in ("plain", "tls"):
        (tmp_path / name).mkdir()
    with (
        DataProcess(tmp_path / "plain") as plain,
        DataProcess(tmp_path / "tls", tls=certificates().server) as over_tls,
    ):
        sizes = {"sizes": ["4KiB"], "producers": [], "run_bytes": 1 << 18}
        found = by_case(ingest_wire.run(True, {"unix": plain, "tls": over_tls}, tmp_path, **sizes))
    for lane in ("unix", "tls"):
        peers = found[f"ingest/{lane}/durable/4KiB"]["peers"]
        assert {"bare-socket", "grpc-bytes", "copy"} <= {name for name, peer in peers.items() if "value" in peer}
        assert peers["flight"]["absent"] == "python -m benchmarks.peers wire"
    assert "ingest/unix/written/4KiB-extend" in found
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"machine": machine(), "results": list(found.values())}))
    plot.plot(results, tmp_path / "figures" / "ingest.svg")
    assert (tmp_path / "figures" / "ingest.svg").stat().st_size > 5_000


def test_latency(no_peers):
    from benchmarks import latency

    found = by_case(latency.run(True, lanes=["unix"], count=20, stored_bytes=32 << 20))
    p50 = found["latency/unix/received/64KiB/p50"]
    assert {"bare-socket", "grpc-bytes"} <= {name for name, peer in p50["peers"].items() if "value" in peer}
    assert p50["value"] <= found["latency/unix/received/64KiB/p99"]["max"]
    assert found["latency/unix/received/64KiB/p50/draining"]["value"] > 0

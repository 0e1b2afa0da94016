"""The demo's promises can be broken: each check fails when what it promises does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

import hiss
from hiss.client import Buffer
from hiss.demo import promises
from hiss.demo.kernels import flatfield, too_slow
from hiss.demo.scan import Scan
from hiss.demo.server import Outage
from hiss.limits import MiB
from hiss.model import digest_of
from hiss.testing.simulator import ParallelScan
from hiss.workflow import JobState

SIMULATED = ParallelScan(rows=12, columns=120, views=6, centre=59.5)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return Scan(
        origin=("test",),
        sample="foam",
        dark=np.stack([SIMULATED.dark(number) for number in range(4)]),
        flat=np.stack([SIMULATED.flat(number) for number in range(4)]),
        projections=np.stack([SIMULATED.projection(view) for view in range(6)]),
        angles=SIMULATED.angles,
        derived=0,
        rows=(3, 6),
    )


@pytest.fixture(scope="module")
def buffer(tmp_path_factory: pytest.TempPathFactory, scan: Scan) -> Iterator[Buffer]:
    """A small scan as the instrument would send it: frame 3 is withheld, the monitor's kernel has no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hiss.limits.SEGMENT_BYTES", 16 * MiB)
        with hiss.open(tmp_path_factory.mktemp("buffer"), backend="numpy") as found:
            place = found.collection("demo/scan1")
            for name, frames in (("dark", scan.dark), ("flat", scan.flat)):
                with place.create_stream(name, dtype=frames.dtype, shape=frames.shape[1:]) as stream:
                    stream.extend(frames)
            bound = flatfield.bind(dark=place["dark"].mean(), flat=place["flat"].mean())
            spec = {"dtype": "uint16", "shape": (12, 120), "kernels": [bound], "keep": "both"}
            with place.create_stream("proj", **spec) as stream:
                for number in (0, 1, 2, 4, 5):
                    stream.append(scan.projections[number], index=number)
            slow = too_slow.bind(budget_s=1e-9)
            with place.create_stream("monitor", dtype="f8", shape=(8,), kernels=[slow]) as stream:
                for _ in range(5):
                    stream.append(np.ones(8))
                    stream.flush()
            yield found


def acked(scan: Scan) -> dict[str, dict[int, str]]:
    """What an instrument was told: darks, and the projections but the withheld one."""
    return {
        "demo/scan1/dark": {i: f"{digest_of(frame.tobytes()):016x}" for i, frame in enumerate(scan.dark)},
        "demo/scan1/proj": {
            i: f"{digest_of(frame.tobytes()):016x}" for i, frame in enumerate(scan.projections) if i != 3
        },
    }


def test_blocks_that_are_there_are_not_lost(buffer: Buffer, scan: Scan) -> None:
    promise = promises.acknowledged_blocks(buffer, acked(scan))
    assert promise.kept, promise
    assert promise.text == "0 acknowledged blocks lost"
    assert promise.evidence.startswith("9 acknowledged")


def test_a_block_that_is_not_there_is_lost(buffer: Buffer, scan: Scan) -> None:
    told = acked(scan)
    told["demo/scan1/proj"][3] = "0" * 16
    promise = promises.acknowledged_blocks(buffer, told)
    assert (promise.kept, promise.text) == (False, "1 acknowledged blocks lost")
    assert "demo/scan1/proj[3]" in promise.evidence


def test_a_block_with_other_bytes_is_lost(buffer: Buffer, scan: Scan) -> None:
    told = acked(scan)
    told["demo/scan1/dark"][2] = told["demo/scan1/dark"][1]
    assert not promises.acknowledged_blocks(buffer, told).kept


def test_nothing_acknowledged_proves_nothing(buffer: Buffer) -> None:
    assert not promises.acknowledged_blocks(buffer, {}).kept


def test_where_only_results_are_kept_the_digest_of_the_source_counts(buffer: Buffer, scan: Scan) -> None:
    place = buffer.collection("demo/results")
    bound = flatfield.bind(dark=scan.dark.mean(axis=0), flat=scan.flat.mean(axis=0))
    with place.create_stream("proj", dtype="uint16", shape=(12, 120), kernels=[bound]) as stream:
        stream.extend(scan.projections)
    told = {"demo/results/proj": {i: f"{digest_of(f.tobytes()):016x}" for i, f in enumerate(scan.projections)}}
    promise = promises.acknowledged_blocks(buffer, told)
    assert promise.kept, promise
    assert "of 6 only the kernel's result is kept" in promise.evidence
    told["demo/results/proj"][0] = "0" * 16
    assert not promises.acknowledged_blocks(buffer, told).kept


def test_coming_back_takes_a_kill_another_process_and_a_reconnect() -> None:
    assert promises.came_back(Outage(1, 2, 0.5, 10), 1).kept
    assert not promises.came_back(Outage(1, 1, 0.5, 10), 1).kept
    assert not promises.came_back(Outage(1, 2, 0.5, 10), 0).kept
    assert not promises.came_back(None, 1).kept


def test_the_withheld_frame_must_be_the_only_gap(buffer: Buffer) -> None:
    assert promises.withheld_frames(buffer, (3,)).kept
    assert not promises.withheld_frames(buffer, ()).kept
    assert not promises.withheld_frames(buffer, (2, 3)).kept


def test_corrected_frames_equal_numpy(buffer: Buffer, scan: Scan) -> None:
    promise = promises.corrected_frames(buffer, scan)
    assert promise.kept, promise
    other = Scan(**{name: getattr(scan, name) for name in Scan.__slots__} | {"flat": scan.flat // 2})
    assert not promises.corrected_frames(buffer, other).kept


def test_a_broken_kernel_needs_its_raw_blocks_and_its_event(buffer: Buffer) -> None:
    assert promises.broken_kernel(buffer, ["demo/scan1/monitor"]).kept
    assert not promises.broken_kernel(buffer, []).kept


def test_each_recipe_has_one_job_that_is_done() -> None:
    def job(recipe: str, state: JobState) -> SimpleNamespace:
        return SimpleNamespace(recipe=recipe, state=state, attempts=1)

    done, failed = JobState.DONE, JobState.FAILED
    assert promises.one_job_each([job("a", done), job("b", done)], ["a", "b"]).kept
    assert not promises.one_job_each([job("a", done)], ["a", "b"]).kept
    assert not promises.one_job_each([job("a", done), job("b", done), job("b", done)], ["a", "b"]).kept
    assert not promises.one_job_each([job("a", done), job("b", failed)], ["a", "b"]).kept

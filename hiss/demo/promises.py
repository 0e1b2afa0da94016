"""What the demo promises, each checked against the buffer afterwards: kept or not, and on what evidence.

Nothing is taken from what the demo did on the way but what the instrument was acknowledged and what was done to the
server; everything else is read back. Called from the main thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hiss.client import Buffer
from hiss.demo.instrument import GRIDSCAN, SCAN, VETO_LEAST, VETO_THRESHOLD
from hiss.demo.kernels import brightest, flatfield, strong_pixels
from hiss.demo.scan import Scan
from hiss.demo.server import Outage
from hiss.extent import block_digests
from hiss.model import Selection, StreamInfo
from hiss.workflow import Job, JobState

STRONG_PIXELS: Final = (22537, 6365, 168, 7, 12)  # of the five real frames, counted from the file with NumPy
HOT_PIXEL: Final = 1046527
_AIR_MAX: Final = 0.02  # attenuation beside the sample after normalisation
_KERNEL_MAX: Final = 1e-4  # float32 against NumPy's float64 on the way


@dataclass(frozen=True, slots=True)
class Promise:
    text: str
    kept: bool
    evidence: str


def acknowledged_blocks(buffer: Buffer, acked: Mapping[str, Mapping[int, str]]) -> Promise:
    """Every block that was ever acknowledged is there, byte for byte.

    Blocks that are kept as they came are read back and hashed here. Where only a kernel's result is kept, that is read
    back and hashed, and the digest of the block that it was made of stands beside it.
    """
    lost: list[str] = []
    total = results = 0
    for path, digests in acked.items():
        total += len(digests)
        stream = buffer.stream(path)
        found = _digests(buffer, stream.raw.info, "digest")
        if stream.raw.path != path:
            from_results = _digests(buffer, stream.info, "source_digest")
            results += len(from_results.keys() - found.keys())
            found = from_results | found
        lost += [f"{path}[{number}]" for number, digest in digests.items() if found.get(number) != digest]
    evidence = f"{total} acknowledged, each read back and its digest compared"
    if results:
        evidence += f"; of {results} only the kernel's result is kept, with the digest of what was sent"
    if lost:
        evidence = f"{len(lost)} of {total}: {', '.join(lost[:5])}"
    return Promise(f"{len(lost)} acknowledged blocks lost", bool(total) and not lost, evidence)


def _digests(buffer: Buffer, info: StreamInfo, which: str) -> dict[int, str]:
    """Index -> its own digest or its source's, of all blocks whose bytes, hashed here, have the digest they should."""
    found: dict[int, str] = {}
    for extent in buffer.store.read(info.id, Selection()):
        good = block_digests(extent.data, extent.length) == extent.digest
        for row in np.flatnonzero(good):
            found[int(extent.index[row])] = f"{int(getattr(extent, which)[row]):016x}"
    return found


def came_back(outage: Outage | None, reconnects: int) -> Promise:
    """The data process was killed, another one took over, and the instrument went on by itself."""
    text = "the killed server came back and the instrument went on"
    if outage is None:
        return Promise(text, False, "it was never killed: the scan was over too soon")
    evidence = (
        f"process {outage.killed} got SIGKILL after {outage.acknowledged} acknowledged projections, process "
        f"{outage.back} answered {outage.seconds:.1f} s later; the instrument reconnected, {reconnects} time(s)"
    )
    return Promise(text, outage.back != outage.killed and reconnects >= 1, evidence)


def withheld_frames(buffer: Buffer, withheld: Sequence[int]) -> Promise:
    """The frames that were never sent are the only gaps of the projections, with that reason."""
    stream = buffer.stream(f"{SCAN}/proj")
    gaps = [index for entry in stream.ledger for index in range(entry.first, entry.last + 1)]
    reasons = {entry.reason for entry in stream.ledger}
    kept = gaps == list(withheld) and reasons == {"never received"}
    return Promise("the withheld frame is the only gap, and is explained", kept, str(stream.info.completeness))


def corrected_frames(buffer: Buffer, scan: Scan) -> Promise:
    """What the compiled kernel made equals what NumPy makes of the same frames, and the air is clear."""
    stream = buffer.stream(f"{SCAN}/proj")
    dark, flat = scan.dark.mean(axis=0), scan.flat.mean(axis=0)
    worst = air = 0.0
    for number in (int(stream.index[0]), int(stream.index[len(stream) // 2]), int(stream.index[-1])):
        expected = np.asarray(flatfield(scan.projections[number], dark, flat))
        found = stream[number]
        worst = max(worst, float(np.abs(found - expected).max()))
        air = max(air, abs(float(np.mean(found[:, :10]) + np.mean(found[:, -10:])) / 2))
    evidence = f"largest difference to NumPy {worst:.1g}, attenuation of the air beside the sample {air:.3f}"
    return Promise("the frames were corrected in transit", worst < _KERNEL_MAX and air < _AIR_MAX, evidence)


def broken_kernel(buffer: Buffer, quarantined: Sequence[str]) -> Promise:
    """A kernel that cannot meet its budget costs results, never data."""
    stream = buffer.stream(f"{SCAN}/monitor")
    whole, raw = stream.info.completeness, stream.raw.info.completeness
    failed = sum(entry.count for entry in stream.ledger if entry.reason == "kernel-failed")
    kept = failed == raw.blocks == whole.gaps > 0 and not raw.gaps and stream.path in quarantined
    evidence = f"{failed} results failed and {raw.blocks} raw readings kept; " + (
        "the kernel is quarantined" if stream.path in quarantined else "the kernel was NOT quarantined"
    )
    return Promise("a broken kernel costs no data", kept, evidence)


def vetoed_frames(buffer: Buffer) -> Promise:
    """The frames without a diffraction pattern are vetoed; a kernel on the way out counts pixels in all of them."""
    stream = buffer.stream(f"{GRIDSCAN}/frames")
    mask = buffer.stream(f"{GRIDSCAN}/mask")
    counts = stream.raw.read(kernels=[strong_pixels.bind(mask=mask, threshold=VETO_THRESHOLD)]).tolist()
    hot = stream.raw.read(kernels=[brightest.bind(mask=mask)]).tolist()
    vetoed = [index for entry in stream.ledger for index in range(entry.first, entry.last + 1)]
    expected = [place for place, count in enumerate(STRONG_PIXELS) if count < VETO_LEAST]
    kept = tuple(counts) == STRONG_PIXELS and vetoed == expected and set(hot) == {HOT_PIXEL}
    evidence = (
        f"pixels of {VETO_THRESHOLD} counts or more outside the mask: {', '.join(map(str, counts))}; vetoed {vetoed}; "
        f"one pixel of each frame is hot and reads {', '.join(map(str, sorted(set(hot))))}"
    )
    return Promise("frames without a pattern are vetoed in transit, and kept raw", kept, evidence)


def one_job_each(jobs: Sequence[Job], recipes: Sequence[str]) -> Promise:
    """Each rule made exactly one job, and each is done."""
    made = sorted((job.recipe, job.state.name.lower(), job.attempts) for job in jobs)
    kept = [recipe for recipe, _, _ in made] == sorted(recipes) and all(job.state is JobState.DONE for job in jobs)
    evidence = "; ".join(f"{recipe}: {state} in {attempts} attempts" for recipe, state, attempts in made) or "no jobs"
    return Promise("one job for each event and rule", kept, evidence.replace("1 attempts", "1 attempt"))

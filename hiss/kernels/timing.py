"""How fast a kernel runs on this machine: every back end beside a copy of the same blocks in memory.

Called by the command line, in its main thread; a server does not measure itself with this.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss.errors import InvalidInput
from hiss.kernels.backend import Array
from hiss.kernels.compiler import Compiler, ResolvedStage
from hiss.kernels.pipeline import Pipeline
from hiss.kernels.specialiser import FrameType
from hiss.model import KernelKind

_BLOCKS_BYTES: Final = 64 << 20  # of random blocks, where there are none: more than the caches hold
_BACKENDS: Final = ("numba", "opencl", "numpy")
_ROUNDS_MIN: Final = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """One back end: `gb_per_s` of input, the median; None and a `note` where it did not run."""

    backend: str
    gb_per_s: float | None
    of_copy: float | None
    block_ms: float | None
    attach_ms: float | None
    note: str = ""


def timed(
    stage: ResolvedStage, frame: FrameType, frames: Array, columns: npt.NDArray[Any], cache: Path, seconds: float
) -> list[Timing]:
    """The copy first, then each back end.

    Parameters
    ----------
    frames : array, (n, *shape)
        To measure with; none: random ones.
    cache : Path
        A directory for compiled code, not there yet: `attach_ms` is that of a kernel that was never seen before.
    seconds : float
        To spend on each.
    """
    if stage.definition.kind is KernelKind.REDUCE:
        raise InvalidInput(f"kernel {stage.definition.name!r} is a reduction; maps, filters and scans are measured")
    if not len(frames):
        frames = _random(frame)
        columns = np.zeros(len(frames), frame.columns)
    target = np.empty_like(frames)
    copy_s = _median(lambda: np.copyto(target, frames), seconds)
    nbytes = frames.nbytes
    rows = [Timing("copy", nbytes / copy_s / 1e9, 1.0, copy_s / len(frames) * 1e3, None, "")]
    for backend in _BACKENDS:
        started = time.perf_counter()
        compiler = Compiler(cache / backend, backend)
        pipeline = Pipeline.build([stage], frame.dtype, frame.shape, frame.columns, compiler)
        attached = time.perf_counter() - started
        if pipeline.backends != (backend,):
            reason = compiler.notice or f"it runs in {pipeline.backends[0]}; the log says why"
            rows.append(Timing(backend, None, None, None, None, reason))
            continue
        spent = _median(lambda pipeline=pipeline: pipeline.run(frames, columns), seconds)  # type: ignore[misc]
        rate = nbytes / spent / 1e9
        rows.append(Timing(backend, rate, copy_s / spent, spent / len(frames) * 1e3, attached * 1e3))
    return rows


def _random(frame: FrameType) -> Array:
    rng = np.random.default_rng(0)
    each = int(np.prod(frame.shape)) * frame.dtype.itemsize
    shape = (max(1, _BLOCKS_BYTES // max(1, each)), *frame.shape)
    if frame.dtype.kind == "f":
        return rng.standard_normal(shape).astype(frame.dtype)
    return rng.integers(0, 2 if frame.dtype.kind == "b" else 100, shape).astype(frame.dtype)


def _median(work: Callable[[], object], seconds: float) -> float:
    """Seconds of one call, after one that warms memory."""
    work()
    taken: list[float] = []
    while len(taken) < _ROUNDS_MIN or sum(taken) < seconds:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)

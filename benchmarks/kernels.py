"""Kernels in transit: GB/s of input, one thread, against NumPy, numexpr and copying the same frames in memory.

Workload: uint16 frames of 2048 x 2048 with Poisson-like counts from a fixed seed (8 of them, 2 with `quick`), through
`Pipeline.run` in extents of one frame, results into memory that is used again. Compilation is not timed. Rounds of ours
and the peers alternate; the value is the median round. The same kernels as in docs/kernels.md and two of the
frequent reductions.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Case, measure
from hiss.kernels import Compiler, Pipeline, ResolvedStage, check
from hiss.model import KernelDef, KernelKind, ScalarParam

SHAPE = (2048, 2048)
SEED = 20
SOURCES = {
    "calibrate": """\
def calibrate(frame, dark, gain):
    t = (frame.astype(np.float32) - dark) * gain
    return np.clip(t, 0, 65535).astype(np.uint16)
""",
    "veto": """\
def veto(frame, threshold, least):
    return np.count_nonzero(frame > threshold) >= least
""",
    "flatfield": """\
def flatfield(frame, dark, flat):
    t = (frame.astype(np.float32) - dark) / np.maximum(flat - dark, 1)
    return -np.log(np.clip(t, 1e-6, None))
""",
    "bin2x2": """\
def bin2x2(frame):
    h, w = frame.shape
    return frame.reshape(h // 2, 2, w // 2, 2).sum(axis=(1, 3), dtype=np.uint32)
""",
    "row-mean": """\
def rows(frame):
    return frame.astype(np.float32) - np.mean(frame, axis=1, keepdims=True, dtype=np.float32)
""",
}


def cases(quick: bool) -> Iterator[Case]:
    """Every kernel on every back end; results are compared with NumPy's before anything is timed."""
    rng = np.random.default_rng(SEED)
    frames = rng.poisson(900, (2 if quick else 8, *SHAPE)).astype(np.uint16)
    arrays = {
        "dark": rng.normal(100, 3, SHAPE).astype(np.float32),
        "flat": rng.normal(1100, 30, SHAPE).astype(np.float32),
        "gain": rng.normal(1, 0.02, SHAPE).astype(np.float32),
    }
    scalars = {"threshold": ScalarParam(960), "least": ScalarParam(1000)}
    copied = np.empty_like(frames)
    with tempfile.TemporaryDirectory() as directory:
        compiler = Compiler(Path(directory) / "cache")
        for name, source in SOURCES.items():
            kind = KernelKind.FILTER if name == "veto" else KernelKind.MAP
            definition = KernelDef(name, kind, source)
            wanted = check(definition).parameters
            params = {key: value for key, value in (arrays | scalars).items() if key in wanted}
            stage = ResolvedStage(definition, params)
            pipeline = Pipeline.build([stage], frames.dtype, SHAPE, np.dtype([]), compiler)
            assert pipeline.backends == ("numba",)
            plain = _plain(source, params)
            _compare(pipeline, plain, frames)
            peers = {"copy": lambda: np.copyto(copied, frames), "numpy": _each(plain, frames)}
            absent: dict[str, str] = {}
            if name == "calibrate" and importlib.util.find_spec("numexpr"):
                peers["numexpr"] = _each(_numexpr(arrays), frames)
            elif name == "calibrate":
                absent["numexpr"] = "pip install numexpr"
            yield Case(
                name=f"kernels/numba/1-thread/{name}",
                metric="input",
                unit="GB/s",
                run=_rate(_through(pipeline, frames), frames.nbytes),
                peers={peer: _rate(work, frames.nbytes) for peer, work in peers.items()},
                absent=absent,
            )


def _plain(source: str, params: dict[str, Any]) -> Callable[[Any], Any]:
    """The kernel as the analyst wrote it, run by Python with NumPy."""
    namespace: dict[str, Any] = {"np": np}
    exec(source, namespace)
    (function,) = (value for key, value in namespace.items() if key not in ("np", "__builtins__"))
    given = {key: value.value if isinstance(value, ScalarParam) else value for key, value in params.items()}
    return lambda frame: function(frame, **given)


def _compare(pipeline: Pipeline, plain: Callable[[Any], Any], frames: Any) -> None:
    outcome = pipeline.run(frames[:1], np.zeros(1, np.dtype([])))
    if pipeline.changes:
        np.testing.assert_allclose(outcome.frames[0], plain(frames[0]), rtol=1e-5, atol=1e-4)
    else:
        assert bool(outcome.status[0] == 0) == bool(plain(frames[0]))


def _through(pipeline: Pipeline, frames: Any) -> Callable[[], None]:
    columns = np.zeros(1, np.dtype([]))
    nbytes = int(np.prod(pipeline.out_shape)) * pipeline.out_dtype.itemsize
    out = np.zeros(len(frames) * nbytes, np.uint8) if pipeline.changes else None

    def run() -> None:
        for place in range(len(frames)):
            part = None if out is None else out[place * nbytes : (place + 1) * nbytes]
            pipeline.run(frames[place : place + 1], columns, part)

    return run


def _each(function: Callable[[Any], Any], frames: Any) -> Callable[[], None]:
    def run() -> None:
        for frame in frames:
            function(frame)

    return run


def _numexpr(arrays: dict[str, Any]) -> Callable[[Any], Any]:
    """`calibrate` in numexpr, one thread."""
    import numexpr

    numexpr.set_num_threads(1)

    def one(frame: Any) -> Any:
        t = numexpr.evaluate("(x - dark) * gain", {"x": frame.astype(np.float32), **arrays})
        return numexpr.evaluate("where(t < 0, 0, where(t > 65535, 65535, t))", {"t": t}).astype(np.uint16)

    return one


def _rate(work: Callable[[], None], nbytes: int) -> Callable[[], float]:
    """Do the work once, GB/s; before that once unmeasured, which warms its memory."""
    work()

    def timed() -> float:
        started = time.perf_counter()
        work()
        return nbytes / (time.perf_counter() - started) / 1e9

    return timed


def run(quick: bool) -> list[dict[str, Any]]:
    """The `results` of the benchmark's JSON."""
    return [measure(case, rounds=3 if quick else 9) for case in cases(quick)]

"""Kernels in transit: GB/s of input, beside the same in NumPy or SciPy and beside copying the same blocks in memory.

Workload: frames of counts (Poisson, mean 900, fixed seed), 2048 x 2048 uint16 and 2527 x 2463 uint32, and Timepix3
words, through `Pipeline.run` in extents of one block, results into memory that is used again; compilation is not
timed, but `kernels/attach`. Rounds of ours and the peers alternate; the value is the median round. Results are
compared with the peer's before anything is timed. With two threads, two streams run at once. Back ends: Numba and
OpenCL on the processor (PoCL); a graphics processor where there is one, host to host. `timepix3-packets` are blocks of
variable length, of 1000 words on average.

`kernels/fail-open` is a producer's rate into a buffer of its own whose kernel fails on every tenth extent, beside the
healthy kernel; `kernels/shadow` with the kernel as a shadow, beside none. `library/…` are kernels of the library
(`library_workloads`).
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import hiss
from benchmarks import library_workloads
from benchmarks.measure import Case, measure
from hiss.kernels import Compiler, Packets, Pipeline, ResolvedStage
from hiss.kernels.opencl_device import NoDevice, choose
from hiss.limits import MiB
from hiss.model import KernelDef, KernelKind, ScalarParam
from hiss.testing.pocl_processor import compile_here, name_processor

Plain = Callable[[Any], Any]
SEED = 20
BINS = 1000
CALIBRATE = """\
def calibrate(frame, dark, gain):
    t = (frame.astype(np.float32) - dark) * gain
    return np.clip(t, 0, 65535).astype(np.uint16)
"""
VETO = """\
def veto(frame, threshold, least):
    return np.count_nonzero(frame > threshold) > least
"""
BIN2X2 = """\
def bin2x2(frame):
    return hk.bin2d(frame, 2).astype(np.uint32)
"""
COMMON_MODE = """\
def common_mode(frame):
    return frame.astype(np.float32) - np.median(frame, axis=1, keepdims=True).astype(np.float32)
"""
MEDIAN3X3 = """\
def median3x3(frame):
    return hk.median_filter(frame, 3)
"""
AZIMUTHAL = f"""\
def azimuthal(frame, index):
    return hk.group_sum(frame, index, length={BINS})
"""
TIMEPIX3 = """\
def timepix3(words, least):
    tot = hk.bits(words, 20, 10)
    pixel = hk.bits(words, 44, 16)
    time = hk.bits(words, 0, 16) * 2**18 + hk.bits(words, 30, 14) * 16 - hk.bits(words, 16, 4)
    hit = (hk.bits(words, 60, 4) == 11) & (tot >= least)
    return np.where(hit, pixel * 2**44 + time, 0)
"""
TIMEPIX3_PACKETS = TIMEPIX3.replace("def timepix3", "def packets").replace(
    "np.where(hit, pixel * 2**44 + time, 0)", "(pixel * 2**44 + time)[hit]"
)
PACKET_WORDS = 1000  # on average


@dataclass
class Workload:
    """A kernel, its blocks, and the same in plain NumPy or SciPy: `peers` take one block."""

    name: str
    stages: list[tuple[KernelDef, dict[str, Any]]]
    frames: Any
    peers: dict[str, Plain] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    tolerance: float = 0.0


def _map(source: str, **params: Any) -> tuple[KernelDef, dict[str, Any]]:
    name = source.split("(")[0].removeprefix("def ")
    return KernelDef(name, KernelKind.FILTER if name == "veto" else KernelKind.MAP, source), params


def workloads(shape: tuple[int, int], dtype: str, count: int) -> Iterator[Workload]:
    """The six kernels, and three of them as one pipeline, for frames of one type."""
    rng = np.random.default_rng(SEED)
    height, width = shape
    frames = rng.poisson(900, (count, *shape)).astype(dtype)
    dark = rng.normal(100, 3, shape).astype(np.float32)
    gain = rng.normal(1, 0.02, shape).astype(np.float32)
    y, x = np.ogrid[:height, :width]
    index = np.minimum(np.hypot(y - height / 2, x - width / 2), BINS - 1).astype(np.int32)
    flat = index.ravel()

    def calibrated(frame: Any) -> Any:
        return np.clip((frame.astype(np.float32) - dark) * gain, 0, 65535).astype(np.uint16)

    def vetoed(frame: Any) -> Any:
        return np.count_nonzero(frame > 960) > 1000

    def binned(frame: Any) -> Any:
        even = frame[: height // 2 * 2, : width // 2 * 2]
        return even.reshape(height // 2, 2, width // 2, 2).sum(axis=(1, 3), dtype=np.uint32)

    peers, absent = _numexpr(dark, gain)
    scipy, no_scipy = _scipy()
    a, b = _map(CALIBRATE, dark=dark, gain=gain), _map(VETO, threshold=ScalarParam(960), least=ScalarParam(1000))
    c = _map(BIN2X2 if not height % 2 and not width % 2 else BIN2X2.replace("frame, 2", "frame[:-1, :-1], 2"))
    yield Workload("calibrate", [a], frames, {"numpy": calibrated, **peers}, absent)
    yield Workload("veto", [b], frames, {"numpy": vetoed})
    yield Workload("bin2x2", [c], frames, {"numpy": binned})
    yield Workload(
        "common-mode",
        [_map(COMMON_MODE)],
        frames,
        {"numpy": lambda frame: frame.astype(np.float32) - np.median(frame, axis=1, keepdims=True).astype(np.float32)},
    )
    yield Workload("median3x3", [_map(MEDIAN3X3)], frames, scipy, no_scipy)
    yield Workload(
        "azimuthal",
        [_map(AZIMUTHAL, index=index)],
        frames,
        {"numpy": lambda frame: np.bincount(flat, frame.ravel(), BINS)},
        tolerance=1e-12,
    )

    def together(frame: Any) -> Any:
        t = calibrated(frame)
        return binned(t) if vetoed(t) else None

    yield Workload("calibrate-veto-bin2x2", [a, b, c], frames, {"numpy": together})


def timepix3(count: int) -> Workload:
    rng = np.random.default_rng(SEED)
    words = rng.integers(0, 1 << 60, (count, 1 << 20), np.uint64) | np.uint64(11 << 60)

    def unpacked(words: Any) -> Any:
        def bits(first: int, size: int) -> Any:
            return (words >> np.uint64(first)) & np.uint64((1 << size) - 1)

        tot, pixel = bits(20, 10), bits(44, 16)
        time = bits(0, 16) * np.uint64(2**18) + bits(30, 14) * np.uint64(16) - bits(16, 4)
        return np.where((bits(60, 4) == 11) & (tot >= 20), pixel * np.uint64(2**44) + time, 0)

    return Workload("timepix3", [_map(TIMEPIX3, least=ScalarParam(20))], words, {"numpy": unpacked})


def of_library(side: int, count: int) -> Iterator[Workload]:
    """Kernels of the library, on frames of side x side."""
    for name, definition, params, frames, peers, absent, tolerance in library_workloads.rows(side, count):
        yield Workload(name, [(definition, params)], frames, peers, absent, tolerance)


def _packets(words: Any, compiler: Compiler) -> Case:
    """The same of packets, where the hits that are too short are left out of the result."""
    rng = np.random.default_rng(SEED)
    lengths = rng.poisson(PACKET_WORDS, words.size // PACKET_WORDS - 100).astype(np.int64)
    sent = Packets.of(words.reshape(-1)[: lengths.sum()], lengths)
    columns = np.zeros(len(sent), np.dtype([]))
    stage = ResolvedStage(*_map(TIMEPIX3_PACKETS, least=ScalarParam(500)))
    pipeline = Pipeline.build([stage], "u8", (None,), columns.dtype, compiler)
    assert pipeline.backends == ("numba",)
    out = np.empty(sent.nbytes, np.uint8)
    copied = np.empty_like(sent.items)

    def plain(words: Any) -> Any:
        def bits(first: int, size: int) -> Any:
            return (words >> np.uint64(first)) & np.uint64((1 << size) - 1)

        tot, pixel = bits(20, 10), bits(44, 16)
        time = bits(0, 16) * np.uint64(2**18) + bits(30, 14) * np.uint64(16) - bits(16, 4)
        return (pixel * np.uint64(2**44) + time)[(bits(60, 4) == 11) & (tot >= 500)]

    found = pipeline.run(sent, columns, out).frames
    assert all(np.array_equal(ours, plain(packet)) for ours, packet in zip(found, sent, strict=True))
    peers = {
        "copy": _rate(lambda: np.copyto(copied, sent.items), sent.nbytes),
        "numpy": _rate(lambda: [plain(packet) for packet in sent], sent.nbytes),
    }
    ours = _rate(lambda: pipeline.run(sent, columns, out), sent.nbytes)
    return Case("kernels/numba/1-thread/timepix3-packets", "input", "GB/s", ours, peers)


def cases(quick: bool) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        compilers, absent = _compilers(directory)
        count = 4 if quick else 8
        for shape, dtype in (((2048, 2048), "uint16"), ((2527, 2463), "uint32")):
            large = dtype == "uint32"
            listed = list(workloads(shape, dtype, 2 if large else count))
            listed += [] if large else [timepix3(count)]
            if not large:
                yield _packets(listed[-1].frames, compilers["numba"])
            for workload in listed:
                if quick and large and workload.name not in ("calibrate", "veto", "bin2x2"):
                    continue
                end = "/2527x2463-u32" if large else ""
                for backend, compiler in compilers.items():
                    yield _case(f"kernels/{backend}/1-thread/{workload.name}{end}", workload, compiler, 1)
                if not large and (not quick or workload.name in ("calibrate", "common-mode")):
                    yield _case(f"kernels/numba/2-threads/{workload.name}", workload, compilers["numba"], 2)
                if workload.name == "calibrate-veto-bin2x2" and not large:
                    yield _together_or_apart(workload, compilers["numba"])
        for workload in of_library(2048, 1 if quick else count):
            for backend in ("numba",) if quick else compilers:
                yield _case(f"kernels/{backend}/1-thread/library/{workload.name}", workload, compilers[backend], 1)
        for backend, reason in absent.items():
            print(f"kernels/{backend}: absent; {reason}", flush=True)
        yield from _attach(directory)
        yield from _producers(directory, quick)


def _compilers(directory: Path) -> tuple[dict[str, Compiler], dict[str, str]]:
    """By back end, and why some are not here."""
    from hiss.kernels.opencl_backend import OpenclBackend

    made = {"numba": Compiler(directory / "numba")}
    absent: dict[str, str] = {}
    for name, selector in (("opencl-cpu", "cpu"), ("opencl-gpu", "gpu")):
        try:
            device = choose(selector, directory / "pocl")
        except NoDevice as reason:
            absent[name] = str(reason)
            continue
        name_processor(device.device)
        compiler = Compiler(directory / name)
        (directory / name).mkdir(exist_ok=True)
        compiler.backend = OpenclBackend(
            directory / name, device, compiler.backend, workers=1, compile_files=compile_here(device)
        )
        made[name] = compiler
    return made, absent


def _pipeline(workload: Workload, compiler: Compiler, only: slice = slice(None)) -> Pipeline:
    stages = [ResolvedStage(definition, params) for definition, params in workload.stages[only]]
    return Pipeline.build(stages, workload.frames.dtype, workload.frames.shape[1:], np.dtype([]), compiler)


def _case(name: str, workload: Workload, compiler: Compiler, threads: int) -> Case:
    pipelines = [_pipeline(workload, compiler) for _ in range(threads)]
    wanted = "numba" if compiler.backend.name == "numba" else "opencl"
    assert set(pipelines[0].backends) == {wanted}, f"{name} runs in {pipelines[0].backends}"
    frames = workload.frames
    for peer in list(workload.peers.values())[:1]:
        _compare(pipelines[0], peer, workload)
    ours = [_through(pipeline, frames[k::threads]) for k, pipeline in enumerate(pipelines)]
    copied = np.empty_like(frames)
    peers = {"copy": _rate(lambda: np.copyto(copied, frames), frames.nbytes)}
    beside = workload.peers if wanted == "numba" and threads == 1 else {"numpy": workload.peers.get("numpy")}
    for key, peer in beside.items():
        if peer is not None:
            peers[key] = _rate(lambda peer=peer: peer(frames[0]), frames[0].nbytes)
    absent = workload.absent if wanted == "numba" and threads == 1 else {}
    return Case(name, "input", "GB/s", _rate(_at_once(ours), frames.nbytes), peers, absent)


def _together_or_apart(workload: Workload, compiler: Compiler) -> Case:
    """One pipeline beside its stages one after the other, each over all blocks."""
    frames = workload.frames
    first, second = _pipeline(workload, compiler, slice(0, 1)), None
    calibrated = np.concatenate([first.run(frame[None], np.zeros(1, np.dtype([]))).frames for frame in frames])
    later = dataclasses.replace(workload, frames=calibrated)
    second, third = _pipeline(later, compiler, slice(1, 2)), _pipeline(later, compiler, slice(2, 3))
    apart = [_through(first, frames), _through(second, calibrated), _through(third, calibrated)]
    whole = _through(_pipeline(workload, compiler), frames)
    return Case(
        "kernels/numba/1-thread/one-pipeline",
        "input",
        "GB/s",
        _rate(whole, frames.nbytes),
        {"one-after-the-other": _rate(lambda: [work() for work in apart], frames.nbytes)},
    )


def _compare(pipeline: Pipeline, plain: Plain, workload: Workload) -> None:
    outcome = pipeline.run(workload.frames[:1], np.zeros(1, np.dtype([])))
    expected = plain(workload.frames[0])
    if not pipeline.changes or expected is None:
        assert bool(outcome.status[0] == 0) == bool(expected)
    else:
        np.testing.assert_allclose(outcome.frames[0], expected, rtol=workload.tolerance)


def _through(pipeline: Pipeline, frames: Any) -> Callable[[], None]:
    columns = np.zeros(1, np.dtype([]))
    nbytes = int(np.prod(pipeline.out_shape)) * pipeline.out_dtype.itemsize
    out = np.zeros(nbytes + 64, np.uint8)
    start = -out.ctypes.data % 64
    part = out[start : start + nbytes] if pipeline.changes else None

    def run() -> None:
        for place in range(len(frames)):
            pipeline.run(frames[place : place + 1], columns, part)

    return run


def _at_once(works: list[Callable[[], None]]) -> Callable[[], None]:
    def run() -> None:
        threads = [threading.Thread(target=work) for work in works[1:]]
        for thread in threads:
            thread.start()
        works[0]()
        for thread in threads:
            thread.join()

    return run


def _numexpr(dark: Any, gain: Any) -> tuple[dict[str, Plain], dict[str, str]]:
    """`calibrate` in numexpr, one thread."""
    if not importlib.util.find_spec("numexpr"):
        return {}, {"numexpr": "pip install numexpr"}
    import numexpr

    numexpr.set_num_threads(1)

    def one(frame: Any) -> Any:
        t = numexpr.evaluate("(x - dark) * gain", {"x": frame.astype(np.float32), "dark": dark, "gain": gain})
        return numexpr.evaluate("where(t < 0, 0, where(t > 65535, 65535, t))", {"t": t}).astype(np.uint16)

    return {"numexpr": one}, {}


def _scipy() -> tuple[dict[str, Plain], dict[str, str]]:
    if not importlib.util.find_spec("scipy"):
        return {}, {"scipy": "pip install scipy"}
    from scipy import ndimage

    return {"scipy": lambda frame: ndimage.median_filter(frame, 3)}, {}


def _rate(work: Callable[[], Any], nbytes: int) -> Callable[[], float]:
    """Do the work once, GB/s; before that once unmeasured, which warms its memory."""
    work()

    def timed() -> float:
        started = time.perf_counter()
        work()
        return nbytes / (time.perf_counter() - started) / 1e9

    return timed


def _attach(directory: Path) -> Iterator[Case]:
    """From the source to a pipeline that can run: seen before, and never."""
    turn = iter(range(1_000_000))

    def attach(source: str, compiler: Compiler) -> float:
        started = time.perf_counter()
        Pipeline.build([ResolvedStage(_map(source)[0])], np.dtype("u2"), (512, 512), np.dtype([]), compiler)
        return (time.perf_counter() - started) * 1e3

    compiler = Compiler(directory / "attach")
    known = "def known(frame):\n    return frame * 3 + 1\n"
    attach(known, compiler)
    yield Case(
        "kernels/attach/seen", "time", "ms", lambda: attach(known, Compiler(directory / "attach")), less_is_better=True
    )
    yield Case(
        "kernels/attach/never-seen",
        "time",
        "ms",
        lambda: attach(f"def fresh(frame):\n    return frame * 3 + {next(turn)}\n", compiler),
        less_is_better=True,
    )


def _producers(directory: Path, quick: bool) -> Iterator[Case]:
    """A producer's rate into an embedded buffer, from the first `append` to the last acknowledgement."""
    frames = np.random.default_rng(SEED).poisson(900, (20 if quick else 60, 1024, 1024)).astype(np.uint16)
    calibrate = "def brighter(frame):\n    return np.clip(frame.astype(np.float32) * 1.5, 0, 65535).astype(np.uint16)\n"
    definition = KernelDef("brighter", KernelKind.MAP, calibrate)
    bound = hiss.model.BoundKernel(definition)
    beside = dataclasses.replace(bound, shadow=True)
    logging.getLogger("hiss.refinery").setLevel(logging.ERROR)  # it says of each extent that a kernel failed
    with hiss.open(directory / "buffer", arena_bytes=256 * MiB, segment_bytes=64 * MiB) as buffer:
        readout = buffer.store._node.readout  # type: ignore[attr-defined]
        real, names = readout.pipeline, iter(range(1_000_000))

        def failing(info: Any, came_as: Any) -> Pipeline:
            pipeline: Pipeline = real(info, came_as)
            if info.name.startswith("bad"):
                (stage,) = pipeline._stages
                stage.executable = _EveryTenth(stage.executable)  # type: ignore[assignment]
            return pipeline

        readout.pipeline = failing

        def rate(name: str, kernels: list[Any]) -> Callable[[], float]:
            def produce() -> float:
                scan = buffer.collection("bench")
                title = f"{name}{next(names)}"
                started = time.perf_counter()
                with scan.create_stream(title, dtype="u2", shape=frames.shape[1:], kernels=kernels) as stream:
                    for frame in frames:
                        stream.append(frame)
                taken = time.perf_counter() - started
                buffer.store.delete_stream(buffer[f"bench/{title}"].info.id)
                return float(frames.nbytes / taken / 1e9)

            produce()
            return produce

        healthy = rate("good", [bound])
        yield Case("kernels/fail-open", "input", "GB/s", rate("bad", [bound]), {"healthy": healthy})
        yield Case("kernels/shadow", "input", "GB/s", rate("shadow", [beside]), {"no-kernel": rate("plain", [])})


class _EveryTenth:
    """An executable that fails on every tenth extent."""

    def __init__(self, working: Any) -> None:
        self.working, self.backend, self.calls = working, working.backend, 0

    def run(self, *arguments: Any) -> None:
        self.calls += 1
        if self.calls % 10 == 0:
            raise MemoryError("no room, this time")
        self.working.run(*arguments)


def run(quick: bool) -> Iterator[dict[str, Any]]:
    """The `results` of the benchmark's JSON."""
    for case in cases(quick):
        yield measure(case, rounds=3 if quick else 9)

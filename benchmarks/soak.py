"""A buffer that is filled, read, drained and filled again, for 20 minutes: does it stay as it was?

Workload: streams of 64 frames of 2 MiB (random uint16) are written durably, one after another, by two producers. When
the log has come to its bound, the oldest streams are drained to NeXus files, every block read back and compared, and
evicted, until half of it is free; the producers go on meanwhile, as fast as there is space. A reader takes random
blocks of random streams and compares each with the digest of what was sent. Once a second: memory of the process
(without what files it maps), memory of the arena in use, bytes of the log and of what is alive in it, and what was
written since.

Writes `soak.json` (the series) and `soak.png` (the plot, where matplotlib is there: `pip install 'hiss[demo]'`) to
`bench-out/`. Case `memory`: the slope of the process's memory over the second half, MiB an hour. `speed`: the median
GB/s; its peer `first-quarter` is that of the first quarter of the run. `wrong-blocks` is to be 0.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

import hiss
from benchmarks.small import resident_bytes
from hiss import limits
from hiss.drain import drain
from hiss.errors import HissError, StreamEvicted, Unavailable
from hiss.limits import GiB, MiB
from hiss.process import settle_memory

OUT = Path("bench-out")
_FRAMES = 64
_PRODUCERS = 2


@dataclass
class Series:
    """One entry a second, but for the counts at the end."""

    seconds: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
    arena_bytes: list[int] = field(default_factory=list)  # in use
    log_bytes: list[int] = field(default_factory=list)
    live_bytes: list[int] = field(default_factory=list)
    gb_per_s: list[float] = field(default_factory=list)  # written
    blocks_written: int = 0
    blocks_compared: int = 0
    wrong_blocks: int = 0
    streams_drained: int = 0


class Soak:
    """One run."""

    def __init__(self, directory: Path, seconds: float, log_bytes: int, frame_bytes: int, arena_bytes: int) -> None:
        self.seconds, self.log_bytes = seconds, log_bytes
        segment_bytes = max(16 * frame_bytes, MiB)
        # segments of which a quarter is alive are not compacted: so many may be needed for what is alive
        self.buffer = hiss.open(
            directory,
            arena_bytes=arena_bytes,
            segment_bytes=segment_bytes,
            log_bytes_max=limits.COMPACTION_FRACTION * log_bytes + 8 * segment_bytes,
        )
        self.archive = directory.with_name("archive")
        self.archive.mkdir()
        self.frames = np.random.default_rng(0).integers(0, 1 << 16, (16, frame_bytes // 2)).astype("u2")
        self.digests = [xxhash.xxh3_64_intdigest(frame.data) for frame in self.frames]
        self.series = Series()
        self.streams: deque[str] = deque()  # whole ones, oldest first
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.produced = threading.Event()
        self.errors: list[BaseException] = []
        self.number = 0

    def run(self) -> Series:
        producers = [self._thread(self._produce, self.stopping) for _ in range(_PRODUCERS)]
        others = [self._thread(work, self.produced) for work in (self._read, self._drain)]
        begin = last = time.monotonic()
        written = 0
        while last - begin < self.seconds and not self.stopping.wait(min(1.0, self.seconds / 10)):
            now = time.monotonic()
            self._sample(now - begin, (self.series.blocks_written - written) / (now - last))
            last, written = now, self.series.blocks_written
        self.stopping.set()
        for thread in producers:
            thread.join()
        self.produced.set()  # only now: they may wait for space
        for thread in others:
            thread.join()
        self.buffer.close()
        if self.errors:
            raise self.errors[0]
        return self.series

    def _thread(self, work: Any, until: threading.Event) -> threading.Thread:
        thread = threading.Thread(target=self._guarded, args=(work, until))
        thread.start()
        return thread

    def _guarded(self, work: Any, until: threading.Event) -> None:
        try:
            while not until.is_set():
                work()
        except BaseException as error:
            self.errors.append(error)
            self.stopping.set()
            self.produced.set()

    def _sample(self, seconds: float, blocks_a_s: float) -> None:
        usage = self.buffer.store._node.storage.usage()  # type: ignore[attr-defined]
        arena = self.buffer.store._node.storage.arena  # type: ignore[attr-defined]
        series = self.series
        series.seconds.append(round(seconds, 2))
        series.resident_bytes.append(resident_bytes())
        series.arena_bytes.append(arena.capacity - usage.arena_free_bytes)
        series.log_bytes.append(usage.log_bytes)
        series.live_bytes.append(usage.live_bytes)
        series.gb_per_s.append(blocks_a_s * self.frames[0].nbytes / 1e9)

    # ---- what the threads do, over and over

    def _produce(self) -> None:
        with self.lock:
            self.number += 1
            name = f"s{self.number}"
        collection = self.buffer.collection("soak")
        with collection.create_stream(name, dtype="u2", shape=self.frames.shape[1:], ack="durable") as s:
            for k in range(_FRAMES):
                s.append(self.frames[k % len(self.frames)])
                with self.lock:
                    self.series.blocks_written += 1
        with self.lock:
            self.streams.append(name)

    def _read(self) -> None:
        with self.lock:
            name = random.choice(self.streams) if self.streams else None
        if name is None:
            self.produced.wait(0.05)
            return
        try:
            start = random.randrange(_FRAMES)
            self._compare(self.buffer[f"soak/{name}"][start : start + 4])
        except StreamEvicted:
            return  # meanwhile
        except HissError:
            with self.lock:
                if name in self.streams:
                    raise

    def _drain(self) -> None:
        """Drain and evict the oldest streams, once the bound is reached, until half of it is free."""
        storage = self.buffer.store._node.storage  # type: ignore[attr-defined]
        if storage.usage().live_bytes < self.log_bytes:
            self.produced.wait(0.05)
            return
        while storage.usage().live_bytes > self.log_bytes // 2 and not self.produced.is_set():
            with self.lock:
                name = self.streams.popleft() if self.streams else None
            if name is None:
                return
            file = self.archive / f"{name}.nxs"
            drain(self.buffer.store, f"soak/{name}", file, compression="none")
            self._evict(f"soak/{name}")
            file.unlink()  # this disk is no archive
            with self.lock:
                self.series.streams_drained += 1

    def _evict(self, path: str) -> None:
        while not self.produced.is_set():
            try:
                self.buffer.store.evict(path)
                return
            except Unavailable:  # the reader is at it
                self.produced.wait(0.01)

    def _compare(self, blocks: np.ndarray) -> None:
        found = [xxhash.xxh3_64_intdigest(np.ascontiguousarray(block).data) for block in blocks]
        known = set(self.digests)
        with self.lock:
            self.series.blocks_compared += len(found)
            self.series.wrong_blocks += sum(digest not in known for digest in found)


def run(
    quick: bool,
    *,
    seconds: float | None = None,
    log_bytes: int = 2 * GiB,
    frame_bytes: int = 2 * MiB,
    arena_bytes: int = 256 * MiB,
    out: Path = OUT,
) -> Iterator[dict[str, Any]]:
    seconds = seconds or (50.0 if quick else 20 * 60.0)
    settle_memory()  # as a server's process does
    with tempfile.TemporaryDirectory(prefix="hiss-bench-") as folder:
        series = Soak(Path(folder) / "buffer", seconds, log_bytes, frame_bytes, arena_bytes).run()
    out.mkdir(exist_ok=True)
    (out / "soak.json").write_text(json.dumps(asdict(series)))
    _plot(series, out / "soak.png")
    quarter = max(1, len(series.seconds) // 4)
    first, speed = statistics.median(series.gb_per_s[:quarter]), statistics.median(series.gb_per_s)
    yield _result("soak/speed", "throughput", "GB/s", speed, series.gb_per_s, {"first-quarter": first})
    half = len(series.seconds) // 2
    slope = np.polyfit(series.seconds[half:], series.resident_bytes[half:], 1)[0] * 3600 / MiB
    yield _result("soak/memory", "slope", "MiB/h", float(slope), [float(slope)], {})
    fills = series.streams_drained * _FRAMES * frame_bytes / log_bytes
    yield _result("soak/refills", "count", "times", fills, [fills], {})
    wrong = float(series.wrong_blocks)
    name = f"soak/wrong-blocks-of-{series.blocks_compared}"
    yield _result(name, "count", "blocks", wrong, [wrong], {})


def _result(
    case: str, metric: str, unit: str, value: float, values: list[float], peers: dict[str, float]
) -> dict[str, Any]:
    return {
        "case": case,
        "metric": metric,
        "unit": unit,
        "value": value,
        "min": min(values),
        "max": max(values),
        "rounds": 1,
        "peers": {name: {"value": other, "ratio": value / other if other else 0.0} for name, other in peers.items()},
    }


def _plot(series: Series, path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    minutes = np.array(series.seconds) / 60
    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(8, 8), layout="constrained")
    axes[0].plot(minutes, np.array(series.resident_bytes) / MiB, label="process")
    axes[0].plot(minutes, np.array(series.arena_bytes) / MiB, label="arena in use")
    axes[0].set_ylabel("memory (MiB)")
    axes[1].plot(minutes, np.array(series.log_bytes) / GiB, label="segments")
    axes[1].plot(minutes, np.array(series.live_bytes) / GiB, label="alive in them")
    axes[1].set_ylabel("disk (GiB)")
    axes[2].plot(minutes, series.gb_per_s, linewidth=0.8)
    axes[2].set_ylabel("written (GB/s)")
    axes[2].set_xlabel("minutes")
    for ax in axes[:2]:
        ax.legend(loc="lower right")
    for ax in axes:
        ax.set_ylim(bottom=0)
    figure.suptitle(
        f"{series.blocks_written} blocks written, {series.blocks_compared} compared, {series.wrong_blocks} wrong"
    )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

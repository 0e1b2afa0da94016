"""The demo's instrument: a process of its own that streams over gRPC, `python -m hiss.demo.instrument`.

It gets its plan as JSON on standard input and tells on standard output, as JSON lines, what it did: `stream` when it
opens one, `acked` with index and digest of every block that the buffer has acknowledged as durable, `report` when it
has sealed one. The digest is taken here, of the bytes that are sent, so whoever listens can ask the buffer for them. It
knows nothing of the server's end and does nothing about it: the client reconnects by itself. One thread.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

import hiss
from hiss.client import Buffer
from hiss.demo.amplified import amplified
from hiss.demo.kernels import enough, flatfield, too_slow
from hiss.demo.scan import Scan, load_scan
from hiss.model import digest_of
from hiss.writer import StreamWriter

SCAN: Final = "demo/scan1"
GRIDSCAN: Final = "demo/gridscan"
RATE: Final = "demo/rate"
VETO_THRESHOLD: Final = 20  # counts
VETO_LEAST: Final = 50  # pixels
_FLUSH_EVERY: Final = 4
_RATE_FLUSH_EVERY: Final = 64
_MONITOR_READINGS: Final = 12
_NO_TIME_S: Final = 1e-9  # no kernel runs on an extent in a nanosecond


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. Rates of 0 are as fast as it goes; `withheld` are projections that are never sent."""

    address: str
    source: str | None = None
    gridscan: str | None = None
    frames_per_s: float = 25.0
    withheld: tuple[int, ...] = field(default=())
    rate_seconds: float = 0.0
    rate_bytes_max: int = 0

    @classmethod
    def from_json(cls, text: str) -> Plan:
        found = json.loads(text)
        return cls(**{**found, "withheld": tuple(found["withheld"])})

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def tell(said: str, **what: Any) -> None:
    """One line to whoever started the instrument."""
    sys.stdout.write(json.dumps({"said": said, **what}) + "\n")
    sys.stdout.flush()


class _Telling:
    """A stream's writer that tells every block whose acknowledgement has come."""

    def __init__(self, writer: StreamWriter, frames: int) -> None:
        self.writer = writer
        self.path = writer.info.path
        self._pending: list[tuple[int, str]] = []
        tell("stream", path=self.path, frames=frames)

    def append(self, frame: Any, **values: Any) -> None:
        index = self.writer.append(frame, time_ns=time.time_ns(), **values)
        self._pending.append((index, f"{digest_of(np.ascontiguousarray(frame).reshape(-1).view(np.uint8).data):016x}"))

    def flush(self) -> None:
        self.writer.flush()
        if self._pending:
            tell("acked", path=self.path, blocks=self._pending)
        self._pending = []

    def seal(self) -> None:
        self.flush()
        self.writer.seal()
        report = self.writer.report()
        tell(
            "report",
            path=self.path,
            blocks=report.sent_blocks,
            bytes=report.sent_bytes,
            seconds=report.seconds,
            reconnects=report.reconnects,
        )


def _stream(buffer: Buffer, collection: str, name: str, frames: int, **spec: Any) -> _Telling:
    return _Telling(buffer.collection(collection).create_stream(name, ack="durable", **spec), frames)


def _calibration(buffer: Buffer, scan: Scan) -> None:
    """Darks and flats, before anything else."""
    for name, key, frames in (("dark", 2, scan.dark), ("flat", 1, scan.flat)):
        attrs = {"image_key": key, "units": "counts", "instrument": "area detector"}
        columns = {"derived": "?"}
        spec = {"dtype": frames.dtype, "shape": frames.shape[1:], "columns": columns, "attrs": attrs}
        stream = _stream(buffer, SCAN, name, len(frames), **spec)
        for place, frame in enumerate(frames):
            stream.append(frame, derived=place >= len(frames) - scan.derived)
        stream.seal()


def _projections(buffer: Buffer, scan: Scan, plan: Plan) -> None:
    """The scan itself, at the detector's pace; the means of darks and flats are the kernel's parameters."""
    collection = buffer[SCAN]
    kernel = flatfield.bind(dark=collection["dark"].mean(), flat=collection["flat"].mean())
    stream = _stream(
        buffer,
        SCAN,
        "proj",
        len(scan.projections) - len(plan.withheld),
        dtype=scan.projections.dtype,
        shape=scan.projections.shape[1:],
        columns={"angle": "f8 deg"},
        keep="both",
        kernels=[kernel],
        attrs={"image_key": 0, "sample": scan.sample, "units": "attenuation", "instrument": "area detector"},
    )
    for number in _paced(len(scan.projections), plan.frames_per_s):
        if number not in plan.withheld:
            stream.append(scan.projections[number], index=number, angle=float(scan.angles[number]))
        if number % _FLUSH_EVERY == _FLUSH_EVERY - 1:
            stream.flush()
    stream.seal()


def _paced(count: int, per_s: float) -> Iterator[int]:
    """Numbers 0, 1, … at the pace of a detector; one that fell behind does not hurry."""
    due_s = time.monotonic()
    for number in range(count):
        yield number
        if per_s:
            due_s = max(due_s + 1 / per_s, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))


def _monitor(buffer: Buffer) -> None:
    """A beam monitor whose kernel is given no time: every result is a gap, every reading is kept."""
    readings = np.random.default_rng(7).normal(1000, 5, (_MONITOR_READINGS, 8))
    stream = _stream(
        buffer,
        SCAN,
        "monitor",
        len(readings),
        dtype="float64",
        shape=(8,),
        kernels=[too_slow.bind(budget_s=_NO_TIME_S)],
        attrs={"units": "nA", "instrument": "beam monitor"},
    )
    for reading in readings:
        stream.append(reading)
        stream.flush()
    stream.seal()


def _grid_scan(buffer: Buffer, file: Path) -> None:
    """Diffraction frames of 25 MB each; those without a pattern are vetoed on their way."""
    import h5py

    with h5py.File(file, "r") as source:
        frames, mask, numbers = source["frames"], source["mask"][()], source["frame_number"][()]
        spec = {"dtype": mask.dtype, "shape": mask.shape, "attrs": {"instrument": "PILATUS3 6M"}}
        stream = _stream(buffer, GRIDSCAN, "mask", 1, **spec)
        stream.append(mask)
        stream.seal()
        veto = enough.bind(mask=buffer[GRIDSCAN]["mask"], threshold=VETO_THRESHOLD, least=VETO_LEAST)
        stream = _stream(
            buffer,
            GRIDSCAN,
            "frames",
            len(frames),
            dtype=frames.dtype,
            shape=frames.shape[1:],
            columns={"frame_number": "i8"},
            keep="both",
            kernels=[veto],
            attrs={"units": "counts", "instrument": "PILATUS3 6M"},
        )
        for place, number in enumerate(numbers):
            stream.append(frames[place], frame_number=int(number))
        stream.seal()


def _rate(buffer: Buffer, scan: Scan, plan: Plan) -> None:
    """Amplified frames as fast as they go, through the same kernel, for the given time or amount."""
    pool = amplified(scan)
    tell("note", text=pool.method)
    stream = _stream(
        buffer,
        RATE,
        "frames",
        0,
        dtype=pool.frames.dtype,
        shape=pool.frames.shape[1:],
        kernels=[flatfield.bind(dark=pool.dark, flat=pool.flat)],
        attrs={"origin": pool.method, "instrument": "amplified area detector"},
    )
    until_s = time.monotonic() + plan.rate_seconds
    sent = 0
    while time.monotonic() < until_s and sent * pool.frames[0].nbytes < plan.rate_bytes_max:
        stream.append(pool.frames[sent % len(pool.frames)])
        sent += 1
        if sent % _RATE_FLUSH_EVERY == 0:
            stream.flush()
    stream.seal()


def run(plan: Plan) -> None:
    """Connect, stream everything, leave."""
    scan = load_scan(Path(plan.source) if plan.source else None)
    attrs: Mapping[str, Any] = {
        "definition": "NXtomo",
        "title": "the demo's tomography scan",
        "sample": scan.sample,
        "origin": "; ".join(scan.origin),
    }
    with hiss.connect(plan.address) as buffer:
        buffer.collection(SCAN, attrs=attrs)
        _calibration(buffer, scan)
        _projections(buffer, scan, plan)
        _monitor(buffer)
        if plan.gridscan:
            _grid_scan(buffer, Path(plan.gridscan))
        if plan.rate_seconds:
            _rate(buffer, scan, plan)
    tell("done")


if __name__ == "__main__":
    run(Plan.from_json(sys.stdin.read()))

"""One data directory, opened by this process: the storage, the compiler, and the lives of the open streams.

`local.LocalStore` puts the `Store` protocol on it. All methods may be called from any thread. The steps of a stream's
life (a session opens, ends; the stream becomes final) are serialised by the stream's own lock, so that streams do not
wait for one another."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from hiss import limits, reductions, scan_memory
from hiss.archives import Archives
from hiss.blocks import Reservations, Storage, StorageOptions
from hiss.blocks.space_records import covers
from hiss.errors import HissError, InvalidInput, KernelNotFound, ProducerFenced, StreamFinal
from hiss.eviction import Evictor
from hiss.ingest import Ingest
from hiss.kernel_feedback import KernelFeedback
from hiss.kernel_report import KernelReport
from hiss.kernels import Compiler
from hiss.landing import Spaces, share_of
from hiss.milestones import Milestones
from hiss.model import (
    Ack,
    AckLevel,
    AppendStart,
    Feedback,
    Keep,
    KernelKind,
    StageInfo,
    StreamInfo,
    StreamState,
)
from hiss.readout import Readout
from hiss.refinery import Refinery
from hiss.scan_memory import ScanMemory
from hiss.session import Session
from hiss.shadow import Shadows
from hiss.shares import Shares
from hiss.space import Retention


@dataclass(slots=True)
class _Life:
    """What changes in the life of one stream, and the lock for it."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    ingest: Ingest | None = None
    session: Session | None = None


class Node:
    """One data directory, opened by this process.

    Parameters
    ----------
    directory : Path
        Made where it is not there.
    options : StorageOptions
        Sizes of the arena and the segments.
    backend : str
        `numba`, `opencl` or `opencl:DEVICE`, or `numpy` to run kernels by their meaning, slowly.
    retention : Retention, optional
        For collections that have no policy of their own.

    Raises
    ------
    DataDirectoryLocked, CatalogDamaged
    """

    def __init__(
        self,
        directory: Path,
        options: StorageOptions | None = None,
        *,
        backend: str = "numba",
        retention: Retention | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory = directory
        self.storage = Storage(directory, options or StorageOptions(), clock_ns=clock_ns)
        self.catalog = self.storage.catalog
        self.spaces = Spaces(self.storage.arena)
        self.archives = Archives()
        self.readout = Readout(self.storage, Compiler(directory / "kernels", backend), self.archives)
        self.boot_id = uuid.uuid4().hex
        self.clock_ns = clock_ns
        self.started_ns = clock_ns()
        self.milestones = Milestones(self.storage, monotonic_s)
        self.reservations = Reservations(
            self.catalog.space,
            self.storage.room,
            self._log_bytes,
            clock_ns,
            self.storage.arena.capacity,
            (options or StorageOptions()).space_wait_s,
        )
        self.evictor = Evictor(self.storage, self.reservations, retention or Retention(), clock_ns)
        self.evictor.start()
        self._lives: dict[str, _Life] = {}
        self.kernel_reports: dict[str, KernelReport] = {}  # of all kernels that ran, by hash
        self._lock = threading.Lock()
        self._received_blocks = self._received_bytes = 0
        self.closing = threading.Event()
        self.shares = Shares(self.storage, monotonic_s, self.closing)

    def close(self) -> None:
        """Finish what is on its way, make it durable, and let the directory go."""
        self.closing.set()
        with self._lock:
            lives = list(self._lives.values())
        for life in lives:
            with life.lock:
                self._end_session(life, None)
                self._end_shadows(life)
        self.milestones.close()
        self.shares.close()
        self.evictor.close()
        self.archives.close()
        self.storage.close()

    def _log_bytes(self, collection: str) -> int:
        """What the streams of a collection, and of those below it, take in the log."""
        found = [one.path for one in self.catalog.collections(collection) if covers(collection, one.path)]
        return self.storage.log_bytes([each.id for path in found for each in self.catalog.every_stream(path)])

    # ---- the life of a stream

    def life(self, stream_id: str) -> _Life:
        with self._lock:
            return self._lives.setdefault(stream_id, _Life())

    def drop(self, stream_id: str, collection: str = "") -> None:
        """Forget a stream, of the `collection`, that the catalog no longer knows, and free its space in the log."""
        life = self.life(stream_id)
        with life.lock:
            self._end_session(life, StreamFinal("the stream was deleted"))
            self._end_shadows(life)
            self.reservations.freed(collection, self.storage.delete(stream_id))
            scan_memory.forget(self.directory, stream_id)
            self.milestones.closed(stream_id)
            self.shares.forget(stream_id)
        with self._lock:
            self._lives.pop(stream_id, None)

    def open_session(
        self,
        stream_id: str,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
    ) -> Session:
        life = self.life(stream_id)
        with life.lock:
            info = self.catalog.stream_by_id(stream_id)
            _check_open(info)
            taken = ProducerFenced(f"stream {info.path}: another producer took over; this one may not write any more")
            self._end_session(life, taken)
            self.catalog.fence(stream_id)
            self.storage.sync([stream_id])  # what is already here is durable when it is sent and acknowledged again
            if life.ingest is None:
                life.ingest = self._ingest(info)
            if life.ingest.refinery is not None:
                life.ingest.refinery.resume(self.storage.index(stream_id))
            start = self._start(info, life.ingest)
            stir = partial(self.milestones.stir, stream_id)
            life.session = Session(life.ingest, start, on_ack, on_error, on_feedback, self.clock_ns, stir)
            return life.session

    def _ingest(self, info: StreamInfo) -> Ingest:
        if info.raw_id is None:
            return Ingest(info, info.frame, self.storage, self.spaces, None, self.reservations)
        came_as = self.catalog.stream_by_id(info.raw_id).frame
        pipeline = self.readout.pipeline(info, came_as)

        def quarantined(stage: int) -> None:
            self.catalog.set_stage(info.id, stage, quarantined=True)
            name = self.catalog.stream_by_id(info.id).stages[stage].name
            self.feed_back(info.id, {"kernel": name, "quarantined": True})

        memory = ScanMemory(self.directory, info.id, self.storage.sync) if pipeline.scans else None
        stages = [stage for stage in info.stages if stage.kind is not KernelKind.REDUCE]
        reports = [self._report_of(info.id, stage) for stage in stages]
        beside = [
            (stage, self.readout.shadow(stage, info), self._report_of(info.id, stage, shadow=True))
            for stage in info.shadows
        ]
        shadows = Shadows(info.path, beside)
        refinery = Refinery(info, came_as, pipeline, quarantined, memory, reports, shadows)
        return Ingest(info, came_as, self.storage, self.spaces, refinery, self.reservations)

    def _report_of(self, stream_id: str, stage: StageInfo, *, shadow: bool = False) -> KernelReport:
        """A report that counts for the kernel, too, and tells the stream's producer where the stage wants that."""
        tell = None
        if stage.feedback_every:
            send = partial(self.feed_back, stream_id)
            tell = KernelFeedback(stage.name, stage.feedback_every, send, shadow=shadow)
        with self._lock:
            return KernelReport(self.kernel_reports.setdefault(stage.hash, KernelReport()), tell)

    def feed_back(self, stream_id: str, data: Any) -> bool:
        """Send a message to the producer of a stream, if one is connected; whether one is. Does not block."""
        with self._lock:
            life = self._lives.get(stream_id)
        session = None if life is None else life.session
        return session is not None and session.feed_back(Feedback(data, self.clock_ns()))

    def promote(self, stream_id: str, kernel: str) -> StreamInfo:
        """Make a filter among the shadows of an open stream the last stage of its pipeline, from the next extent on.

        Raises
        ------
        KernelNotFound
            It has no such shadow.
        InvalidInput
            Not a filter, or the stream stores raw blocks only.
        """
        life = self.life(stream_id)
        with life.lock:
            info = self.catalog.stream_by_id(stream_id)
            _check_open(info)
            shadow = _promotable(info, kernel)
            assert info.raw_id is not None
            ingest = life.ingest = life.ingest or self._ingest(info)
            refinery = ingest.refinery
            assert refinery is not None
            place = sum(stage.kind is not KernelKind.REDUCE for stage in info.stages)
            stages = [*info.stages[:place], shadow, *info.stages[place:]]
            pipeline = self.readout.pipeline(replace(info, stages=tuple(stages)), ingest.came_as)
            with refinery.turn:
                stages[place] = replace(
                    shadow, since=max(refinery.next_index, self.storage.index(stream_id).next_index)
                )
                others = [stage for stage in info.shadows if stage.name != kernel]
                self.catalog.set_stages(stream_id, stages, others, promoted=kernel)
                refinery.promote(place, pipeline, self._report_of(stream_id, shadow))
            refinery.shadows.drop(kernel)
        return self.complete(self.catalog.stream_by_id(stream_id))

    def _start(self, info: StreamInfo, ingest: Ingest) -> AppendStart:
        index = self.storage.index(info.id)
        credit = share_of(self.storage.arena)
        block = ingest.came_as.block_bytes
        if ingest.refinery is not None and block:
            credit = max(block, credit * block // (block + ingest.refinery.result_bytes(1, block)))
        gaps = tuple(index.gaps(limits.LEDGER_RANGES_MAX))
        return AppendStart(credit, index.next_index, gaps, self.boot_id, min(info.ack, AckLevel.DURABLE))

    def _end_session(self, life: _Life, why: HissError | None) -> None:
        session, life.session = life.session, None
        if session is None:
            return
        if why is not None:
            session.fail(why)
        session.close()
        with self._lock:
            self._received_blocks += session.blocks_received
            self._received_bytes += session.bytes_received

    @staticmethod
    def _end_shadows(life: _Life) -> None:
        if life.ingest is not None and life.ingest.refinery is not None:
            life.ingest.refinery.shadows.close()

    def received(self) -> tuple[int, int]:
        """Blocks and bytes that came in since the start."""
        with self._lock:
            blocks, size, lives = self._received_blocks, self._received_bytes, list(self._lives.values())
        for session in [life.session for life in lives if life.session is not None]:
            blocks += session.blocks_received
            size += session.bytes_received
        return blocks, size

    def finalise(
        self, stream_id: str, attempt: str | None, state: StreamState, end_index: int | None, reason: str
    ) -> StreamInfo:
        """Seal or abort: what is on its way is finished, all is made durable, then the catalog says so and the event
        with it."""
        life = self.life(stream_id)
        with life.lock:
            info = self.catalog.stream_by_id(stream_id)
            if info.state is state:
                return info
            _check_open(info)
            verb = "sealed" if state is StreamState.SEALED else "aborted"
            self._end_session(life, StreamFinal(f"stream {info.path} was {verb}; it takes no more blocks"))
            streams = [info, *self._companions(info)]
            if state is StreamState.SEALED:
                streams += reductions.store(info, self.storage, self.readout, attempt, self.clock_ns())
                info = self.catalog.stream_by_id(stream_id)  # one of them may have been quarantined
            self.storage.sync([stream.id for stream in streams])
            whole = {stream.id: self.complete(stream, end_index).completeness for stream in streams}
            digests = {stream.id: self.storage.stream_digest(stream.id) for stream in streams}
            self.milestones.tell_progress(stream_id)
            self._end_shadows(life)
            known = self._reported(info)
            if known != info:
                self.catalog.set_stages(stream_id, known.stages, known.shadows)
            final = self.catalog.finalise([stream.id for stream in streams], state, whole, digests, reason)[0]
            scan_memory.forget(self.directory, stream_id)
        self.milestones.closed(stream_id)
        with self._lock:
            self._lives.pop(stream_id, None)
        return final

    def _companions(self, info: StreamInfo) -> list[StreamInfo]:
        return [] if info.raw_id is None else [self.catalog.stream_by_id(info.raw_id)]

    def complete(self, info: StreamInfo, end_index: int | None = None) -> StreamInfo:
        """An open stream's information with what there is of it now."""
        if info.state.final:
            return info
        stages = [stage.name for stage in info.stages]
        return self._reported(replace(info, completeness=self.storage.completeness(info.id, end_index, stages)))

    def _reported(self, info: StreamInfo) -> StreamInfo:
        """An open stream's information with how its kernels fare."""
        with self._lock:
            life = self._lives.get(info.id)
        refinery = None if life is None or life.ingest is None else life.ingest.refinery
        if refinery is None:
            return info
        reports = [report.attrs() for report in refinery.reports]
        beside = {stage.name: report.attrs() for stage, report in refinery.shadows.stages}
        return replace(
            info,
            stages=tuple(
                replace(stage, report=reports[place]) if place < len(reports) else stage
                for place, stage in enumerate(info.stages)
            ),
            shadows=tuple(replace(stage, report=beside.get(stage.name, {})) for stage in info.shadows),
        )


def _promotable(info: StreamInfo, kernel: str) -> StageInfo:
    """The shadow of that name, if an open stream can take it into its pipeline."""
    for stage in info.shadows:
        if stage.name != kernel:
            continue
        if stage.kind is not KernelKind.FILTER:
            raise InvalidInput(
                f"stream {info.path}: {kernel!r} is a {stage.kind.name.lower()}, and what the blocks of an open stream "
                "are cannot change; attach it to a new stream or version"
            )
        if info.keep is Keep.RAW:
            raise InvalidInput(
                f"stream {info.path} keeps raw blocks, whose results are computed when they are read; attach "
                f"{kernel!r} to a new stream or version"
            )
        return stage
    names = ", ".join(stage.name for stage in info.shadows) or "none"
    raise KernelNotFound(f"stream {info.path} has no shadow {kernel!r}; it has {names}", name=kernel)


def _check_open(info: StreamInfo) -> None:
    if info.state.final:
        raise StreamFinal(f"stream {info.path} is {info.state.name.lower()}; it is final. Write a new version of it")

"""A stream's pipeline: maps and filters in any order, run over extents, failing open.

Everything is checked and compiled in `build`. `run` never raises for what a kernel does: blocks that it could not
handle come back `KERNEL_FAILED`, with the stage, and a stage that fails for `limits.KERNEL_FAULTS_MAX` extents in a
row is quarantined. Compiled code cannot be interrupted, so an extent is worked on in slices with a look at the clock
between them. The state of a scan goes from block to block in the order of the index: one that comes after a block of a
higher index fails there; blocks that never reach the scan (gaps, vetoed or failed before) do not touch its state. A
pipeline holds its intermediate arrays: one thread at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.errors import InvalidInput, LimitExceeded, SpecMismatch
from hiss.kernels.backend import Array, Executable, Frames, Rows
from hiss.kernels.checker import check
from hiss.kernels.compiler import Compiler, ResolvedStage, program_of
from hiss.kernels.dtypes import DType
from hiss.kernels.ir import Node, Program, Shape
from hiss.kernels.lengths import Length, is_variable, items_of, known_size
from hiss.kernels.memory import Memory, Scan, scan_programs
from hiss.kernels.packets import Packets
from hiss.kernels.specialiser import FrameType
from hiss.model import BlockStatus, ByteArray, KernelKind


@dataclass(frozen=True, slots=True)
class Fault:
    """A stage could not handle blocks of an extent."""

    stage: int
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of an extent's blocks.

    Attributes
    ----------
    frames : array, (n, *out_shape), C-contiguous, or Packets
        The results; rows that are not STORED are undefined. In `out` when that was given.
    status : uint8, (n,)
        A `BlockStatus` for each block: STORED, VETOED or KERNEL_FAILED.
    cause : uint8, (n,)
        The stage that vetoed or failed; 0 where a block is STORED.
    faults : tuple of Fault
        At most one for each stage.
    quarantined : tuple of int
        Stages that this extent put into quarantine.
    spent_s : tuple of float
        What each stage took, in seconds.
    """

    frames: Frames
    status: ByteArray
    cause: ByteArray
    faults: tuple[Fault, ...]
    quarantined: tuple[int, ...]
    spent_s: tuple[float, ...] = ()

    def packed(self) -> tuple[ByteArray, npt.NDArray[np.int64]]:
        """The bytes of the STORED blocks, one after the other, and how many each has."""
        good = self.status == BlockStatus.STORED
        frames = self.frames
        if isinstance(frames, Packets):
            frames = Packets(frames.items, frames.starts[good], frames.lengths[good], frames.used)
            each = math.prod(frames.item) * frames.dtype.itemsize
            return np.ascontiguousarray(frames.together()).reshape(-1).view(np.uint8), frames.lengths * each
        frames = frames if good.all() else frames[good]
        data = np.ascontiguousarray(frames).reshape(-1).view(np.uint8)
        return data, np.full(len(frames), data.size // max(len(frames), 1), np.int64)


@dataclass(slots=True)
class _Stage:
    """One compiled stage and how it has fared."""

    name: str
    kind: KernelKind
    program: Program
    executable: Executable
    budget_s: float
    faults_in_row: int = 0
    quarantined: bool = False
    scan: Scan | None = None
    scratch: Array | None = None  # results that the next stage reads
    growth: int = 1  # items of a packet that goes out, for each item of one that entered the pipeline

    @property
    def output(self) -> Node:
        """The result of a block; a scan's new state stands before it, and behind it which items are selected."""
        return self.program.outputs[0 if self.program.selects else -1]

    @property
    def makes_packets(self) -> bool:
        """Whether its results are packets; those of a filter are truths."""
        return is_variable(self.output.shape)

    def packets(self, count: int, items: int) -> Packets:
        """Room for `count` results that only the next stage sees, of packets of so many items in all that entered."""
        _, item = items_of(self.output.shape)
        if self.scratch is None or len(self.scratch) < items * self.growth:
            self.scratch = np.empty((items * self.growth, *item), self.output.dtype)
        return Packets.room(self.scratch, count)

    def results(self, count: int) -> Array:
        """Room for `count` results that only the next stage sees."""
        output = self.output
        if self.scratch is None or len(self.scratch) < count:
            self.scratch = np.empty((count, *output.shape), output.dtype)
        return self.scratch[:count]


@dataclass(slots=True)
class _Run:
    """One extent on its way through: what each stage has taken and what went wrong."""

    spent_s: list[float]
    faults: dict[int, Fault]
    over: set[int]  # stages that have used up their budget
    ran: set[int]
    late: npt.NDArray[np.bool_] | None = None  # blocks that come after one of a higher index


class Pipeline:
    """Compiled stages for one frame type. Made by `build`.

    Attributes
    ----------
    out_dtype, out_shape
        Of the frames that leave it; None is a first axis of variable length.
    changes : bool
        Whether there is a map; otherwise frames leave as they came.
    warnings : tuple of str
        What is allowed but may not be meant, with its line.
    backends : tuple of str
        Which back end runs each stage.
    """

    def __init__(
        self,
        stages: Sequence[_Stage],
        frame: FrameType,
        warnings: tuple[str, ...],
        clock: Callable[[], float],
    ) -> None:
        self._stages = list(stages)
        self._frame = frame
        self._clock = clock
        self._maps = [place for place, stage in enumerate(stages) if stage.kind is not KernelKind.FILTER]
        self._scans = [stage.scan for stage in stages if stage.scan is not None]
        self._frontier: int | None = None
        self._entered = 0  # items of the packets of a run
        shapes = [(frame.shape, frame.dtype), *((stage.output.shape, stage.output.dtype) for stage in stages)]
        self._slice_blocks = _fitting([kind for kind in shapes if not is_variable(kind[0])])
        self._slice_items = _fitting([kind for kind in shapes if is_variable(kind[0])])
        self.warnings = warnings
        self.changes = bool(self._maps)
        self.out_dtype: DType = frame.dtype
        self._out_shape: Shape = frame.shape
        if self._maps:
            last = stages[self._maps[-1]].output
            self.out_dtype, self._out_shape = last.dtype, last.shape
        growth = 1
        for place in self._maps if is_variable(frame.shape) else ():
            if not stages[place].makes_packets:
                break
            growth *= items_of(stages[place].output.shape)[0]
            stages[place].growth = growth

    @classmethod
    def build(
        cls,
        stages: Sequence[ResolvedStage],
        dtype: npt.DTypeLike,
        shape: tuple[int | None, ...],
        columns: np.dtype[Any],
        compiler: Compiler,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Pipeline:
        """Check every stage against the frames that reach it, and compile.

        Parameters
        ----------
        stages : sequence of ResolvedStage
            Maps and filters.
        dtype, shape
            Of one block as it enters; None is the first axis of blocks of variable length.
        columns : structured dtype
            The stream's columns.

        Raises
        ------
        KernelRejected, ParameterMismatch, LimitExceeded
            With the kernel, the place in its source and the reason.
        """
        if len(stages) > limits.PIPELINE_STAGES_MAX:
            raise LimitExceeded(f"{len(stages)} kernels, allowed are {limits.PIPELINE_STAGES_MAX}")
        sizes = tuple(Length() if size is None else int(size) for size in shape)
        entering = frame = FrameType(np.dtype(dtype).newbyteorder("="), sizes, columns)
        programs: list[Program] = []
        inits: list[Program | None] = []
        warnings: list[str] = []
        for stage in stages:
            checked = check(stage.definition)
            if stage.definition.kind is KernelKind.REDUCE:
                raise InvalidInput(f"kernel {stage.definition.name!r} is a reduction; a pipeline has maps and filters")
            init = None
            if stage.definition.kind is KernelKind.SCAN:
                init, typed = scan_programs(checked, frame, stage)
            else:
                typed = program_of(checked, frame, stage)
            programs.append(typed.program)
            inits.append(init)
            texts = (*checked.warnings, *typed.warnings)
            warnings += [f"kernel {stage.definition.name!r}, {text}" for text in texts]
            if stage.definition.kind is not KernelKind.FILTER:
                output = typed.program.outputs[0 if typed.program.selects else -1]
                frame = FrameType(output.dtype, output.shape, columns)
        executables = compiler.compile(programs)
        made = [
            _Stage(stage.definition.name, stage.definition.kind, program, executable, stage.budget_s)
            for stage, program, executable in zip(stages, programs, executables, strict=True)
        ]
        for built, init in zip(made, inits, strict=True):
            built.scan = Scan(init, built.program, built.executable) if init is not None else None
        return cls(made, entering, tuple(warnings), clock)

    @property
    def out_shape(self) -> tuple[int | None, ...]:
        return tuple(None if isinstance(size, Length) else size for size in self._out_shape)

    @property
    def backends(self) -> tuple[str, ...]:
        return tuple(stage.executable.backend for stage in self._stages)

    @property
    def quarantined(self) -> tuple[int, ...]:
        """The stages that are in quarantine."""
        return tuple(place for place, stage in enumerate(self._stages) if stage.quarantined)

    def quarantine(self, stage: int) -> None:
        """Put a stage into quarantine: restores the state after a restart."""
        self._stages[stage].quarantined = True

    @property
    def scans(self) -> tuple[int, ...]:
        """The stages that have a memory."""
        return tuple(place for place, stage in enumerate(self._stages) if stage.scan is not None)

    @property
    def memory(self) -> Memory | None:
        """What its scans remember, to be kept and given to `remember`; None where there is no scan."""
        if not self._scans:
            return None
        return Memory(self._frontier, tuple(scan.states for scan in self._scans))

    def remember(self, memory: Memory) -> None:
        """Set the scans back to what they remembered."""
        self._frontier = memory.frontier
        for scan, states in zip(self._scans, memory.states, strict=True):
            scan.states = states

    def run(
        self,
        frames: Frames,
        columns: npt.NDArray[Any],
        out: ByteArray | None = None,
        index: npt.NDArray[np.int64] | None = None,
    ) -> Outcome:
        """Send an extent through.

        Parameters
        ----------
        frames : array, (n, *shape), or Packets
            Of the type that the pipeline was built for; only read.
        columns : structured array, (n,)
        index : int64, (n,), optional
            The producer's index of each block, for scans; by default the blocks follow what came before.
        out : uint8, 1-D, optional
            At least `result_bytes` of them; the results are written there.

        Raises
        ------
        SpecMismatch
            The arrays are not of the type that the pipeline was built for.
        """
        self._check(frames, columns)
        count = len(frames)
        self._entered = int(frames.lengths.sum()) if isinstance(frames, Packets) else 0
        result = self._result(frames, out)
        status, cause = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
        run = _Run([0.0] * len(self._stages), {}, set(), set(), self._advance(count, index))
        for part in self._slices(frames):
            self._run_slice(run, part.start, frames[part], columns[part], result[part], status[part], cause[part])
        if not self.changes and isinstance(result, np.ndarray) and result is not frames:
            result[...] = frames
        quarantined = self._judge(run)
        faults = tuple(run.faults[place] for place in sorted(run.faults))
        return Outcome(result, status, cause, faults, quarantined, tuple(run.spent_s))

    def result_bytes(self, count: int, items: int) -> int:
        """The most bytes that the results of `count` blocks take; of packets, with so many items in all."""
        if not is_variable(self._out_shape):
            return count * math.prod(self._out_shape) * self.out_dtype.itemsize
        growth = self._stages[self._maps[-1]].growth if self._maps else 1
        return items * growth * math.prod(items_of(self._out_shape)[1]) * self.out_dtype.itemsize

    def _slices(self, frames: Frames) -> Iterator[slice]:
        """The blocks in runs between which the clock is looked at."""
        if not isinstance(frames, Packets):
            for first in range(0, len(frames), self._slice_blocks):
                yield slice(first, min(first + self._slice_blocks, len(frames)))
            return
        ends, first = np.cumsum(frames.lengths), 0
        while first < len(frames):
            before = int(ends[first] - frames.lengths[first])
            stop = int(np.searchsorted(ends, before + self._slice_items, "right"))
            stop = max(first + 1, min(stop, first + self._slice_blocks))
            yield slice(first, stop)
            first = stop

    def _advance(self, count: int, index: npt.NDArray[np.int64] | None) -> npt.NDArray[np.bool_] | None:
        """Move the frontier; which blocks come too late for a scan (None: there is none)."""
        if not self._scans or not count:
            return None
        before = -1 if self._frontier is None else self._frontier
        if index is None:
            index = np.arange(before + 1, before + 1 + count)
        highest = np.maximum.accumulate(np.concatenate(([before], index)))
        self._frontier = int(highest[-1])
        return np.asarray(index <= highest[:-1])

    def _run_slice(
        self,
        run: _Run,
        first: int,
        frames: Frames,
        columns: npt.NDArray[Any],
        result: Frames,
        status: ByteArray,
        cause: ByteArray,
    ) -> None:
        """All stages on the slice from block `first`; `result`, `status` and `cause` are its parts of the outcome."""
        rows: Rows = np.arange(len(frames), dtype=np.int64)
        for place, stage in enumerate(self._stages):
            if not len(rows):
                return
            if stage.quarantined or place in run.over:
                _mark(status, cause, rows, BlockStatus.KERNEL_FAILED, place)
                return
            if stage.scan is not None and run.late is not None:
                late = run.late[first : first + len(frames)][rows]
                _mark(status, cause, rows[late], BlockStatus.KERNEL_FAILED, place)
                rows = rows[~late]
                if not len(rows):
                    return
            out = self._room(place, frames, result)
            if not self._run_stage(run, place, frames, columns, rows, out):
                _mark(status, cause, rows, BlockStatus.KERNEL_FAILED, place)
                return
            if stage.kind is KernelKind.FILTER:
                assert not isinstance(out, Packets)
                kept = out[rows]
                _mark(status, cause, rows[~kept], BlockStatus.VETOED, place)
                rows = rows[kept]
            else:
                frames = out

    def _run_stage(
        self, run: _Run, place: int, frames: Frames, columns: npt.NDArray[Any], rows: Rows, out: Frames
    ) -> bool:
        """One stage on one slice; whether its results count."""
        stage = self._stages[place]
        run.ran.add(place)
        started = self._clock()
        try:
            values = [np.ascontiguousarray(columns[name], dtype) for name, dtype in stage.program.columns]
            if stage.scan is None:
                stage.executable.run(frames, values, rows, (out,))
            else:
                assert not isinstance(frames, Packets)
                assert not isinstance(out, Packets)
                states = stage.scan.run(frames, columns, values, rows, out)
        except Exception as error:  # whatever it is, the instrument goes on
            run.faults.setdefault(place, Fault(place, f"kernel {stage.name!r} raised {error!r}"[:1000]))
            return False
        run.spent_s[place] += self._clock() - started
        if run.spent_s[place] > stage.budget_s:
            run.over.add(place)
            text = (
                f"kernel {stage.name!r} took {run.spent_s[place]:.3g} s on an extent, allowed are {stage.budget_s:g} s"
            )
            run.faults.setdefault(place, Fault(place, text))
            return False
        if stage.scan is not None:
            stage.scan.states = states
        return True

    def _room(self, place: int, frames: Frames, result: Frames) -> Frames:
        """Where a stage writes: the outcome itself for the last map."""
        if self._maps and place == self._maps[-1]:
            return result
        stage = self._stages[place]
        return stage.packets(len(frames), self._entered) if stage.makes_packets else stage.results(len(frames))

    def _judge(self, run: _Run) -> tuple[int, ...]:
        """Count faulty extents in a row; the stages that go into quarantine now."""
        quarantined = []
        for place in run.ran:
            stage = self._stages[place]
            stage.faults_in_row = stage.faults_in_row + 1 if place in run.faults else 0
            if stage.faults_in_row >= limits.KERNEL_FAULTS_MAX:
                stage.quarantined = True
                quarantined.append(place)
        return tuple(sorted(quarantined))

    def _check(self, frames: Frames, columns: npt.NDArray[Any]) -> None:
        frame = self._frame
        if isinstance(frames, Packets):
            fits = is_variable(frame.shape) and frames.item == frame.shape[1:] and frames.dtype == frame.dtype
            if not fits or columns.shape != (len(frames),):
                raise SpecMismatch(
                    f"the pipeline takes {frame.dtype} blocks of shape {frame.shape} with their columns; found packets "
                    f"of {frames.dtype} items {frames.item} with columns {columns.shape}"
                )
            return
        if frames.dtype != frame.dtype or frames.shape[1:] != frame.shape or columns.shape != frames.shape[:1]:
            raise SpecMismatch(
                f"the pipeline takes {frame.dtype} blocks of shape {frame.shape} with their columns; "
                f"found {frames.dtype} {frames.shape} with columns {columns.shape}"
            )

    def _result(self, frames: Frames, out: ByteArray | None) -> Frames:
        """The array of results: a part of `out`, or a new one, or the frames where no map changes them."""
        if isinstance(frames, Packets) and not self.changes:
            return frames
        nbytes = self.result_bytes(len(frames), self._entered)
        if out is None:
            out = np.empty(nbytes, np.uint8) if self.changes else None
        if out is None:
            return np.ascontiguousarray(frames)
        if out.dtype != np.uint8 or out.ndim != 1 or out.nbytes < nbytes or not out.flags.c_contiguous:
            raise SpecMismatch(f"`out` is {out.dtype} {out.shape}; expected at least {nbytes} contiguous bytes")
        flat = out[:nbytes].view(self.out_dtype)
        if is_variable(self._out_shape):
            _, item = items_of(self._out_shape)
            return Packets.room(flat.reshape(nbytes // (math.prod(item) * self.out_dtype.itemsize), *item), len(frames))
        return flat.reshape(len(frames), *self._out_shape)


def _fitting(kinds: Sequence[tuple[Shape, DType]]) -> int:
    """How many blocks, or items of packets, of the largest of these kinds make a slice."""
    largest = max((known_size(shape) * dtype.itemsize for shape, dtype in kinds), default=1)
    return max(1, limits.KERNEL_SLICE_BYTES // largest)


def _mark(status: ByteArray, cause: ByteArray, rows: Rows, what: BlockStatus, stage: int) -> None:
    status[rows] = what
    cause[rows] = stage

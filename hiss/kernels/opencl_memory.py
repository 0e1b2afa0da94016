"""How a kernel's arrays reach an OpenCL device and come back.

Two ways, each a function over one `Session`, what a thread needs for one kernel:

    in_place    the device works in the host's memory: every array becomes a buffer where it lies, without a copy, if
    it is
                aligned to 64 bytes, as drivers may assume; else a copy of it that is
    by_chunks   the device has memory of its own: runs of consecutive blocks go there in chunks, two on the way at a
    time
                through pinned memory, so that one is copied while the other is computed

Constant arrays are brought to the device once, when the kernel is loaded. A session belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from hiss import limits
from hiss.kernels.backend import Array, Rows
from hiss.kernels.opencl_device import Device
from hiss.kernels.opencl_printer import Argument

ALIGNMENT: Final = 64  # bytes: of a vector of sixteen floats
_SLOTS: Final = 2


@dataclass(slots=True)
class _Slot:
    """One chunk on its way: buffers and pinned memory by the argument's name, and what is to be fetched from it."""

    queue: Any
    buffers: dict[str, tuple[Any, Array]] = field(default_factory=dict)
    pending: list[tuple[Array, Array]] = field(default_factory=list)

    def finish(self) -> None:
        self.queue.finish()
        for target, source in self.pending:
            target[...] = source
        self.pending.clear()


@dataclass(slots=True)
class Session:
    """A thread's kernel object, queue and scratch memory; OpenCL's kernel objects hold arguments, so each thread has
    one.
    """

    device: Device
    kernel: Any
    arguments: tuple[Argument, ...]
    constants: Mapping[str, Any]
    scratch: Mapping[str, Any]
    per_row: Mapping[str, int]  # elements that each block has in the arguments that go by blocks
    parallel: bool
    workers: int
    queue: Any = None
    slots: list[_Slot] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = self.device.cl.CommandQueue(self.device.context)

    def launch(self, queue: Any, row_count: int, values: Sequence[Any]) -> None:
        workers = min(self.workers, row_count) if self.parallel else 1
        self.kernel.set_args(np.uint64(row_count), *values)
        self.device.cl.enqueue_nd_range_kernel(queue, self.kernel, (workers,), (1,))


def in_place(session: Session, rows: Rows, given: Mapping[str, Any]) -> None:
    """Run over the arrays where they lie."""
    cl, values, written = session.device.cl, [], []
    for one in session.arguments:
        known = _known(session, one, given)
        if known is not None:
            values.append(known)
            continue
        array = given[one.name]
        lying = array if is_aligned(array) else _copied(array)
        access = cl.mem_flags.READ_ONLY if one.use == "read" else cl.mem_flags.READ_WRITE
        buffer = cl.Buffer(session.device.context, access | cl.mem_flags.USE_HOST_PTR, hostbuf=lying)
        values.append(buffer)
        if one.use == "written":
            written.append((buffer, lying, array))
    session.launch(session.queue, len(rows), values)
    for buffer, lying, array in written:
        mapped, _ = cl.enqueue_map_buffer(session.queue, buffer, cl.map_flags.READ, 0, (lying.nbytes,), np.uint8)
        mapped.base.release(session.queue)
        if lying is not array:
            array[...] = lying
    session.queue.finish()


def by_chunks(session: Session, rows: Rows, given: Mapping[str, Any]) -> None:
    """Run over copies in the device's own memory."""
    cl = session.device.cl
    if not session.slots:
        session.slots = [_Slot(cl.CommandQueue(session.device.context)) for _ in range(_SLOTS)]
    slots = session.slots if session.parallel else session.slots[:1]  # a state goes through the blocks in their order
    by_row = {name for name in session.per_row if name in given}
    row_bytes = sum(session.per_row[name] * given[name].itemsize for name in by_row)
    chunk = max(1, limits.OPENCL_TRANSFER_BYTES // max(row_bytes, 1))
    states = [
        one for one in session.arguments if one.use == "written" and one.name not in by_row | set(session.scratch)
    ]
    for one in states:
        _send(cl, slots[0], one.name, given[one.name], given[one.name].size)
    try:
        for turn, (first, count) in enumerate(_runs(rows, chunk)):
            slot = slots[turn % len(slots)]
            slot.finish()
            _start(session, slot, first, count, given, min(chunk, len(rows)))
        for one in states:
            buffer, pinned = slots[0].buffers[one.name]
            cl.enqueue_copy(slots[0].queue, pinned[: given[one.name].size], buffer, is_blocking=False)
            slots[0].pending.append((given[one.name], pinned[: given[one.name].size]))
    finally:
        for slot in slots:
            slot.finish()


def _start(session: Session, slot: _Slot, first: int, count: int, given: Mapping[str, Any], room: int) -> None:
    """Send one chunk, compute, and ask for its results."""
    cl, values, results = session.device.cl, [], []
    for one in session.arguments:
        known = _known(session, one, given)
        if known is not None:
            values.append(known)
        elif one.name == "rows":
            values.append(_send(cl, slot, "rows", np.arange(count, dtype=np.int64), room))
        elif one.name in session.per_row:
            each = session.per_row[one.name]
            part = given[one.name][first * each : (first + count) * each]
            if one.use == "read":
                values.append(_send(cl, slot, one.name, part, room * each))
            else:
                buffer, pinned = _room(cl, slot, one.name, part, room * each)
                values.append(buffer)
                results.append((buffer, pinned[: part.size], part))
        else:
            values.append(slot.buffers[one.name][0])
    session.launch(slot.queue, count, values)
    for buffer, pinned, part in results:
        cl.enqueue_copy(slot.queue, pinned, buffer, is_blocking=False)
        slot.pending.append((part, pinned))
    slot.queue.flush()


def _known(session: Session, one: Argument, given: Mapping[str, Any]) -> Any:
    """What is there before the call: constants, scratch, values."""
    if one.name in session.constants:
        return session.constants[one.name]
    if one.name in session.scratch:
        return session.scratch[one.name]
    return _scalar(given[one.name], one) if one.use == "scalar" else None


def _scalar(value: Any, one: Argument) -> np.generic:
    return np.uint8(bool(value)) if one.dtype.kind == "b" else one.dtype.type(value)


def _send(cl: Any, slot: _Slot, name: str, array: Array, room: int) -> Any:
    buffer, pinned = _room(cl, slot, name, array, room)
    pinned[: array.size] = array
    cl.enqueue_copy(slot.queue, buffer, pinned[: array.size], is_blocking=False)
    return buffer


def _room(cl: Any, slot: _Slot, name: str, array: Array, room: int) -> tuple[Any, Array]:
    """A slot's buffer for an argument, and the pinned memory that its data goes through."""
    known = slot.buffers.get(name)
    if known is None or known[1].size < room:
        context = slot.queue.context
        host = cl.Buffer(context, cl.mem_flags.READ_WRITE | cl.mem_flags.ALLOC_HOST_PTR, room * array.itemsize)
        flags = cl.map_flags.READ | cl.map_flags.WRITE
        pinned, _ = cl.enqueue_map_buffer(slot.queue, host, flags, 0, (room,), array.dtype)
        known = cl.Buffer(context, cl.mem_flags.READ_WRITE, room * array.itemsize), pinned
        slot.buffers[name] = known
    return known


def _runs(rows: Rows, chunk: int) -> Iterator[tuple[int, int]]:
    """The runs of consecutive rows, in parts of at most `chunk`: (first, count)."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(rows, breaks):
        for start in range(0, len(run), chunk):
            yield int(run[start]), min(chunk, len(run) - start)


def is_aligned(array: Array) -> bool:
    return array.ctypes.data % ALIGNMENT == 0


def _copied(array: Array) -> Array:
    copy = aligned(array.size, array.dtype)
    copy[...] = array
    return copy


def aligned(size: int, dtype: np.dtype[Any]) -> Array:
    """A new flat array that starts at a multiple of `ALIGNMENT`; what is in it is undefined."""
    nbytes = size * dtype.itemsize
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + nbytes].view(dtype)


def constant(device: Device, array: Array) -> Any:
    """An array that stays on the device; one in the host's memory is copied only if it is not aligned."""
    cl = device.cl
    flat = array.reshape(-1)
    if device.unified:
        lying = flat if is_aligned(flat) else _copied(flat)
        return cl.Buffer(device.context, cl.mem_flags.READ_ONLY | cl.mem_flags.USE_HOST_PTR, hostbuf=lying)
    return cl.Buffer(device.context, cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR, hostbuf=flat)

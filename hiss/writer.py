"""A stream's producer, as users hold it: gathers blocks into extents, keeps them until they are acknowledged, and
goes on after a lost connection without loss or duplicates.

Two threads: the user's (`append`, `extend`, `flush`, `close`), and the writer's own, which sends and reconnects; it is
started when there is something for it to do. What the session sends sooner than another thread wakes up, the user's
sends (`AppendSession.sends_at_once`). One of the two sends at a time, in the order of appending. Acks and errors come
from a third, the session's. What is unacknowledged is bounded by the credit that the server gives; `append` waits when
it is used up. After a reconnect all that was not acknowledged is sent again; the server keeps one of each."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.archived import wait_archived
from hiss.block_form import BlockForm
from hiss.errors import (
    DeadlineExceeded,
    HissError,
    InvalidInput,
    LimitExceeded,
    SpecMismatch,
    StreamFinal,
    Unavailable,
)
from hiss.extent import Extent
from hiss.gathering import Buffers, GapRange, Gathering, Packet, declaration
from hiss.model import (
    Ack,
    AckLevel,
    BlockStatus,
    ByteArray,
    Completeness,
    Feedback,
    FrameSpec,
    StreamInfo,
)
from hiss.overload import Overload, Shedding
from hiss.store import AppendSession, SharingSession, Store


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What became of a stream's blocks, and how fast."""

    path: str
    state: str
    completeness: Completeness
    sent_blocks: int
    sent_bytes: int
    seconds: float
    reconnects: int
    shed_blocks: int = 0  # not kept by the overload policy

    def __str__(self) -> str:
        rate = self.sent_bytes / self.seconds / 1e9 if self.seconds else 0.0
        lines = [
            f"{self.path}: {self.state}, {self.completeness}",
            f"  sent {self.sent_blocks} blocks, {self.sent_bytes / 1e6:.1f} MB in {self.seconds:.2f} s "
            f"({rate:.2f} GB/s), {self.reconnects} reconnects",
        ]
        for entry in self.completeness.ledger:
            which = f"{entry.first}" if entry.first == entry.last else f"{entry.first} to {entry.last}"
            lines.append(f"  gap: {which} ({entry.count}): {entry.reason}, {entry.stage}")
        return "\n".join(lines)


class StreamWriter:
    """The producer of one open stream. Made by `Collection.create_stream`.

    As a context manager it seals the stream on leaving, or aborts it when an exception passes. All methods are for
    one thread; what goes wrong in the background is raised by the next `append`, `extend`, `flush` or `close`.

    Parameters
    ----------
    store : Store
        Where the stream is.
    info : StreamInfo
        The stream, open.
    came_as : FrameSpec
        What the producer sends; `info.frame` is what leaves the kernels.
    overload : Overload, optional
        What to do when there is no room for longer than the producer can wait; by default it waits.
    extent_bytes : int
        Blocks travel together up to this many bytes; one block may be larger.
    linger_s : float
        The longest that a block waits for others to travel with.
    on_ack : callable, optional
        Told of every new value of `acknowledged`, from another thread; must not block.
    """

    def __init__(
        self,
        store: Store,
        info: StreamInfo,
        came_as: FrameSpec,
        *,
        overload: Overload | None = None,
        extent_bytes: int = limits.EXTENT_BYTES_TARGET,
        linger_s: float = limits.LINGER_S,
        on_ack: Callable[[int], None] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < extent_bytes <= limits.BLOCK_BYTES_MAX or not 0 <= linger_s <= limits.LINGER_S_MAX:
            raise InvalidInput(
                f"stream {info.path}: extent_bytes {extent_bytes}, linger_s {linger_s}; expected 1 to "
                f"{limits.BLOCK_BYTES_MAX} bytes, and 0 to {limits.LINGER_S_MAX} seconds"
            )
        self._store = store
        self._info = info
        self._frame = came_as
        self._form = BlockForm(f"stream {info.path}", came_as, info.columns)
        self._columns_dtype = info.columns_dtype
        self._level = min(info.ack, AckLevel.DURABLE)
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._ended_s = 0.0
        self._lock = threading.RLock()
        self._cond = threading.Condition(self._lock)
        self._shedding = Shedding(overload or Overload(), self._wait_for_room, self._raise_error, self._half_is_free)
        self._extent_bytes = extent_bytes
        self._linger_s = linger_s
        self._tell_ack = on_ack
        self._buffers = Buffers(max(extent_bytes, came_as.block_bytes or 0), store.spare_memory)
        self._gathering = Gathering(self._columns_dtype, self._buffers)
        self._ready: deque[Packet | GapRange] = deque()  # to be sent, oldest first
        self._sent: deque[Packet] = deque()  # not acknowledged, oldest first
        # acknowledged below durable, so that a crash may lose them: (count of the session's blocks, indices)
        self._soft: deque[tuple[int, npt.NDArray[np.int64]]] = deque()
        self._held_bytes = 0  # of `_gathering`, `_ready` and `_sent`
        self._session_blocks = 0
        self._broken: HissError | None = None  # the connection; the writer's thread mends it
        self._error: HissError | None = None  # final
        self._closing = False
        # of the next extent that is gathered: as the last one was; the first is large where its blocks are not small
        self._expected_bytes = extent_bytes if (came_as.block_bytes or 0) > limits.DIRECT_BYTES else 0
        self._filling = False  # the user's thread copies blocks, without the lock
        self._lacking = False  # the user's thread waits for shared memory, which the writer's prepares
        self._feedback: deque[Feedback] = deque(maxlen=limits.FEEDBACK_MESSAGES_MAX)
        self._sent_blocks = self._sent_bytes = self._reconnects = 0
        self._busy = False  # the writer's thread sends, mends or prepares, without the lock
        self._sends_itself = False  # the user's thread does
        self._generation = 0  # of the session; what an old one still says is not heard
        self._sender: threading.Thread | None = None
        self._session: AppendSession = self._open()
        self.next_index = self._session.start.next_index

    # ---- what users call

    @property
    def info(self) -> StreamInfo:
        return self._info

    def append(
        self,
        block: npt.ArrayLike | bytes | memoryview,
        *,
        index: int | None = None,
        time_ns: int = 0,
        copy: bool = True,
        **columns: Any,
    ) -> int:
        """Add one block. Waits while too much is unacknowledged.

        Parameters
        ----------
        block : array_like or bytes
            Of the stream's dtype and shape; bytes for an opaque stream.
        index : int, optional
            The producer's number of it; by default one more than the last. A jump is a gap.
        time_ns : int
            The producer's clock, ns since 1970 UTC.
        copy : bool
            False lends the block's memory, for large blocks: it travels at once and alone, and must stay as it is until
            it is acknowledged (`acknowledged`, `on_ack`, `flush`). A block that was changed before it travelled ends
            the stream's writer with `DigestMismatch`.
        **columns
            A value for each of the stream's columns.

        Returns
        -------
        int
            The block's index.

        Raises
        ------
        SpecMismatch
            Wrong dtype, shape or columns; the block is not added and the stream goes on.
        HissError
            Whatever ended the stream in the background.
        """
        view = self._form.view(block)
        row = self._form.row(columns)
        number = self.next_index if index is None else int(index)
        if number < 0:
            raise InvalidInput(f"stream {self._info.path}: block index {number}; indices are at least 0")
        with self._lock:
            if not self._shedding.lets_in(number, len(view)):
                self._declare(GapRange(number, number, self._shedding.status))
                self.next_index = number + 1
                return number
            if copy:
                ready = self._gather(number, int(time_ns), view, row)
                self.next_index = number + 1
        if not copy:
            rows = np.array([row], self._columns_dtype)
            self._add(Packet(Extent.of([number], view, [len(view)], time_ns=[int(time_ns)], columns=rows), None))
            self.next_index = number + 1
        elif ready:
            self._send_off()
        return number

    def _gather(self, number: int, time_ns: int, view: ByteArray, row: tuple[Any, ...]) -> bool:
        """Copy a block into the extent that is filling, and say whether one is to be sent; the lock is held."""
        ready = not self._gathering.fits(len(view))
        if ready:
            self._end_extent()
        first = not self._gathering.index
        if first:
            self._have_memory(max(len(view), self._expected_bytes))
        self._gathering.add(number, time_ns, view, row, self._clock_s)
        self._held_bytes += len(view)
        if not self._gathering.fits(len(view)):  # nor would the next block: do not let it linger
            self._end_extent()
            return True
        if first:
            self._wake_sender()  # its linger time starts
        return ready

    def _end_extent(self) -> None:
        """The extent that was filling is to be sent; the lock is held."""
        packet = self._gathering.take()
        self._expected_bytes = packet.extent.data.size
        self._ready.append(packet)

    def extend(
        self,
        blocks: npt.NDArray[Any],
        *,
        index: npt.ArrayLike | None = None,
        time_ns: npt.ArrayLike | None = None,
        copy: bool = True,
        **columns: npt.ArrayLike,
    ) -> None:
        """Add `n` blocks: an array `(n, *shape)`, and `n` values for each of `index`, `time_ns` and the columns.

        With `copy=False` the array is lent until all of it is acknowledged, as a block is by `append`.
        """
        array = self._form.stack(blocks)
        count = len(array)
        numbers = np.arange(self.next_index, self.next_index + count) if index is None else np.asarray(index, np.int64)
        times = np.zeros(count, np.int64) if time_ns is None else np.asarray(time_ns, np.int64)
        rows = self._form.rows(columns, count)
        if numbers.shape != (count,) or times.shape != (count,):
            raise SpecMismatch(
                f"stream {self._info.path}: {count} blocks, index {numbers.shape}, time_ns {times.shape}"
            )
        step = max(1, min(self._extent_bytes // self._frame.item_bytes, limits.EXTENT_BLOCKS_MAX))
        lent = not copy and array.flags.c_contiguous
        for first in range(0, count, step):
            part = slice(first, min(first + step, count))
            size = (part.stop - part.start) * self._frame.item_bytes
            with self._lock:
                together = self._shedding.lets_all_in(size)
            if not together:  # overloaded: each block is looked at
                for place in range(part.start, part.stop):
                    row = {name: rows[name][place] for name in columns}
                    at, when = int(numbers[place]), int(times[place])
                    self.append(array[place], index=at, time_ns=when, copy=copy, **row)
                continue
            if lent:
                data, buffer = array[part].reshape(-1).view(np.uint8), None
            else:
                buffer = self._copy(array[part], size)
                data = buffer[:size]
            length = np.full(part.stop - part.start, self._frame.item_bytes, np.int64)
            extent = Extent.of(numbers[part], data, length, time_ns=times[part], columns=rows[part])
            self._add(Packet(extent, buffer))

    def _copy(self, blocks: npt.NDArray[Any], size: int) -> ByteArray:
        """Memory of an extent, which begins with the blocks."""
        with self._lock:
            self._have_memory(size)
            self._filling = True
            buffer = self._buffers.take(size)
        try:
            buffer[:size].view(blocks.dtype).reshape(blocks.shape)[:] = blocks
        finally:
            with self._cond:
                self._filling = False
                self._cond.notify_all()
        return buffer

    def gap(self, first: int, last: int, *, shed: bool = False) -> None:
        """Declare that there are no blocks `first` to `last` (included): lost before they came here, or shed on
        purpose."""
        if not 0 <= first <= last:
            raise InvalidInput(f"stream {self._info.path}: no range: {first} to {last}")
        if last - first >= limits.GAP_BLOCKS_MAX:
            raise LimitExceeded(
                f"stream {self._info.path}: a gap of {last - first + 1} blocks, at most {limits.GAP_BLOCKS_MAX} are "
                "declared at once; a jump in the index says the same"
            )
        with self._cond:
            self._wait_for_room(0)
            self._declare(GapRange(first, last, BlockStatus.SHED if shed else BlockStatus.DECLARED))
            self.next_index = max(self.next_index, last + 1)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until all that was appended is acknowledged at the stream's level.

        Raises
        ------
        DeadlineExceeded
            Not within `timeout_s`; nothing is lost, it goes on in the background.
        """
        with self._cond:
            if self._gathering.index:
                self._end_extent()
            ready = bool(self._ready)
        if ready:
            self._send_off()
        with self._cond:
            if not self._cond.wait_for(lambda: self._error is not None or not self._held(), timeout_s):
                raise DeadlineExceeded(
                    f"stream {self._info.path}: {self._held_bytes} bytes are unacknowledged after {timeout_s} s"
                )
            self._raise_error()

    @property
    def acknowledged(self) -> int:
        """How many blocks are acknowledged at the stream's level: so many from the first that was appended on, in the
        order of appending, gaps and shed blocks included."""
        return self._sent_blocks

    @property
    def shed_blocks(self) -> int:
        """How many the overload policy did not keep."""
        return self._shedding.shed_blocks

    def feedback(self) -> list[Any]:
        """What kernels, rules and people sent to this producer since the last call: small JSON values."""
        with self._cond:
            messages = [message.data for message in self._feedback]
            self._feedback.clear()
        return messages

    def seal(self, end_index: int | None = None) -> StreamInfo:
        """Flush, and make the stream final and complete. `end_index`: one past the last index, so that a missing tail
        shows."""
        self.detach()
        self._info = self._retry(lambda: self._store.seal_stream(self._info.id, end_index))
        return self._info

    def abort(self, reason: str) -> StreamInfo:
        """Make the stream final, marked as aborted: readable, drained, with all that was appended before."""
        with contextlib.suppress(HissError):
            self.flush(limits.RECONNECT_S)
        self._stop()
        self._info = self._retry(lambda: self._store.abort_stream(self._info.id, reason))
        return self._info

    def wait_archived(self, timeout_s: float | None = None) -> StreamInfo:
        """Wait until every block of the stream was read back from permanent storage and compared: from all places that
        the drain policy of its collection names, without one from any place. The stream is final before.

        For producers that keep their data until then (`ack="archived"`); any other may wait, too.

        Raises
        ------
        StreamNotFinal
            It is open: seal it first.
        DeadlineExceeded
            Not within `timeout_s`; the drain goes on.
        """
        return wait_archived(self._store, self._info, timeout_s, self._clock_s)

    def detach(self) -> None:
        """Flush, and leave the stream open, for another producer or for `resume=True`."""
        try:
            self.flush()
        finally:
            self._stop()

    def _stop(self) -> None:
        with self._cond:
            self._closing = True
            self._cond.notify_all()
            sender = self._sender
        if sender is not None:
            sender.join()
        else:
            self._let_go()
        self._ended_s = self._ended_s or self._clock_s()

    def _let_go(self) -> None:
        """End the session and keep no memory: by the writer's thread, if there is one, since Ctrl-C does not raise
        there."""
        with contextlib.suppress(HissError):  # what matters of the session was acknowledged, or raised by `flush`
            self._session.close()
        with self._cond:
            self._buffers.close()

    def close(self) -> None:
        """Seal the stream, unless it was made final or let go before."""
        if not self._closing:
            self.seal()

    def report(self) -> StreamReport:
        """Completeness, loss ledger and throughput, as they are now."""
        info = self._store.stream(self._info.path, self._info.version)
        return StreamReport(
            info.path,
            info.state.name.lower(),
            info.completeness,
            self._sent_blocks,
            self._sent_bytes,
            (self._ended_s or self._clock_s()) - self._started_s,
            self._reconnects,
            self._shedding.shed_blocks,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closing:
            return
        if error is None:
            self.close()
        else:
            try:
                self.abort(f"{type(error).__name__}: {error}")
            except HissError as second:
                error.add_note(f"and the stream {self._info.path} could not be marked as aborted: {second}")

    def _add(self, packet: Packet) -> None:
        with self._cond:
            self._wait_for_room(packet.extent.data.size)
            if self._gathering.index:
                self._end_extent()
            self._ready.append(packet)
            self._held_bytes += packet.extent.data.size
            self.next_index = max(self.next_index, int(packet.extent.index[-1]) + 1)
        self._send_off()

    def _send_off(self) -> None:
        """What is ready is to be sent: by this thread, the user's, if it may, or else by the writer's."""
        try:
            with self._cond:
                if not self._may_send_itself():
                    self._wake_sender()
                    return
                self._sends_itself = True
                packet, session, generation = self._take_ready()
            self._send(packet, session, generation)
            self._has_sent(None)
        except BaseException:  # Ctrl-C: nobody knows what of the extent went out
            self._has_sent(Unavailable(f"stream {self._info.path}: interrupted while an extent was sent"))
            raise

    def _has_sent(self, error: HissError | None) -> None:
        with self._cond:
            if self._sends_itself and error is not None:
                self._on_error(self._generation, error)
            self._sends_itself = False
            if self._something_to_do():
                self._wake_sender()

    def _may_send_itself(self) -> bool:
        """Whether the user's thread sends what is ready; the lock is held."""
        if self._busy or self._broken is not None or self._error is not None or self._closing or len(self._ready) != 1:
            return False
        head = self._ready[0]
        return isinstance(head, Packet) and self._shedding.waits and self._session.sends_at_once(head.extent.data.size)

    # ---- the window; with the lock held

    def _held(self) -> bool:
        return bool(self._gathering.index or self._ready or self._sent)

    def _declare(self, gap: GapRange) -> None:
        """Queue a gap in its turn, as one with the one before it where they are alike."""
        if self._gathering.index:
            self._end_extent()
        last = self._ready[-1] if self._ready else None
        if isinstance(last, GapRange) and last.status is gap.status and last.last + 1 == gap.first:
            last.last = gap.last
        else:
            self._ready.append(gap)
        self._wake_sender()

    def _wait_for_room(self, size: int, timeout_s: float | None = None) -> bool:
        self._raise_error()
        if self._closing:
            raise StreamFinal(f"stream {self._info.path}: this writer is closed")

        if self._held_bytes + size <= self._session.start.credit_bytes:
            return True

        def room() -> bool:
            fits = self._held_bytes + size <= self._session.start.credit_bytes
            return self._error is not None or fits or not self._held()

        if not room():
            if self._gathering.index:
                self._end_extent()
                self._cond.notify_all()
            found = self._cond.wait_for(room, timeout_s)
            self._raise_error()
            return found
        self._raise_error()
        return True

    def _have_memory(self, size: int) -> None:
        """Before an extent of so many bytes begins: where its memory is shared and none is ready, wait for it."""
        slots = self._buffers.slots
        if slots is None or not self._shedding.waits or not slots.lacks(size):
            return
        self._lacking = True
        self._wake_sender()
        self._cond.wait_for(lambda: not self._lacking or self._error is not None or self._broken is not None)

    def _half_is_free(self) -> bool:
        return 2 * self._held_bytes <= self._session.start.credit_bytes

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    # ---- the writer's thread

    def _wake_sender(self) -> None:
        """There is something for the writer's thread to do; the lock is held."""
        if self._sender is None and not self._closing:
            self._sender = threading.Thread(target=self._send_all, name=f"writer {self._info.path}", daemon=True)
            self._sender.start()
        self._cond.notify_all()

    def _send_all(self) -> None:
        while (taken := self._next()) is not None:
            self._send(*taken)
        with self._cond:  # nobody writes any more into what is let go
            self._cond.wait_for(lambda: self._closing or not self._filling)
            self._gathering = Gathering(self._columns_dtype, self._buffers)
        self._let_go()

    def _send(self, packet: Packet, session: AppendSession, generation: int) -> None:
        try:
            session.send(packet.extent)
        except HissError as error:
            self._on_error(generation, error)

    def _next(self) -> tuple[Packet, AppendSession, int] | None:
        """The next extent to send, or None when the writer closes. Mends the connection first."""
        while True:
            with self._cond:
                self._busy = False
                if not self._something_to_do():  # once: the time that is left changes when a first block comes
                    self._cond.wait(self._linger_left_s())
                if self._closing or self._error is not None:
                    return None
                if self._sends_itself:
                    continue
                self._busy = True
                broken, lacking = self._broken is not None, self._lacking
                if not broken:
                    if not self._ready and self._linger_left_s() == 0.0:
                        self._end_extent()
                    if self._sendable():
                        return self._take_ready()
            if broken:
                self._mend()
            elif lacking:
                self._prepare()

    def _something_to_do(self) -> bool:
        if self._closing or self._error is not None:
            return True
        return not self._sends_itself and (self._broken is not None or self._lacking or self._sendable())

    def _sendable(self) -> bool:
        """Whether the oldest that is ready may be sent: gaps take no credit, so their extents are counted."""
        if not self._ready or not isinstance(self._ready[0], GapRange):
            return bool(self._ready)
        return sum(not packet.extent.data.size for packet in self._sent) < limits.GAP_EXTENTS_UNDER_WAY

    def _take_ready(self) -> tuple[Packet, AppendSession, int]:
        """The oldest that is ready, counted as sent, and the session that it goes to."""
        head = self._ready[0]
        packet = head if isinstance(head, Packet) else head.cut(self._columns_dtype)
        if isinstance(head, Packet) or head.first > head.last:
            self._ready.popleft()
        self._session_blocks += len(packet.extent)
        packet.count = self._session_blocks
        self._sent.append(packet)
        return packet, self._session, self._generation

    def _prepare(self) -> None:
        """The memory that the user's thread waits for."""
        if self._buffers.slots is not None:
            self._buffers.slots.prepare()
        with self._cond:
            self._lacking = False
            self._cond.notify_all()

    def _linger_left_s(self) -> float | None:
        if not self._gathering.index:
            return None
        return max(0.0, self._gathering.since_s + self._linger_s - self._clock_s())

    def _mend(self) -> None:
        """Connect again, and queue what is not acknowledged to be sent again."""
        deadline_s = self._clock_s() + limits.RECONNECT_S
        with contextlib.suppress(HissError):
            self._session.close()
        pause_s = 0.05
        while True:
            try:
                with self._cond:
                    self._broken = None
                    self._session_blocks = 0
                session = self._open()
                break
            except Unavailable as error:
                with self._cond:
                    stop = self._closing or self._clock_s() > deadline_s
                    if not stop:
                        self._cond.wait_for(lambda: self._closing, pause_s)
                    stop = stop or self._closing
                if stop:
                    self._fail(error)
                    return
                pause_s = min(2 * pause_s, 2.0)
            except HissError as error:
                self._fail(error)
                return
        with self._cond:
            self._session = session
            self._reconnects += 1
            self._ready.extendleft(reversed(self._sent))
            self._sent.clear()
            self._ready.extendleft(reversed(self._lost(session)))

    def _lost(self, session: AppendSession) -> list[Packet]:
        """A declaration of the blocks that were acknowledged below `durable` and are not there any more."""
        if not self._soft:
            return []
        index = np.concatenate([index for _, index in self._soft])
        self._soft.clear()
        there = index < session.start.next_index
        for first, last in session.start.gaps:
            there &= (index < first) | (index > last)
        lost, step = index[~there], limits.EXTENT_BLOCKS_MAX
        parts = [lost[first : first + step] for first in range(0, len(lost), step)]
        return [Packet(declaration(part, BlockStatus.LOST, self._columns_dtype), None) for part in parts]

    def _open(self) -> AppendSession:
        self._generation += 1
        generation = self._generation
        session = self._store.open_append(
            self._info.id,
            lambda ack: self._on_ack(generation, ack),
            lambda error: self._on_error(generation, error),
            self._on_feedback,
        )
        if isinstance(session, SharingSession):
            slots = session.share(self._buffers.size, self._buffers.slots)
            with self._cond:
                self._buffers.slots = slots
        return session

    def _retry(self, call: Callable[[], StreamInfo]) -> StreamInfo:
        """Seal and abort may be repeated: a server that is coming back is waited for."""
        deadline_s = self._clock_s() + limits.RECONNECT_S
        pause_s = 0.05
        while True:
            try:
                return call()
            except Unavailable:
                if self._clock_s() > deadline_s:
                    raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 2.0)

    # ---- callbacks, from the session's threads

    def _on_ack(self, generation: int, ack: Ack) -> None:
        with self._cond:
            if generation != self._generation:
                return
            before = self._sent_blocks
            while self._soft and self._soft[0][0] <= ack.durable:
                self._soft.popleft()
            reached = ack.at(self._level)
            while self._sent and self._sent[0].count <= reached:
                packet = self._sent.popleft()
                extent = packet.extent
                self._held_bytes -= extent.data.size
                self._sent_blocks += len(extent)
                self._sent_bytes += extent.data.size
                if packet.count > ack.durable:
                    self._soft.append((packet.count, extent.index[extent.status == BlockStatus.STORED]))
                if packet.buffer is not None:
                    self._buffers.give(packet.buffer)
            self._cond.notify_all()
            acknowledged = self._sent_blocks
        if self._tell_ack is not None and acknowledged != before:
            self._tell_ack(acknowledged)

    def _on_error(self, generation: int, error: HissError) -> None:
        with self._cond:
            if generation != self._generation:
                return
            if isinstance(error, Unavailable) and not self._closing:
                self._broken = error
                self._wake_sender()
                return
        self._fail(error)

    def _on_feedback(self, feedback: Feedback) -> None:
        with self._cond:
            self._feedback.append(feedback)

    def _fail(self, error: HissError) -> None:
        with self._cond:
            self._error = self._error or error
            self._cond.notify_all()

"""One producer's append session: the threads that an extent passes, and how far it has come.

The receiving thread calls `send`; the session's own thread runs the kernels and writes the log; the log's committer
settles what is durable. Watermarks count blocks in the order in which they were sent. The queue between the two
threads is bounded by `limits.STREAM_QUEUE_EXTENTS_MAX` and by the arena. A session dies of its first error, which its
producer is told once; what it sent before and is in the log stays there.

The session's thread starts with the first extent that is worth handing over: small ones without kernels are written by
the receiving thread, which is done with them sooner than another thread would wake up."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable

from hiss import limits
from hiss.blocks import Charge
from hiss.errors import HissError, Stopping
from hiss.extent import Extent
from hiss.ingest import Ingest
from hiss.landing import ArenaSlots, Landed, Space
from hiss.model import Ack, AppendStart, Feedback
from hiss.store import Landing, LandingSession, SharedSlots, SharingSession

log = logging.getLogger(__name__)


class Session(LandingSession, SharingSession):
    """One in this process: it shares memory with a producer that is there, too."""

    def __init__(
        self,
        ingest: Ingest,
        start: AppendStart,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
        clock_ns: Callable[[], int],
        on_written: Callable[[], None],
    ) -> None:
        self._start = start
        self.blocks_received = 0
        self.bytes_received = 0
        self._ingest = ingest
        self._on_ack = on_ack
        self._on_error = on_error
        self._on_feedback = on_feedback
        self._clock_ns = clock_ns
        self._on_written = on_written
        self._queue: queue.Queue[Landed | None] = queue.Queue(limits.STREAM_QUEUE_EXTENTS_MAX)
        self._progress = threading.Condition(threading.RLock())
        self._unsettled: deque[Landed] = deque()
        self._admitted: Charge | None = None  # for the extent that is to come next
        self._charges: dict[Landed, Charge] = {}
        self._written = self._durable = 0
        self._error: HissError | None = None
        self._closed = False
        self._sending = threading.RLock()  # one thread sends, or ends the session
        self._worker: threading.Thread | None = None
        self._slots: ArenaSlots | None = None

    @property
    def start(self) -> AppendStart:
        return self._start

    def share(self, slot_bytes: int, slots: SharedSlots | None) -> SharedSlots | None:
        self._slots = slots if isinstance(slots, ArenaSlots) else self._ingest.slots(slot_bytes)
        return self._slots

    def send(self, extent: Extent) -> None:
        self._check_alive()
        self._take(extent, self._slots)
        if self._slots is not None:
            self._slots.landed(extent)

    def sends_at_once(self, size: int) -> bool:
        """Not in Python's main thread: Ctrl-C raises there between any two steps, and the arena's are not to be cut in
        the middle."""
        return size <= limits.DIRECT_BYTES and threading.current_thread() is not threading.main_thread()

    def reserve(self, blocks: int, data_bytes: int) -> Space | None:
        self._check_alive()
        self._let_in(self._admit(blocks, data_bytes))
        return self._ingest.reserve(blocks, data_bytes)

    def send_landed(self, extent: Extent, landing: Landing, *, trusted: bool = False) -> None:
        assert isinstance(landing, Space)
        try:
            self._check_alive()
            self._take(extent, landing, trusted=trusted)
        finally:
            landing.release()

    def _take(self, extent: Extent, space: Space | ArenaSlots | None, *, trusted: bool = False) -> None:
        with self._sending:
            self._take_in(extent, space, trusted)

    def _take_in(self, extent: Extent, space: Space | ArenaSlots | None, trusted: bool) -> None:
        try:
            charge = self._let_in(None) or self._admit(len(extent), extent.data.size)
        except HissError as error:
            self.fail(error)
            raise
        try:
            self._check_alive()
            for landed in self._ingest.receive(extent, space, self._clock_ns(), self._settled, trusted=trusted):
                piece = charge.part(*self._ingest.cost(len(landed.extent), landed.extent.data.size))
                with self._progress:
                    self._charges[landed] = piece
                    self._unsettled.append(landed)
                    self.blocks_received += len(landed.extent)
                    self.bytes_received += landed.extent.data.size
                    self._acknowledge()
                self._pass_on(landed)
        except HissError as error:
            self.fail(error)
            raise
        finally:
            charge.settled()

    def _pass_on(self, landed: Landed) -> None:
        if self._worker is None:
            if self._ingest.refinery is None and landed.extent.data.size <= limits.DIRECT_BYTES:
                self._process(landed)
                return
            name = f"ingest {self._ingest.info.path}"
            self._worker = threading.Thread(target=self._work, name=name, daemon=True)
            self._worker.start()
        self._queue.put(landed)

    def _admit(self, blocks: int, data_bytes: int) -> Charge:
        return self._ingest.admit(blocks, data_bytes, lambda: self._error is None and not self._closed)

    def _let_in(self, charge: Charge | None) -> Charge | None:
        """Remember what was admitted for the next extent; gives back what was, which is the caller's then."""
        with self._progress:
            before, self._admitted = self._admitted, charge
        if charge is not None and before is not None:
            before.settled()  # the extent that it was for did not come
            return None
        return before

    def close(self) -> None:
        """Finish and acknowledge what was sent, then end the session's thread. More than once is fine."""
        with self._progress:
            first, self._closed = not self._closed, True
        with self._sending:  # what is being sent is in the queue, or written
            worker = self._worker
        if worker is not None:
            if first:
                self._queue.put(None)
            worker.join()
        with self._progress:
            self._progress.wait_for(lambda: not self._unsettled)
        unused = self._let_in(None)
        if unused is not None:
            unused.settled()

    def fail(self, error: HissError) -> None:
        """Let the session die; the producer is told. Only the first error counts."""
        with self._progress:
            if self._error is not None:
                return
            self._error = error
            self._on_error(error)

    def feed_back(self, feedback: Feedback) -> bool:
        """Hand a message to the producer; False when the session is over."""
        with self._progress:
            if self._closed or self._error is not None:
                return False
            self._on_feedback(feedback)
            return True

    def _check_alive(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise Stopping(f"the session of stream {self._ingest.info.path} is closed; open another one")

    def _work(self) -> None:
        while (landed := self._queue.get()) is not None:
            self._process(landed)

    def _process(self, landed: Landed) -> None:
        error = self._error
        if error is None:
            try:
                self._charges[landed].written(self._ingest.process(landed))
            except HissError as failure:
                error = failure
            except Exception as failure:
                log.exception("stream %s: a bug while blocks were processed", self._ingest.info.path)
                error = HissError(f"stream {self._ingest.info.path}: {failure!r} while its blocks were processed")
            if error is not None:
                self.fail(error)  # before the next extent: what follows a failure is not acknowledged
            else:
                with self._progress:
                    self._written += len(landed.extent)
                    self._acknowledge()
                self._on_written()
        landed.done(error)

    def _settled(self, landed: Landed, error: HissError | None) -> None:
        with self._progress:
            charge = self._charges.pop(landed)
        charge.settled(lost=error is not None)
        with self._progress:
            if error is not None:
                self.fail(error)
            while self._unsettled and self._unsettled[0].settled:
                self._durable += len(self._unsettled.popleft().extent)
                self._acknowledge()
            self._progress.notify_all()

    def _acknowledge(self) -> None:
        if self._error is None:
            self._on_ack(Ack(self.blocks_received, self._written, self._durable))

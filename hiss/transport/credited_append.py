"""The client's side of an append, whatever carries it: extents out within the server's credit, replies in.

The caller's thread hands extents to `_transmit`; a thread of ours takes replies and runs the callbacks. What is under
way is bounded by the credit. A session that breaks is dead: it says so once, through `on_error`, and raises from then
on; opening another one and sending again is the caller's part.
"""

from __future__ import annotations

import abc
import threading
from collections import deque
from collections.abc import Callable, Iterator

from hiss import limits
from hiss.errors import DeadlineExceeded, HissError, Unavailable
from hiss.extent import Extent
from hiss.model import Ack, AckLevel, AppendStart, Feedback
from hiss.store import AppendSession
from hiss.transport.extent_wire import split

Reply = AppendStart | tuple[Ack, int] | Feedback  # an ack comes with the credit from then on


class CreditedAppend(AppendSession, abc.ABC):
    """An `AppendSession` at the other end of something that carries it.

    A subclass connects, calls `_begin`, and says how extents go out and replies come in.

    Parameters
    ----------
    what : str
        Names the session in errors.
    on_ack, on_error, on_feedback : callable
        As `Store.open_append` says.
    """

    def __init__(
        self,
        what: str,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
    ) -> None:
        self._what = what
        self._on_ack = on_ack
        self._on_error = on_error
        self._on_feedback = on_feedback
        self._changed = threading.Condition()
        self._unacknowledged: deque[tuple[int, int]] = deque()  # blocks sent up to here, bytes
        self._unacknowledged_bytes = 0
        self._blocks_sent = 0
        self._blocks_received = 0  # by the server, as it says
        self._credit_bytes = 0
        self._at_once_bytes = limits.DIRECT_BYTES  # that whatever carries them takes without waiting
        self._start: AppendStart | None = None
        self._error: HissError | None = None
        self._closing = False
        self._over = False
        self._receiver = threading.Thread(target=self._receive, name="hiss acks", daemon=True)

    # ---- what carries it

    @abc.abstractmethod
    def _transmit(self, part: Extent) -> None:
        """Send an extent, or queue it; in the caller's thread."""

    @abc.abstractmethod
    def _end_sending(self) -> None:
        """Nothing more is sent: the server is to finish. May be called again, and when it is over."""

    @abc.abstractmethod
    def _replies(self) -> Iterator[Reply]:
        """What the server says, until it has finished; raises `HissError` for any other end."""

    @abc.abstractmethod
    def _cut(self) -> None:
        """End it now, from any thread, and wake those who send and receive."""

    @abc.abstractmethod
    def _let_go(self) -> None:
        """Give back what the session holds, after `_cut`; in the receiver's thread, as the last thing."""

    # ---- what users call

    @property
    def start(self) -> AppendStart:
        assert self._start is not None, "a session is handed out after it has begun"
        return self._start

    def send(self, extent: Extent) -> None:
        """As `AppendSession.send`: blocks while more than the credit is unacknowledged."""
        for part in split(extent):
            size = part.data.size
            with self._changed:
                self._changed.wait_for(lambda size=size: self._over or self._fits(size))  # type: ignore[misc]
                self._check_alive()
                self._blocks_sent += len(part)
                self._unacknowledged.append((self._blocks_sent, size))
                self._unacknowledged_bytes += size
            self._transmit(part)

    def sends_at_once(self, size: int) -> bool:
        """Nothing is under way that it would wait for."""
        return size <= self._at_once_bytes and not self._unacknowledged

    def close(self) -> None:
        """As `AppendSession.close`. Raises what went wrong after the last `send`; more than once is fine."""
        with self._changed:
            dead = self._over
            first, self._closing = not self._closing, True
        self._end_sending()
        self._receiver.join()
        if first and not dead and self._error is not None:
            raise self._error

    # ---- the window

    def _fits(self, size: int) -> bool:
        return self._unacknowledged_bytes == 0 or self._unacknowledged_bytes + size <= self._credit_bytes

    def _check_alive(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closing or self._over:
            raise Unavailable(f"{self._what}: the session is closed; open another one")

    def _begin(self) -> None:
        """Listen, and wait until the server has taken us for the stream's producer, or raise what it answered."""
        self._receiver.start()
        with self._changed:
            answered = self._changed.wait_for(lambda: self._start is not None or self._over, limits.CALL_S)
        if self._start is not None:
            return
        self._cut()
        self._receiver.join()
        if answered and self._error is not None:
            raise self._error
        raise DeadlineExceeded(f"{self._what}: no answer in {limits.CALL_S} s; try again, or look at the server's log")

    # ---- the receiver's thread

    def _receive(self) -> None:
        """Take replies until there are no more."""
        error: HissError | None = None
        try:
            for reply in self._replies():
                self._take(reply)
            if not self._closing or self._unacknowledged:
                error = Unavailable(f"{self._what}: the server ended the session before everything was acknowledged")
        except HissError as failure:
            error = failure
        self._cut()
        self._let_go()
        with self._changed:
            begun, self._error, self._over = self._start is not None, error, True
            self._changed.notify_all()
        if error is not None and begun:
            self._on_error(error)

    def _take(self, reply: Reply) -> None:
        match reply, self._start:
            case AppendStart(), None:
                with self._changed:
                    self._start = reply
                    self._credit_bytes = reply.credit_bytes
                    self._changed.notify_all()
            case (Ack() as ack, int(credit_bytes)), AppendStart() as start:
                self._blocks_received = ack.received
                self._settle(ack.at(min(start.credit_level, AckLevel.DURABLE)), credit_bytes)
                self._on_ack(ack)
            case Feedback(), AppendStart():
                self._on_feedback(reply)
            case _:
                kind = type(reply).__name__
                raise HissError(f"{self._what}: the server said {kind} where it should not; are both of one version?")

    def _settle(self, blocks: int, credit_bytes: int) -> None:
        """`blocks` are acknowledged: their bytes are credit again."""
        with self._changed:
            if blocks > self._blocks_sent:
                raise HissError(f"{self._what}: the server acknowledged {blocks} of {self._blocks_sent} blocks sent")
            while self._unacknowledged and self._unacknowledged[0][0] <= blocks:
                self._unacknowledged_bytes -= self._unacknowledged.popleft()[1]
            self._credit_bytes = credit_bytes
            self._changed.notify_all()

"""Which way a client's appends go: shared memory, else a Unix lane, else a TCP lane, else gRPC; over TLS, a TLS lane,
else gRPC.

A lane that cannot be opened is passed over. One that breaks before anything was acknowledged on it is passed over the
next time, together with those that were passed over for it, so that a producer which reconnects goes on by another way.
Any thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import grpc

from hiss.errors import HissError, InvalidInput, PermissionRefused, Stopping, Unavailable
from hiss.model import Ack, Feedback
from hiss.tls import ClientTls
from hiss.transport.lane_client import LANES, LaneAppend, kind_of, resolved
from hiss.transport.shm_client import ShmAppend, SpareSlots

GRPC: Final = "grpc"
TRUSTED_SHM: Final = "shm:trusted"


@dataclass(frozen=True, slots=True)
class Offer:
    """A lane that the server lets us open."""

    address: str
    ticket: bytes
    instead_of: frozenset[str] = frozenset()  # the kinds that were passed over for it


class Lanes:
    """The lanes of one client.

    Parameters
    ----------
    wanted : str or None
        `shm`, `shm:trusted`, `unix`, `tcp`, `tls` or `grpc`; None: the fastest that can be opened, and none that is
        trusted.
    address : str
        Of the server.
    tls : ClientTls or None
        As the client reaches the server. With it no other lane is opened than one over TLS.

    Raises
    ------
    InvalidInput
        No such lane, or none that goes with the rest.
    """

    def __init__(self, wanted: str | None, address: str = "", tls: ClientTls | None = None) -> None:
        known = (*LANES, TRUSTED_SHM, GRPC)
        if wanted is not None and wanted not in known:
            raise InvalidInput(f"lane {wanted!r}: expected one of {', '.join(known)}, or None")
        fitting = tuple(kind for kind in LANES if (kind == "tls") is (tls is not None))
        kind = None if wanted is None else wanted.partition(":")[0]
        if kind not in (None, GRPC, *fitting):
            raise InvalidInput(
                f"lane {wanted!r} {'is plain, and this client speaks TLS only' if tls else 'needs hiss.connect(tls=…)'}"
                f"; there are {', '.join((*fitting, GRPC))}, or None"
            )
        self._address = address
        self._tls = tls
        self._kinds = fitting if kind is None else tuple(each for each in fitting if each == kind)
        self._spare_slots = SpareSlots()
        self._open_shm = partial(ShmAppend, spare=self._spare_slots, trusted=wanted == TRUSTED_SHM)
        self._passed_over: set[str] = set()
        self._open: weakref.WeakSet[LaneAppend] = weakref.WeakSet()
        self._lock = threading.Lock()

    def choose(self, ask: Callable[[], list[Offer]]) -> Iterator[Offer]:
        """The offers to try, the best first. A server that knows no lanes offers none."""
        with self._lock:
            passed_over = frozenset(self._passed_over)
            kinds = [kind for kind in self._kinds if kind not in passed_over]
            self._passed_over.clear()
        if not kinds:
            return
        try:
            offers = ask()
        except HissError as error:
            if error.details.get("code") != grpc.StatusCode.UNIMPLEMENTED.name:
                raise
            return
        for kind in kinds:
            yield from (replace(each, instead_of=passed_over) for each in offers if kind_of(each.address) == kind)

    @property
    def shares_reads(self) -> bool:
        """Whether readers may get blocks through shared memory."""
        return "shm" in self._kinds

    def open(
        self,
        offer: Offer,
        stream_id: str,
        on_ack: Callable[[Ack], None],
        on_error: Callable[[HissError], None],
        on_feedback: Callable[[Feedback], None],
    ) -> LaneAppend | None:
        """The session over this lane, or None where the lane is closed to us. Raises what the stream's buffer says."""
        session: LaneAppend | None = None

        def broke(error: HissError) -> None:
            if isinstance(error, Unavailable) and session is not None and not session.acknowledged:
                with self._lock:
                    self._passed_over |= offer.instead_of | {session.kind}
            on_error(error)

        try:
            append = self._open_shm if kind_of(offer.address) == "shm" else LaneAppend
            address = resolved(offer.address, self._address)
            session = append(address, offer.ticket, stream_id, on_ack, broke, on_feedback, self._tls)
        except Stopping:
            raise
        except (Unavailable, PermissionRefused):
            return None
        with self._lock:
            self._open.add(session)
        return session

    def close(self) -> None:
        """Cut the lanes that are open."""
        with self._lock:
            sessions = list(self._open)
        for session in sessions:
            session.cut()
        self._spare_slots.close()

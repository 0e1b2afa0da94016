"""Reservations: who may take how much of the log, decided before a byte of an extent is kept.

Two accounts. Of the *log*: what is admitted and not written yet, what each reserved collection has written and may
still write, against the whole segments that are free. Of the *arena*: what lies there from producers without a
reservation, so that, while there are reservations, a part of it stays free for the others.

The rule: a reserved collection is admitted up to what it was promised, always. Everything else is admitted only where
the free segments hold it besides all that is admitted, and all that is promised and not used. Segments lose something
at their ends (an index, a tail that the next record does not fit into): `_usable` is what they hold for sure.

Invariants: what is admitted is written or dropped exactly once; what is promised fits into what was free when it was
promised; used bytes follow from the log, so that a restart knows them. Any thread; one lock, under which nothing waits
but `admit` itself.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hiss import limits
from hiss.blocks.space_records import Promise, SpaceRecords, covers
from hiss.errors import ReservationNotFound, SpaceExhausted
from hiss.space import Reservation, check_hours

_LOOK_AGAIN_S: Final = 0.25  # for space that another program freed, and for reservations that ran out


@dataclass(frozen=True, slots=True)
class Room:
    """What the log may still take: whole segments, and the bytes that the disk has for others too."""

    segments: int
    segment_bytes: int
    disk_free_bytes: int

    @property
    def bytes(self) -> int:
        return self.segments * self.segment_bytes


@dataclass(slots=True, eq=False)
class _Kept:
    """A reservation that holds now. Bytes of records."""

    promise: Promise
    written: int  # by its collection, all that is in the log
    pending: int = 0  # admitted, not written

    @property
    def used(self) -> int:
        return max(0, self.written - self.promise.base_bytes) + self.pending

    @property
    def left(self) -> int:
        return max(0, self.promise.bytes - self.used)

    def public(self) -> Reservation:
        made = self.promise
        return Reservation(made.id, made.collection, made.bytes, self.used, made.created_ns, made.expires_ns)


class Charge:
    """An extent, or a part of one, that was admitted. Whoever has it says once what became of it: `written` or nothing,
    then `settled`."""

    __slots__ = ("_account", "_arena_bytes", "_cost", "_kept", "_written")

    def __init__(self, account: Reservations, kept: _Kept | None, cost: int, arena_bytes: int) -> None:
        self._account, self._kept = account, kept
        self._cost, self._arena_bytes = cost, arena_bytes
        self._written = 0

    def part(self, cost: int, arena_bytes: int) -> Charge:
        """Split off a charge for a piece of the extent, as far as there is something left to split."""
        with self._account._changed:
            cost, arena_bytes = min(cost, self._cost), min(arena_bytes, self._arena_bytes)
            self._cost -= cost
            self._arena_bytes -= arena_bytes
        return Charge(self._account, self._kept, cost, arena_bytes)

    def written(self, record_bytes: int) -> None:
        """It is in the log, and takes so much of it."""
        self._account._written(self, record_bytes)

    def settled(self, *, lost: bool = False) -> None:
        """Its memory is free; with `lost` what was written of it does not count. Again is nothing."""
        self._account._settled(self, lost)


class Reservations:
    """The accounts of one data directory.

    Parameters
    ----------
    records : SpaceRecords
    room : callable
        The `Room` that there is now.
    measure : callable
        Bytes that a collection, with those below it, has in the log.
    clock_ns : callable
        UTC, for what runs out.
    arena_bytes : int
    wait_s : float
        How long an extent waits for space.
    """

    def __init__(
        self,
        records: SpaceRecords,
        room: Callable[[], Room],
        measure: Callable[[str], int],
        clock_ns: Callable[[], int],
        arena_bytes: int,
        wait_s: float,
    ) -> None:
        self._records, self._room, self._measure, self._clock_ns = records, room, measure, clock_ns
        self._open_share = arena_bytes - arena_bytes // limits.CREDIT_FRACTION
        self._wait_s = wait_s
        self._changed = threading.Condition(threading.RLock())
        self._pending = 0
        self._open_bytes = 0  # in the arena, without a reservation
        self._largest = 0
        self._unlooked_bytes = 0  # let in without a look at how much room there is
        self._look_bytes = 0  # so many may be
        self.waiting = 0  # extents that wait for space now
        self.on_short: Callable[[], None] = lambda: None  # somebody waits for space; must not block
        self.make_room: Callable[[int], None] = lambda segments: None  # free so many segments, where that is allowed
        self.evictable_bytes: Callable[[], int] = lambda: 0
        self._kept = [_Kept(promise, measure(promise.collection)) for promise in records.promises()]

    # ---- promises

    def reserve(self, collection: str, size: int, hours: float) -> Reservation:
        """Promise `size` bytes of records to a collection, or refuse.

        Raises
        ------
        SpaceExhausted
            They are not there, with what is.
        CollectionNotFound, Conflict, InvalidInput
        """
        check_hours(hours)
        now = self._clock_ns()
        self.expire()
        short = self._missing(size)
        if short > 0:
            self.make_room(short)
        with self._changed:
            if self._missing(size) > 0:
                raise self._refusal(f"{size} bytes cannot be promised to {collection}")
            base = self._measure(collection)
            promise = Promise(secrets.token_hex(8), collection, size, base, now, now + int(hours * 3600e9))
            self._records.add_promise(promise)
            kept = _Kept(promise, base)
            self._kept.append(kept)
            return kept.public()

    def release(self, reservation_id: str) -> None:
        """End a reservation; what its collection has in the log stays. Raises `ReservationNotFound`."""
        self.expire()
        self._end(reservation_id, "reservation.released")

    def expire(self) -> None:
        """End those that have run out."""
        now = self._clock_ns()
        with self._changed:
            over = [kept.promise.id for kept in self._kept if kept.promise.expires_ns <= now]
            for promise_id in over:
                self._end(promise_id, "reservation.expired")

    def _end(self, promise_id: str, kind: str) -> None:
        with self._changed:
            if all(kept.promise.id != promise_id for kept in self._kept):
                raise ReservationNotFound(f"no reservation {promise_id[:40]!r}; `hiss reserve --list` shows them")
            self._records.end_promise(promise_id, kind)
            self._kept = [kept for kept in self._kept if kept.promise.id != promise_id]
            self._changed.notify_all()

    def reservations(self) -> list[Reservation]:
        """Those that hold now, oldest first."""
        self.expire()
        with self._changed:
            return [kept.public() for kept in self._kept]

    def covering(self, collection: str) -> Reservation | None:
        """The one that a collection has a part in."""
        self.expire()
        with self._changed:
            kept = self._find(collection)
            return None if kept is None else kept.public()

    @property
    def are_some(self) -> bool:
        """Whether anything is promised now."""
        return bool(self._kept)

    def _find(self, collection: str) -> _Kept | None:
        return next((kept for kept in self._kept if covers(kept.promise.collection, collection)), None)

    # ---- the way in

    def admit(self, collection: str, cost: int, arena_bytes: int, alive: Callable[[], bool]) -> Charge:
        """Let an extent in; waits while there is no room for it.

        Parameters
        ----------
        collection : str
            Of its stream.
        cost : int
            Bytes of its records.
        arena_bytes : int
            That it takes there until it is settled.
        alive : callable
            Whether its producer is still there; where it is not, there is nothing to wait for.

        Raises
        ------
        SpaceExhausted
            There was no room within the time that an extent waits.
        """
        deadline: float | None = None
        with self._changed:
            self._largest = max(self._largest, cost)
            while (short := self._short(collection, cost, arena_bytes)) is not None and alive():
                now = time.monotonic()
                if short == "arena":
                    deadline = None  # that passes by itself, as fast as the disk writes
                elif deadline is None:
                    deadline = now + self._wait_s
                elif now >= deadline:
                    raise self._refusal(f"{cost} bytes for {collection} found no room in {self._wait_s} s")
                self.waiting += short == "space"
                try:
                    self.on_short()
                    self._changed.wait(
                        _LOOK_AGAIN_S if deadline is None else min(_LOOK_AGAIN_S, max(0.0, deadline - now))
                    )
                finally:
                    self.waiting -= short == "space"
            kept = self._find(collection)
            self._pending += cost
            if kept is None:
                self._open_bytes += arena_bytes
            else:
                kept.pending += cost
            return Charge(self, kept, cost, arena_bytes)

    def _short(self, collection: str, cost: int, arena_bytes: int) -> str | None:
        """What an extent lacks: `space`, a share of the `arena`, or nothing."""
        if not self._kept:
            self._look_at_room(cost)
            return None
        self.expire()
        kept = self._find(collection)
        if not self._kept or (kept is not None and cost <= kept.left):
            return None
        if kept is None and self._open_bytes and self._open_bytes + arena_bytes > self._open_share:
            return "arena"
        return "space" if self._missing(cost) > 0 else None

    def _look_at_room(self, cost: int) -> None:
        """Tell where room is getting short; nobody needs to know that more often than a few times a segment."""
        self._unlooked_bytes += cost
        if self._unlooked_bytes < self._look_bytes:
            return
        room = self._room()
        short = room.segments < limits.PRESSURE_SEGMENTS
        self._unlooked_bytes, self._look_bytes = 0, 0 if short else room.segment_bytes // 16
        if short:
            self.on_short()

    def _missing(self, size: int) -> int:
        """Segments that lack for `size` bytes beside what is admitted and what is promised; 0 or less: none."""
        room = self._room()
        with self._changed:
            promised = sum(kept.left for kept in self._kept)
            return -(-(self._pending + promised + size) // self._usable(room.segment_bytes)) - room.segments

    def _usable(self, segment_bytes: int) -> int:
        """Bytes of records that a segment holds whatever comes: less its header, its marks, its index, and its tail.

        The tail is what the next record does not fit into. Records are taken for a sixteenth of a segment until a
        larger one has come.
        """
        record = max(self._largest, segment_bytes // 16)
        ends = 3 * limits.RECORD_ALIGN_BYTES + segment_bytes // limits.FOOTER_FRACTION
        return max(limits.RECORD_ALIGN_BYTES, segment_bytes - ends - min(record, segment_bytes // 2))

    def _refusal(self, what: str) -> SpaceExhausted:
        room, evictable = self._room(), self.evictable_bytes()
        promised = sum(kept.left for kept in self._kept)
        usable = room.segments * self._usable(room.segment_bytes)
        return SpaceExhausted(
            f"{what}: the log has room for {usable} bytes ({room.disk_free_bytes} are free on the disk), {promised} of "
            f"them are promised and not used, {self._pending} are on their way; {evictable} could be evicted. Drain "
            "and evict streams, release a reservation, or add disk space",
            room=usable,
            disk_free=room.disk_free_bytes,
            promised=promised,
            evictable=evictable,
        )

    def shortage(self) -> int:
        """Segments that lack until there is room enough for what is to come; 0 or less: none.

        Room enough: what is promised, and `limits.PRESSURE_SEGMENTS` segments besides.
        """
        return self._missing(0) + limits.PRESSURE_SEGMENTS

    def freed(self, collection: str, record_bytes: int) -> None:
        """Records of a collection have left the log."""
        with self._changed:
            kept = self._find(collection)
            if kept is not None:
                kept.written = max(0, kept.written - record_bytes)
            self._changed.notify_all()

    # ---- charges

    def _written(self, charge: Charge, record_bytes: int) -> None:
        with self._changed:
            self._forget_pending(charge)
            charge._written = record_bytes
            if charge._kept is not None:
                charge._kept.written += record_bytes

    def _forget_pending(self, charge: Charge) -> None:
        self._pending -= charge._cost
        if charge._kept is not None:
            charge._kept.pending -= charge._cost
        charge._cost = 0

    def _settled(self, charge: Charge, lost: bool) -> None:
        with self._changed:
            self._forget_pending(charge)
            if charge._kept is None:
                self._open_bytes -= charge._arena_bytes
            elif lost:
                charge._kept.written -= charge._written
            charge._arena_bytes = charge._written = 0
            self._changed.notify_all()

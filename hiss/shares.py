"""The consumer groups of a node: members take blocks under leases, acknowledge them, and wait for more.

A group is in the catalog before its first member has a block. What is acknowledged goes there in batches, at most
`limits.SHARE_FLUSH_S` later and when the node closes; leases live in memory only. So a crash gives out again what was
held, and what was acknowledged in that last moment, and nothing else. Data does not pass here: a member reads what it
was given as any reader does.

Called from any thread. A group has a lock; one thread of its own writes what has changed. Those who wait are bounded by
`limits.SHARE_WAITS_MAX`; the one beyond is answered at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from hiss import limits
from hiss.blocks import Storage, StreamIndex
from hiss.consumer_group import ConsumerGroup
from hiss.errors import HissError, LimitExceeded, NotFound
from hiss.model import StreamInfo
from hiss.readout import check_here
from hiss.sharing import GroupInfo, IndexRange, Member, Taken, Wish, indices_of

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.5  # how soon one who waits sees that the stream is final, or the node closes


@dataclass(slots=True)
class _Shared:
    group: ConsumerGroup
    index: StreamIndex
    lock: threading.Lock = field(default_factory=threading.Lock)
    turn: int = 0  # changes whenever a block may have become free
    gone: bool = False  # deleted


class Shares:
    """
    Parameters
    ----------
    storage : Storage
    monotonic_s : callable
        The clock of leases.
    closing : Event
        Set when the node goes down; nobody waits any longer.
    """

    def __init__(self, storage: Storage, monotonic_s: Callable[[], float], closing: threading.Event) -> None:
        self._storage = storage
        self._table = storage.catalog.shares
        self._monotonic_s = monotonic_s
        self._closing = closing
        self._lock = threading.Lock()
        self._groups: dict[tuple[str, str], _Shared] = {}
        self._waits = threading.BoundedSemaphore(limits.SHARE_WAITS_MAX)
        self._changed = threading.Condition()
        self._dirty: set[tuple[str, str]] = set()
        self._closed = threading.Event()
        self._writer: threading.Thread | None = None

    def close(self) -> None:
        """Write what is not written."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join()
        self.flush()

    # ---- members

    def take(self, info: StreamInfo, member: Member, wish: Wish) -> Taken:
        """Blocks for a member: some if there are any, after waiting for them at most `wish.wait_s`.

        Raises
        ------
        LimitExceeded
            The stream has too many groups, or the group too many members.
        StreamEvicted
        """
        check_here(info)
        shared = self._shared(info, member.group, make=True)
        give_up_s = self._monotonic_s() + min(wish.wait_s, limits.SHARE_WAIT_S)
        may_wait = self._waits.acquire(blocking=False)
        try:
            while True:
                records, turn = shared.index.records, shared.turn
                final = self._storage.catalog.stream_by_id(info.id).state.final
                now_s = self._monotonic_s()
                with shared.lock:
                    if shared.gone:
                        raise _no_group(info.path, member.group)
                    taken = shared.group.take(member.name, wish.blocks, now_s + wish.timeout_s, now_s)
                    complete = final and not taken and shared.group.complete()
                    expiry_s = None if taken else shared.group.next_expiry_s(now_s)
                if taken or complete:
                    return Taken(taken, complete)
                left_s = min(give_up_s, expiry_s or give_up_s) - now_s
                if not may_wait or now_s >= give_up_s or self._closing.is_set():
                    return Taken(())
                self._wait(shared, records, turn, min(left_s, _LOOK_S))
        finally:
            if may_wait:
                self._waits.release()

    @staticmethod
    def _wait(shared: _Shared, records: int, turn: int, timeout_s: float) -> None:
        """Until a block came in or back."""
        index = shared.index
        with index.arrived:
            index.arrived.wait_for(
                lambda: index.records > records or index.deleted or shared.turn != turn, max(timeout_s, 0.0)
            )

    def settle(
        self, info: StreamInfo, member: Member, done: Sequence[IndexRange], back: Sequence[IndexRange]
    ) -> tuple[IndexRange, ...]:
        """Acknowledge blocks and give others back; what was not acknowledged, because it is another member's now."""
        acknowledged, given_back = indices_of(done), indices_of(back)
        shared = self._shared(info, member.group)
        with shared.lock:
            if shared.gone:
                raise _no_group(info.path, member.group)
            refused = shared.group.settle(member.name, acknowledged, given_back, self._monotonic_s())
            shared.turn += 1
        if acknowledged:
            self._note((info.id, member.group))
        shared.index.wake()
        return refused

    # ---- groups

    def groups(self, info: StreamInfo) -> list[GroupInfo]:
        """How the groups of a stream stand, by name."""
        return [self._info(info, name) for name in self._table.names(info.id)]

    def _info(self, info: StreamInfo, name: str) -> GroupInfo:
        shared = self._shared(info, name)
        with shared.lock:
            left, held = shared.group.left(), shared.group.held(self._monotonic_s())
        return GroupInfo(name, shared.index.stored - left, len(held), left, len(set(held)))

    def delete(self, info: StreamInfo, name: str) -> None:
        """Forget a group: what its members hold is theirs no more, and a new group of the name starts anew.

        Raises
        ------
        NotFound
            There is no such group.
        """
        shared = self._shared(info, name)
        self._end(shared)
        with self._lock:
            self._groups.pop((info.id, name), None)
            self._table.delete(info.id, name)

    def forget(self, stream_id: str) -> None:
        """The stream is deleted."""
        with self._lock:
            gone = [self._groups.pop(key) for key in list(self._groups) if key[0] == stream_id]
        for shared in gone:
            self._end(shared)
        self._table.delete(stream_id)

    @staticmethod
    def _end(shared: _Shared) -> None:
        with shared.lock:
            shared.gone = True
            shared.turn += 1
        shared.index.wake()

    def _shared(self, info: StreamInfo, name: str, *, make: bool = False) -> _Shared:
        """The group, read from the catalog when it is first used; made there with `make`, else `NotFound`."""
        key = (info.id, name)
        with self._lock:
            if key in self._groups:
                return self._groups[key]
            done = self._table.done(info.id, name)
            if done is None:
                if not make:
                    raise _no_group(info.path, name)
                self._check_room(info)
                self._table.put([(*key, ())])
            index = self._storage.index(info.id)
            shared = self._groups[key] = _Shared(ConsumerGroup(index, done or ()), index)
        return shared

    def _check_room(self, info: StreamInfo) -> None:
        names = self._table.names(info.id)
        if len(names) >= limits.SHARE_GROUPS_MAX:
            raise LimitExceeded(
                f"stream {info.path}: {len(names)} consumer groups, as many as a stream may have; delete one",
                limit="SHARE_GROUPS_MAX",
                allowed=limits.SHARE_GROUPS_MAX,
            )

    # ---- the catalog

    def flush(self) -> None:
        """Write what has changed since it was written."""
        with self._changed:
            dirty, self._dirty = self._dirty, set()
        rows = []
        for key in dirty:
            with self._lock:
                shared = self._groups.get(key)
            if shared is not None:
                with shared.lock:
                    if not shared.gone:
                        rows.append((*key, list(shared.group.done)))
        try:
            if rows:
                self._table.put(rows)
        except HissError:
            with self._changed:
                self._dirty |= dirty
            raise

    def _note(self, key: tuple[str, str]) -> None:
        with self._changed:
            self._dirty.add(key)
            if self._writer is None and not self._closed.is_set():
                self._writer = threading.Thread(target=self._write, name="consumer groups", daemon=True)
                self._writer.start()
            self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._closed.is_set())
            if self._closed.wait(limits.SHARE_FLUSH_S):
                return
            try:
                self.flush()
            except HissError as error:
                log.error("what consumer groups have acknowledged could not be written: %s; trying again", error)


def _no_group(path: str, name: str) -> NotFound:
    return NotFound(f"stream {path} has no consumer group {name!r}, or no more", group=name)

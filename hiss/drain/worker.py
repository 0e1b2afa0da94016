"""The process that drains by itself: plans what events tell of, and drains the queue, one file after another.

Invariants: the cursor moves with what was planned for it, so no final stream is missed; an entry is `running` in the
catalog before anything is written, and `done` after its streams are recorded as archived; an attempt that was killed
cleans up, and replaces what has the target's name only where the catalog says that it may be its own. A client of the
data process like any other: when that is away, the worker waits. `run` is for one thread; `stop` for any.
"""

from __future__ import annotations

import logging
import threading
from itertools import islice
from pathlib import Path
from typing import Final

from hiss import limits
from hiss.drain.draining import chosen_content, drain
from hiss.drain.frames import Progress
from hiss.drain.live_work import LiveWork
from hiss.drain.publish import remove
from hiss.drain.rate import Rate
from hiss.drain.targets import Target, make_parents, target_of
from hiss.drain_policy import Drain, DrainState
from hiss.errors import AlreadyExists, HissError, Stopping, StreamEvicted, StreamNotFound, Unavailable
from hiss.s3_options import S3Options
from hiss.store import Store

log = logging.getLogger(__name__)

_PLANNED: Final = ("stream.sealed", "stream.aborted", "collection.sealed", "drain.policy")


class DrainWorker:
    """
    Parameters
    ----------
    store : Store
        The buffer, as its owner.
    scratch : Path
        A directory that nobody else uses; it is emptied at the start.
    s3 : S3Options
    """

    def __init__(self, store: Store, scratch: Path, s3: S3Options) -> None:
        self._store = store
        self._scratch = scratch
        self._s3 = s3
        self._stopping = threading.Event()
        self._live = LiveWork(store, self._taker)

    def stop(self) -> None:
        """End `run` soon; what it is draining is begun again by the next one."""
        self._stopping.set()

    def run(self) -> None:
        """Until `stop`."""
        remove(self._scratch)
        pause_s = limits.STORE_RETRY_FIRST_S
        resumed = False
        while not self._stopping.is_set():
            try:
                if not resumed:
                    self._resume()
                    resumed = True
                if not self.step():
                    self._stopping.wait(limits.DRAIN_LOOK_S)
                pause_s = limits.STORE_RETRY_FIRST_S
            except Unavailable as error:
                log.info("the buffer is away: %s", error)
                resumed = False  # what was marked as running may not have been marked otherwise
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, limits.STORE_RETRY_MOST_S)
            except HissError as error:
                log.error("drain: %s", error)
                self._stopping.wait(limits.STORE_RETRY_MOST_S)

    def step(self) -> bool:
        """Plan what is new and drain one entry; whether there was one."""
        self._live.look()
        entry, cursor = self._store.next_drain()
        if self._plan(cursor):
            entry, _ = self._store.next_drain()
        if entry is None:
            return False
        self._drain(entry)
        return True

    def _resume(self) -> None:
        """What ran when a process was killed is wanted again, in its turn."""
        for entry in self._store.drains(unfinished=True):
            if entry.state is DrainState.RUNNING:
                self._store.mark_drain(entry.id, DrainState.WANTED, reason="interrupted", began=entry.began)

    def _plan(self, cursor: int) -> bool:
        """Plan what the events after `cursor` tell of; whether there were any that matter."""
        last, paths = cursor, dict[str, None]()
        for event in islice(self._store.events(cursor, self._stopping, follow=False), limits.EVENTS_PAGE):
            last = event.seq
            if event.kind in _PLANNED:
                paths[f"{event.collection}/{event.stream}" if event.stream else event.collection] = None
        if last == cursor:
            return False
        self._store.plan_drains(list(paths), cursor=last)
        return bool(paths)

    # ---- one entry

    def _drain(self, entry: Drain) -> None:
        try:
            if entry.version:
                self._store.stream(entry.source, entry.version)  # raises: a collection of that path is not meant
            target = self._target(entry)
            if entry.began and self._recorded(entry):
                self._store.mark_drain(entry.id, DrainState.DONE)
                return
            target.clean()
            if not entry.began and not entry.target.live and target.exists():
                raise AlreadyExists(f"{entry.url} is there already, and no drain of this stream made it")
        except (HissError, OSError) as error:
            self._failed(entry, error, began=entry.began)
            return
        self._store.mark_drain(entry.id, DrainState.RUNNING, began=True)
        log.info("draining %s to %s", entry.source, entry.url)
        try:
            self._carry_out(entry, target)
        except Exception as error:  # of HDF5, Zarr, the file system or the buffer; the next entry has its turn
            began = target.touched or entry.began
            if isinstance(error, Stopping) and self._stopping.is_set():
                self._store.mark_drain(entry.id, DrainState.WANTED, reason="interrupted", began=began)
            else:
                self._failed(entry, error, began=began)
            return
        self._store.mark_drain(entry.id, DrainState.DONE)

    def _carry_out(self, entry: Drain, target: Target) -> None:
        if entry.target.live:
            self._live.finish(entry)
            return
        drain(
            self._store,
            entry.source if entry.version else f"{entry.source}/",
            target,
            version=entry.version or None,
            form=entry.target.form,
            compression=entry.target.compression,
            overwrite=entry.began,
            on_bytes=self._taker(entry.target.bytes_per_s),
        )

    def _taker(self, bytes_per_s: int) -> Progress:
        """Takes bytes, and waits where they are too many."""
        return Rate(bytes_per_s, self._wait).take

    def _target(self, entry: Drain) -> Target:
        make_parents(entry.target.url, entry.url)
        return target_of(entry.url, s3=self._s3, scratch=self._scratch, token=entry.id)

    def _recorded(self, entry: Drain) -> bool:
        """Whether a killed attempt came to its end, except for saying so."""
        source = entry.source if entry.version else f"{entry.source}/"
        streams = chosen_content(self._store, source, entry.version or None).streams
        return not entry.target.bare and bool(streams) and all(entry.target.has(info) for info in streams)

    def _failed(self, entry: Drain, error: Exception, *, began: bool) -> None:
        """It is tried again later; what has left the buffer, never."""
        reason = f"{type(error).__name__}: {error}"
        log.warning("draining %s to %s: %s", entry.source, entry.url, reason)
        state = DrainState.DROPPED if isinstance(error, StreamEvicted | StreamNotFound) else DrainState.FAILED
        self._store.mark_drain(entry.id, state, reason=reason, began=began)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds) if seconds else self._stopping.is_set():
            raise Stopping("the drain process stops")

"""`hiss watch`: the files of a directory, as they are settled, into a collection; each once, whatever is killed.

One thread, one state directory. A file is taken (its row commits), sent (its blocks are durable), sealed with its
batch, read back and compared, and then, where that was asked for, removed. A buffer that is away is waited for.
Without `frames` each file is a stream of its own, opaque bytes; with it, files are gathered into streams of frames.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hiss import limits
from hiss.errors import BlockDamaged, Exhausted, HissError, InvalidInput, NotFound, Unavailable
from hiss.intake.batches import Changed, OpenBatch, batch_name, blocks_of, file_attrs, open_file
from hiss.intake.parts import Part
from hiss.intake.removal import Removal
from hiss.intake.settling import Settled, Settling, identity_of
from hiss.intake.watch_state import Batch, Taken, WatchState
from hiss.model import AckLevel, Attrs, check_path
from hiss.store import Store

log: Final = logging.getLogger("hiss.watch")

Told = Callable[[str, dict[str, Any]], None]  # 'stored', 'removed', 'refused', 'changed', with what


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How a directory is watched.

    `level` is what has to be true of a stream before its files are removed: `durable`, or `archived`, which the drain
    says. A batch of frames ends with so many files, after so long without one, or where the form changes.
    """

    frames: bool = False
    remove: bool = False
    level: AckLevel = AckLevel.DURABLE
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ("*.tmp", "*.part", "*~")
    settle_s: float = 0.0
    batch_files: int = 1000
    batch_idle_s: float = 10.0
    attrs: Attrs = field(default_factory=dict)
    once: bool = False  # end when all that is settled was dealt with

    def __post_init__(self) -> None:
        if self.level not in (AckLevel.DURABLE, AckLevel.ARCHIVED):
            raise InvalidInput(f"ack {self.level.name.lower()}: files are removed when durable, or archived")
        if not 1 <= self.batch_files <= limits.WATCH_BATCH_FILES_MAX:
            raise InvalidInput(f"{self.batch_files} files in a batch; 1 to {limits.WATCH_BATCH_FILES_MAX}")


class Watch:
    """
    Parameters
    ----------
    directory : path
    collection : str
        Directories below become collections below it.
    connect : callable
        Gives the buffer, anew where it went away.
    options : WatchOptions
    stop : threading.Event
        Ends `run` after the file that is under way.
    state : path, optional
        Of its own; by default `.hiss-watch` in the directory.
    tell : callable
        What happened to a file.

    Raises
    ------
    InvalidInput
        No such directory.
    Conflict
        Another process watches it.
    """

    def __init__(
        self,
        directory: Path,
        collection: str,
        connect: Callable[[], Store],
        options: WatchOptions,
        stop: threading.Event,
        *,
        state: Path | None = None,
        tell: Told = lambda what, of: None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if not directory.is_dir():
            raise InvalidInput(f"{directory}: there is no such directory")
        self._directory = directory.resolve()
        self._collection = check_path(collection, "collection")
        self._connect = connect
        self._options = options
        self._stop = stop
        self._tell = tell
        self._clock_s = monotonic_s
        own = self._directory / ".hiss-watch"
        if state is not None and state.resolve().is_relative_to(self._directory):
            raise InvalidInput(f"{state}: the state cannot be in {directory}, whose files are sent; leave it out")
        self._state = WatchState(state or own, collection)
        self._removal = Removal(self._directory, own / "leaving", self._state)
        self._settling = Settling(
            str(self._directory),
            self._state.knows,
            include=options.include,
            exclude=options.exclude,
            settle_s=options.settle_s,
            observed=not options.once,
            monotonic_s=monotonic_s,
        )
        self._store: Store | None = None
        self._open: OpenBatch | None = None
        self._asked = 0  # the batch that was asked for last, whether it is archived
        self._newest_s = monotonic_s()  # when the open batch got its last file

    def close(self) -> None:
        """Leave an open batch open; the next start goes on with it."""
        self._let_go()
        self._settling.close()
        self._state.close()

    def run(self) -> None:
        """Until it is stopped; with `once` until nothing is left to do.

        Raises
        ------
        HissError
            What waiting does not mend: no right to write, a sealed collection.
        """
        pause_s = limits.STORE_RETRY_FIRST_S
        while not self._stop.is_set():
            try:
                done = self.look()
                pause_s = limits.STORE_RETRY_FIRST_S
            except (Unavailable, Exhausted, sqlite3.OperationalError) as error:
                log.warning("%s; trying again", error)
                self._let_go()
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, limits.STORE_RETRY_MOST_S)
                continue
            if done and self._options.once:
                return
            self._settling.wait(min(limits.WATCH_LOOK_S, self._options.batch_idle_s))

    def look(self) -> bool:
        """Deal with all that is settled; whether nothing is left to do."""
        if self._open is None:
            for batch in self._state.unfinished():
                self._go_on_with(batch)
        for found in self._settling.look():
            if self._stop.is_set():
                return False
            self._take(found)
        if self._open is not None:
            self._open.flush()
            if self._options.once or self._clock_s() - self._newest_s >= self._options.batch_idle_s:
                self._finish(self._open)
        left = self._remove() if self._options.remove else 0
        return not left and not self._settling.pending and self._open is None

    # ---- taking and sending

    def _take(self, found: Settled) -> None:
        """Note a file, with the indices that its blocks will have, in the batch where it belongs; send it."""
        with self._refusing(found), open_file(self._whole(found.path), frames=self._options.frames) as part:
            below, name = batch_name(found.path, frames=self._options.frames)
            collection = check_path(self._collection + below, "collection")
            if self._open and not (self._open.fits(part) and self._open.batch.collection == collection):
                self._finish(self._open)
            with self._state.transaction():
                batch = self._open.batch if self._open else self._state.begin(collection, name)
                _, first = self._state.filled(batch)
                file = self._state.take(batch, found.path, found.identity, first, blocks_of(part))
            self._send(batch, file, part)
            self._finish_if_full()

    @contextmanager
    def _refusing(self, found: Settled) -> Iterator[None]:
        """A file that nobody can read is not looked at again before it changes."""
        try:
            yield
        except InvalidInput as error:
            self._refuse(found, error)
        except HissError:
            raise
        except OSError as error:
            if os.path.lexists(self._whole(found.path)):
                self._refuse(found, error)

    def _refuse(self, found: Settled, error: Exception) -> None:
        log.error("%s is not taken: %s", found.path, error)
        if not self._state.knows(found.path, found.identity):
            self._state.refuse(found.path, found.identity)
        self._tell("refused", {"file": found.path, "error": str(error)})

    def _send(self, batch: Batch, file: Taken, part: Part) -> None:
        if self._open is None:
            attrs = {**self._options.attrs, **(file_attrs(file) if part.frame.opaque else {})}
            self._open = OpenBatch(self._buffer(), self._state, str(self._directory), batch, part, attrs)
        open_batch = self._open
        self._newest_s = self._clock_s()
        try:
            open_batch.append(file, part)
        except Changed as error:
            self._lose(open_batch, file, "changed", error)
            return
        except InvalidInput as error:
            self._lose(open_batch, file, "refused", error)

    def _finish_if_full(self) -> None:
        if self._open is None:
            return
        files, _ = self._state.filled(self._open.batch)
        if self._open.opaque or self._open.is_final or files >= self._options.batch_files:
            self._finish(self._open)

    def _lose(self, open_batch: OpenBatch, file: Taken, state: str, error: Exception) -> None:
        """A file that was taken cannot be had: its indices are a gap, or its stream, where it is the only one, is no
        more than what was read of it."""
        log.error("%s: %s", file.path, error)
        self._state.mark(file, state)
        self._settling.hint(file.path)
        self._tell(state, {"file": file.path, "error": str(error)})
        if open_batch.opaque:
            open_batch.abort(str(error))
            self._state.drop(open_batch.batch, refused=state == "refused")
            self._open = None

    def _finish(self, open_batch: OpenBatch) -> None:
        """Seal, read back, compare."""
        try:
            info = open_batch.finish()
        except BlockDamaged as error:
            log.error("%s", error)
            self._state.drop(open_batch.batch, refused=True)
            self._tell("refused", {"file": "", "error": str(error)})
        else:
            for file in self._state.of(open_batch.batch):
                if file.state == "stored":
                    what = {"file": file.path, "stream": info.path, "version": info.version, "first": file.first}
                    self._tell("stored", {**what, "blocks": file.count, "bytes": file.identity.bytes})
        self._open = None

    # ---- going on

    def _go_on_with(self, batch: Batch) -> None:
        """What an earlier process, or an earlier connection, left unfinished."""
        if self._open is not None:
            self._finish(self._open)
        for file in self._state.of(batch):
            if file.state != "taken" or file.digest:
                continue
            if identity_of(self._whole(file.path)) != file.identity:
                self._state.mark(file, "changed")
                self._settling.hint(file.path)
                self._tell("changed", {"file": file.path, "error": "it changed before all of it was sent"})
                continue
            try:
                with open_file(self._whole(file.path), frames=self._options.frames) as part:
                    self._send(batch, file, part)
            except (InvalidInput, OSError) as error:
                if isinstance(error, HissError) and not isinstance(error, InvalidInput):
                    raise
                self._state.mark(file, "refused")
                self._tell("refused", {"file": file.path, "error": str(error)})
        if self._state.batch_is_there(batch) and self._open is None:
            self._find(batch)
        self._finish_if_full()

    def _find(self, batch: Batch) -> None:
        """The stream of a batch of which nothing is left to be sent."""
        states = {file.state for file in self._state.of(batch)}
        try:
            found = OpenBatch(self._buffer(), self._state, str(self._directory), batch, None, {})
        except NotFound:
            self._state.drop(batch, refused="refused" in states)  # nothing was sent
            return
        if found.opaque and "taken" not in states:
            found.abort("its file changed before all of it was sent")
            self._state.drop(batch, refused="refused" in states)
            return
        self._open = found

    def _let_go(self) -> None:
        open_batch, self._open = self._open, None
        if open_batch is not None:
            open_batch.let_go()
        store, self._store = self._store, None
        if store is not None:
            with suppress(HissError):
                store.close()

    def _buffer(self) -> Store:
        if self._store is None:
            self._store = self._connect()
        return self._store

    def _whole(self, path: str) -> str:
        return str(self._directory / path)

    # ---- removing

    def _remove(self) -> int:
        """Remove the files that are safe; returns how many that are stored are left."""
        stored = self._state.removable()
        safe = self._safe(sorted({file.batch for file in stored}))
        removed = [file for file in stored if file.batch in safe and self._removed(file)]
        with self._state.transaction():
            for file in removed:
                self._state.forget(file)
        for file in removed:
            self._tell("removed", {"file": file.path})
        return len(stored) - len(removed)

    def _removed(self, file: Taken) -> bool:
        try:
            return self._removal.remove(file)
        except OSError as error:
            log.error("%s is stored, and cannot be removed: %s", file.path, error)
            return False

    def _safe(self, batches: list[int]) -> set[int]:
        """Those of batches that were stored, and so are durable, that are at the level that was asked for. Of those
        that may be archived, a few are asked for at each look."""
        if self._options.level is AckLevel.DURABLE:
            return set(batches)
        following = [number for number in batches if number > self._asked] or batches
        chosen = following[: limits.WATCH_ASKED_MAX]
        self._asked = chosen[-1] if chosen else 0
        return {number for number in chosen if self._is_archived(number)}

    def _is_archived(self, number: int) -> bool:
        batch = self._state.batch(number)
        try:
            return bool(self._buffer().stream(batch.path, batch.version).archives)
        except NotFound:
            return False

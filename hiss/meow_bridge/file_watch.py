"""Watched directories: files that are settled become events, each content version once.

A file is settled when nobody has it open for writing: after its close, its renaming into place, or, for files that a
scan finds, when the kernel says so (`open_files`). Where it cannot say, as for files that other hosts write into a
network file system, it is settled once it was the same for `limits.FILE_SETTLE_S`. Reads and changes of attributes
are never looked at. What was written while nobody watched is found by a scan: at the start, when a pattern comes, and
now and then, should the kernel have dropped something; on network file systems every `limits.FILE_SCAN_S`.

`hint` is called by watchdog's threads, `look` by a thread of its own, the rest by any; locks are taken in the order:
this one's, the database's.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from hiss import limits
from hiss.errors import InvalidInput, InvalidPattern, MissingExtra
from hiss.meow_bridge.file_ledger import Content, FileLedger, Identity, content_of, identity_of
from hiss.meow_bridge.file_paths import SCHEME, is_file, local_path, watched_root
from hiss.meow_bridge.retry import Pauses, log
from hiss.meow_bridge.rules import RuleBook
from hiss.meow_bridge.trigger import TriggerIndex
from hiss.open_files import is_being_written, is_remote
from hiss.workflow import Pattern

_CLOSED: Final = "closed"
_WRITTEN: Final = "written"
_GONE: Final = "gone"
_TREE: Final = "tree"


class FileWatch:
    """
    Parameters
    ----------
    rules : RuleBook
        Whose patterns with a trigger `file:…` say what is watched.
    ledger : FileLedger
    deal_with : callable
        Takes a settled content: the event and its jobs commit in it.
    monotonic_s : callable
        A clock that is never set; seconds.
    stop : threading.Event
        Set by the owner before `join()`.
    """

    def __init__(
        self,
        rules: RuleBook,
        ledger: FileLedger,
        deal_with: Callable[[Content], None],
        monotonic_s: Callable[[], float],
        stop: threading.Event,
    ) -> None:
        self._rules = rules
        self._ledger = ledger
        self._deal_with = deal_with
        self._clock_s = monotonic_s
        self._stop = stop
        self._lock = threading.RLock()
        self._wanted: TriggerIndex[bool] = TriggerIndex()
        self._coming: list[str] = []  # triggers of patterns that are just being added
        self._roots: dict[str, _Root] = {}
        self._pending: dict[str, tuple[Identity, float]] = {}  # unsettled, and since when they are the same
        self._hints: dict[str, str] = {}  # what happened to a path, in order
        self._hinted = threading.Condition()
        self._observer: Any = None
        self._thread = threading.Thread(target=self._run, name="hiss-meow-files", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        with self._hinted:
            self._hinted.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()

    # ---- what is watched

    @contextlib.contextmanager
    def coming(self, pattern: Pattern) -> Iterator[None]:
        """Watch for a pattern that comes in this context, and take stock of what is there already. At its end the
        patterns that there are say what is watched.

        Raises
        ------
        InvalidPattern
            There is no such directory.
        MissingExtra
            watchdog is absent.
        """
        if not is_file(pattern.trigger):
            before = self._rules.named(pattern.name)
            yield
            self.gone(before)
            return
        root = watched_root(pattern.trigger)
        if not os.path.isdir(root):
            raise InvalidPattern(f"pattern {pattern.name!r}: there is no directory {root}; make it first")
        with self._lock:
            self._coming.append(pattern.trigger)
        try:
            self.patterns_changed()
            self.scan(root)
            yield
        finally:
            with self._lock:
                self._coming.remove(pattern.trigger)
            self.patterns_changed()

    def gone(self, patterns: Iterable[Pattern]) -> None:
        """Patterns were removed or changed; of most nothing was watched."""
        if any(is_file(pattern.trigger) for pattern in patterns):
            self.patterns_changed()

    def patterns_changed(self) -> None:
        """Watch for the patterns that there are, or are coming, and for no others."""
        with self._lock:
            there = [pattern.trigger for pattern in self._rules.patterns() if is_file(pattern.trigger)]
            triggers = list(dict.fromkeys((*there, *self._coming)))
            self._wanted = TriggerIndex()
            wanted: dict[str, bool] = {}
            for trigger in triggers:
                self._wanted.add(trigger, True)
                root = watched_root(trigger)
                wanted[root] = wanted.get(root, False) or _is_deep(trigger, root)
            for root in set(self._roots) - set(wanted):
                self._roots.pop(root).unwatch()
            for root, deep in wanted.items():
                self._watch(root, deep=deep)

    def _watch(self, root: str, *, deep: bool) -> None:
        known = self._roots.get(root)
        if known is not None and (known.deep or not deep) and known.is_watched:
            return
        if known is not None:
            known.unwatch()
        self._roots[root] = _Root(root, deep or (known is not None and known.deep), self._observing(), self.hint)

    def _observing(self) -> Any:
        if self._observer is None:
            try:
                from watchdog.observers import Observer
            except ImportError:
                raise MissingExtra(
                    "watching directories needs watchdog, which is absent: pip install 'hiss[watch]'"
                ) from None
            self._observer = Observer()
            self._observer.start()
        return self._observer

    def _is_wanted(self, path: str) -> bool:
        return bool(self._wanted.matching(SCHEME + path))

    # ---- what happens

    def hint(self, path: str, what: str) -> None:
        """Something happened to a path; it will be looked at."""
        with self._hinted:
            if len(self._hints) >= limits.FILE_HINTS_MAX:
                self._hints = dict.fromkeys(list(self._roots), _TREE)
            before = self._hints.pop(path, what)
            self._hints[path] = _CLOSED if _CLOSED in (before, what) and what != _GONE else what
            self._hinted.notify_all()

    def look(self) -> float:
        """Look at all that is due, in the calling thread; returns in how many seconds something may be due."""
        with self._hinted:
            hints, self._hints = self._hints, {}
        try:
            while hints:
                path = next(iter(hints))
                self._look_at_hint(path, hints[path])
                del hints[path]
        except BaseException:
            with self._hinted:
                self._hints = {**hints, **self._hints}
            raise
        now_s = self._clock_s()
        with self._lock:
            for path, (_, since_s) in list(self._pending.items()):
                if now_s - since_s >= limits.FILE_SETTLE_S:
                    self._look_at(path, closed=False)
            due = [root for root in self._roots.values() if root.due_s(now_s) <= 0]
        for root in due:
            self.scan(root.path)
        with self._lock:
            waits = [since_s + limits.FILE_SETTLE_S - now_s for _, since_s in self._pending.values()]
            waits += [root.due_s(now_s) for root in self._roots.values()]
        return max(0.0, min(waits, default=limits.FILE_RESCAN_S))

    def _look_at_hint(self, path: str, what: str) -> None:
        if what == _TREE:
            self.scan(path)
        elif what == _GONE and identity_of(path) is None:
            self._pending.pop(path, None)
            self._ledger.forget_gone(path)
        elif self._is_wanted(path):
            self._look_at(path, closed=what == _CLOSED)

    def scan(self, directory: str) -> None:
        """Look at all files below a directory, and at those that were there and are gone."""
        found: set[str] = set()
        for path in _files_below(directory):
            if self._is_wanted(path):
                found.add(path)
                self._look_at(path, closed=False)
        for path in self._ledger.there(directory):
            if path not in found and identity_of(path) is None:
                self._ledger.forget_gone(path)
        with self._lock:
            if directory in self._roots:
                self._roots[directory].scanned_s = self._clock_s()

    def _look_at(self, path: str, *, closed: bool) -> None:
        """Deal with a file if it is settled, else keep it in mind."""
        with self._lock:
            identity = identity_of(path)
            if identity is None or self._ledger.knows(path, identity):
                self._pending.pop(path, None)
                return
            writing = is_being_written(path)
            if writing and not self._is_below_remote(path):
                return  # its close will be told
            before, since_s = self._pending.get(path, (identity, self._clock_s()))
            told = closed or (writing is False and not self._is_below_remote(path))
            same = before == identity and self._clock_s() - since_s >= limits.FILE_SETTLE_S
            content = content_of(path) if not writing and (told or same) else None
            if content is None:
                self._pending[path] = (identity, since_s if before == identity and not same else self._clock_s())
                self._wake()
                return
            self._deal_with(content)
            self._pending.pop(path, None)

    def _is_below_remote(self, path: str) -> bool:
        return any(root.is_remote and path.startswith(root.path.rstrip("/") + "/") for root in self._roots.values())

    def _wake(self) -> None:
        with self._hinted:
            self._hinted.notify_all()

    def _run(self) -> None:
        pauses = Pauses(self._stop)
        fresh = True
        while not self._stop.is_set():
            try:
                if fresh:
                    self.patterns_changed()
                    fresh = False
                wait_s = self.look()
                pauses.reset()
            except Exception as error:
                log.warning("watched files: %s; trying again", error, exc_info=not isinstance(error, OSError))
                pauses.wait()
                continue
            with self._hinted:
                if not self._hints and not self._stop.is_set():
                    self._hinted.wait(max(wait_s, 0.01))


class _Root:
    """One watched directory."""

    def __init__(self, path: str, deep: bool, observer: Any, hint: Callable[[str, str], None]) -> None:
        self.path = path
        self.deep = deep
        self.is_remote = is_remote(path)
        self.scanned_s: float | None = None
        self._observer = observer
        self._watch: Any = None
        if os.path.isdir(path):
            try:
                self._watch = observer.schedule(_handler(path, hint), path, recursive=deep)
            except OSError as error:
                raise InvalidInput(
                    f"{path} cannot be watched: {error}; where there are too many directories, raise "
                    "fs.inotify.max_user_watches",
                    path=path,
                ) from error

    @property
    def is_watched(self) -> bool:
        return self._watch is not None

    def due_s(self, now_s: float) -> float:
        """In how many seconds it is to be scanned."""
        if self.scanned_s is None:
            return 0.0
        every_s = limits.FILE_SCAN_S if self.is_remote or not self.is_watched else limits.FILE_RESCAN_S
        return self.scanned_s + every_s - now_s

    def unwatch(self) -> None:
        if self._watch is not None:
            self._observer.unschedule(self._watch)
            self._watch = None


def _handler(root: str, hint: Callable[[str, str], None]) -> Any:
    from watchdog.events import FileSystemEventHandler

    class Handler(FileSystemEventHandler):
        """Events of the kernel as hints. Opening, reading, closing unwritten and attributes are none."""

        def dispatch(self, event: Any) -> None:
            path, to = os.fsdecode(event.src_path), os.fsdecode(event.dest_path or "")
            if event.is_directory:
                if event.event_type in ("created", "moved", "deleted"):
                    hint(to or path if event.event_type != "deleted" else root, _TREE)
                if event.event_type == "moved":
                    hint(root, _TREE)
            elif event.event_type == "created":
                hint(path, _WRITTEN)
            elif event.event_type == "closed":
                hint(path, _CLOSED)
            elif event.event_type == "deleted":
                hint(path, _GONE)
            elif event.event_type == "moved":
                hint(path, _GONE)
                hint(to, _CLOSED)

    return Handler()


def _is_deep(trigger: str, root: str) -> bool:
    """Whether the trigger looks below the directories that are in its root."""
    below = local_path(trigger).removeprefix(root).strip("/")
    return "/" in below or "**" in below


def _files_below(directory: str) -> Iterator[str]:
    for folder, _, names in os.walk(directory):
        for name in sorted(names):
            yield os.path.join(folder, name)

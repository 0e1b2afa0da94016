"""The rule engine: `hiss.workflow.Meow` over a buffer that it sees through `hiss.store.Store` only.

It composes the rule book, the scheduler (events to jobs) and the dispatcher (jobs to processes) over one `jobs.db`.
It runs in a process of its own beside a served buffer, or in the user's with an embedded one. It survives the
buffer's going away, and its own death at any moment. All methods of `Meow` may be called from any thread, before
`start()` as well.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hiss import limits
from hiss.errors import DataDirectoryLocked, InvalidInput, PermissionRefused, Unavailable
from hiss.meow_bridge.announcements import Announcements
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.dispatch import Dispatcher, JobEnvironment
from hiss.meow_bridge.executor import Executor
from hiss.meow_bridge.file_ledger import FileLedger
from hiss.meow_bridge.file_paths import is_file
from hiss.meow_bridge.file_watch import FileWatch
from hiss.meow_bridge.identity import job_of_attempt
from hiss.meow_bridge.job_maker import JobMaker
from hiss.meow_bridge.jobs import Cancelled, JobTable
from hiss.meow_bridge.lineage import Lineage
from hiss.meow_bridge.local_executor import local_executor
from hiss.meow_bridge.look_back import LookBack
from hiss.meow_bridge.provenance import provenance_graph, within
from hiss.meow_bridge.rerun import Reruns
from hiss.meow_bridge.retry import log
from hiss.meow_bridge.rights import (
    check_may,
    check_patterns,
    check_sees,
    is_limited,
    sees_job,
    sees_pattern,
    sees_recipe,
)
from hiss.meow_bridge.rules import Change, RuleBook
from hiss.meow_bridge.schedule import Scheduler
from hiss.meow_bridge.stream_watches import StreamWatches
from hiss.meow_bridge.timers import Timers
from hiss.store import Store
from hiss.tokens import is_within
from hiss.workflow import (
    EngineCounts,
    Job,
    JobState,
    Meow,
    Pattern,
    ProvenanceGraph,
    Recipe,
    Rerun,
    Rule,
    acting_caller,
)


class Engine(Meow):
    """
    Parameters
    ----------
    directory : Path
        Holds `jobs.db` and the working directories of attempts; made if it is not there. One engine at a time.
    store : Store
        The buffer. The engine does not close it.
    job_environment : callable
        From an attempt's id and the paths below which it may write, the environment that lets its process reach the
        buffer (`HISS_ADDRESS`, `HISS_TOKEN`).
    jobs_at_once : int
        Attempts that run at the same time.
    executor : callable, optional
        From a directory of its own and `jobs_at_once`, where attempts run; processes of this machine by default. The
        engine starts and closes it.
    clock_ns : callable
        UTC in nanoseconds since 1970.
    monotonic_s : callable
        A clock that is never set, for files that are to settle; seconds.

    Raises
    ------
    DataDirectoryLocked
        Another engine has the directory.
    CatalogDamaged
        `jobs.db` cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        store: Store,
        job_environment: JobEnvironment,
        *,
        jobs_at_once: int = limits.JOBS_AT_ONCE,
        executor: Callable[[Path, int], Executor] | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if jobs_at_once < 1:
            raise InvalidInput(f"jobs_at_once is {jobs_at_once}, expected at least 1")
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_file = _lock(directory / "jobs.lock")
        try:
            self._database = Database(directory / "jobs.db")
        except BaseException:
            os.close(self._lock_file)
            raise
        self._store = store
        self._clock_ns = clock_ns
        self._stop = threading.Event()
        self._started = False
        self._announcements = Announcements(self._database, store, self._stop)
        self._jobs = JobTable(self._database, self._announcements)
        self._rules = RuleBook(self._database)
        self._dispatcher = Dispatcher(
            partial(executor or local_executor, directory / "attempts", jobs_at_once),
            self._jobs,
            store,
            job_environment,
            jobs_at_once,
            clock_ns,
            self._stop,
        )
        files = FileLedger(self._database)
        self._rules.newest_file = files.newest
        maker = JobMaker(self._database, self._jobs, clock_ns, self._dispatcher.jobs_made)
        self._scheduler = Scheduler(self._database, self._rules, maker, files, store, clock_ns, self._stop)
        self._look_back = LookBack(self._database, self._rules, maker, files, store, self._stop)
        self._lineage = Lineage(self._database, store, files)
        self._dispatcher.on_published = self._lineage.record
        self._reruns = Reruns(self._jobs, self._lineage, store, job_environment, self._dispatcher.run_apart, clock_ns)
        self._file_watch = FileWatch(self._rules, files, self._scheduler.deal_with_file, monotonic_s, self._stop)
        self._watches = StreamWatches(self._rules, store, self._stop)
        self._timers = Timers(self._database, self._rules, self._jobs, clock_ns, self._dispatcher.jobs_made, self._stop)

    def start(self) -> None:
        """Take up where the last engine of this directory ended, and go on from there."""
        self._started = True
        self._announcements.start()
        self._dispatcher.start()
        self._scheduler.start()
        self._look_back.start()
        self._timers.start()
        self._watches.start()
        self._file_watch.start()

    def stop(self) -> None:
        """Stop: running attempts are killed, their jobs wait for the next start. Does nothing the second time."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._started:
            self._scheduler.join()
            self._look_back.join()
            self._timers.join()
            self._watches.join()
            self._file_watch.join()
            self._dispatcher.join()
            self._announcements.join()
        self._database.close()
        os.close(self._lock_file)

    # ---- recipes

    def add_recipe(self, recipe: Recipe) -> None:
        """Add or change a recipe; its rules meet what is there, as far as their patterns want that."""
        self._check_recipe(recipe.name, "changes recipes")
        newest = self._newest_or_known()
        with self._database.transaction():
            self._check_recipe(recipe.name, "changes recipes")
            change = self._rules.put_recipe(recipe, max(newest, self._scheduler.cursor()), self._clock_ns())
            self._cancel_jobs_of(change)
            self._look_back.claim(change.made)
        self._meet(change)

    def remove_recipe(self, name: str) -> None:
        with self._database.transaction():
            self._check_recipe(name, "removes recipes")
            self._cancel_jobs_of(self._rules.drop_recipe(name))
        self._watches.rules_changed()

    def recipes(self) -> list[Recipe]:
        """Those that the caller sees, as all that is listed here."""
        check_sees(acting_caller(), "lists recipes")
        patterns = self._rules.patterns()
        return [one for one in self._rules.recipes() if sees_recipe(acting_caller(), one.name, patterns)]

    def recipe(self, name: str) -> Recipe:
        found = self._rules.recipe(name)
        if found not in self.recipes():
            raise PermissionRefused(f"recipe {name!r} is used where this token does not look", recipe=name)
        return found

    # ---- patterns and rules

    def add_pattern(self, pattern: Pattern, *, existing: bool = True) -> int:
        """Add or change a pattern. With `existing` it also meets what is there; returns the jobs that this made.

        Without a buffer at hand, meeting what is there is made up for later, and `existing=False` raises `Unavailable`.
        """
        check_patterns(acting_caller(), [pattern], "adds patterns")
        with self._file_watch.coming(pattern):
            newest = self._newest_or_known() if existing else self._scheduler.newest()
            with self._database.transaction():
                newest = max(newest, self._scheduler.cursor())
                check_patterns(acting_caller(), self._rules.named(pattern.name), "changes patterns")
                if is_file(pattern.trigger):
                    newest = self._rules.newest_file()
                change = self._rules.put_pattern(pattern, 0 if existing else newest, newest, self._clock_ns())
                self._cancel_jobs_of(change)
                self._look_back.claim(change.made)
        return self._meet(change)

    def count_existing(self, pattern: Pattern) -> int:
        """How many jobs `add_pattern` would make of what is there; of watched files, of what was seen of them."""
        check_sees(acting_caller(), "counts what a pattern would meet")
        self._check_sees_pattern(pattern)
        rule = self._rules.preview(pattern)
        return 0 if rule is None else self._look_back.count_existing(rule)

    def remove_pattern(self, name: str) -> None:
        with self._database.transaction():
            removed = self._rules.named(name)
            check_patterns(acting_caller(), removed, "removes patterns")
            self._cancel_jobs_of(self._rules.drop_pattern(name))
        self._watches.rules_changed()
        self._file_watch.gone(removed)

    def patterns(self) -> list[Pattern]:
        check_sees(acting_caller(), "lists patterns")
        return [pattern for pattern in self._rules.patterns() if sees_pattern(acting_caller(), pattern)]

    def pattern(self, name: str) -> Pattern:
        check_sees(acting_caller(), "looks at patterns")
        found = self._rules.pattern(name)
        self._check_sees_pattern(found)
        return found

    def rules(self) -> list[Rule]:
        """The rules there are. A pattern without its recipe has none: `waiting_patterns` lists those."""
        seen = {pattern.name for pattern in self.patterns()}
        return [rule for rule in self._rules.rules() if rule.pattern in seen]

    def waiting_patterns(self) -> list[Pattern]:
        """The patterns that make no rule yet, because there is no recipe of the name that they give."""
        return self._rules.waiting()

    @staticmethod
    def _check_sees_pattern(pattern: Pattern) -> None:
        if not sees_pattern(acting_caller(), pattern):
            raise PermissionRefused(
                f"pattern {pattern.name!r} looks at {pattern.trigger!r}; this token sees what is below "
                f"{acting_caller().read_prefix!r} only"
            )

    def _check_recipe(self, name: str, what: str) -> None:
        """Its code runs with the rights of every pattern that names it."""
        patterns = self._rules.patterns() if is_limited(acting_caller()) else []
        check_patterns(acting_caller(), [pattern for pattern in patterns if pattern.recipe == name], what)

    def _newest_or_known(self) -> int:
        try:
            return self._scheduler.newest()
        except Unavailable as error:
            log.warning("rules: %s; what is there is met when the buffer is back", error)
            return self._scheduler.cursor()

    def _cancel_jobs_of(self, change: Change) -> None:
        attempt = acting_caller().attempt
        spared = None if attempt is None else job_of_attempt(attempt)
        for rule in change.removed:
            attempts = self._jobs.cancel_rule(rule, spared, self._clock_ns())
            if attempts:
                self._database.after_commit(lambda attempts=attempts: self._dispatcher.kill(attempts))  # type: ignore[misc]

    def _meet(self, change: Change) -> int:
        """Let the rules that were made meet what is there, all in one pass; returns the jobs that this made."""
        try:
            self._timers.rules_changed()
            self._watches.rules_changed()
            return self._look_back.meet(change.made)
        except Unavailable as error:
            log.warning("rules %s: %s; they meet what is there when the buffer is back", change.made[:10], error)
        finally:
            self._look_back.give_back(change.made)
        self._look_back.finish_later()
        return 0

    # ---- jobs

    def jobs(self, *, state: JobState | None = None, limit: int = 1000) -> list[Job]:
        """Newest first."""
        check_sees(acting_caller(), "lists jobs")
        return self._jobs.jobs(state, limit, acting_caller().read_prefix)

    def counts(self) -> EngineCounts:
        check_sees(acting_caller(), "counts jobs")
        if acting_caller().read_prefix:
            raise PermissionRefused("this token does not see the jobs of the whole buffer")
        return EngineCounts(self._jobs.counts(), self._scheduler.cursor())

    def job(self, job_id: str) -> Job:
        """By its id, or a prefix of it that no other job has; with what triggered it, and the kernels."""
        check_sees(acting_caller(), "looks at jobs")
        job = self._seen(self._jobs.job(job_id))
        return dataclasses.replace(job, trigger=self._lineage.trigger(job.id), kernels=self._lineage.kernels(job.id))

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job that has not finished; one that has stays as it is.

        One whose outputs are just being published is RUNNING in what is returned, and decides by how that ends.
        """
        with self._database.transaction():
            job = self._jobs.job(job_id)
            self._check_job(job, "cancels jobs")
            attempts = self._jobs.cancel(job.id, Cancelled.BY_REQUEST, self._clock_ns())
            self._database.after_commit(lambda: self._dispatcher.kill(attempts))
        return self._jobs.job(job.id)

    def release_job(self, job_id: str) -> Job:
        """Let a job run that a limit of its pattern held back; any other stays as it is."""
        with self._database.transaction():
            job = self._jobs.job(job_id)
            self._check_job(job, "releases jobs")
            if self._jobs.release_held(job.id, self._clock_ns()):
                self._database.after_commit(self._dispatcher.jobs_made)
            return self._jobs.job(job.id)

    def rerun_job(self, job_id: str) -> Rerun:
        """Run a job that is done once more, as it was, and say whether each output is byte for byte the same."""
        check_may(acting_caller(), "runs jobs again")
        job = self._seen(self._jobs.job(job_id))
        if acting_caller().token is not None:
            self._check_job(job, "runs jobs again")
        return self._reruns.rerun(job)

    @staticmethod
    def _seen(job: Job) -> Job:
        if not sees_job(acting_caller(), job):
            raise PermissionRefused(
                f"job {job.id[:12]} is of {job.path!r}; this token sees what is below "
                f"{acting_caller().read_prefix!r} only"
            )
        return job

    def _check_job(self, job: Job, what: str) -> None:
        self._seen(job)
        if is_limited(acting_caller()):
            check_patterns(acting_caller(), [self._rules.pattern_of(self._jobs.content_hashes(job.id)[0])], what)

    def provenance(self, path: str, version: int | None = None) -> ProvenanceGraph:
        """All that led to a version of a stream (the newest unless one is named) and all that it led to."""
        check_sees(acting_caller(), "looks at provenance")
        prefix = acting_caller().read_prefix
        if not is_within(path, prefix):
            raise PermissionRefused(f"this token sees what is below {prefix!r} only, not {path!r}", prefix=prefix)
        return within(prefix, provenance_graph(self._store, self._jobs, self._lineage, path, version))


def _lock(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise DataDirectoryLocked(
            f"{path.parent} is in use by another rule engine; stop it first", path=str(path.parent)
        ) from None
    return file

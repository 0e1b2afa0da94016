"""Jobs to processes: attempts are claimed, run, and their outputs published or refused for ever.

One thread for each attempt at once. The order makes every crash harmless: `jobs.db` says RUNNING before the process
starts; it says COMMITTING before the buffer is asked to publish; it says DONE after that. Whatever is found open at a
start is *fenced*: the buffer is told to refuse what the attempt wrote and may still write; if it answers that the
attempt is committed, the job is done, else it is queued again. A commit repeated changes nothing, so does a discard.
"""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hiss.errors import Conflict, HissError, Stopping
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.job_events import finished_event
from hiss.meow_bridge.jobs import Attempt, JobTable
from hiss.meow_bridge.retry import Pauses, log, until_done
from hiss.meow_bridge.runner import AttemptEnd, AttemptProcess, EndKind, job_specification
from hiss.store import Store
from hiss.workflow import JobState

JobEnvironment = Callable[[str, str], Mapping[str, str]]  # of an attempt's id and the paths that it may write


class Dispatcher:
    """Its threads run from `start()` until `stop`, which its owner sets; `join()` waits for them."""

    def __init__(
        self,
        directory: Path,
        database: Database,
        jobs: JobTable,
        store: Store,
        job_environment: JobEnvironment,
        jobs_at_once: int,
        clock_ns: Callable[[], int],
        stop: threading.Event,
    ) -> None:
        self._directory = directory / "attempts"
        self._database = database
        self._jobs = jobs
        self._store = store
        self._job_environment = job_environment
        self._clock_ns = clock_ns
        self._stop = stop
        self._host = socket.gethostname()
        self._changed = threading.Condition()
        self._wanted = 0  # counts `jobs_made`, so that none is slept through
        self._running: dict[str, AttemptProcess] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"hiss-meow-job-{number}", daemon=True)
            for number in range(jobs_at_once)
        ]

    def start(self) -> None:
        left = self._jobs.open_attempts()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        recovery = threading.Thread(target=self._recover, args=(left,), name="hiss-meow-recovery", daemon=True)
        self._threads.append(recovery)
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Kill what runs and wait for the threads; `stop` is set."""
        self.jobs_made()
        with self._changed:
            running = list(self._running.values())
        for process in running:
            process.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def jobs_made(self) -> None:
        """There may be jobs to start."""
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()

    def kill(self, attempts: Sequence[str]) -> None:
        """Kill the processes of attempts whose jobs were cancelled; their threads do the rest."""
        with self._changed:
            running = [self._running[attempt] for attempt in attempts if attempt in self._running]
        for process in running:
            process.stop()

    # ---- one attempt

    def _work(self) -> None:
        """Thread: run attempts, one after the other."""
        pauses = Pauses(self._stop)
        while not self._stop.is_set():
            with self._changed:
                seen = self._wanted
            try:
                attempt = self._jobs.claim(self._clock_ns(), self._host)
                if attempt is None:
                    self._wait_for_jobs(seen)
                else:
                    self._run_or_fence(attempt)
                    if attempt.pattern.jobs_at_once is not None:
                        self.jobs_made()  # one more of its rule may start
                pauses.reset()
            except Stopping:
                return
            except Exception:
                log.exception("running jobs: trying again")
                pauses.wait()

    def _wait_for_jobs(self, seen: int) -> None:
        ready_ns = self._jobs.next_ready_ns()
        wait_s = None if ready_ns is None else max(0.0, (ready_ns - self._clock_ns()) / 1e9)
        with self._changed:
            if self._wanted == seen and not self._stop.is_set():
                self._changed.wait(wait_s)

    def _run_or_fence(self, attempt: Attempt) -> None:
        """Run it; where the engine itself stumbles, treat the attempt as one that a crash left."""
        try:
            self._run(attempt)
        except Stopping:
            raise
        except Exception:
            log.exception("job %s: attempt %d", attempt.job, attempt.number)
            self._recover_one(attempt)

    def _run(self, attempt: Attempt) -> None:
        end = self._process(attempt)
        if self._stop.is_set() and end.kind is EndKind.STOPPED:
            self._release(attempt)
        elif end.kind is EndKind.WELL:
            self._publish(attempt, end.output)
        else:
            self._refuse(attempt, end.error, end.output)

    def _process(self, attempt: Attempt) -> AttemptEnd:
        """Run the attempt's process, unless its job was cancelled just now."""
        try:
            environment = until_done(
                lambda: self._job_environment(attempt.id, attempt.write_prefix), f"job {attempt.job}", self._stop
            )
            process = AttemptProcess(
                self._directory / attempt.id, job_specification(attempt), environment, attempt.timeout_s
            )
        except Stopping:
            return AttemptEnd(EndKind.STOPPED)
        except (HissError, OSError) as error:
            return AttemptEnd(EndKind.FAILED, f"its process could not be started: {error}")
        with self._changed:
            self._running[attempt.id] = process
        try:
            if self._stop.is_set() or not self._jobs.is_current(attempt):
                process.stop()
            return process.run()
        except OSError as error:
            return AttemptEnd(EndKind.FAILED, f"its process could not be started: {error}")
        finally:
            with self._changed:
                del self._running[attempt.id]

    def _publish(self, attempt: Attempt, output: str) -> None:
        """The process ended well: one commit of its outputs makes the job done."""
        what = f"job {attempt.job}"
        try:
            reads = until_done(lambda: self._store.attempt_reads(attempt.id), what, self._stop)
            if not until_done(lambda: self._jobs.begin_commit(attempt), what, self._stop):
                self._refuse(attempt, "", output)
                return
            event = finished_event(attempt, reads)
            writes = until_done(lambda: self._store.commit_attempt(attempt.id, "job.finished", event), what, self._stop)
        except Stopping:
            raise
        except HissError as error:
            self._refuse(attempt, f"its outputs could not be published: {error}", output)
            return
        until_done(lambda: self._jobs.finish(attempt, reads, writes, output, self._clock_ns()), what, self._stop)

    def _refuse(self, attempt: Attempt, error: str, output: str) -> None:
        """The attempt failed or was cancelled: nothing of it is to be seen, ever."""
        what = f"job {attempt.job}"
        self._discard(attempt)
        state = until_done(lambda: self._jobs.fail(attempt, error, output, self._clock_ns()), what, self._stop)
        if state is JobState.QUEUED:
            self.jobs_made()

    def _discard(self, attempt: Attempt) -> None:
        until_done(lambda: self._store.discard_attempt(attempt.id), f"job {attempt.job}", self._stop)

    def _release(self, attempt: Attempt) -> None:
        """The engine stops: the job waits for its next start, which finds the attempt open if the buffer is away."""
        try:
            self._store.discard_attempt(attempt.id)
            self._jobs.release(attempt, self._clock_ns())
        except Exception as error:
            log.warning("job %s: %s; it is taken up at the next start", attempt.job, error)

    # ---- what a crash left

    def _recover(self, left: Sequence[Attempt]) -> None:
        """Thread: fence the attempts that were open when the engine started."""
        try:
            for attempt in left:
                self._recover_one(attempt)
        except Stopping:
            return
        except Exception:
            log.exception("recovery: what is left is taken up at the next start")

    def _recover_one(self, attempt: Attempt) -> None:
        what = f"job {attempt.job}"
        try:
            self._discard(attempt)
        except Conflict:
            writes = until_done(
                lambda: self._store.commit_attempt(attempt.id, "job.finished", finished_event(attempt, ())),
                what,
                self._stop,
            )
            reads = until_done(lambda: self._store.attempt_reads(attempt.id), what, self._stop)
            self._jobs.finish(attempt, reads, writes, "", self._clock_ns())
            return
        if self._jobs.interrupt(attempt, self._clock_ns()) is JobState.QUEUED:
            self.jobs_made()

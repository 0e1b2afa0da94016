"""Jobs to processes: attempts are claimed, run, and their outputs published or refused for ever.

One thread for each attempt at once; an attempt is claimed when its cores and its memory are free. The order makes every
crash harmless: `jobs.db` says RUNNING before the process starts; it says COMMITTING before the buffer is asked to
publish; it says DONE after that. Whatever is found open at a start is *fenced*: the buffer is told to refuse what the
attempt wrote and may still write; if it answers that the attempt is committed, the job is done, else it is queued
again. So is an attempt that its executor has lost. A commit repeated changes nothing, so does a discard.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from hiss import limits
from hiss.errors import Conflict, HissError, Stopping
from hiss.meow_bridge.executor import AttemptEnd, Capacity, EndKind, Executor, Order, Room, RunningAttempt
from hiss.meow_bridge.job_events import finished_event
from hiss.meow_bridge.job_order import order_of
from hiss.meow_bridge.jobs import Attempt, JobTable
from hiss.meow_bridge.retry import Pauses, log, until_done
from hiss.store import Store
from hiss.workflow import JobState, StreamRef

_ROOM_LOOK_S: Final = 0.05  # how soon a job that waits for room is looked at again

# Of an attempt's id, the path below which it may write, and its rights.
JobEnvironment = Callable[[str, str, Sequence[str]], Mapping[str, str]]


Published = Callable[[Attempt, Sequence[StreamRef], Sequence[StreamRef]], None]  # an attempt, its reads and writes


class Dispatcher:
    """Its threads run from `start()` until `stop`, which its owner sets; `join()` waits for them."""

    def __init__(
        self,
        make_executor: Callable[[], Executor],
        jobs: JobTable,
        store: Store,
        job_environment: JobEnvironment,
        jobs_at_once: int,
        clock_ns: Callable[[], int],
        stop: threading.Event,
    ) -> None:
        self._make_executor = make_executor
        self.on_published: Published = lambda attempt, reads, writes: None
        self._executor: Executor
        self._jobs = jobs
        self._store = store
        self._job_environment = job_environment
        self._clock_ns = clock_ns
        self._stop = stop
        self._host = socket.gethostname()
        self._changed = threading.Condition()
        self._wanted = 0  # counts `jobs_made`, so that none is slept through
        self._running: dict[str, RunningAttempt] = {}
        self._jobs_at_once = jobs_at_once
        self._room = threading.Lock()  # over what is in use, from the look at it until the claim
        self._in_use: dict[str, tuple[int, int]] = {}  # cores and bytes of each attempt
        self._threads = [
            threading.Thread(target=self._work, name=f"hiss-meow-job-{number}", daemon=True)
            for number in range(jobs_at_once)
        ]

    def start(self) -> None:
        left = self._jobs.open_attempts()
        self._executor = self._make_executor()
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
        self._executor.close()

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

    def run_apart(self, order: Order) -> AttemptEnd:
        """Run an order that belongs to no job's life, beside the others, to its end."""
        if self._stop.is_set():
            raise Stopping("the rule engine stops")
        process = self._executor.begin(order)
        with self._changed:
            self._running[order.id] = process
        try:
            return process.wait()
        finally:
            with self._changed:
                del self._running[order.id]

    # ---- one attempt

    def _work(self) -> None:
        """Thread: run attempts, one after the other."""
        pauses = Pauses(self._stop)
        while not self._stop.is_set():
            with self._changed:
                seen = self._wanted
            try:
                with self._claimed() as attempt:
                    if attempt is not None:
                        self._run_or_fence(attempt)
                if attempt is None:
                    self._wait_for_jobs(seen)
                elif attempt.pattern.jobs_at_once is not None or self._jobs_at_once > 1:
                    self.jobs_made()  # one more of its rule may start, or one that needs what it took
                pauses.reset()
            except Stopping:
                return
            except Exception:
                log.exception("running jobs: trying again")
                pauses.wait()

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[Attempt | None]:
        """An attempt for which there is room, and the room for as long as it takes."""
        capacity = self._executor.capacity()
        default_bytes = min(limits.JOB_MEMORY_BYTES, capacity.memory_bytes // self._jobs_at_once)
        with self._room:
            cores = capacity.cores - sum(cores for cores, _ in self._in_use.values())
            memory = capacity.memory_bytes - sum(memory for _, memory in self._in_use.values())
            room = Room(Capacity(cores, memory), capacity, default_bytes)
            attempt = self._jobs.claim(self._clock_ns(), self._host, room)
            if attempt is not None:
                self._in_use[attempt.id] = (attempt.cores, attempt.memory_bytes)
        try:
            yield attempt
        finally:
            if attempt is not None:
                with self._room:
                    del self._in_use[attempt.id]

    def _wait_for_jobs(self, seen: int) -> None:
        """Until jobs are made, one becomes ready, or, where one waits for room, an attempt ends or the room grows."""
        ready_ns = self._jobs.next_ready_ns()
        wait_s = None if ready_ns is None else max(_ROOM_LOOK_S, (ready_ns - self._clock_ns()) / 1e9)
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
        elif end.kind is EndKind.LOST:
            self._discard(attempt)
            self._interrupted(attempt, end.error)
        else:
            self._refuse(attempt, end.error, end.output)

    def _process(self, attempt: Attempt) -> AttemptEnd:
        """Run the attempt's process, unless its job was cancelled just now."""
        try:
            environment = until_done(
                lambda: self._job_environment(attempt.id, attempt.write_prefix, attempt.pattern.rights),
                f"job {attempt.job}",
                self._stop,
            )
            process = self._executor.begin(order_of(attempt, environment))
        except Stopping:
            return AttemptEnd(EndKind.STOPPED)
        except (HissError, OSError) as error:
            return AttemptEnd(EndKind.FAILED, f"its process could not be started: {error}")
        with self._changed:
            self._running[attempt.id] = process
        try:
            if self._stop.is_set() or not self._jobs.is_current(attempt):
                process.stop()
            return process.wait()
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
        until_done(lambda: self.on_published(attempt, reads, writes), what, self._stop)
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
            until_done(lambda: self.on_published(attempt, reads, writes), what, self._stop)
            self._jobs.finish(attempt, reads, writes, "", self._clock_ns())
            return
        self._interrupted(attempt, "the rule engine died while it ran")

    def _interrupted(self, attempt: Attempt, error: str) -> None:
        """It ended by no fault of its own, and is refused: its job is tried again, if that did not happen too often."""
        what = f"job {attempt.job}"
        state = until_done(lambda: self._jobs.interrupt(attempt, error, self._clock_ns()), what, self._stop)
        if state is JobState.QUEUED:
            self.jobs_made()

"""Run a job that is done once more, as it was, and compare what it makes.

The same version of the recipe, the same variables, and of each stream the version that the job read: those are what its
record holds. What the run writes is staged as any attempt's outputs are, read back, compared block by block with what
the job wrote, and discarded: nobody sees it, nothing follows from it. Callable from any thread; takes as long as the
job.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from hiss import limits
from hiss.errors import Conflict, NotFound
from hiss.extent import Extent
from hiss.meow_bridge.executor import AttemptEnd, EndKind, Order
from hiss.meow_bridge.file_ledger import content_of
from hiss.meow_bridge.file_paths import is_file, local_path
from hiss.meow_bridge.job_order import order_of
from hiss.meow_bridge.jobs import JobTable
from hiss.meow_bridge.lineage import Lineage, ids_of
from hiss.meow_bridge.trigger import JOBS_PART
from hiss.model import Selection
from hiss.store import Store
from hiss.workflow import Job, JobState, Rerun, RerunOutput, StreamRef

_TIMES: str = "an executed notebook holds the times of its run"


class Reruns:
    """
    Parameters
    ----------
    environment : callable
        As the engine's `job_environment`. A run gets no right but to write where the job might.
    run : callable
        Runs an order to its end.
    """

    def __init__(
        self,
        jobs: JobTable,
        lineage: Lineage,
        store: Store,
        environment: Callable[[str, str, tuple[str, ...]], Mapping[str, str]],
        run: Callable[[Order], AttemptEnd],
        clock_ns: Callable[[], int],
    ) -> None:
        self._jobs = jobs
        self._lineage = lineage
        self._store = store
        self._environment = environment
        self._run = run
        self._clock_ns = clock_ns

    def rerun(self, job: Job) -> Rerun:
        """
        Raises
        ------
        Conflict
            The job is not done, or what it read is no longer there as it was.
        """
        if job.state is not JobState.DONE:
            raise Conflict(
                f"job {job.id[:12]} is {job.state.name.lower()}; only what is done can be compared", job=job.id
            )
        self._check_inputs(job)
        last = self._jobs.last_attempt(job.id)
        again = dataclasses.replace(
            last,
            id=f"{job.id}.again-{self._clock_ns()}",
            timeout_s=min(last.timeout_s, limits.RERUN_S),
            memory_bytes=last.memory_bytes or limits.JOB_MEMORY_BYTES,
        )
        try:
            order = order_of(again, self._environment(again.id, again.write_prefix, ()))
            end = self._run(dataclasses.replace(order, specification={**order.specification, "pinned": _pins(job)}))
            if end.kind is not EndKind.WELL:
                return Rerun(job.id, False, end.error or end.kind.value, end.output, ())
            outputs = tuple(self._compared(job, self._store.attempt_writes(again.id)))
        finally:
            self._store.discard_attempt(again.id)
        return Rerun(job.id, all(output.same or output.note == _TIMES for output in outputs), "", end.output, outputs)

    def _check_inputs(self, job: Job) -> None:
        trigger = self._lineage.trigger(job.id)
        for ref in dict.fromkeys([*([trigger] if trigger else []), *job.reads]):
            if (ref.path, ref.version) in ids_of(job.writes):
                continue
            found = self._digest(ref)
            if found != ref.digest:
                raise Conflict(
                    f"job {job.id[:12]} read {ref.path} version {ref.version} with digest {ref.digest}; "
                    f"{'it is no longer there' if found is None else f'it has {found} now'}",
                    job=job.id,
                )

    def _digest(self, ref: StreamRef) -> str | None:
        if is_file(ref.path):
            content = content_of(local_path(ref.path))
            return None if content is None else content.digest
        try:
            info = self._store.stream(ref.path, ref.version)
        except NotFound:
            return None
        return info.digest

    def _compared(self, job: Job, made: tuple[StreamRef, ...]) -> Iterator[RerunOutput]:
        """Each output beside its like: the n-th of a path with the n-th of that path."""
        paths = dict.fromkeys(ref.path for ref in (*job.writes, *made))
        for path in paths:
            before = [ref for ref in job.writes if ref.path == path]
            after = [ref for ref in made if ref.path == path]
            for was, now in itertools.zip_longest(before, after):
                yield self._output(path, was, now)

    def _output(self, path: str, was: StreamRef | None, now: StreamRef | None) -> RerunOutput:
        if was is None or now is None:
            note = "the job did not write it" if was is None else "it was not written again"
            return RerunOutput(
                path, was.version if was else 0, was.digest if was else "", now.digest if now else "", False, note
            )
        same = was.digest == now.digest
        note = ""
        try:
            same = same and self._same_bytes(was, now)
        except NotFound:
            note = "compared by digest: the job's own output is no longer there"
        if not same and f"/{JOBS_PART}/" in path:
            note = _TIMES
        return RerunOutput(path, was.version, was.digest, now.digest, same, note)

    def _same_bytes(self, was: StreamRef, now: StreamRef) -> bool:
        """Block by block. Raises `NotFound` where one of them was deleted or evicted."""
        blocks = itertools.zip_longest(self._blocks(was), self._blocks(now))
        return all(a is not None and b is not None and a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in blocks)

    def _blocks(self, ref: StreamRef) -> Iterator[tuple[int, Any]]:
        for extent in self._store.read(ref.id, Selection()):
            yield from _rows(extent)


def _rows(extent: Extent) -> Iterator[tuple[int, Any]]:
    offsets = extent.offsets
    for row in range(len(extent)):
        yield int(extent.index[row]), extent.data[offsets[row] : offsets[row + 1]]


def _pins(job: Job) -> dict[str, int]:
    """The version of each path that the job read, but for what it had written itself."""
    own = ids_of(job.writes)
    pins: dict[str, int] = {}
    for ref in job.reads:
        if (ref.path, ref.version) not in own:
            pins[ref.path] = max(ref.version, pins.get(ref.path, 0))
    return pins

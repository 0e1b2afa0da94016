"""Attempts on the workers of a Dask cluster (`dask.distributed`): everything that is Dask's is in this file.

An attempt is a task that keeps its worker's thread while it lasts; the worker runs it as this machine would, in
processes of a zygote of its own (`local_executor`), so that limits, containment and printed output are the same
there. When a worker dies, Dask runs its tasks again elsewhere: such a second run ends at once as LOST, for an attempt
is run once and its job tried again with a new attempt; each first run leaves its mark with the scheduler. What an
attempt that was given up still writes, the buffer refuses by its id. Workers must reach the buffer at the address that
jobs are given, and have hiss installed.
"""

from __future__ import annotations

import dataclasses
import importlib
import tempfile
import threading
from pathlib import Path
from typing import Any, Final

from hiss import limits
from hiss.errors import MissingExtra, Stopping, Unavailable
from hiss.meow_bridge.executor import AttemptEnd, Capacity, EndKind, Order, RunningAttempt
from hiss.meow_bridge.local_executor import LocalExecutor

_LOOK_S: Final = 1.0
_here: dict[str, RunningAttempt] = {}  # on a worker: what runs there
_executor: LocalExecutor | None = None  # on a worker
_lock: Final = threading.Lock()


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError:
        raise MissingExtra("jobs on a Dask cluster need dask.distributed: pip install 'hiss[dask]'") from None


class DaskExecutor:
    """An `Executor` on a Dask cluster.

    Parameters
    ----------
    address : str
        Of the scheduler, such as `tcp://host:8786`.

    Raises
    ------
    MissingExtra
        `distributed` is absent.
    Unavailable
        No scheduler answers there.
    """

    def __init__(self, address: str) -> None:
        try:
            self._client: Any = _distributed().Client(address, timeout=limits.CONNECT_S, set_as_default=False)
        except OSError as error:
            raise Unavailable(f"no Dask scheduler answers at {address}: {error}", address=address) from None
        self._running: set[DaskAttempt] = set()
        self._lock = threading.Lock()
        self._closed = False

    def capacity(self) -> Capacity:
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        cores = sum(int(worker["nthreads"]) for worker in workers)
        memory = max((int(worker["memory_limit"]) for worker in workers), default=0)
        return Capacity(cores, memory * len(workers), may_grow=True)

    def begin(self, order: Order) -> DaskAttempt:
        with self._lock:
            if self._closed:
                raise Stopping("the executor was closed")
            attempt = DaskAttempt(self._client, order, self._forget)
            self._running.add(attempt)
            return attempt

    def _forget(self, attempt: DaskAttempt) -> None:
        with self._lock:
            self._running.discard(attempt)

    def close(self) -> None:
        with self._lock:
            was_closed, self._closed = self._closed, True
            running = list(self._running)
        for attempt in running:
            attempt.stop()
        for attempt in running:
            attempt.ended.wait(2 * limits.JOB_KILL_S)
        if not was_closed:
            self._client.close()


class DaskAttempt:
    """A `RunningAttempt` on a worker."""

    def __init__(self, client: Any, order: Order, over: Any) -> None:
        self.ended = threading.Event()
        self._client = client
        self._over = over
        self._id = order.id
        self._stopped = threading.Event()
        self._future = client.submit(
            _run_on_worker, dataclasses.asdict(order), key=f"hiss-{order.id}", pure=False, retries=0
        )

    def wait(self) -> AttemptEnd:
        distributed = _distributed()
        try:
            while True:
                try:
                    kind, error, output = self._future.result(timeout=_LOOK_S)
                    return AttemptEnd(EndKind[kind], error, output)
                except (TimeoutError, distributed.TimeoutError):
                    if self._stopped.is_set():
                        self._end_it()
        except Exception as error:  # cancelled, its worker killed, the scheduler gone: Dask has many words for it
            if self._stopped.is_set():
                return AttemptEnd(EndKind.STOPPED)
            return AttemptEnd(EndKind.LOST, f"the Dask cluster lost it: {type(error).__name__}: {str(error)[:500]}")
        finally:
            self._future.release()
            self._over(self)
            self.ended.set()

    def stop(self) -> None:
        self._stopped.set()
        self._end_it()

    def _end_it(self) -> None:
        """Tell every worker, because the one that runs it may be another by now; a task that waits is cancelled."""
        try:
            ran = self._client.run(_stop_on_worker, self._id, on_error="ignore")
            if not any(ran.values()):
                self._future.cancel(force=True)
        except Exception:  # no scheduler, or it is closing: then nothing of it will be heard either
            self._future.cancel(force=True)


# ------------------------------------------------------------------------------------------------------ on a worker


def _run_on_worker(values: dict[str, Any]) -> tuple[str, str, str]:
    """A task: run an attempt to its end."""
    distributed = _distributed()
    order = Order(**values)
    client = distributed.get_client()
    mark = ["hiss", "attempts", order.id]
    if client.get_metadata(mark, False):
        return EndKind.LOST.name, "the Dask worker that ran it died", ""
    client.set_metadata(mark, True)
    attempt = _executor_here(distributed.get_worker()).begin(order)
    with _lock:
        _here[order.id] = attempt
    try:
        end = attempt.wait()
    finally:
        with _lock:
            del _here[order.id]
    return end.kind.name, end.error, end.output


def _stop_on_worker(attempt: str) -> bool:
    """Stop an attempt if it runs here; whether it did."""
    with _lock:
        running = _here.get(attempt)
    if running is not None:
        running.stop()
    return running is not None


def _executor_here(worker: Any) -> LocalExecutor:
    """The executor of this worker, made for its first attempt."""
    global _executor
    with _lock:
        if _executor is None:
            directory = Path(tempfile.mkdtemp(prefix="hiss-jobs-", dir=worker.local_directory))
            threads = worker.state.nthreads
            memory = worker.memory_manager.memory_limit or limits.JOB_MEMORY_BYTES
            _executor = LocalExecutor(
                directory / "attempts", Capacity(threads, memory), min(threads, limits.SPARE_JOBS_MAX)
            )
        return _executor

"""One suite for every executor: attempts end as their recipes end, are stopped, are bounded, and leave nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hiss import limits
from hiss.errors import MissingExtra, Stopping, Unavailable
from hiss.limits import GiB, MiB
from hiss.meow_bridge import dask_executor
from hiss.meow_bridge.dask_executor import DaskExecutor
from hiss.meow_bridge.executor import AttemptEnd, EndKind, Executor, Order
from hiss.meow_bridge.local_executor import local_executor
from hiss.workflow import JobState

from .conftest import finished, pattern, script, wait_for
from .memory_store import MemoryStore
from .test_attempts import TREE, alive, pids

WAIT = "import os, time\nopen(mark, 'a').write(f'{os.getpid()} ')\nwhile not os.path.exists(go): time.sleep(0.01)\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0", memory_limit="4GiB"
    ) as made:
        yield made


@pytest.fixture(params=["local", "dask"])
def executor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Executor]:
    if request.param == "local":
        made: Executor = local_executor(tmp_path / "attempts", 2)
    else:
        made = DaskExecutor(request.getfixturevalue("cluster").scheduler_address)
    yield made
    made.close()


numbers = iter(range(10**6))


def order(body: str, *, timeout_s: float = 60.0, cores: int = 1, memory_bytes: int = GiB, **variables: Any) -> Order:
    number = f"{os.getpid()}x{next(numbers)}"
    recipe = {"name": "r", "kind": "SCRIPT", "body": body, "entry": "", "packages": [], "input_as": "stream"}
    specification = {
        "job": number,
        "attempt": f"{number}.1",
        "rule": "rule",
        "event": "event",
        "kind": "stream.sealed",
        "path": "a/in",
        "version": 1,
        "input": "input",
        "outputs": {},
        "variables": {"input": "a/in", **variables},
        "recipe": recipe,
    }
    return Order(f"{number}.1", specification, {"TEST": "given"}, timeout_s, cores, memory_bytes)


def run(executor: Executor, wanted: Order) -> AttemptEnd:
    return executor.begin(wanted).wait()


def test_it_ends_well(executor: Executor) -> None:
    end = run(executor, order("import os\nprint(input, n, os.environ['TEST'])", n=5))
    assert (end.kind, end.error, end.output) == (EndKind.WELL, "", "a/in 5 given\n")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("print('so far')\n1/0", "ZeroDivisionError: division by zero"),
        ("import os; os._exit(7)", "its process ended with status 7"),
        ("import os; os.kill(os.getpid(), 9)", "its process was killed by SIGKILL; was the machine out of memory?"),
    ],
)
def test_it_fails(executor: Executor, body: str, error: str) -> None:
    end = run(executor, order(body))
    assert (end.kind, end.error) == (EndKind.FAILED, error)


def test_it_takes_too_long(executor: Executor) -> None:
    end = run(executor, order("while True: pass", timeout_s=0.5))
    assert (end.kind, end.error) == (EndKind.FAILED, "took longer than 0.5 s and was killed")


def test_it_takes_too_much(executor: Executor) -> None:
    end = run(executor, order("x = bytearray(1 << 40)", memory_bytes=128 * MiB))
    assert (end.kind, end.error) == (EndKind.FAILED, "MemoryError")


def test_it_is_stopped_with_all_its_processes(executor: Executor, tmp_path: Path) -> None:
    running = executor.begin(order(TREE, pids=str(tmp_path / "pids")))
    tree = pids(tmp_path / "pids", 3)
    threading.Thread(target=running.stop).start()
    assert running.wait().kind is EndKind.STOPPED
    assert not any(map(alive, tree))
    running.stop()


def test_several_run_at_once(executor: Executor, tmp_path: Path) -> None:
    go = tmp_path / "go"
    running = [executor.begin(order(WAIT, go=str(go), mark=str(tmp_path / "mark"))) for _ in range(2)]
    pids(tmp_path / "mark", 2)
    go.touch()
    assert [each.wait().kind for each in running] == [EndKind.WELL] * 2


def test_it_gets_as_many_threads_as_cores(executor: Executor) -> None:
    body = "import os\nprint(os.environ['OPENBLAS_NUM_THREADS'])"
    assert run(executor, order(body)).output == "1\n"
    assert run(executor, order(body, cores=2)).output == "2\n"


def test_two_attempts_draw_different_numbers(executor: Executor) -> None:
    body = "import random, numpy as np\nprint(random.random(), np.random.random())"
    first, second = (run(executor, order(body)).output.split() for _ in range(2))
    assert not set(first) & set(second)


def test_closing_stops_what_runs(executor: Executor, tmp_path: Path) -> None:
    running = executor.begin(order(WAIT, go=str(tmp_path / "go"), mark=str(tmp_path / "mark")))
    (pid,) = pids(tmp_path / "mark", 1)
    ends: list[AttemptEnd] = []
    thread = threading.Thread(target=lambda: ends.append(running.wait()))
    thread.start()
    executor.close()
    thread.join()
    assert ends[0].kind is EndKind.STOPPED
    assert not alive(pid)
    with pytest.raises(Stopping):
        executor.begin(order("1"))


def test_it_says_what_there_is(executor: Executor) -> None:
    capacity = executor.capacity()
    assert capacity.cores >= 2
    assert capacity.memory_bytes >= GiB
    assert capacity.may_grow is isinstance(executor, DaskExecutor)


# ------------------------------------------------------------------------------------------------------------- Dask


def test_a_dask_worker_is_killed(cluster: Any, tmp_path: Path) -> None:
    """Its attempt is lost at once, is not run a second time, and nothing of it is left."""
    executor = DaskExecutor(cluster.scheduler_address)
    mark = tmp_path / "mark"
    body = "import os\nopen(mark, 'a').write(f'{os.getpid()} ')\n" + WAIT.replace("mark", "other")
    running = executor.begin(order(body, go=str(tmp_path / "go"), mark=str(mark), other=str(tmp_path / "other")))
    (pid,) = pids(mark, 1)
    worker = _worker_of(executor, pid)
    os.kill(worker, signal.SIGKILL)
    assert running.wait().kind is EndKind.LOST
    wait_for(lambda: not alive(pid), "the job's process to end with its worker")
    assert len(mark.read_text().split()) == 1
    assert run(executor, order("print(1)")).output == "1\n"
    executor.close()


def _worker_of(executor: DaskExecutor, pid: int) -> int:
    """The worker's pid that a job's process is below: job, keeper, zygote, worker."""
    for _ in range(3):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert pid in executor._client.run(os.getpid).values()
    return pid


def test_an_engine_on_dask_with_workers_killed_in_the_middle(
    cluster: Any, make_engine: Callable[..., Any], store: MemoryStore, tmp_path: Path
) -> None:
    mark, go = tmp_path / "mark", tmp_path / "go"
    engine = make_engine(executor=lambda *_: DaskExecutor(cluster.scheduler_address))
    engine.add(script("r", WAIT, retries=0))
    engine.add(pattern("p", "a/*", "r", variables={"go": str(go), "mark": str(mark)}, sweep={"n": [1, 2, 3, 4]}))
    store.seal("a/in")
    wait_for(lambda: mark.exists() and len(mark.read_text().split()) >= 2, "jobs to run on the cluster")
    victim = _worker_of(engine._dispatcher._executor, int(mark.read_text().split()[0]))
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: any(kind == "discard" for kind, _ in store.calls), "the lost attempt to be fenced")
    go.touch()
    jobs = finished(engine, 4)
    assert [job.state for job in jobs] == [JobState.DONE] * 4
    committed = [call for call in store.calls if call[0] == "commit"]
    assert len(committed) == len(set(committed)) == 4
    lost = {attempt for kind, attempt in store.calls if kind == "discard"}
    assert lost
    assert not lost & {attempt for _, attempt in committed}


def test_no_scheduler_and_no_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(limits, "CONNECT_S", 0.5)
    with pytest.raises(Unavailable, match="no Dask scheduler answers at tcp://127"):
        DaskExecutor("tcp://127.0.0.1:1")

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(dask_executor.importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'hiss\[dask\]'"):
        DaskExecutor("tcp://127.0.0.1:1")


def test_nothing_of_dask_leaks_out_of_its_file() -> None:
    package = Path(dask_executor.__file__).parent.parent
    found = [path.name for path in package.rglob("*.py") if "import distributed" in path.read_text()]
    assert found == []
    named = {path.name for path in package.rglob("*.py") if "distributed" in path.read_text() and "meow" in str(path)}
    assert named == {"dask_executor.py"}

"""What becomes of attempts: success, failure, retries, time limits, cancellation, and the processes that they start."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiss import limits
from hiss.errors import StreamNotFinal
from hiss.meow_bridge import Engine
from hiss.meow_bridge.identity import attempt_id
from hiss.model import Caller
from hiss.workflow import Job, JobState, Recipe, RecipeKind, acting

from .conftest import ROOM, command, finished, pattern, script, wait_for
from .memory_store import MemoryStore

MakeEngine = Callable[..., Engine]

WAIT = "import time, pathlib\nwhile not pathlib.Path(go).exists(): time.sleep(0.01)\n"


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOB_RETRY_FIRST_S", 0.01)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def running(engine: Engine) -> Job:
    job: list[Job] = wait_for(lambda: engine.jobs(state=JobState.RUNNING), "a job to run")
    return job[0]


def pids(path: Path, count: int) -> list[int]:
    def read() -> list[int]:
        found = [int(word) for word in path.read_text().split()] if path.exists() else []
        return found if len(found) == count else []

    found: list[int] = wait_for(read, f"{count} process ids in {path.name}")
    return found


def test_success_publishes_everything_at_once(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    go = tmp_path / "go"
    engine.add(script("r", WAIT + "print('done')"))
    engine.add(pattern("p", "a/in", "r", variables={"go": str(go)}))
    info = store.seal("a/in")
    job = running(engine)
    attempt = attempt_id(job.id, 1)
    store.read_by(attempt, info)
    out = store.seal("a/out", caller=Caller(attempt, "a"))
    assert [event.kind for event in store.all_events()] == ["stream.sealed"], "nothing is seen before the commit"
    go.touch()
    (done,) = finished(engine, 1)
    assert (done.state, done.attempts, done.output, done.error) == (JobState.DONE, 1, "done\n", "")
    assert [ref.path for ref in done.reads] == ["a/in"]
    assert [(ref.path, ref.version, ref.digest) for ref in done.writes] == [("a/out", 1, out.digest)]
    assert done.created_ns <= done.started_ns <= done.finished_ns
    assert [(event.kind, event.path) for event in store.all_events()[1:]] == [
        ("stream.sealed", "a/out"),
        ("job.finished", ""),
    ]
    event = store.all_events()[-1].data
    assert (event["job"], event["pattern"], event["recipe"], event["path"]) == (job.id, "p", "r", "a/in")
    assert event["reads"][0]["digest"] == info.digest


def test_what_became_of_a_job_is_an_event_of_what_triggered_it(engine: Engine, store: MemoryStore) -> None:
    """Patterns match `job.finished` and `job.failed` by the trigger's path, and their conditions look at its stream."""
    engine.add(script("works", "1"))
    engine.add(script("fails", "1/0", retries=0))
    engine.add(script("report", "print(input, version)"))
    engine.add(pattern("p", "a/*/in", "works"))
    engine.add(pattern("q", "b/*/in", "fails"))
    more = {"variables": {"version": "{VERSION}"}, "where": {"kind": "good"}}
    engine.add(pattern("finished", "a/*/in", "report", event="job.finished", **more))
    engine.add(pattern("failed", "b/s/in", "report", event="job.failed", **more))
    engine.add(pattern("elsewhere", "c/**", "report", event="job.finished"))
    for path in ("a/s/in", "b/s/in", "b/t/in"):
        store.seal(path, attrs={"kind": "good"})
    store.seal("a/s/in", attrs={"kind": "bad"})
    reports = [job for job in finished(engine, 6) if job.recipe == "report"]
    assert {(job.pattern, job.output) for job in reports} == {("finished", "a/s/in 1\n"), ("failed", "b/s/in 1\n")}
    engine.remove_pattern("finished")
    assert engine.add(pattern("late", "a/**", "report", event="job.finished", variables=more["variables"])) == 3
    assert len(finished(engine, 9)) == 9, "what is there already, of `p` twice, of `finished` once, but not its own"


def test_output_causes_the_next_job(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    go = tmp_path / "go"
    engine.add(script("first", WAIT))
    engine.add(script("second", "print('after', input)"))
    engine.add(pattern("p", "a/in", "first", variables={"go": str(go)}))
    engine.add(pattern("q", "a/out", "second"))
    store.seal("a/in")
    store.seal("a/out", caller=Caller(attempt_id(running(engine).id, 1), "a"))
    go.touch()
    assert finished(engine, 2)[1].output == "after a/out\n"


def test_a_failing_recipe_tells_why_and_is_tried_again(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    engine.add(
        script("r", "open(tries, 'a').write('x')\nprint('so far')\nraise ValueError('no good: ' + input)", retries=2)
    )
    engine.add(pattern("p", "a/*", "r", variables={"tries": str(tries)}))
    store.seal("a/in")
    (job,) = finished(engine, 1)
    assert (job.state, job.attempts, job.error) == (JobState.FAILED, 3, "ValueError: no good: a/in")
    assert job.output.startswith('so far\nTraceback (most recent call last):\n  File "<recipe r>", line 3')
    assert job.output.endswith("ValueError: no good: a/in\n")
    assert tries.read_text() == "xxx"
    event = wait_for(lambda: [each for each in store.all_events() if each.kind == "job.failed"], "job.failed")[0]
    assert (event.data["job"], event.data["error"], event.data["attempts"]) == (job.id, job.error, 3)
    assert [call for call in store.calls if call[0] == "discard"] == [
        ("discard", attempt_id(job.id, number)) for number in (1, 2, 3)
    ]


def test_a_job_that_fails_once_succeeds(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    body = "import pathlib\nmark = pathlib.Path(mark)\nif not mark.exists():\n    mark.touch()\n    1/0\nprint('well')"
    engine.add(script("r", body))
    engine.add(pattern("p", "a/*", "r", variables={"mark": str(tmp_path / "mark")}, retries=1))
    store.seal("a/in")
    (job,) = finished(engine, 1)
    assert (job.state, job.attempts, job.output, job.error) == (JobState.DONE, 2, "well\n", "")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("import sys; sys.exit('give up')", "sys.exit('give up')"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import os; os._exit(7)", "status 7"),
        ("nonsense", "NameError: name 'nonsense' is not defined"),
        ("import hiss; hiss.job().output('x', [1])", "HISS_ADDRESS"),
    ],
)
def test_ways_to_fail(engine: Engine, store: MemoryStore, body: str, error: str) -> None:
    engine.add(script("r", body, retries=0))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/in")
    (job,) = finished(engine, 1)
    assert job.state is JobState.FAILED
    assert error in job.error


def test_exit_zero_is_success(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "import sys; sys.exit(0)"))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/in")
    assert finished(engine, 1)[0].state is JobState.DONE


def test_a_command_gets_its_variables_and_no_shell(engine: Engine, store: MemoryStore) -> None:
    engine.add(command("r", "printf", "%s|", "{input}", "{n}", "{other}", "$HOME; {t}"))
    engine.add(pattern("p", "a/*", "r", variables={"n": [1, 2], "t": "x y"}))
    engine.add(command("absent", "no-such-program-anywhere", retries=0))
    engine.add(pattern("q", "b/*", "absent"))
    store.seal("a/in")
    store.seal("b/in")
    first, second = finished(engine, 2)
    assert first.output == "a/in|[1, 2]|{other}|$HOME; x y|"
    assert (second.state, "no-such-program-anywhere" in second.error) == (JobState.FAILED, True)


def test_a_function_gets_what_it_names(engine: Engine, store: MemoryStore) -> None:
    body = "def f(a, b=5, *, c):\n    print(a, b, c)\n"
    engine.add(Recipe("r", body, kind=RecipeKind.FUNCTION, entry="f", retries=0))
    engine.add(pattern("p", "a/*", "r", variables={"a": 1, "c": 3, "unused": 4}))
    engine.add(pattern("q", "b/*", "r", variables={"a": 1}))
    store.seal("a/in")
    store.seal("b/in")
    first, second = finished(engine, 2)
    assert first.output == "1 5 3\n"
    assert "f() wants c, but the pattern gives" in second.error


def test_where_and_with_what_a_job_runs(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    body = (
        "import os, hiss\nopen('left', 'w')\nprint(os.getcwd())\nprint(os.environ['TEST_WRITES'])\n"
        "print(hiss.job().id)\nprint(os.environ.get('HISS_DATA'))\nprint(os.getsid(0) != int(sid))"
    )
    engine.add(script("r", body))
    engine.add(pattern("p", "top/*/in", "r", variables={"sid": str(os.getsid(0))}))
    engine.add(pattern("q", "top/*/in", "r", variables={"sid": "0"}, writes="{COLLECTION}/made"))
    os.environ["HISS_DATA"] = "secret"
    try:
        store.seal("top/s/in")
        jobs = {job.pattern: job for job in finished(engine, 2)}
    finally:
        del os.environ["HISS_DATA"]
    directory, writes, job_id, data, own_session = jobs["p"].output.split("\n")[:5]
    assert (writes, job_id, data, own_session) == ("top", jobs["p"].id, "None", "True")
    assert jobs["q"].output.split("\n")[1] == "top/s/made"
    assert Path(directory).is_relative_to(tmp_path)
    assert not Path(directory).exists()
    assert list((tmp_path / "attempts").iterdir()) == []


def test_only_the_end_of_the_output_is_kept(
    engine: Engine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOB_OUTPUT_BYTES_MAX", 1000)
    engine.add(script("r", "print('x' * 500_000)\nprint('the end')"))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/in")
    (job,) = finished(engine, 1)
    assert job.output.endswith("xxx\nthe end\n")
    assert job.output.startswith("[499009 bytes before this are not kept]\n")
    assert len(job.output) < 1100


# A tree that tries to get away: a child in a session of its own, which leaves an orphan behind.
TREE = r"""
import os, subprocess, sys, time
inner = '\n'.join([
    "import os, sys, time",
    "p = os.fork()",
    "open(sys.argv[1], 'a').write(f'{os.getpid()} ')",
    "p and os._exit(0)",
    "time.sleep(600)",
])
subprocess.Popen([sys.executable, "-c", inner, pids], start_new_session=True)
open(pids, "a").write(f"{os.getpid()} ")
time.sleep(600)
"""


def test_the_time_limit_ends_the_whole_tree(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    engine.add(script("r", TREE, timeout_s=3600))
    engine.add(pattern("p", "a/*", "r", variables={"pids": str(tmp_path / "pids")}, timeout_s=2.0, retries=0))
    store.seal("a/in")
    (job,) = finished(engine, 1)
    assert (job.state, job.error) == (JobState.FAILED, "took longer than 2 s and was killed")
    found = tmp_path / "pids"  # on a slow machine the tree had no time to grow
    assert not any(alive(int(pid)) for pid in (found.read_text().split() if found.exists() else ()))


def test_what_a_job_leaves_behind_ends_with_it(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    body = TREE.replace("time.sleep(600)\n", "") + "while len(open(pids).read().split()) < 3: time.sleep(0.01)\n"
    engine.add(script("r", body))
    engine.add(pattern("p", "a/*", "r", variables={"pids": str(tmp_path / "pids")}))
    store.seal("a/in")
    assert finished(engine, 1)[0].state is JobState.DONE
    assert not any(alive(pid) for pid in pids(tmp_path / "pids", 3))


@pytest.mark.parametrize("how", ["job", "pattern", "recipe", "change"])
def test_cancelling_kills_the_tree_and_discards(engine: Engine, store: MemoryStore, tmp_path: Path, how: str) -> None:
    engine.add(script("r", TREE))
    engine.add(pattern("p", "a/*", "r", variables={"pids": str(tmp_path / "pids")}))
    store.seal("a/in")
    tree = pids(tmp_path / "pids", 3)
    job = running(engine)
    staged = store.seal("a/out", caller=Caller(attempt_id(job.id, 1), "a"))
    match how:
        case "job":
            assert engine.cancel_job(job.id).state is JobState.CANCELLED
        case "pattern":
            engine.remove_pattern("p")
        case "recipe":
            engine.remove_recipe("r")
        case "change":
            engine.add(pattern("p", "a/nothing", "r"))
    assert engine.job(job.id).state is JobState.CANCELLED
    wait_for(lambda: not any(alive(pid) for pid in tree), "the tree to die")
    wait_for(lambda: ("discard", attempt_id(job.id, 1)) in store.calls, "the attempt to be fenced")
    assert staged.path not in [info.path for info in store.streams("a")]
    assert engine.cancel_job(job.id).state is JobState.CANCELLED


def test_a_job_that_edits_its_own_rule_is_spared(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    go = tmp_path / "go"
    engine.add(script("r", WAIT + "print(k)", retries=0))
    engine.add(pattern("p", "a/*", "r", variables={"go": str(go)}, sweep={"k": [1, 2]}))
    store.seal("a/in")
    jobs = wait_for(lambda: len(found := engine.jobs(state=JobState.RUNNING)) == 2 and found, "both to run")
    with acting(Caller(attempt_id(jobs[0].id, 1), "", ("rules",))):
        engine.add(pattern("p", "b/*", "r", variables={"go": str(go)}))
    go.touch()
    states = {job.id: job.state for job in finished(engine, 2)}
    assert states == {jobs[0].id: JobState.DONE, jobs[1].id: JobState.CANCELLED}


def test_an_output_that_is_left_open_fails_the_attempt(
    engine: Engine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = store.commit_attempt

    def refusing(attempt: str, kind: str, event: Any) -> Any:
        if kind == "job.finished":
            raise StreamNotFinal("stream a/out is open")
        return commit(attempt, kind, event)

    monkeypatch.setattr(store, "commit_attempt", refusing)
    engine.add(script("r", "1", retries=0))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/in")
    (job,) = finished(engine, 1)
    assert (job.state, job.error) == (JobState.FAILED, "its outputs could not be published: stream a/out is open")


def test_the_buffer_is_away_when_a_job_ends(engine: Engine, store: MemoryStore, tmp_path: Path) -> None:
    go = tmp_path / "go"
    engine.add(script("r", WAIT))
    engine.add(pattern("p", "a/*", "r", variables={"go": str(go)}))
    store.seal("a/in")
    job = running(engine)
    store.set_away(True)
    go.touch()
    wait_for(lambda: not engine._dispatcher._running, "its process to end")
    assert engine.job(job.id).state is JobState.RUNNING
    store.set_away(False)
    assert finished(engine, 1)[0].state is JobState.DONE


def test_stopping_keeps_the_job_for_the_next_start(make_engine: MakeEngine, store: MemoryStore, tmp_path: Path) -> None:
    go = tmp_path / "go"
    engine = make_engine()
    engine.add(script("r", "import os\nopen(tries, 'a').write(f'{os.getpid()} ')\n" + WAIT, retries=0))
    engine.add(pattern("p", "a/*", "r", variables={"go": str(go), "tries": str(tmp_path / "tries")}))
    store.seal("a/in")
    (pid,) = pids(tmp_path / "tries", 1)
    engine.stop()
    assert not alive(pid)
    engine = make_engine()
    pids(tmp_path / "tries", 2)
    go.touch()
    (job,) = finished(engine, 1)
    assert (job.state, job.attempts) == (JobState.DONE, 2)


def test_no_more_than_wanted_run_at_once(make_engine: MakeEngine, store: MemoryStore, tmp_path: Path) -> None:
    engine = make_engine(jobs_at_once=1)
    body = "import os, time\nfd = os.open(lock, os.O_CREAT | os.O_EXCL)\ntime.sleep(0.05)\nos.unlink(lock)"
    engine.add(script("r", body, retries=0))
    engine.add(pattern("p", "a/*", "r", variables={"lock": str(tmp_path / "one")}, sweep={"n": [1, 2, 3, 4]}))
    store.seal("a/in")
    assert [job.state for job in finished(engine, 4)] == [JobState.DONE] * 4


def test_a_stopped_supervisor_does_not_save_its_processes(
    engine: Engine, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOB_KILL_S", 0.2)
    engine.add(script("r", "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\n" + TREE))
    engine.add(pattern("p", "a/*", "r", variables={"pids": str(tmp_path / "pids")}))
    store.seal("a/in")
    tree = pids(tmp_path / "pids", 3)
    engine.cancel_job(running(engine).id)
    wait_for(lambda: not any(alive(pid) for pid in tree), "the tree to die")
    wait_for(lambda: not engine._dispatcher._running, "the attempt to end")


@pytest.mark.parametrize("commits", [True, False])
def test_cancelling_what_is_just_being_published(
    engine: Engine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, commits: bool
) -> None:
    """How the commit ends decides: there is no job that was cancelled and whose outputs are there all the same."""
    asked, answer = threading.Event(), threading.Event()
    commit = store.commit_attempt

    def slow(attempt: str, kind: str, event: Any) -> Any:
        asked.set()
        assert answer.wait(60)
        if not commits:
            raise StreamNotFinal("stream a/out is open")
        return commit(attempt, kind, event)

    monkeypatch.setattr(store, "commit_attempt", slow)
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/in")
    assert asked.wait(60)
    (job,) = engine.jobs()
    assert engine.cancel_job(job.id).state is JobState.RUNNING
    answer.set()
    assert finished(engine, 1)[0].state is (JobState.DONE if commits else JobState.CANCELLED)


def test_a_job_that_takes_its_engine_along_is_not_tried_for_ever(make_engine: MakeEngine, store: MemoryStore) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1", retries=0))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/in")
    engine._scheduler.adopt(store.node)
    engine._scheduler.deal_with(store.all_events())
    for number in range(limits.JOB_INTERRUPTIONS_MAX + 1):
        assert engine.jobs()[0].state is JobState.QUEUED
        attempt = engine._jobs.claim(time.time_ns(), "here", ROOM)
        assert attempt is not None
        assert attempt.number == number + 1
        engine.stop()  # as if it had died: nothing of it runs, the attempt is open
        engine = make_engine(start=False)
        engine._dispatcher._recover(engine._jobs.open_attempts())
        assert store.calls[number] == ("discard", attempt.id)
    (job,) = engine.jobs()
    assert (job.state, job.error) == (JobState.FAILED, "the rule engine died while it ran")
    assert engine._announcements.publish_some()
    assert store.all_events()[-1].kind == "job.failed"


def test_a_stumble_of_the_engine_leaves_no_job_running(
    engine: Engine, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = engine._jobs.begin_commit
    stumbles = iter([True, False])

    def stumbling(attempt: Any) -> bool:
        if next(stumbles):
            raise RuntimeError("a bug")
        return begin(attempt)

    monkeypatch.setattr(engine._jobs, "begin_commit", stumbling)
    engine.add(script("r", "1", retries=0))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/in")
    (job,) = finished(engine, 1)
    assert (job.state, job.attempts) == (JobState.DONE, 2)

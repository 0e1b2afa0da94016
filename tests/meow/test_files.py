"""Watched directories: a settled file is an event, each content once; reads are none; downtime is made up for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiss import limits, open_files
from hiss.errors import InvalidPattern, MissingExtra, Unavailable
from hiss.meow_bridge import Engine, file_watch
from hiss.meow_bridge.file_paths import keyword_root, watched_root
from hiss.meow_bridge.trigger import matches
from hiss.workflow import JobState, Pattern

from .conftest import finished, pattern, script, wait_for

pytest.importorskip("watchdog", reason="pip install 'hiss[watch]'")

MakeEngine = Callable[..., Engine]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "in box").mkdir()
    return tmp_path / "in box"


def over(inbox: Path, glob: str = "*.dat", name: str = "p", **more: Any) -> Pattern:
    return pattern(name, f"file:{inbox}/{glob}", "r", **more)


def seen(engine: Engine) -> list[tuple[str, int]]:
    """Names and versions of the files that made jobs, oldest first."""
    return [(job.path.rpartition("/")[2], job.version) for job in engine.jobs()[::-1]]


@pytest.fixture
def still(make_engine: MakeEngine) -> Callable[..., Engine]:
    """An engine whose threads do not run: `look` is called by the test, and the clock is the test's."""

    def make(**options: Any) -> Engine:
        engine = make_engine(start=False, **options)
        engine.add(script("r", "1"))
        return engine

    return make


def test_a_file_that_is_written_makes_one_job_with_its_path(engine: Engine, inbox: Path) -> None:
    """Through the kernel's events, written in four steps."""
    engine.add(script("r", "print(open(input).read(), name, below, root)"))
    keywords = {"name": "{PREFIX}|{EXTENSION}", "below": "{REL_PATH}", "root": "{VGRID}"}
    engine.add(over(inbox, "**/*.dat", variables=keywords))
    (inbox / "deep" / "er").mkdir(parents=True)
    with (inbox / "deep" / "er" / "a.dat").open("w") as file:
        for step in range(4):
            file.write(str(step))
            file.flush()
    (inbox / "deep" / "other.txt").write_text("not matched")
    (job,) = finished(engine, 1)
    assert (job.state, job.path, job.version) == (JobState.DONE, f"file:{inbox}/deep/er/a.dat", 1)
    assert job.output == f"0123 a|.dat deep/er/a.dat {inbox}\n"
    (inbox / "deep" / "er" / "a.dat").write_text("new")
    assert finished(engine, 2)[1].output.startswith("new ")


def test_another_change_while_a_pattern_comes_leaves_it_watched(
    still: Callable[..., Engine], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others change theirs between the look at what is there and the pattern: what is there is met all the same."""
    engine = still()
    (inbox / "a.dat").write_text("a")
    scan = file_watch.FileWatch.scan

    def beside(watch: file_watch.FileWatch, directory: str) -> None:
        watch.patterns_changed()
        scan(watch, directory)
        watch.patterns_changed()

    monkeypatch.setattr(file_watch.FileWatch, "scan", beside)
    assert engine.add(over(inbox)) == 1
    assert list(engine._file_watch._roots) == [str(inbox)]


def test_a_pattern_that_is_refused_leaves_nothing_watched(
    still: Callable[..., Engine], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = still()
    (inbox / "a.dat").write_text("a")

    def away() -> int:
        raise Unavailable("the buffer is away")

    monkeypatch.setattr(engine._scheduler, "newest", away)
    with pytest.raises(Unavailable):
        engine.add(over(inbox), existing=False)
    assert not engine._file_watch._roots
    assert not engine._file_watch._is_wanted(str(inbox / "a.dat"))


def test_patterns_of_streams_are_nothing_to_the_watch(
    still: Callable[..., Engine], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are; one that had watched files, and has not any more, is."""
    engine = still()
    engine.add(over(inbox, name="of-files"))
    with monkeypatch.context() as patched:
        patched.setattr(file_watch.FileWatch, "patterns_changed", lambda _: pytest.fail("all patterns were looked at"))
        for trigger in ("scan/*", "scan/**"):
            engine.add(pattern("of-streams", trigger, "r"))
        engine.remove_pattern("of-streams")
    assert list(engine._file_watch._roots) == [str(inbox)]
    engine.add(pattern("of-files", "scan/*", "r"))
    assert not engine._file_watch._roots


def test_not_while_it_is_still_being_written(engine: Engine, inbox: Path) -> None:
    """The first of what must not be repeated: a job that starts when its file is created."""
    engine.add(script("r", "print(open(input).read())"))
    engine.add(over(inbox))
    with (inbox / "slow.dat").open("w") as file:
        file.write("half")
        file.flush()
        (inbox / "quick.dat").write_text("all")
        assert finished(engine, 1)[0].path.endswith("quick.dat")
        file.write(", and the rest")
    assert finished(engine, 2)[1].output == "half, and the rest\n"


def test_reads_attributes_and_the_same_content_are_no_events(engine: Engine, inbox: Path) -> None:
    engine.add(script("r", "1"))
    engine.add(over(inbox))
    file = inbox / "a.dat"
    file.write_text("x")
    finished(engine, 1)
    file.read_text()
    file.chmod(0o600)
    os.utime(file)
    file.write_text("x")
    with file.open("r+"):
        pass
    (inbox / "b.dat").write_text("y")  # after all that: its event comes last
    finished(engine, 2)
    assert seen(engine) == [("a.dat", 1), ("b.dat", 1)]


def test_renamed_into_place_and_linked_into_place(engine: Engine, inbox: Path, tmp_path: Path) -> None:
    engine.add(script("r", "1"))
    engine.add(over(inbox))
    (inbox / ".a.tmp").write_text("a")
    (inbox / ".a.tmp").rename(inbox / "a.dat")
    finished(engine, 1)
    (tmp_path / "outside").write_text("b")
    (tmp_path / "outside").rename(inbox / "b.dat")
    finished(engine, 2)
    (tmp_path / "other").write_text("c")
    os.link(tmp_path / "other", inbox / "c.dat")
    finished(engine, 3)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "d.dat").write_text("d")
    engine.add(over(inbox, "*/*.dat", "deep"))
    (tmp_path / "tree").rename(inbox / "tree")
    finished(engine, 4)
    assert seen(engine) == [("a.dat", 1), ("b.dat", 1), ("c.dat", 1), ("d.dat", 1)]


def test_what_was_written_while_nobody_watched_is_found_once(make_engine: MakeEngine, inbox: Path) -> None:
    engine = make_engine()
    engine.add(script("r", "1"))
    engine.add(over(inbox))
    (inbox / "a.dat").write_text("1")
    (inbox / "b.dat").write_text("1")
    finished(engine, 2)
    engine.stop()
    (inbox / "a.dat").write_text("22")
    (inbox / "b.dat").touch()
    (inbox / "c.dat").write_text("1")
    again = make_engine()
    finished(again, 4)
    again.stop()
    third = make_engine()
    (inbox / "d.dat").write_text("1")
    finished(third, 5)
    assert sorted(seen(third)) == [("a.dat", 1), ("a.dat", 2), ("b.dat", 1), ("c.dat", 1), ("d.dat", 1)]


def test_what_is_there_is_met_or_not(still: Callable[..., Engine], inbox: Path) -> None:
    """M10 over files, sub-directories too; a recipe that comes later changes nothing of it."""
    engine = still()
    (inbox / "sub").mkdir()
    for name in ("a.dat", "sub/b.dat"):
        (inbox / name).write_text(name)
    assert engine.add(over(inbox, "**/*.dat", "all")) == 2
    assert engine.add(over(inbox, "**/*.dat", "new"), existing=False) == 0
    waiting = pattern("later", f"file:{inbox}/*.dat", "other")
    engine.add(waiting, existing=False)
    (inbox / "c.dat").write_text("c")
    engine._file_watch.scan(str(inbox))
    engine.add(script("other", "2"))
    made = [(job.pattern, job.path.rpartition("/")[2]) for job in engine.jobs()]
    assert sorted(made) == [("all", "a.dat"), ("all", "b.dat"), ("all", "c.dat"), ("later", "c.dat"), ("new", "c.dat")]
    assert engine.add(over(inbox, "**/*.dat", "all")) == 0, "unchanged"


def test_a_file_that_was_gone_is_new(still: Callable[..., Engine], inbox: Path) -> None:
    engine = still()
    engine.add(over(inbox))
    file = inbox / "a.dat"
    for _ in range(2):
        file.write_text("same")
        engine._file_watch.scan(str(inbox))
        file.unlink()
        engine._file_watch.scan(str(inbox))
    assert seen(engine) == [("a.dat", 1), ("a.dat", 2)]
    assert engine.add(over(inbox, name="q")) == 0, "what is gone is not there"


def test_where_nobody_tells_of_a_close_a_file_settles_by_time(
    still: Callable[..., Engine], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a network file system, into which another host writes."""
    from watchdog.events import FileSystemEventHandler

    monkeypatch.setattr(file_watch, "is_remote", lambda _: True)
    monkeypatch.setattr(file_watch, "_handler", lambda root, hint: FileSystemEventHandler())
    now_s = [100.0]
    engine = still(monotonic_s=lambda: now_s[0])
    engine.add(over(inbox))
    file = inbox / "a.dat"
    file.write_text("1")
    engine._file_watch.scan(str(inbox))
    now_s[0] += limits.FILE_SETTLE_S / 2
    engine._file_watch.look()
    with file.open("a") as more:
        more.write("2")
    engine._file_watch.scan(str(inbox))
    now_s[0] += limits.FILE_SETTLE_S * 0.9
    engine._file_watch.look()
    assert seen(engine) == [], "it changed meanwhile: the clock starts anew"
    now_s[0] += limits.FILE_SETTLE_S * 1.1
    engine._file_watch.look()
    assert seen(engine) == [("a.dat", 1)]


def test_the_kernel_knows_who_writes(inbox: Path) -> None:
    file = inbox / "a"
    with file.open("w"):
        assert open_files.is_being_written(str(file)) is True
    assert open_files.is_being_written(str(file)) is False
    with file.open():
        assert open_files.is_being_written(str(file)) is False, "a reader is no writer"
    writer = subprocess.Popen(
        [sys.executable, "-c", f"f = open({str(file)!r}, 'a'); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    assert open_files.is_being_written(str(file)) is True
    writer.communicate(b"\n")
    assert open_files.is_being_written(str(file)) is False
    assert open_files.is_being_written(str(inbox / "none")) is None


def test_hints_beyond_the_bound_become_a_scan(
    still: Callable[..., Engine], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FILE_HINTS_MAX", 3)
    engine = still()
    engine.add(over(inbox))
    for number in range(20):
        (inbox / f"{number}.dat").write_text(str(number))
        engine._file_watch.hint(str(inbox / f"{number}.dat"), "closed")
    engine._file_watch.look()
    assert len(engine.jobs()) == 20


@pytest.mark.parametrize(
    "trigger",
    ["file:relative/*", "file:/a//b", "file:/a/../b", "file:/a/x**/b", "file:", "file:/a/./b/./c", "file:/./a"],
)
def test_triggers_that_are_refused(still: Callable[..., Engine], trigger: str) -> None:
    with pytest.raises(InvalidPattern):
        still().add(Pattern("p", trigger, "r"))


def test_a_directory_must_be_there(still: Callable[..., Engine], tmp_path: Path) -> None:
    with pytest.raises(InvalidPattern, match="there is no directory"):
        still().add(Pattern("p", f"file:{tmp_path}/none/*.dat", "r"))


def test_files_have_no_attributes() -> None:
    with pytest.raises(InvalidPattern, match="no attributes"):
        Pattern("p", "file:/tmp/*", "r", complete_only=True)
    with pytest.raises(InvalidPattern, match=r"file\.written"):
        Pattern("p", "a/*", "r", event="file.written")


def test_without_watchdog_the_line_that_installs_it(
    still: Callable[..., Engine], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchdog.observers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'hiss\[watch\]'"):
        still().add(over(inbox))


def test_globs_over_files() -> None:
    assert watched_root("file:/data/in/*/x.tif") == "/data/in"
    assert watched_root("file:/data/in/**") == "/data/in"
    assert watched_root("file:/*.tif") == "/"
    assert (watched_root("file:/data/./in/*"), keyword_root("file:/data/./in/*")) == ("/data/in", "/data")
    assert keyword_root("file:/data/in/*") == "/data/in"
    assert matches("file:/data/./in/*", "file:/data/in/x")
    assert matches("file:/data/**/*.tif", "file:/data/a b/ü.tif")
    assert matches("file:/data/**/*.tif", "file:/data/x.tif")
    assert not matches("file:/data/*.tif", "file:/data/a/x.tif")
    assert not matches("data/*.tif", "file:/data/x.tif")


def test_the_engine_that_dies_between_looks_loses_nothing(still: Callable[..., Engine], inbox: Path) -> None:
    """The event commits with its jobs: killed before, it comes again; killed after, it does not."""
    engine = still()
    engine.add(over(inbox))
    (inbox / "a.dat").write_text("1")

    def dies(*_: Any) -> int:
        raise KeyboardInterrupt

    insert, engine._jobs.insert = engine._jobs.insert, dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        engine._file_watch.scan(str(inbox))
    engine._jobs.insert = insert  # type: ignore[method-assign]
    assert wait_for(lambda: engine._rules.rules(), "the rule")
    assert seen(engine) == []
    engine._file_watch.scan(str(inbox))
    engine._file_watch.scan(str(inbox))
    assert seen(engine) == [("a.dat", 1)]

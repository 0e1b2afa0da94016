"""A watched directory: every file once, as it is; whatever is killed, and nothing is removed before it is safe."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hiss
from hiss import limits
from hiss.client import Buffer
from hiss.errors import BlockTooLarge, Conflict, InvalidInput
from hiss.intake import Watch, WatchOptions, batches, settling
from hiss.intake.settling import identity_of
from hiss.limits import MiB
from hiss.model import AckLevel, StreamState, check_name
from hiss.testing.processes import DataProcess

FRAMES = np.random.default_rng(8).integers(0, 60000, (9, 4, 6), np.uint16)


class Shared:
    """The buffer of a test, which a watch must not close."""

    def __init__(self, buffer: Buffer) -> None:
        self._store = buffer.store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        pass


class Watched:
    """A directory, its watch, and what the watch told."""

    def __init__(self, directory: Path, buffer: Buffer) -> None:
        self.directory, self.buffer = directory, buffer
        self.told: list[tuple[str, dict[str, Any]]] = []

    def write(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def watch(self, clock: Callable[[], float] = time.monotonic, **options: Any) -> Watch:
        return Watch(
            self.directory,
            "inbox",
            lambda: Shared(self.buffer),  # type: ignore[arg-type, return-value]
            WatchOptions(**options),
            threading.Event(),
            tell=lambda what, of: self.told.append((what, of)),
            monotonic_s=clock,
        )

    def once(self, **options: Any) -> None:
        """A process that deals with all that is there, and ends."""
        watch = self.watch(once=True, **options)
        try:
            watch.run()
        finally:
            watch.close()

    def said(self, what: str) -> list[str]:
        return [of["file"] for said, of in self.told if said == what]

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if path.is_file() and ".hiss-watch" not in path.parts
        )

    def content(self, path: str, version: int | None = None) -> bytes:
        return b"".join(
            block.data if isinstance(block.data, bytes) else block.data.tobytes()
            for block in self.buffer.stream(path, version)
        )


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    (tmp_path / "inbox").mkdir()
    with hiss.open(tmp_path / "buffer", backend="numpy", segment_bytes=16 * MiB, arena_bytes=16 * MiB) as buffer:
        yield Watched(tmp_path / "inbox", buffer)


# ---------------------------------------------------------------------------------------------------- files as bytes


def test_files_are_streams_of_bytes(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiss.limits.WATCH_BLOCK_BYTES", 100)
    contents = {"a.dat": bytes(range(256)), "run 1/b.dat": b"b" * 100, "run 1/empty": b""}
    for name, content in contents.items():
        watched.write(name, content)
    watched.write(".hidden", b"no")
    watched.write("half.part", b"no")
    watched.once(attrs={"beamline": "I24"})
    assert sorted(watched.said("stored")) == sorted(contents)
    places = {of["file"]: of["stream"] for said, of in watched.told if said == "stored"}
    assert places["a.dat"] == "inbox/a.dat"
    assert places["run 1/b.dat"].startswith("inbox/run_1-")
    for name, content in contents.items():
        info = watched.buffer[places[name]].info
        assert watched.content(places[name]) == content
        assert (info.state, info.attrs["source_file"], info.attrs["beamline"]) == (StreamState.SEALED, name, "I24")
    assert watched.buffer["inbox/a.dat"].info.completeness.blocks == 3
    assert watched.files() == sorted([*contents, ".hidden", "half.part"])


def test_what_was_sent_is_not_sent_again(watched: Watched) -> None:
    watched.write("a.dat", b"one")
    watched.once()
    watched.once()
    assert watched.said("stored") == ["a.dat"]
    watched.write("a.dat", b"two")
    watched.once()
    assert [watched.content("inbox/a.dat", version) for version in (1, 2)] == [b"one", b"two"]


def test_names_that_are_alike_stay_apart(watched: Watched) -> None:
    for name in ("a b", "a_b", "a+b"):
        watched.write(name, name.encode())
    watched.once()
    streams = watched.buffer["inbox"].streams()
    assert sorted(watched.content(stream.path) for stream in streams) == [b"a b", b"a+b", b"a_b"]
    assert [stream.version for stream in streams] == [1, 1, 1]


def test_a_lost_state_sends_nothing_twice(watched: Watched) -> None:
    watched.write("a.dat", b"one")
    watched.once()
    (watched.directory / ".hiss-watch" / "watch.db").unlink()
    watched.once(remove=True)
    assert watched.buffer["inbox/a.dat"].version == 1
    assert watched.files() == []


def test_a_file_that_is_being_written_waits(watched: Watched) -> None:
    watch = watched.watch()
    try:
        with (watched.directory / "a.dat").open("wb") as file:
            file.write(b"first")
            file.flush()
            watch.look()
            assert watched.told == []
            file.write(b" second")
        look_until(watch, lambda: watched.said("stored") == ["a.dat"])
    finally:
        watch.close()
    assert watched.content("inbox/a.dat") == b"first second"


def test_a_file_must_be_the_same_for_as_long_as_was_asked(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    watch = watched.watch(clock=lambda: now_s[0], settle_s=30.0)
    try:
        watched.write("a.dat", b"a")
        watch.look()
        now_s[0] += 29
        with (watched.directory / "a.dat").open("ab") as file:
            file.write(b"b")
        watch.look()
        now_s[0] += 29
        watch.look()
        assert watched.told == []
        now_s[0] += 2
        watch.look()
        assert watched.said("stored") == ["a.dat"]
    finally:
        watch.close()


def interrupted(self: batches.OpenBatch) -> None:
    raise KeyboardInterrupt


def test_where_the_system_tells_nothing_files_settle_by_being_the_same(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system, and without watchdog: scans, and a settle time."""
    monkeypatch.setattr(settling, "is_remote", lambda directory: True)
    monkeypatch.setattr(settling, "is_being_written", lambda path: None)
    now_s = [100.0]
    watch = watched.watch(clock=lambda: now_s[0])
    try:
        watched.write("sub/a.dat", b"a")
        watch.look()
        now_s[0] += limits.FILE_SETTLE_S - 0.1
        watched.write("sub/a.dat", b"ab")
        watch.look()
        now_s[0] += limits.FILE_SETTLE_S - 0.1
        watch.look()
        assert watched.told == []
        now_s[0] += 0.2
        watch.look()
        assert watched.said("stored") == ["sub/a.dat"]
        assert watched.content("inbox/sub/a.dat") == b"ab"
    finally:
        watch.close()


def test_core_packages_are_enough(watched: Watched) -> None:
    """No extra is imported, nor what a small process has no use for."""
    watched.write("a.dat", b"a")
    program = f"""
import sys
for name in {EXTRAS!r}:
    sys.modules[name] = None
from hiss.cli.main import root
try:
    root(["watch", {str(watched.directory)!r}, "inbox", "--once", "--remove"])
except SystemExit as leave:
    assert not leave.code, leave.code
assert not {{"numba", "h5py", "matplotlib"}} & set(sys.modules)
"""
    watched.buffer.close()
    with DataProcess(watched.directory.parent / "buffer", arena_bytes=16 * MiB, segment_bytes=16 * MiB) as server:
        environment = {**os.environ, "HISS_ADDRESS": server.config.address, "HISS_TOKEN": server.token}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)
    assert watched.files() == []


EXTRAS = ("watchdog", "watchdog.events", "hdf5plugin", "tifffile", "fabio", "pvaccess", "zarr", "fsspec", "obstore")


@given(st.lists(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=200), unique=True))
@settings(max_examples=60)
def test_any_name_of_a_file_is_a_name_of_a_stream(names: list[str]) -> None:
    found = [batches.batch_name(f"{name}/x", frames=False)[0][1:] for name in names]
    assert all(check_name(name, "stream") for name in found)
    assert len(set(found)) == len(names)


def look_until(watch: Watch, done: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 60
    while not done():
        assert time.monotonic() < give_up_s
        watch.look()
        watch._settling.wait(0.05)


# ---------------------------------------------------------------------------------------------------- frames


def test_files_are_gathered_into_streams_of_frames(watched: Watched) -> None:
    for number, frame in enumerate(FRAMES[:7]):
        np.save(watched.directory / f"f{number + 7}.npy", frame)
    np.save(watched.directory / "g.npy", FRAMES[7:])  # a stack
    np.save(watched.directory / "h.npy", FRAMES[0].astype("f4"))
    (watched.directory / "k.npy").write_bytes(b"no array")
    watched.once(frames=True, batch_files=5)
    names = [stream.info.name for stream in watched.buffer["inbox"].streams()]
    assert names == ["f7", "f12", "h"]
    np.testing.assert_array_equal(np.asarray(watched.buffer["inbox/f7"]), FRAMES[:5])
    np.testing.assert_array_equal(np.asarray(watched.buffer["inbox/f12"]), FRAMES[5:])
    assert watched.buffer["inbox/f12"].columns["source_file"].tolist() == [b"f12.npy", b"f13.npy", b"g.npy", b"g.npy"]
    assert watched.said("refused") == ["k.npy"]
    assert watched.files()[-1] == "k.npy"
    watched.once(frames=True, remove=True)
    assert watched.files() == ["k.npy"]


def test_a_batch_is_gone_on_with_by_the_next_process(watched: Watched) -> None:
    for part in (FRAMES[:4], FRAMES[4:]):
        for number, frame in enumerate(part):
            np.save(watched.directory / f"{len(part)}{number}.npy", frame)
        watch = watched.watch(frames=True, batch_idle_s=3600)
        watch.look()
        watch.close()
    assert watched.buffer["inbox/40"].info.state is StreamState.OPEN
    watched.once(frames=True, remove=True)
    np.testing.assert_array_equal(np.asarray(watched.buffer["inbox/40"]), FRAMES)
    assert (watched.files(), watched.buffer["inbox"].info.streams) == ([], ("40",))


def test_a_batch_that_was_cut_off_when_it_was_full(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its files are sent again before it is sealed."""
    for number in range(2):
        np.save(watched.directory / f"{number}.npy", FRAMES[number])
    with monkeypatch.context() as patch:
        patch.setattr(batches.OpenBatch, "finish", interrupted)
        watch = watched.watch(frames=True, batch_files=2)
        with pytest.raises(KeyboardInterrupt):
            watch.look()
        watch.close()
    watched.once(frames=True, batch_files=2, remove=True)
    np.testing.assert_array_equal(np.asarray(watched.buffer["inbox/0"]), FRAMES[:2])
    assert (watched.files(), watched.said("refused")) == ([], [])


# ---------------------------------------------------------------------------------------------------- removing


def test_files_go_when_their_stream_is_archived(watched: Watched, tmp_path: Path) -> None:
    watched.write("a.dat", b"a")
    watch = watched.watch(remove=True, level=AckLevel.ARCHIVED)
    try:
        look_until(watch, lambda: watched.said("stored") == ["a.dat"])
        watch.look()
        assert watched.files() == ["a.dat"]
        info = watched.buffer["inbox/a.dat"].info
        watched.buffer.store.record_archive(info.id, "file:/tape/a.dat", info.digest)
        look_until(watch, lambda: watched.files() == [])
    finally:
        watch.close()


def test_a_file_that_was_written_again_stays(watched: Watched) -> None:
    """Between its being stored and its removal."""
    path = watched.write("a.dat", b"one")
    watch = watched.watch(remove=False)
    look_until(watch, lambda: watched.said("stored") == ["a.dat"])
    watch.close()
    watch = watched.watch(remove=True)
    with path.open("ab") as file:  # the same name, other content
        file.write(b" more")
        file.flush()
        assert watch._remove() == 1
    assert path.read_bytes() == b"one more"
    watch.close()
    watched.once(remove=True)
    assert [watched.content("inbox/a.dat", version) for version in (1, 2)] == [b"one", b"one more"]
    assert watched.files() == []


def test_a_removal_that_was_cut_off_is_finished_or_put_back(watched: Watched) -> None:
    for name in ("safe", "changed"):
        watched.write(name, name.encode())
    watched.once()
    watch = watched.watch()
    files = {file.path: file for file in watch._state.removable()}
    watch.close()
    aside = watched.directory / ".hiss-watch" / "leaving"
    aside.mkdir()
    for file in files.values():
        os.rename(watched.directory / file.path, aside / str(file.id))
    with (aside / str(files["changed"].id)).open("ab") as late:
        late.write(b" late")
    watched.watch().close()
    assert watched.files() == ["changed"]
    assert (watched.directory / "changed").read_bytes() == b"changed late"
    assert list(aside.iterdir()) == []


def test_what_reads_back_as_something_else_is_not_removed(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer that gives back other bytes: the file is told, and stays."""
    watched.write("a.dat", b"precious")

    class Lying(Shared):
        def read(self, stream_id: str, selection: Any) -> Any:
            for extent in self._store.read(stream_id, selection):
                extent.data[0] ^= 1
                yield extent

    watch = watched.watch(remove=True, once=True)
    watch._connect = lambda: Lying(watched.buffer)  # type: ignore[assignment, return-value]
    watch.run()
    watch.close()
    assert watched.files() == ["a.dat"]
    assert "read back" in watched.told[0][1]["error"]


# ---------------------------------------------------------------------------------------------------- what is wrong


def test_one_watch_at_a_time(watched: Watched) -> None:
    watch = watched.watch()
    with pytest.raises(Conflict, match="another hiss watch"):
        watched.watch()
    watch.close()
    watched.watch().close()


def test_a_state_is_of_one_collection(watched: Watched) -> None:
    watched.watch().close()
    with pytest.raises(InvalidInput, match="go to the collection inbox"):
        Watch(watched.directory, "other", lambda: watched.buffer.store, WatchOptions(), threading.Event())


def test_a_file_that_changes_while_it_is_sent_is_sent_anew(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiss.limits.WATCH_BLOCK_BYTES", 4)
    path = watched.write("a.dat", b"before!!")
    seen: list[str] = []

    def changing(name: str) -> Any:
        seen.append(name)
        if len(seen) == 2:
            path.write_bytes(b"after it")
        return identity_of(name)

    monkeypatch.setattr(batches, "identity_of", changing)
    watched.once()
    streams = [watched.buffer.stream("inbox/a.dat", version) for version in (1, 2)]
    assert [stream.info.state for stream in streams] == [StreamState.ABORTED, StreamState.SEALED]
    assert watched.content("inbox/a.dat") == b"after it"
    assert (watched.said("changed"), watched.said("stored")) == (["a.dat"], ["a.dat"])


def test_a_file_that_the_buffer_refuses_is_told_and_left(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose frames are larger than a block may be; the others go on."""
    for number in range(3):
        np.save(watched.directory / f"{number}.npy", FRAMES[number])
    create = watched.buffer.store.create_stream

    def refusing(collection: str, name: str, spec: Any, **named: Any) -> Any:
        if name == "1.npy":
            raise BlockTooLarge("too large")
        return create(collection, name, spec, **named)

    monkeypatch.setattr(watched.buffer.store, "create_stream", refusing)
    watched.once(remove=True)
    watched.once(remove=True)
    assert (watched.files(), sorted(set(watched.said("refused")))) == (["1.npy"], ["1.npy"])
    assert watched.said("stored") == ["0.npy", "2.npy"]
    monkeypatch.undo()
    os.utime(watched.directory / "1.npy")  # it is another file now
    watched.once(remove=True)
    assert watched.files() == []


@pytest.mark.parametrize("options", [{"level": AckLevel.RECEIVED}, {"batch_files": 0}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        WatchOptions(**options)

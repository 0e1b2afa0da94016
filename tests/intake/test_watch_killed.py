"""`hiss watch` killed at any step: every file is stored once, and none has gone before it was.

The watch runs in this process and dies before, or after, its n-th step: a call of the buffer, a statement of its state,
a removal. What it held is let go as by the death of a process. Real processes are killed as well, a few times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiss.client import Buffer
from hiss.errors import HissError
from hiss.intake import Watch, WatchOptions, batches, removal, watch_state
from hiss.model import StreamState
from hiss.testing.processes import DataProcess

GIVE_UP_S = 240.0
CALLS = ("create_collection", "create_stream", "stream", "open_append", "amend_stream", "seal_stream", "read")


class Killed(BaseException):
    pass


class Steps:
    """Counts the steps of a watch, and ends it at one of them."""

    def __init__(self, deadly: int | None = None) -> None:
        self.count = 0
        self.deadly = deadly

    def __call__(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        self.count += 1
        if self.count == self.deadly:
            raise Killed
        result = call(*given, **named)
        self.count += 1
        if self.count == self.deadly:
            raise Killed
        return result


class Stepping:
    """An object some of whose calls are steps; all of them where none are named."""

    def __init__(self, inner: Any, steps: Steps, calls: tuple[str, ...] = ()) -> None:
        self.inner, self._steps, self._calls = inner, steps, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name == "close" or not callable(found) or (self._calls and name not in self._calls):
            return found
        return lambda *given, **named: self._steps(found, *given, **named)


class Scene:
    """A directory with files, and the collection of one buffer to which they go."""

    def __init__(self, directory: Path, buffer: Buffer, collection: str, *, frames: bool) -> None:
        self.directory, self.buffer, self.collection, self.frames = directory, buffer, collection, frames
        directory.mkdir()
        self.contents: dict[str, bytes] = {}
        for number in range(3):
            array = np.random.default_rng(number).integers(0, 99, (1 + number % 2, 3, 4), np.int32)
            np.save(directory / f"f{number}.npy", array)
            self.contents[f"f{number}.npy"] = array.tobytes() if frames else (directory / f"f{number}.npy").read_bytes()

    def run(self, deadly: int | None) -> int:
        """A process that sends and removes all, and is killed at the `deadly`-th step; returns how many there were."""
        steps = Steps(deadly)
        stop = threading.Event()
        options = WatchOptions(once=True, remove=True, frames=self.frames, batch_files=2)
        with stepping(steps):
            store = Stepping(self.buffer.store, steps, CALLS)
            store.close = lambda: None
            watch = None
            with suppress(Killed):
                watch = Watch(self.directory, self.collection, lambda: store, options, stop)  # type: ignore[arg-type, return-value]
                watch._state._database = Stepping(watch._state._database, steps, ("execute",))  # type: ignore[assignment]
                watch.run()
        if watch is not None:
            die(watch)
        return steps.count

    def audit(self) -> None:
        """What is not in the directory is in the buffer."""
        stored = self.stored()
        for name, content in self.contents.items():
            there = (self.directory / name).exists() or list((self.directory / ".hiss-watch/leaving").glob("*"))
            assert there or content in stored, f"{name} is nowhere"

    def stored(self) -> list[bytes]:
        """The contents of all sealed streams, file by file."""
        found = []
        known = [i.path for i in self.buffer.store.collections(self.collection) if i.path == self.collection]
        for info in self.buffer.store.streams(self.collection, all_versions=True) if known else []:
            if info.state is StreamState.SEALED:
                stream = self.buffer.stream(info.path, info.version)
                blocks = [b if isinstance(b, bytes) else b.tobytes() for b in (block.data for block in stream)]
                if not self.frames:
                    found.append(b"".join(blocks))
                    continue
                names = stream.columns["source_file"].tolist()
                found += [
                    b"".join(block for block, of in zip(blocks, names, strict=True) if of == name)
                    for name in dict.fromkeys(names)
                ]
        return found

    def check_all(self) -> None:
        """Every file is there once, and nothing else; the directory is empty."""
        assert sorted(self.stored()) == sorted(self.contents.values())
        assert not list(self.directory.rglob("*.npy"))
        opened = [i for i in self.buffer.store.streams(self.collection) if i.state is StreamState.OPEN]
        assert not opened


@contextmanager
def stepping(steps: Steps) -> Iterator[None]:
    """Renaming and removing files are steps too."""
    with pytest.MonkeyPatch.context() as patch:
        rename, unlink = os.rename, Path.unlink
        patch.setattr(removal.os, "rename", lambda *given: steps(rename, *given))
        patch.setattr(Path, "unlink", lambda path, **named: steps(unlink, path, **named))
        yield


def die(watch: Watch) -> None:
    """What the death of a process does: locks and connections go, nothing is flushed, nothing is said."""
    if watch._open is not None and watch._open._writer is not None:
        writer = watch._open._writer
        with suppress(HissError):
            writer._stop()
    watch._settling.close()
    database = watch._state._database
    getattr(database, "inner", database).close()
    os.close(watch._state._lock)


def killed_at(buffer: Buffer, folder: Path, deadly: int, *, frames: bool, again: int | None = None) -> Scene:
    """A watch killed at one step, its successor perhaps too, and a last one that ends its work."""
    scene = Scene(folder / f"{frames}{deadly}", buffer, f"{'frames' if frames else 'bytes'}/s{deadly}", frames=frames)
    for step in [deadly, *([again] if again else [])]:
        scene.run(step)
        scene.audit()
    scene.run(None)
    return scene


def steps_of(buffer: Buffer, folder: Path, *, frames: bool) -> int:
    scene = Scene(folder / f"whole{frames}", buffer, f"whole{frames}", frames=frames)
    count = scene.run(None)
    scene.check_all()
    return count


@pytest.mark.parametrize("frames", [False, True])
def test_killed_at_some_steps(buffer: Buffer, tmp_path: Path, frames: bool) -> None:
    count = steps_of(buffer, tmp_path, frames=frames)
    assert count > 50
    for deadly in random.Random(7).sample(range(1, count + 1), 7):
        killed_at(buffer, tmp_path, deadly, frames=frames, again=deadly // 2).check_all()


@pytest.mark.torture
@pytest.mark.parametrize("frames", [False, True])
def test_killed_at_every_step(buffer: Buffer, tmp_path: Path, frames: bool) -> None:
    for deadly in range(1, steps_of(buffer, tmp_path, frames=frames) + 1):
        killed_at(buffer, tmp_path, deadly, frames=frames, again=random.Random(deadly).randrange(1, 60)).check_all()


# ---------------------------------------------------------------------------------------------------- controls


def fails(buffer: Buffer, folder: Path) -> bool:
    """Whether some step is found at which a file is lost, or stored twice; without a kill all has to be well."""
    count = steps_of(buffer, folder, frames=False)
    for deadly in range(count // 4, count + 1, 7):
        try:
            killed_at(buffer, folder, deadly, frames=False).check_all()
        except AssertionError:
            return True
    return False


@pytest.mark.control
def test_control_files_that_go_when_they_are_sent(
    buffer: Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the rule that only what is stored is removed, the kills lose files."""
    append = batches.OpenBatch.append

    def append_and_remove(self: batches.OpenBatch, file: watch_state.Taken, part: Any) -> None:
        append(self, file, part)
        os.unlink(os.path.join(self._directory, file.path))  # sent, not acknowledged

    monkeypatch.setattr(batches.OpenBatch, "append", append_and_remove)
    assert fails(buffer, tmp_path)


@pytest.mark.control
def test_control_streams_that_are_not_found_again(
    buffer: Buffer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without looking for the stream that was made before, the kills store files twice, or leave streams open."""
    monkeypatch.setattr(batches.OpenBatch, "_found", lambda self, batch, part: None)
    assert fails(buffer, tmp_path)


# ---------------------------------------------------------------------------------------------------- real processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataProcess]:
    with DataProcess(tmp_path_factory.mktemp("data")) as server:
        yield server


def start_watch(server: DataProcess, directory: Path, *words: str) -> subprocess.Popen[bytes]:
    """Into a collection of the directory's name."""
    command = [sys.executable, "-m", "hiss.cli", "watch", str(directory), directory.name, "--remove", *words]
    environment = {**os.environ, "HISS_ADDRESS": server.config.address, "HISS_TOKEN": server.token}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    guard = threading.Timer(GIVE_UP_S, process.kill)  # what waits for its words does not wait for ever
    guard.daemon = True
    guard.start()
    return process


def kill_rounds(server: DataProcess, directory: Path, seed: int, rounds: int) -> None:
    """Files come while processes are killed: the watch each time, the server now and then."""
    chance = random.Random(seed)
    contents: dict[str, bytes] = {}
    for _ in range(rounds):
        for number in range(len(contents), len(contents) + 6):
            contents[f"f{number}"] = chance.randbytes(chance.randrange(300_000))
            (directory / "half.tmp").write_bytes(contents[f"f{number}"])
            os.rename(directory / "half.tmp", directory / f"f{number}")
        watch = start_watch(server, directory)
        assert watch.stdout is not None
        for _ in range(chance.randrange(1, 9)):  # it says what it stored and what it removed
            watch.stdout.readline()
        if chance.random() < 0.3:
            server.kill()
            with suppress(subprocess.TimeoutExpired):
                watch.wait(chance.random() / 4)
            server.start()
        watch.send_signal(signal.SIGKILL)
        watch.wait()
        watch.stdout.close()
        check_real(server, directory, contents, all_of_them=False)
    with start_watch(server, directory, "--once") as last:
        assert last.wait(120) == 0
    check_real(server, directory, contents, all_of_them=True)
    assert [path.name for path in directory.iterdir()] == [".hiss-watch"]


def check_real(server: DataProcess, directory: Path, contents: dict[str, bytes], *, all_of_them: bool) -> None:
    with server.connect() as buffer:
        known = [i for i in buffer.store.collections(directory.name) if i.path == directory.name]
        sealed: dict[str, list[bytes]] = {}
        for info in buffer.store.streams(directory.name, all_versions=True) if known else []:
            if info.state is StreamState.SEALED:
                blocks = [block.data for block in buffer.stream(info.path, info.version)]
                sealed.setdefault(info.name, []).append(b"".join(blocks))
    for name, content in contents.items():
        found = sealed.get(name, [])
        leaving = list((directory / ".hiss-watch" / "leaving").glob("*"))
        if all_of_them or not ((directory / name).exists() or leaving):
            assert found == [content], f"{name}: stored {len(found)} times"


def test_processes_are_killed(server: DataProcess, tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    kill_rounds(server, tmp_path / "killed", 3, 2)


def test_a_buffer_that_goes_away_is_waited_for(server: DataProcess, tmp_path: Path) -> None:
    """One process all the while; the server dies between two files, and comes back."""
    directory = tmp_path / "outage"
    directory.mkdir()
    with start_watch(server, directory) as watch:
        assert watch.stdout is not None
        for number in range(3):
            (directory / f"f{number}").write_bytes(bytes([number]) * 1000)
            if number == 1:
                server.kill()
                server.start()
            said = [watch.stdout.readline().split()[:2] for _ in range(2)]
            assert said == [[b"stored", b"f%d" % number], [b"removed", b"f%d" % number]]
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(60) == 0
    check_real(server, directory, {f"f{n}": bytes([n]) * 1000 for n in range(3)}, all_of_them=True)


@pytest.mark.torture
def test_processes_are_killed_for_long(server: DataProcess, tmp_path: Path) -> None:
    (tmp_path / "long").mkdir()
    kill_rounds(server, tmp_path / "long", 11, 40)

"""Draining by itself in a real buffer: what is drained when, what is archived, what may leave, what is tried again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from s3_server import BUCKET, S3Server

from hiss import limits
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.drain import drain, verify_file, worker
from hiss.drain.live import LiveDrain
from hiss.drain.worker import DrainWorker
from hiss.drain_policy import DrainPolicy, DrainState, DrainTarget
from hiss.errors import (
    CollectionNotFound,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    PermissionRefused,
)  # fmt: skip
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import Caller
from hiss.node import Node
from hiss.s3_options import S3Options
from hiss.space import Retention

FRAMES = np.random.default_rng(5).integers(0, 4000, (6, 30, 40), np.uint16)
HOUR_NS = 3600 * 10**9
OPTIONS = StorageOptions(arena_bytes=16 * MiB, segment_bytes=4 * MiB, log_bytes_max=48 * MiB, space_wait_s=0.3)


class Clock:
    now_ns = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


class Place:
    """A buffer, its drain worker, and a directory for archives."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.node = Node(folder / "data", OPTIONS, backend="numpy", clock_ns=self.clock)
        self.store = LocalStore(self.node)
        self.buffer = Buffer(self.store)
        self.archive = folder / "archive"
        self.archive.mkdir()
        self.scratch = folder / "scratch"
        self.worker = self.new_worker()

    def new_worker(self, s3: S3Options | None = None) -> DrainWorker:
        self.worker = DrainWorker(self.store, self.scratch, s3 or S3Options())
        return self.worker

    def target(self, name: str = "{collection}/{stream}.nxs", **options: object) -> DrainTarget:
        return DrainTarget(f"{self.archive}/{name}", **options)  # type: ignore[arg-type]

    def policy(self, collection: str, *targets: DrainTarget) -> None:
        self.buffer.collection(collection)
        self.store.set_drain_policy(collection, DrainPolicy(targets))

    def write(self, path: str, **spec: object) -> str:
        collection, _, name = path.rpartition("/")
        with self.buffer.collection(collection).create_stream(name, dtype="u2", shape=(30, 40), **spec) as s:  # type: ignore[arg-type]
            s.extend(FRAMES)
        return self.buffer[path].info.id

    def work(self) -> int:
        """All that is due; how many entries."""
        done = 0
        while self.worker.step():
            done += 1
            assert done < 100
        return done

    def states(self, path: str = "") -> dict[str, str]:
        return {each.url.removeprefix(f"{self.archive}/"): each.state.value for each in self.store.drains(path)}

    def files(self) -> set[str]:
        return {str(path.relative_to(self.archive)) for path in self.archive.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.node.close()


def test_what_is_sealed_is_drained_archived_and_may_leave(place: Place) -> None:
    place.policy("beam", place.target())
    stream = place.write("beam/7/proj")
    assert not place.store.archived(stream)
    with pytest.raises(Conflict, match="hiss drains"):
        place.buffer.evict("beam/7/proj")
    assert place.work() == 1
    assert place.states() == {"beam/7/proj.nxs": "done"}
    assert place.store.archived(stream)
    assert verify_file(place.archive / "beam/7/proj.nxs").blocks == 6
    (gone,) = place.buffer.evict("beam/7/proj")
    assert gone.location == f"{place.archive}/beam/7/proj.nxs::/entry/instrument/proj/data"
    assert place.work() == 0, "nothing is done twice"
    np.testing.assert_array_equal(place.buffer["beam/7/proj"], FRAMES)  # it is read from there


def test_a_stream_stays_until_it_is_in_all_places(place: Place, s3: S3Server) -> None:
    """With the control: a policy of one place lets it go after one."""
    place.new_worker(s3.options)
    far = DrainTarget(f"s3://{BUCKET}/{{collection}}/{{stream}}.zarr", when="manual")
    place.policy("two", place.target(), far)
    place.policy("one", place.target())
    ids = [place.write(f"{name}/s") for name in ("two", "one")]
    assert place.work() == 2
    assert [place.store.archived(each) for each in ids] == [False, True]
    assert [gone.path for gone in place.buffer.evict("two") + place.buffer.evict("one")] == ["one/s"]
    with pytest.raises(Conflict):
        place.buffer.evict("two/s")
    place.node.evictor.default = Retention(drained_s=0.0)
    assert place.node.evictor.look() == [], "no policy of the buffer takes it either"
    (asked, _) = sorted(place.store.plan_drains(["two"], ask=True), key=lambda each: each.state.value, reverse=True)
    assert (asked.url, asked.due_ns) == (f"s3://{BUCKET}/two/s.zarr", place.clock())
    assert place.work() == 1
    assert place.store.archived(ids[0])
    assert [gone.path for gone in place.node.evictor.look()] == ["two/s"]


def test_aborted_streams_raw_companions_and_versions_are_drained(place: Place) -> None:
    import hiss

    @hiss.kernel
    def halved(frame, by):
        return frame // by

    place.policy("beam", place.target())
    place.write("beam/proj", kernels=[halved.bind(by=2)], keep="both")
    broken = place.buffer.collection("beam").create_stream("broken", dtype="u2", shape=(30, 40))
    broken.extend(FRAMES[:2])
    broken.abort("the beam was lost")
    place.write("beam/proj", new_version=True)
    place.work()
    expected = {f"beam/{name}.nxs" for name in ("proj", "proj.raw", "proj.v2", "broken")}
    assert place.files() == expected
    assert set(place.states().values()) == {"done"}
    found = {name: verify_file(place.archive / name).streams[0] for name in expected}
    assert (found["beam/broken.nxs"].state, found["beam/broken.nxs"].blocks) == ("aborted", 2)
    assert found["beam/proj.v2.nxs"].version == 2


def test_a_collection_becomes_one_file_when_it_is_sealed(place: Place) -> None:
    place.policy("beam", place.target("{collection}.nxs"))
    ids = [place.write(f"beam/7/{name}") for name in ("dark", "proj")]
    assert place.work() == 0
    assert not any(map(place.store.archived, ids))
    place.buffer.collection("beam/7").seal()
    assert place.work() == 1
    assert [stream.path for stream in verify_file(place.archive / "beam/7.nxs").streams] == [
        "beam/7/dark",
        "beam/7/proj",
    ]
    assert all(map(place.store.archived, ids))


def test_an_open_stream_is_drained_while_it_is_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIVE_LOOK_S", 0.0)
    monkeypatch.setattr(LiveDrain.__init__, "__kwdefaults__", LiveDrain.__init__.__kwdefaults__ | {"segment_s": 0.0})
    place.policy("beam", place.target(when="live"))
    with place.buffer.collection("beam").create_stream("proj", dtype="u2", shape=(30, 40)) as stream:
        for first in (0, 3):
            stream.extend(FRAMES[first : first + 3])
            stream.flush()
            assert place.work() == 0, "nothing is final"
            assert verify_file(place.archive / "beam/proj.nxs").blocks == first + 3
            place.new_worker()  # the one before was killed
    assert not place.store.archived(stream.info.id)
    assert place.work() == 1
    assert place.store.archived(stream.info.id)
    assert verify_file(place.archive / "beam/proj.nxs").ok
    assert place.files() == {"beam/proj.nxs", "beam/proj_proj_000001.h5", "beam/proj_proj_000002.h5"}
    assert set(place.states().values()) == {"done"}


def test_a_policy_may_be_set_above_the_collections_that_there_are(place: Place) -> None:
    stream_id = place.write("beam/7/s")
    place.store.set_drain_policy("beam", DrainPolicy((place.target(),)))
    assert place.work() == 1
    assert place.store.archived(stream_id)
    with pytest.raises(CollectionNotFound, match="none below it"):
        place.store.set_drain_policy("bea", DrainPolicy((place.target(),)))
    with pytest.raises(CollectionNotFound, match="none below it"):
        place.store.set_retention("bea", Retention(age_s=1.0))
    assert place.store.set_retention("beam", Retention(age_s=1.0)).age_s == 1.0


@pytest.mark.parametrize("name", ["{collection}.nxs", "{stream}.zarr"])
def test_only_files_of_streams_are_drained_while_they_are_written(place: Place, name: str) -> None:
    with pytest.raises(InvalidInput, match="still written"):
        place.target(name, when="live")


def test_times_priorities_and_pressure(place: Place) -> None:
    place.policy(
        "beam",
        place.target("later-{stream}.nxs", when="every 6h", priority=9),
        place.target("low-{stream}.nxs", priority=-1),
        place.target("high-{stream}.nxs", priority=5),
        place.target("short-{stream}.nxs", when="pressure"),
    )
    place.write("beam/s")
    order: list[str] = []
    while place.worker.step():
        order += sorted(place.files() - set(order))
    assert order == ["high-s.nxs", "low-s.nxs"]
    place.clock.now_ns += 6 * HOUR_NS
    assert place.work() == 1
    assert place.states()["later-s.nxs"] == "done"
    assert place.states()["short-s.nxs"] == "wanted"
    place.buffer.collection("big").reserve("34 MiB", hours=99)  # leaves less than two segments
    assert place.node.reservations.shortage() > 0
    assert place.work() == 1
    assert place.states()["short-s.nxs"] == "done"


def test_a_target_that_fails_is_tried_again_later_and_later_and_others_are_not_held_up(place: Place) -> None:
    place.policy("beam", place.target("gone/{stream}.nxs", priority=1), place.target())
    gone = place.write("beam/s")
    assert place.work() == 2, "one failed, one was done"
    (failed,) = [each for each in place.store.drains() if each.state is DrainState.FAILED]
    assert "gone" in failed.reason
    assert failed.next_ns == place.clock() + int(limits.DRAIN_RETRY_FIRST_S * 1e9)
    for _ in range(14):
        place.clock.now_ns += int(limits.DRAIN_RETRY_MOST_S * 1e9)
        assert place.work() == 1
    (failed,) = [each for each in place.store.drains() if each.state is DrainState.FAILED]
    assert failed.next_ns == place.clock() + int(limits.DRAIN_RETRY_MOST_S * 1e9)
    assert failed.attempts == 15
    events = [event.kind for event in place.store.events(0, threading.Event(), follow=False)]
    assert events.count("drain.failed") == 1, "told once, while the reason is the same"
    assert not place.store.archived(gone)
    (place.archive / "gone").mkdir()
    place.clock.now_ns += int(limits.DRAIN_RETRY_MOST_S * 1e9)
    assert place.work() == 1
    assert place.store.archived(gone)


def test_what_somebody_else_put_there_is_not_touched(place: Place) -> None:
    place.policy("beam", place.target())
    (place.archive / "beam").mkdir()
    (place.archive / "beam/s.nxs").write_bytes(b"precious")
    place.write("beam/s")
    for _ in range(3):
        place.work()
        place.clock.now_ns += int(limits.DRAIN_RETRY_MOST_S * 1e9)
    assert (place.archive / "beam/s.nxs").read_bytes() == b"precious"
    (failed,) = place.store.drains()
    assert "AlreadyExists" in failed.reason


def test_an_attempt_that_was_killed_is_begun_again_by_the_next_process(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of three points: while it wrote, when the file had its name, when all was recorded."""
    place.policy("beam", place.target())

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    real = worker.drain
    for number, point in enumerate(("before", "named", "recorded")):
        stream = place.write(f"beam/s{number}")
        if point == "before":
            monkeypatch.setattr(worker, "drain", killed)
        elif point == "named":
            monkeypatch.setattr(place.store, "record_archives", killed, raising=False)
        else:
            monkeypatch.setattr(worker, "drain", lambda *args, **options: killed(real(*args, **options)))
        with pytest.raises(Killed):
            place.worker.step()
        monkeypatch.undo()
        assert not place.store.archived(stream), "not before it is done, whatever is recorded"
        with pytest.raises(Conflict):
            place.buffer.evict(f"beam/s{number}")
        (there,) = place.store.drains(f"beam/s{number}")
        assert there.state is DrainState.RUNNING
        place.new_worker()
        place.worker._resume()
        assert place.work() == 0, "if it is what kills its process, others have their turn"
        place.clock.now_ns += int(limits.DRAIN_RETRY_FIRST_S * 1e9)
        assert place.work() == 1
        assert place.store.archived(stream)
        assert verify_file(place.archive / f"beam/s{number}.nxs").ok
    assert place.files() == {f"beam/s{number}.nxs" for number in range(3)}


def test_bare_files_are_no_archives_and_yet_waited_for(place: Place) -> None:
    place.policy("bare", place.target("{stream}.npy"))
    place.policy("both", place.target("{stream}.npy", when="manual"), place.target())
    bare, both = place.write("bare/a"), place.write("both/b")
    assert place.work() == 2
    assert not place.store.archived(bare), "columns and times are not in it"
    assert not place.store.archived(both)
    place.store.plan_drains(["both/b"], ask=True)
    assert place.work() == 1
    assert place.store.archived(both)
    np.testing.assert_array_equal(np.load(place.archive / "b.npy"), FRAMES)


def test_without_a_policy_one_place_is_enough(place: Place) -> None:
    stream = place.write("free/s")
    assert place.work() == 0
    assert not place.store.archived(stream)
    drain(place.store, "free/s", place.archive / "s.nxs")
    assert place.store.archived(stream)


def test_a_policy_that_changes_drops_what_waits_and_wants_what_is_new(place: Place) -> None:
    place.policy("beam", place.target("old/{stream}.nxs", when="manual"))
    place.write("beam/s")
    assert place.work() == 0
    assert place.states() == {"old/s.nxs": "wanted"}
    place.policy("beam", place.target("new-{stream}.nxs"))
    assert place.states() == {"old/s.nxs": "dropped", "new-s.nxs": "wanted"}
    assert place.work() == 1
    place.policy("beam", place.target("old/{stream}.nxs", when="manual"))
    assert place.states() == {"old/s.nxs": "wanted", "new-s.nxs": "done"}
    place.store.set_drain_policy("beam", None)
    assert place.store.drain_policy("beam") == DrainPolicy()
    assert [each.url for each in place.store.plan_drains(["beam"], dry_run=True)] == []
    with pytest.raises(CollectionNotFound):
        place.store.set_drain_policy("nowhere", DrainPolicy())


def test_what_its_owner_gave_up_is_not_tried_for_ever(place: Place) -> None:
    place.policy("beam", place.target(when="manual"))
    place.write("beam/s", expendable=True)
    place.work()
    place.buffer.evict("beam/s")
    (entry,) = place.store.drains()
    place.worker._drain(entry)
    assert place.states() == {"beam/s.nxs": "dropped"}
    assert place.files() == set()


def test_what_is_deleted_is_forgotten(place: Place) -> None:
    place.policy("beam", place.target(when="manual"))
    stream = place.write("beam/a")
    place.write("beam/b")
    place.work()
    place.store.delete_stream(stream)
    assert place.states() == {"beam/b.nxs": "wanted"}
    place.store.delete_collection("beam")
    assert place.states() == {}
    place.buffer.collection("beam")
    assert place.store.drain_policy("beam") == DrainPolicy(), "a new one of that name does not inherit it"


def test_the_cursor_moves_with_what_was_planned(place: Place) -> None:
    place.policy("beam", place.target(when="manual"))
    place.write("beam/a")
    place.worker.step()
    _, cursor = place.store.next_drain()
    last = max(event.seq for event in place.store.events(0, threading.Event(), follow=False))
    assert cursor == last
    place.store.plan_drains([], cursor=cursor - 1)
    assert place.store.next_drain()[1] == last, "never back"
    place.write("beam/b")
    assert place.states() == {"beam/a.nxs": "wanted"}
    assert {each.url.rpartition("/")[2]: each.state for each in place.store.plan_drains(["beam"], dry_run=True)} == {
        "a.nxs": DrainState.WANTED, "b.nxs": DrainState.WANTED,
    }  # fmt: skip
    assert len(place.store.drains()) == 1, "a dry run changes nothing"
    place.new_worker().step()
    assert place.states() == {"beam/a.nxs": "wanted", "beam/b.nxs": "wanted"}


def test_only_who_may_write_everywhere_says_where_data_are_drained_to(place: Place) -> None:
    """A target is a file of the server's: who may write a part of the buffer may not make files there."""
    place.buffer.collection("beam")
    for caller in (Caller(write_prefix="beam"), Caller(attempt="a.1")):
        other = LocalStore(place.node, caller)
        with pytest.raises(PermissionRefused):
            other.set_drain_policy("beam", DrainPolicy((place.target(),)))
        with pytest.raises(PermissionRefused):
            other.mark_drain("0" * 16, DrainState.DONE)


def test_a_limit_slows_a_drain_and_a_stop_ends_it(place: Place) -> None:
    place.policy("beam", place.target(bytes_per_s=1000))
    place.write("beam/s")
    thread = threading.Thread(target=place.worker.run)
    thread.start()
    while place.states() != {"beam/s.nxs": "running"}:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    place.worker.stop()  # FRAMES at this rate would take half a minute
    thread.join(20)
    assert not thread.is_alive()
    assert place.states() == {"beam/s.nxs": "wanted"}
    assert place.files() == set()


def test_a_producer_waits_until_its_blocks_are_archived(place: Place) -> None:
    place.policy("beam", place.target())
    s = place.buffer.collection("beam").create_stream("s", dtype="u2", shape=(30, 40), ack="archived")
    s.extend(FRAMES)
    s.close()
    with pytest.raises(DeadlineExceeded, match="hiss drains"):
        s.wait_archived(timeout_s=0.05)
    thread = threading.Thread(target=place.work)
    thread.start()
    assert [each.location for each in s.wait_archived(timeout_s=60).archives] == [
        f"{place.archive}/beam/s.nxs::/entry/instrument/s/data"
    ]
    thread.join()

"""A small disk: who has a reservation writes all of it while a greedy neighbour is held back; what may go is evicted,
what may not stays, whatever crashes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import hiss
from hiss.blocks import StorageOptions
from hiss.client import Buffer
from hiss.errors import (
    ArchiveUnreachable,
    BlockMissing,
    Conflict,
    HissError,
    NotFound,
    SpaceExhausted,
    StreamEvicted,
    Unavailable,
)
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import Selection
from hiss.node import Node
from hiss.space import Retention
from hiss.testing.conformance import wait_for
from hiss.testing.processes import DataProcess
from hiss.writer import StreamWriter

FRAME = np.random.default_rng(7).integers(0, 255, MiB // 4, np.uint8)
OPTIONS = StorageOptions(
    arena_bytes=16 * MiB, segment_bytes=4 * MiB, log_bytes_max=48 * MiB, space_wait_s=0.3, compaction_bytes_per_s=0
)
HOUR_NS = 3_600_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_700_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(tmp_path: Path, clock: Clock) -> Iterator[Node]:
    node = Node(tmp_path / "data", OPTIONS, backend="numpy", clock_ns=clock)
    yield node
    node.close()
    assert (node.reservations._pending, node.reservations._open_bytes) == (0, 0), "every charge was settled"


def written(buffer: Buffer, path: str, frames: int, **spec: object) -> str:
    """A sealed stream of so many frames; its id."""
    collection, _, name = path.rpartition("/")
    with buffer.collection(collection).create_stream(name, dtype="u1", shape=FRAME.shape, **spec) as s:  # type: ignore[arg-type]
        for number in range(frames):
            s.append(FRAME + np.uint8(number))
            s.flush()
    return buffer[path].info.id


def append_all(s: StreamWriter, frames: int) -> None:
    for _ in range(frames):
        s.append(FRAME)
        s.flush()


def fill(buffer: Buffer, path: str, failure: list[HissError]) -> int:
    """Append until the disk is full; how many frames are stored."""
    s = buffer.collection(path.rpartition("/")[0]).create_stream("greedy", dtype="u1", shape=FRAME.shape)
    try:
        append_all(s, 400)
    except HissError as error:
        failure.append(error)
    return buffer[path].info.completeness.blocks


@pytest.mark.parametrize("reserved", [True, False])
def test_a_reserved_producer_writes_all_of_its_bytes_beside_a_greedy_one(node: Node, reserved: bool) -> None:
    """With the control: without the reservation the same producer loses the race."""
    buffer = Buffer(LocalStore(node))
    scan = buffer.collection("beam/scan")
    count = 64
    if reserved:
        kept = scan.reserve("17 MiB", hours=8)  # 64 frames of 256 KiB, each with a page for its header
        assert (kept.used_bytes, kept.bytes) == (0, 17 * MiB)
    failure: list[HissError] = []
    stored = fill(buffer, "other/greedy", failure)
    assert isinstance(failure[0], SpaceExhausted)
    assert stored > 20
    if not reserved:
        s = scan.create_stream("s", dtype="u1", shape=FRAME.shape)
        with pytest.raises(SpaceExhausted):
            append_all(s, count)
        return
    with scan.create_stream("s", dtype="u1", shape=FRAME.shape) as s:
        for number in range(count):
            s.append(FRAME + np.uint8(number))
            s.flush()
    stream = scan["s"]
    assert stream.info.completeness.blocks == count
    assert all(np.array_equal(block.data, FRAME + np.uint8(block.index)) for block in stream)
    assert len(buffer["other/greedy"]) == stored, "what was acknowledged before the refusal is readable"
    assert scan.reservation is not None
    assert 16 * MiB <= scan.reservation.used_bytes <= 17 * MiB
    status = buffer.status()
    assert (status.promised_bytes, status.promised_used_bytes) == (17 * MiB, scan.reservation.used_bytes)


def test_two_producers_at_once_and_the_promise_holds(node: Node) -> None:
    buffer = Buffer(LocalStore(node))
    scan = buffer.collection("scan")
    scan.reserve("17 MiB", hours=1)
    failure: list[HissError] = []
    greedy = threading.Thread(target=fill, args=(buffer, "other/greedy", failure))
    greedy.start()
    written(buffer, "scan/s", 64)
    greedy.join(120)
    assert not greedy.is_alive()
    assert isinstance(failure[0], SpaceExhausted)
    assert buffer["scan/s"].info.completeness.blocks == 64


def test_what_does_not_fit_is_refused_up_front(node: Node) -> None:
    buffer = Buffer(LocalStore(node))
    scan = buffer.collection("scan")
    with pytest.raises(SpaceExhausted, match="cannot be promised to scan: the log has room for"):
        scan.reserve("1 TB", hours=1)
    assert buffer.reservations() == []
    scan.reserve("20 MiB", hours=1)
    with pytest.raises(SpaceExhausted, match="promised and not used"):
        buffer.collection("other").reserve("30 MiB", hours=1)


def test_a_reservation_survives_a_restart_and_runs_out(tmp_path: Path, clock: Clock) -> None:
    node = Node(tmp_path / "data", OPTIONS, backend="numpy", clock_ns=clock)
    buffer = Buffer(LocalStore(node))
    written(buffer, "scan/before", 3)
    made = buffer.collection("scan").reserve("10 MiB", hours=2)
    written(buffer, "scan/s", 8)
    used = buffer.reservations()[0].used_bytes
    assert 2 * MiB <= used <= 2.3 * MiB, "what stood there before does not count"
    node.close()
    clock.now_ns += HOUR_NS
    node = Node(tmp_path / "data", OPTIONS, backend="numpy", clock_ns=clock)
    buffer = Buffer(LocalStore(node))
    (kept,) = buffer.reservations()
    assert (kept.id, kept.used_bytes, kept.expires_ns) == (made.id, used, made.expires_ns)
    clock.now_ns += HOUR_NS
    assert buffer.reservations() == []
    kinds = [event.kind for event in buffer.store.events(0, threading.Event(), follow=False)]
    assert [kind for kind in kinds if kind.startswith("reservation")] == ["reservation.made", "reservation.expired"]
    node.close()


# ---------------------------------------------------------------------------------------------------------- retention


def archive(buffer: Buffer, path: str, location: str = "/archive/file.nxs::/entry/s") -> None:
    info = buffer[path].info
    buffer.store.record_archive(info.id, location, info.digest)


def ledger(buffer: Buffer, path: str) -> list[tuple[int, int, str, str]]:
    return [(entry.first, entry.last, entry.stage, entry.reason) for entry in buffer[path].info.completeness.ledger]


def test_age_takes_what_is_archived_and_leaves_the_rest(node: Node, clock: Clock) -> None:
    buffer = Buffer(LocalStore(node))
    for name in ("a", "b", "open"):
        written(buffer, f"scan/{name}", 4)
    buffer["scan"].retain(Retention(age_s=3600))
    archive(buffer, "scan/a")
    assert buffer.evict() == []
    clock.now_ns += HOUR_NS
    (would,) = buffer.evict(dry_run=True)
    assert (would.path, would.policy, would.location) == ("scan/a", "age", "/archive/file.nxs::/entry/s")
    assert buffer["scan/a"].info.eviction is None, "a dry run changes nothing"
    assert [gone.path for gone in buffer.evict()] == ["scan/a"]
    assert buffer.evict() == []
    info = buffer["scan/a"].info
    assert info.eviction is not None
    assert (info.completeness.blocks, info.completeness.gaps, info.archives[0].location) == (4, 0, would.location)
    with pytest.raises(ArchiveUnreachable, match="archived at /archive") as caught:
        buffer["scan/a"][0]
    assert caught.value.details["archive"] == would.location
    with pytest.raises(ArchiveUnreachable):
        np.asarray(buffer["scan/a"])
    with pytest.raises(ArchiveUnreachable):
        next(buffer["scan/a"].follow())
    assert len(buffer["scan/b"][:]) == 4
    events = list(buffer.store.events(0, threading.Event(), follow=False))
    assert [(event.kind, event.path, event.data.get("policy")) for event in events[-1:]] == [
        ("stream.evicted", "scan/a", "age")
    ]


def test_drained_state_takes_a_stream_so_long_after_its_archive(node: Node, clock: Clock) -> None:
    buffer = Buffer(LocalStore(node))
    written(buffer, "scan/a", 2)
    clock.now_ns += 10 * HOUR_NS
    archive(buffer, "scan/a")
    buffer["scan"].retain(Retention(drained_s=60))
    assert buffer.evict() == []
    clock.now_ns += HOUR_NS
    assert [gone.policy for gone in buffer.evict()] == ["drained"]


def test_what_is_archived_nowhere_goes_only_where_its_owner_allowed_it(node: Node, clock: Clock) -> None:
    buffer = Buffer(LocalStore(node))
    written(buffer, "scan/kept", 2)
    written(buffer, "scan/spare", 2, expendable=True)
    with buffer["scan"].create_stream("gappy", dtype="u1", shape=(1,)) as s:
        for index in (3, 4, 8):
            s.append(np.zeros(1, "u1"), index=index)
    buffer["scan"].retain(Retention(age_s=60))
    clock.now_ns += HOUR_NS
    assert [gone.path for gone in buffer.evict()] == ["scan/spare"]
    assert ledger(buffer, "scan/spare") == [(0, 1, "retention", "evicted: age")]
    with pytest.raises(Conflict, match="--undrained"):
        buffer.evict("scan/gappy")
    buffer["scan"].retain(Retention(undrained=True))
    assert [gone.policy for gone in buffer.evict("scan/gappy")] == ["request"]
    assert ledger(buffer, "scan/gappy") == [
        (3, 4, "retention", "evicted: request"),
        (5, 7, "transport", "never received"),
        (8, 8, "retention", "evicted: request"),
    ]
    whole = buffer["scan/gappy"].info.completeness
    assert (whole.blocks, whole.gaps) == (0, 6)
    with pytest.raises(StreamEvicted, match="archived nowhere"):
        buffer["scan/gappy"][3]


def test_pressure_takes_the_oldest_archive_first_and_frees_space_for_others(tmp_path: Path, clock: Clock) -> None:
    node = Node(tmp_path / "data", replace(OPTIONS, space_wait_s=60), backend="numpy", clock_ns=clock)
    buffer = Buffer(LocalStore(node))
    for name in ("first", "second", "third"):
        written(buffer, f"scan/{name}", 44)
    for name in ("second", "first"):
        clock.now_ns += HOUR_NS
        archive(buffer, f"scan/{name}")
    written(buffer, "more/big", 70)  # 33 MiB are there, and 18 come
    assert buffer["scan/second"].info.eviction is not None
    assert buffer["scan/third"].info.eviction is None
    gone = [
        event for event in buffer.store.events(0, threading.Event(), follow=False) if event.kind == "stream.evicted"
    ]
    assert gone[0].path == "scan/second"
    assert {event.data["policy"] for event in gone} == {"pressure"}
    assert buffer["more/big"].info.completeness.blocks == 70
    node.close()


def test_without_pressure_the_disk_stays_full(node: Node) -> None:
    """The control of the one before."""
    buffer = Buffer(LocalStore(node))
    buffer.collection("scan").retain(Retention(pressure=False))
    for name in ("first", "second", "third"):
        written(buffer, f"scan/{name}", 44)
        archive(buffer, f"scan/{name}")
    with pytest.raises(SpaceExhausted):
        written(buffer, "more/big", 70)
    assert buffer["scan/first"].info.eviction is None


def test_a_reservation_makes_room_by_evicting(node: Node) -> None:
    buffer = Buffer(LocalStore(node))
    for name in ("a", "b"):
        written(buffer, f"scan/{name}", 60)
        archive(buffer, f"scan/{name}")
    buffer.collection("next").reserve("17 MiB", hours=1)
    assert any(stream.info.eviction for stream in buffer["scan"].streams())


def test_a_stream_that_is_read_stays(node: Node) -> None:
    buffer = Buffer(LocalStore(node))
    stream_id = written(buffer, "scan/a", 60)
    archive(buffer, "scan/a")
    extents = node.readout.read(buffer["scan/a"].info, Selection())
    next(extents)
    with pytest.raises(Unavailable, match="being read"):
        buffer.evict("scan/a")
    assert sum(len(extent) for extent in extents) > 0
    assert [gone.path for gone in buffer.evict("scan/a")] == ["scan/a"]
    with pytest.raises(ArchiveUnreachable):
        next(node.readout.read(buffer["scan/a"].info, Selection()))
    assert node.storage.log_bytes([stream_id]) == 0


def test_an_archive_of_something_else_is_refused(node: Node) -> None:
    buffer = Buffer(LocalStore(node))
    stream_id = written(buffer, "scan/a", 2)
    with pytest.raises(Conflict, match="not the whole stream"):
        buffer.store.record_archive(stream_id, "/somewhere", "0" * 16)
    s = buffer["scan"].create_stream("open", dtype="u1", shape=(1,))
    with pytest.raises(Conflict):
        buffer.store.record_archive(s.info.id, "/somewhere", "")
    with pytest.raises(NotFound):
        buffer.evict("nothing/here")
    s.close()


def test_the_nearest_policy_above_holds(node: Node) -> None:
    buffer = Buffer(LocalStore(node))
    for path in ("beam", "beam/scan", "beam/scan/part", "beams"):
        buffer.collection(path)
    buffer["beam"].retain(Retention(age_s=1))
    buffer["beam/scan"].retain(Retention(age_s=2))
    assert [buffer[path].retention.age_s for path in ("beam", "beam/scan", "beam/scan/part", "beams")] == [
        1,
        2,
        2,
        None,
    ]
    assert buffer["beam/scan"].retain(None).age_s == 1


# ------------------------------------------------------------------------------------------------------- crashes


@pytest.mark.parametrize("moment", ["before the catalog", "after the catalog"])
def test_a_crash_in_the_middle_of_an_eviction(tmp_path: Path, moment: str) -> None:
    """The process dies at either side of the transaction: the stream is whole, or it is gone and its space is free."""
    script = """
import os, signal, sys
from pathlib import Path
import hiss
from hiss.blocks.space_records import SpaceRecords
from hiss.blocks.storage import Storage
buffer = hiss.open(Path(sys.argv[1]), arena_bytes=16 << 20, segment_bytes=4 << 20, backend="numpy")
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before the catalog":
    SpaceRecords.evict = die
else:
    Storage._free = die
buffer.evict("scan/a")
"""
    data = tmp_path / "data"
    with hiss_open(data) as buffer:
        stream_id = written(buffer, "scan/a", 30)
        written(buffer, "scan/b", 3)
        archive(buffer, "scan/a")
    died = subprocess.run([sys.executable, "-c", script, str(data), moment], timeout=120, check=False)
    assert died.returncode == -9
    with hiss_open(data) as buffer:
        status = buffer.status()
        assert not status.recovery["damages_count"]
        assert "stray_records" not in status.recovery
        assert len(buffer["scan/b"][:]) == 3
        if moment == "before the catalog":
            assert len(buffer["scan/a"][:]) == 30
            return
        assert buffer["scan/a"].info.eviction is not None
        with pytest.raises(ArchiveUnreachable):
            buffer["scan/a"][0]
        assert status.recovery["dead_records"] > 0
        kinds = [event.kind for event in buffer.store.events(0, threading.Event(), follow=False)]
        assert kinds.count("stream.evicted") == 1
    assert stream_id


def hiss_open(data: Path) -> Buffer:
    return hiss.open(data, arena_bytes=16 * MiB, segment_bytes=4 * MiB, backend="numpy")


def test_kill_nine_while_streams_are_evicted(tmp_path: Path) -> None:
    """Whenever it comes: every stream is either whole or evicted, once, and nothing is damaged."""
    (tmp_path / "data").mkdir()
    with DataProcess(tmp_path / "data") as server:
        for round_number in range(2):
            with server.connect() as buffer:
                paths = [f"r{round_number}/s{number}" for number in range(12)]
                for path in paths:
                    written(buffer, path, 2)
                    archive(buffer, path)
                evicting = threading.Thread(target=_suppressed, args=(buffer, f"r{round_number}"))
                evicting.start()
                wait_for(partial(_some_evicted, buffer, paths))
                server.kill()
                evicting.join(60)
            server.start()
            with server.connect() as buffer:
                assert not buffer.status().recovery["damages_count"]
                for path in paths:
                    if buffer[path].info.eviction is None:
                        assert [int(block.data[0]) - int(FRAME[0]) & 255 for block in buffer[path]] == [0, 1]
                    else:
                        with pytest.raises(ArchiveUnreachable):
                            buffer[path][0]
                events = buffer.store.events(0, threading.Event(), follow=False)
                gone = [event.path for event in events if event.kind == "stream.evicted"]
                assert len(gone) == len(set(gone))


def _some_evicted(buffer: Buffer, paths: list[str]) -> bool:
    return any(buffer[path].info.eviction for path in paths)


def _suppressed(buffer: Buffer, path: str) -> None:
    with contextlib.suppress(HissError):
        buffer.evict(path)


def test_a_missing_block_is_still_a_missing_block(node: Node) -> None:
    buffer = Buffer(LocalStore(node))
    written(buffer, "scan/a", 2)
    with pytest.raises(BlockMissing):
        buffer["scan/a"][7]


def test_a_new_collection_does_not_inherit_the_retention_of_one_that_was_deleted(node: Node) -> None:
    buffer = Buffer(LocalStore(node))
    buffer.collection("scan")
    default = buffer.store.retention("scan")
    buffer["scan"].retain(Retention(undrained=True, age_s=60))
    assert buffer.store.retention("scan") != default
    buffer.store.delete_collection("scan")
    buffer.collection("scan")
    assert buffer.store.retention("scan") == default

"""Recent blocks are read from the arena: no pread, the same bytes, and the memory is there when it is needed."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import numpy as np
import pytest

from hiss import limits
from hiss.blocks import Storage
from hiss.blocks.files import OsFiles
from hiss.errors import StreamNotFound

from .bench_log import Outcome, block_bytes, make_extent, stream_info
from .conftest import OPTIONS


class CountingFiles(OsFiles):
    """The system's files; how often something was read."""

    def __init__(self) -> None:
        self.reads = 0

    def preadv(self, fd, buffer, offset):
        self.reads += 1
        return super().preadv(fd, buffer, offset)


class Served:
    """A storage whose reads are counted, and blocks that land in its arena as they do in transit."""

    def __init__(self, directory) -> None:
        self.files = CountingFiles()
        self.storage = Storage(directory, OPTIONS, files=self.files)
        self.storage.catalog.create_collection("test/run", {}, [])

    def stream(self, name="s"):
        (info,) = self.storage.catalog.add_streams([stream_info(name)], new_version=False, attempt=None)
        return info

    def append(self, info, blocks) -> Outcome:
        extent, outcome = make_extent(info, blocks), Outcome()
        (region,) = self.storage.arena.allocate(extent.data.size, timeout_s=30)
        region.data[:] = extent.data

        def done(error) -> None:
            region.release()
            outcome(error)

        self.storage.append(info.id, replace(extent, data=region.data), done, region)
        return outcome

    def read(self, info, start=None, stop=None, step=1):
        return {
            int(index): bytes(extent.data[begin:end])
            for extent in self.storage.read(info.id, start, stop, step)
            for index, begin, end in zip(extent.index, extent.offsets[:-1], extent.offsets[1:], strict=True)
        }


@pytest.fixture
def served(tmp_path):
    it = Served(tmp_path / "buffer")
    yield it
    it.storage.close()
    assert not it.storage.arena.live(), "memory of the arena that nobody gave back"


def expected(info, blocks):
    return {index: block_bytes(info.id, index, size) for index, size in blocks}


def test_recent_blocks_are_read_without_touching_the_disk(served):
    info = served.stream()
    blocks = [(index, 5000 + index) for index in range(40)]
    for first in range(0, 40, 8):
        assert served.append(info, blocks[first : first + 8]).wait() is None
    before = served.files.reads
    assert served.read(info) == expected(info, blocks)
    assert served.read(info, 3, 30, 4) == expected(info, blocks[3:30:4])
    assert served.storage.newest(info.id).index.tolist() == [39]
    extents, _ = served.storage.arrivals(info.id, 0)
    assert sum(len(extent) for extent in extents) == 40
    assert served.files.reads == before
    use = served.storage.usage().recent
    assert use.blocks_from_memory == 40 + 7 + 1 + 40
    assert use.blocks_from_disk == 0
    assert use.bytes >= sum(size for _, size in blocks)


def test_what_did_not_land_in_the_arena_is_read_from_the_disk(served):
    """The control: the same blocks, without a region."""
    info = served.stream()
    served.storage.append(info.id, make_extent(info, [(0, 900)]), Outcome())
    before = served.files.reads
    assert served.read(info) == expected(info, [(0, 900)])
    assert served.files.reads > before
    assert served.storage.usage().recent.blocks_from_disk == 1


def test_memory_of_what_is_durable_is_given_up_where_blocks_come_in(served):
    """Four times the arena comes in; what is kept stays within its bound, the oldest are read from the disk again."""
    info = served.stream()
    blocks = [(index, 500_000) for index in range(64)]
    for block in blocks:
        assert served.append(info, [block]).wait() is None
        assert served.storage.usage().recent.bytes <= OPTIONS.arena_bytes // limits.RECENT_FRACTION
    assert served.storage.usage().recent.bytes > 0
    assert served.read(info) == expected(info, blocks)
    use = served.storage.usage().recent
    assert use.blocks_from_memory >= 1
    assert use.blocks_from_disk >= 32


def test_a_full_arena_takes_back_what_only_readers_want(served):
    info = served.stream()
    for index in range(4):
        assert served.append(info, [(index, 300_000)]).wait() is None
    kept = served.storage.usage().recent.bytes
    assert kept > 0
    arena = served.storage.arena
    regions = arena.allocate(arena.largest_bytes, *[arena.slot_bytes] * (arena.slots - 1), timeout_s=0)
    more = []
    while True:
        try:
            more += arena.allocate(limits.ARENA_PAGE_BYTES, timeout_s=0)
        except Exception:
            break
    assert served.storage.usage().recent.bytes == 0
    for region in [*regions, *more]:
        region.release()
    assert served.read(info) == expected(info, [(index, 300_000) for index in range(4)])


def test_records_that_share_a_region_are_given_up_too(served):
    """Raw and result of a filter, or the pieces of a large extent: one region, several records."""
    infos = [served.stream("raw"), served.stream("result")]
    arena = served.storage.arena
    (region,) = arena.allocate(300_000, timeout_s=0)
    for info in infos:
        extent, outcome = make_extent(info, [(0, 300_000)]), Outcome()
        region.data[:] = extent.data
        fresh = replace(extent, data=region.data)
        served.storage.append(info.id, fresh, outcome, region)
        assert outcome.wait() is None
    region.release()
    assert served.storage.usage().arena_free_bytes == arena.capacity
    assert arena.on_pressure()
    assert arena.on_pressure()
    assert not arena.on_pressure()
    assert arena.free_bytes == arena.capacity


def test_a_deleted_stream_leaves_memory_and_its_readers_are_told(served):
    info = served.stream()
    assert served.append(info, [(0, 300_000)]).wait() is None
    reader = served.storage.read(info.id)
    served.storage.delete(info.id)
    assert served.storage.usage().recent.bytes == 0
    assert not served.storage.arena.live()
    with pytest.raises(StreamNotFound):
        list(reader)


def test_what_the_owner_does_with_its_vectors_afterwards_does_not_matter(served):
    info = served.stream()
    extent, outcome = make_extent(info, [(0, 100), (1, 100)]), Outcome()
    (region,) = served.storage.arena.allocate(200, timeout_s=0)
    region.data[:] = extent.data
    columns = extent.columns.copy()
    served.storage.append(info.id, replace(extent, data=region.data), outcome, region)
    assert outcome.wait() is None
    region.release()
    for vector in (extent.index, extent.time_ns, extent.length, extent.digest, extent.received_ns):
        vector[:] = 0
    extent.columns["angle"] = -1
    (found,) = served.storage.read(info.id)
    assert found.index.tolist() == [0, 1]
    assert found.length.tolist() == [100, 100]
    assert np.array_equal(found.columns, columns)
    assert found.received_ns.tolist() == [1, 11]


def test_readers_and_producers_side_by_side_get_whole_blocks(served):
    """Regions go and come under readers: whatever they read has its own bytes."""
    infos = [served.stream(f"s{k}") for k in range(3)]
    stop, failures = threading.Event(), []

    def read(seed) -> None:
        rng = random.Random(seed)
        try:
            while not stop.is_set():
                info = rng.choice(infos)
                start = rng.randint(0, 40)
                for index, data in served.read(info, start, start + 6).items():
                    assert data == block_bytes(info.id, index, 60_000)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    outcomes = [served.append(info, [(2 * k, 60_000), (2 * k + 1, 60_000)]) for k in range(25) for info in infos]
    assert all(outcome.wait() is None for outcome in outcomes)
    stop.set()
    for reader in readers:
        reader.join(60)
    assert not failures, failures[0]


def test_a_stream_through_the_front_door_is_read_from_memory(tmp_path):
    import hiss

    with hiss.open(tmp_path / "buffer", arena_bytes=16 << 20) as buffer:
        frames = np.arange(10 * 64 * 64, dtype=np.uint16).reshape(10, 64, 64)
        with buffer.collection("c").create_stream("p", dtype="uint16", shape=(64, 64)) as stream:
            for frame in frames:
                stream.append(frame)
        storage = buffer.store._node.storage
        assert np.array_equal(buffer["c/p"][:], frames)
        assert storage.usage().recent.blocks_from_memory >= 10
        assert storage.usage().recent.blocks_from_disk == 0


def test_a_lookup_by_time_or_column_reads_heads_and_the_blocks_that_were_asked_for(served):
    """Ten records of 8 blocks on the disk: one read each for the lookup, one more for the only block in the range."""
    info = served.stream()
    for first in range(0, 80, 8):
        served.storage.append(info.id, make_extent(info, [(first + k, 50_000) for k in range(8)]), Outcome())
    served.storage.sync()

    def by_angle(time_ns, columns):
        return columns["angle"] == 43

    before = served.files.reads
    heads = list(served.storage.read(info.id, choose=by_angle, data=False))
    assert [extent.index.tolist() for extent in heads] == [[43]]
    assert heads[0].data.size == 0
    assert served.files.reads - before == 10
    before = served.files.reads
    (found,) = served.storage.read(info.id, choose=by_angle)
    assert bytes(found.data) == block_bytes(info.id, 43, 50_000)
    assert served.files.reads - before == 11

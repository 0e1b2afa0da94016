"""The index at a segment's end: recovery by it equals recovery by scan, and is as safe."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import xxhash

from hiss.blocks import Storage
from hiss.blocks.record import KIND_BLOCKS, BlockTable, RecordHeader, decode_header
from hiss.blocks.segment_footer import HEAD, TRAILER_BYTES, FooterDraft, read_footer
from hiss.errors import BlockDamaged

from .bench_log import SALT, BenchLog, BenchScan, block_bytes, make_extent, stream_info
from .conftest import OPTIONS
from .simulated_disk import SimulatedDisk
from .test_crash_states import History
from .test_storage import append, expected, read

SEGMENT = 64 << 10


def without_footers(disk: SimulatedDisk) -> SimulatedDisk:
    """The same disk, the last bytes of each segment taken away."""
    copy = disk.after_kill()
    for inode in copy.names.values():
        for image in (inode.cached, inode.durable):
            if image:
                image[-TRAILER_BYTES:] = bytes(TRAILER_BYTES)
    return copy


class Scanned(BenchScan):
    """What a recovery finds, before it repairs anything."""

    def state(self) -> dict[str, object]:
        found, pool = self.found, self.pool
        names = ("next_lsn", "durable_lsn", "segments", "records", "blocks", "bytes", "dead_records", "torn_records")
        indexes = self.indexes
        return {
            **{name: getattr(found, name) for name in names},
            "dead": found.dead_streams,
            "damages": sorted(map(repr, found.damages)),
            "again": sorted(doubtful.header.lsn for doubtful in found.again),
            "active": None if found.active is None else (found.active.number, found.active.tail),
            "live": {number: (each.live_records, each.live_bytes) for number, each in pool.segments.items()},
            "strays": (self.recovery.strays.ids, self.recovery.strays.totals()),
            "indexes": {key: contents(index) for key, index in indexes.items() if index.records},
        }


def contents(index) -> tuple:
    places = [(index.place(record), index.live(record)) for record in range(index.records)]
    counts = (index.next_index, index.stored, index.stored_bytes, index.rolling_digest(), index.damaged)
    return index.runs(limit=1 << 30), places, counts


@pytest.mark.parametrize("seed", range(40))
def test_recovery_by_footers_equals_recovery_by_scan(seed):
    rng = random.Random(seed)
    history = History(seed)
    for _ in range(rng.choice((120, 200))):
        history.step()
    if rng.random() < 0.5:
        history.log.log.sync()
    if rng.random() < 0.5:  # a second life goes on with the first one's segment
        streams = dict(history.log.streams)
        history.log.stop_without_a_trace()
        history.disk = history.disk.after_kill()
        history.log = BenchLog(history.disk, streams)
        for _ in range(80):
            history.step()
    with history.disk.lock:
        cut = history.disk.after_power_cut(rng) if rng.random() < 0.5 else history.disk.after_kill()
        streams = history.streams()
    history.log.stop_without_a_trace()
    known = dict(rng.sample(sorted(streams.items()), max(1, len(streams) - rng.randint(0, 1))))
    fast = Scanned(cut.after_kill(), known, deleted=lambda stream_id: stream_id not in streams)
    slow = Scanned(without_footers(cut), known, deleted=lambda stream_id: stream_id not in streams)
    assert slow.found.indexed_segments == 0
    assert fast.found.indexed_segments >= 1, "nothing was compared"
    assert fast.state() == slow.state()


def test_records_written_side_by_side_stand_in_order():
    draft = FooterDraft()
    info = stream_info()
    heads = []
    for k in (2, 0, 1):
        table = BlockTable.of(make_extent(info, [(10 * k + j, 5) for j in range(k + 1)]))
        encoded = table.encode()
        header = RecordHeader(
            *(7, 100 + k, bytes.fromhex(info.id), KIND_BLOCKS, 3, k + 1, 8, 4096 * (k + 1)),
            payload_bytes=5 * (k + 1),
            durable_lsn=0,
            table_digest=xxhash.xxh3_64_intdigest(encoded),
        )
        heads.append((k, header, table))
        draft.plan(128 + len(encoded))
        draft.add(header.encode(SALT), encoded)
    disk = SimulatedDisk()
    fd = disk.open(Path("x"), create=True)
    disk.allocate(fd, SEGMENT)
    made = draft.encode(SALT, 3, 7, SEGMENT, 20_000, 200, 90)
    assert made is not None
    disk.pwritev(fd, made[1], made[0])
    footer = read_footer(disk, fd, SEGMENT, 3, 7, SALT)
    assert footer is not None
    for k, header, table in heads:
        found, blocks = footer.record(k)
        assert found == header
        assert blocks.encode() == table.encode()
    both = footer.blocks(np.array([1, 2]))
    assert both.index.tolist() == [10, 11, 20, 21, 22]
    assert both.digest.tolist() == [*heads[2][2].digest.tolist(), *heads[0][2].digest.tolist()]
    assert read_footer(disk, fd, SEGMENT, 3, 8, SALT) is None, "of another generation"
    assert read_footer(disk, fd, SEGMENT, 4, 7, SALT) is None, "of another segment"
    assert read_footer(disk, fd, SEGMENT, 3, 7, SALT ^ 1) is None, "of another buffer"


def full_segment() -> tuple[SimulatedDisk, dict, list]:
    disk = SimulatedDisk()
    log = BenchLog(disk, {})
    info = log.add(stream_info())
    blocks = [(k, 300) for k in range(30)]
    for block in blocks:
        assert log.append(info, make_extent(info, [block])).wait() is None
    log.close()
    return disk, {info.id: info}, blocks


def test_every_flipped_byte_of_a_footer_is_found_and_the_segment_is_scanned():
    disk, streams, _ = full_segment()
    inode = disk.names["00000001.seg"]
    whole = Scanned(disk.after_kill(), streams)
    assert whole.found.indexed_segments == 2
    state = whole.state()
    fd = disk.open(Path("00000001.seg"))
    generation = whole.pool.segments[1].generation
    footer = read_footer(disk, fd, SEGMENT, 1, generation, SALT)
    assert footer is not None
    used = [*range(SEGMENT - 2 * 4096, SEGMENT - 2 * 4096 + len(footer.encoded)), *range(SEGMENT - 128, SEGMENT)]
    if len(footer.encoded) + TRAILER_BYTES <= 4096:
        used = [*range(SEGMENT - 4096, SEGMENT - 4096 + len(footer.encoded)), *range(SEGMENT - 128, SEGMENT)]
    for place in used:
        for mask in (0x01, 0x80, 0xFF):
            inode.cached[place] ^= mask
            assert read_footer(disk, fd, SEGMENT, 1, generation, SALT) is None, place
            inode.cached[place] ^= mask
    for cut in range(0, 4096, 64):
        good = bytes(inode.cached)
        inode.cached[SEGMENT - 4096 + cut :] = bytes(4096 - cut)
        assert read_footer(disk, fd, SEGMENT, 1, generation, SALT) is None, cut
        inode.cached[:] = good
    inode.cached[SEGMENT - 1] ^= 1
    scanned = Scanned(disk.after_kill(), streams)
    assert scanned.found.indexed_segments == 1
    assert scanned.state() == state


def test_a_footer_vouches_only_for_what_is_durable():
    """While one record of a full segment is on its way there is no footer; without that rule a crash would lie."""
    disk = SimulatedDisk()
    log = BenchLog(disk, {})
    info, slow = log.add(stream_info()), log.add(stream_info("slow"))
    assert log.append(slow, make_extent(slow, [(0, 5)])).wait() is None
    with log.log._changed:
        segment = log.pool.segments[1]
        held = log.log._slot_in(segment, 4096)  # a writer that was given its place and does not come on
    for k in range(40):
        assert log.append(info, make_extent(info, [(k, 300)])).wait() is None
    assert not any(disk.names["00000001.seg"].cached[-TRAILER_BYTES:])
    log.log._drop(held)
    assert log.append(info, make_extent(info, [(40, 300)])).wait() is None
    log.close()
    assert any(disk.names["00000001.seg"].cached[-TRAILER_BYTES:])


def test_a_segment_of_another_use_is_not_read_by_its_old_footer(opened):
    blocks = [(k, 3000) for k in range(700)]
    for round_ in range(3):
        info = opened.stream(f"r{round_}")
        for block in blocks:
            opened.storage.append(info.id, make_extent(info, [block]), lambda error: None)
        opened.storage.sync()
        if round_ < 2:
            opened.storage.delete(info.id)
    part = opened.stream("part")
    append(opened.storage, part, [(0, 10)])
    storage = opened.again()
    assert storage.recovery.indexed_segments >= 2
    assert not storage.recovery.damages
    assert read(storage, info) == expected(info, blocks)
    assert read(storage, part) == expected(part, [(0, 10)])


def test_a_block_that_went_bad_in_an_indexed_segment_is_named_when_it_is_read(opened):
    info = opened.stream()
    blocks = [(k, 3000) for k in range(300)]
    for block in blocks:
        opened.storage.append(info.id, make_extent(info, [block]), lambda error: None)
    opened.storage.close()
    path = opened.directory / "segments" / "00000001.seg"
    data = bytearray(path.read_bytes())
    data[data.index(block_bytes(info.id, 5, 3000)) + 7] ^= 1
    path.write_bytes(data)
    opened.storage = Storage(opened.directory, OPTIONS)
    assert opened.storage.recovery.indexed_segments >= 1
    with pytest.raises(BlockDamaged, match="block 5 "):
        read(opened.storage, info)
    assert read(opened.storage, info, 6) == expected(info, blocks[6:])


def test_small_records_leave_room_for_a_footer_and_many_tables_do_without(opened):
    info = opened.stream()
    for k in range(400):
        opened.storage.append(info.id, make_extent(info, [(k, 3000)]), lambda error: None)
    wide = opened.stream("wide")
    for k in range(12):
        opened.storage.append(wide.id, make_extent(wide, [(3000 * k + j, 0) for j in range(3000)]), lambda error: None)
    opened.storage.sync()
    storage = opened.again()
    assert storage.recovery.indexed_segments >= 1
    assert storage.recovery.indexed_segments < storage.recovery.segments - 1, "where tables are the bulk, none"
    assert storage.index(wide.id).stored == 36_000
    assert read(storage, info) == expected(info, [(k, 3000) for k in range(400)])


def test_the_heads_of_a_footer_are_those_of_the_records():
    header = RecordHeader(1, 2, bytes(range(16)), 1, 3, 4, 5, 4096, 6, 7, 8)
    packed = header.encode(SALT)
    assert decode_header(packed, SALT, 3, 4096) == header
    head = np.frombuffer(packed, HEAD)[0]
    for name in HEAD.names or ():
        value = getattr(header, name)
        assert (bytes(head[name]) if name == "stream" else int(head[name])) == value, name


def test_recovery_takes_an_index_of_nothing():
    """A segment of which nothing but marks was left when it was full has one."""
    disk, streams, _ = full_segment()
    log = BenchScan(disk, streams)
    made = FooterDraft().encode(SALT, 1, log.pool.segments[1].generation, SEGMENT, 8192, 200, 90)
    assert made is not None
    fd = disk.open(Path("00000001.seg"))
    disk.pwritev(fd, made[1], made[0])
    found = BenchScan(disk, {}).found
    assert found.indexed_segments == 2

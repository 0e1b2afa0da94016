"""The record format: round trips, and every byte of it protected."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss.blocks.record import (
    HEADER_BYTES,
    KIND_BLOCKS,
    BlockTable,
    RecordHeader,
    aligned,
    columns_of,
    decode_header,
    decode_table,
)
from hiss.blocks.segment import SegmentHeader, decode_segment_header, parse_name, retired_name, segment_name
from hiss.errors import BlockDamaged
from hiss.extent import Extent, block_digests

from .bench_log import SALT, BenchLog, block_bytes, make_extent, stream_info
from .simulated_disk import SimulatedDisk

MASKS = (0x01, 0x80, 0xFF)

extents = st.lists(
    st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 200)),
    min_size=1,
    max_size=20,
    unique_by=lambda each: each[0],
)


@st.composite
def any_extent(draw) -> Extent:
    blocks = draw(extents)
    count = len(blocks)
    length = np.array([size for _, size in blocks], np.int64)
    data = np.frombuffer(draw(st.binary(min_size=int(length.sum()), max_size=int(length.sum()))), np.uint8)
    columns = np.zeros(count, np.dtype([("a", "<f8"), ("b", "S3")]) if draw(st.booleans()) else np.dtype([]))
    if columns.dtype.itemsize:
        columns["a"] = draw(st.lists(st.floats(allow_nan=False), min_size=count, max_size=count))
    times = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=count, max_size=count)
    small = st.lists(st.integers(0, 255), min_size=count, max_size=count)
    return Extent(
        index=np.array([index for index, _ in blocks], np.int64),
        time_ns=np.array(draw(times), np.int64),
        length=length,
        digest=block_digests(data, length),
        columns=columns,
        data=data,
        received_ns=np.array(draw(times), np.int64),
        status=np.array(draw(small), np.uint8),
        cause=np.array(draw(small), np.uint8),
        source_digest=np.array(draw(st.lists(st.integers(0, 2**64 - 1), min_size=count, max_size=count)), np.uint64),
    )


def header_for(table: BlockTable, payload_bytes: int) -> RecordHeader:
    return RecordHeader(
        generation=3,
        lsn=17,
        stream=bytes(range(16)),
        kind=KIND_BLOCKS,
        segment=5,
        blocks=len(table.index),
        column_bytes=table.columns.shape[1],
        offset=8192,
        payload_bytes=payload_bytes,
        durable_lsn=11,
        table_digest=xxhash.xxh3_64_intdigest(table.encode()),
    )


@settings(max_examples=150, deadline=None)
@given(any_extent())
def test_what_is_encoded_is_decoded(extent):
    table = BlockTable.of(extent)
    header = header_for(table, extent.data.size)
    assert decode_header(header.encode(SALT), SALT, 5, 8192) == header
    encoded = table.encode()
    assert len(encoded) == header.table_bytes
    found = decode_table(header, encoded)
    assert found is not None
    for name in ("index", "time_ns", "received_ns", "digest", "source_digest", "length", "status", "cause"):
        assert np.array_equal(getattr(found, name), getattr(extent, name)), name
    assert columns_of(found, extent.columns.dtype).tobytes() == extent.columns.tobytes()
    assert header.total_bytes % 4096 == 0
    assert header.payload_start == aligned(HEADER_BYTES + len(encoded), 64)


def test_a_header_is_only_good_where_it_was_written_and_with_its_salt():
    info = stream_info()
    table = BlockTable.of(make_extent(info, [(1, 10)]))
    data = header_for(table, 10).encode(SALT)
    assert decode_header(data, SALT, 5, 8192) is not None
    assert decode_header(data, SALT + 1, 5, 8192) is None
    assert decode_header(data, SALT, 6, 8192) is None
    assert decode_header(data, SALT, 5, 4096) is None


def test_every_flip_and_cut_of_header_and_table_is_found():
    table = BlockTable.of(make_extent(stream_info(), [(1, 10), (2, 3), (9, 0)]))
    header = header_for(table, 13)
    head, encoded = header.encode(SALT), table.encode()
    for position in range(len(head)):
        for mask in MASKS:
            assert decode_header(flipped(head, position, mask), SALT, 5, 8192) is None
        assert decode_header(head[:position], SALT, 5, 8192) is None
    for position in range(len(encoded)):
        for mask in MASKS:
            assert decode_table(header, flipped(encoded, position, mask)) is None
        assert decode_table(header, encoded[:position]) is None


def test_every_flip_of_a_segment_header_is_found():
    header = SegmentHeader(7, "0123456789ab", 5, 99, 1 << 20)
    page = header.encode()
    assert decode_segment_header(page) == header
    for position in range(64):
        for mask in MASKS:
            assert decode_segment_header(flipped(page, position, mask)) is None
        assert decode_segment_header(page[:position]) is None


def test_segment_names():
    assert parse_name(segment_name(12)) == (12, None)
    assert parse_name(retired_name(12, 0x12000)) == (12, 0x12000)
    for other in ("12.seg", "00000012.retired", "00000012-00012000.seg", "catalog.db", "00000012.seg.new"):
        assert parse_name(other) is None


def flipped(data: bytes, position: int, mask: int) -> bytes:
    out = bytearray(data)
    out[position] ^= mask
    return bytes(out)


# ---- a whole segment


def written_segment(rounds: int = 4, sizes: tuple[int, ...] = (0, 300, 600)) -> tuple[SimulatedDisk, dict, list, int]:
    """A closed log of two streams, one sealed: the disk, the streams, their blocks, and where the log ends."""
    disk = SimulatedDisk()
    log = BenchLog(disk, {}, segment_bytes=64 << 10)
    one, two = log.add(stream_info("one")), log.add(stream_info("two"))
    blocks = []
    for k in range(rounds):
        for info in (one, two):
            pairs = [(len(sizes) * k + j, size + k) for j, size in enumerate(sizes)]
            blocks += [(info.id, index, size) for index, size in pairs]
            log.append(info, make_extent(info, pairs))
    log.log.sync()
    log.seal(two)
    streams = dict(log.streams)
    log.close()
    (segment,) = log.pool.segments.values()
    return disk, streams, blocks, segment.tail


def served(disk: SimulatedDisk, streams: dict, blocks: list) -> tuple[int, int, BenchLog]:
    """Recover and read all: every block that is served is the one that was written.

    How many were, how many are not in the index any more, and the log.
    """
    log = BenchLog(disk, dict(streams))
    good = unknown = 0
    try:
        for stream, index, size in blocks:
            if not log.index(stream).handled(np.array([index]))[0]:
                unknown += 1
                continue
            try:
                (extent,) = log.reader.read(log.index(stream), index, index + 1, 1)
            except BlockDamaged:
                continue
            assert bytes(extent.data) == block_bytes(stream, index, size)
            assert (int(extent.time_ns[0]), int(extent.received_ns[0])) == (index * 10, index * 10 + 1)
            assert extent.columns["angle"][0] == index
            good += 1
    finally:
        log.stop_without_a_trace()
    return good, unknown, log


def check_flip(disk: SimulatedDisk, streams: dict, blocks: list, position: int, mask: int, record_blocks: int) -> None:
    copy = disk.after_kill()
    (inode,) = copy.names.values()
    for image in (inode.cached, inode.durable):
        image[position] ^= mask
    good, unknown, log = served(copy, streams, blocks)
    assert good >= len(blocks) - record_blocks, "one flip costs at most one record"
    assert not unknown or log.report.damages, "a block is gone and nothing says so"


def used_bytes(disk: SimulatedDisk) -> list[int]:
    """Places that say something: all but padding."""
    (inode,) = disk.names.values()
    return np.flatnonzero(np.frombuffer(bytes(inode.durable), np.uint8)).tolist()


def test_no_flipped_byte_of_a_small_segment_is_served_as_good():
    disk, streams, blocks, end = written_segment(rounds=1, sizes=(5,))
    assert served(disk.after_kill(), streams, blocks)[:2] == (len(blocks), 0)
    fields = [*range(72), *(place for start in range(4096, end, 4096) for place in range(start, start + 264))]
    for position in fields:
        for mask in MASKS:
            check_flip(disk, streams, blocks, position, mask, 1)


@pytest.mark.torture
def test_no_flipped_byte_of_a_segment_is_served_as_good():
    disk, streams, blocks, _ = written_segment()
    for position in used_bytes(disk):
        for mask in MASKS:
            check_flip(disk, streams, blocks, position, mask, 3)


def test_every_truncation_of_a_segment_is_survived():
    disk, streams, blocks, end = written_segment()
    for cut in [*range(0, end, 512), end]:
        copy = disk.after_kill()
        (inode,) = copy.names.values()
        del inode.cached[cut:], inode.durable[cut:]
        good, _, _ = served(copy, streams, blocks)
        assert good <= len(blocks)
        assert cut < end or good == len(blocks)


def test_a_damaged_middle_is_named_and_the_rest_is_served():
    disk, streams, blocks, _ = written_segment()
    (inode,) = disk.names.values()
    second = bytes(inode.cached).index(b"HISSREC1", 4096 + 1)
    for image in (inode.cached, inode.durable):
        image[second + 40] ^= 0xFF
    good, _, log = served(disk, streams, blocks)
    assert good == len(blocks) - 3
    assert [(damage.segment, damage.offset) for damage in log.report.damages if damage.segment] == [(1, second)]
    assert any("two" in damage.stream for damage in log.report.damages), "the sealed stream misses blocks, and is named"
    assert log.report.attrs()["damages_count"] == len(log.report.damages)


def test_a_damaged_block_of_an_open_stream_may_be_sent_again():
    disk, streams, blocks, _ = written_segment()
    stream, index, size = blocks[2]
    (inode,) = disk.names.values()
    place = bytes(inode.cached).index(block_bytes(stream, index, size))
    for image in (inode.cached, inode.durable):
        image[place] ^= 0x10
    log = BenchLog(disk, dict(streams))
    info = streams[stream]
    (damage,) = log.report.damages
    assert (damage.stream, damage.blocks) == (info.path, (index,))
    assert set(log.contents(info)) == {i for s, i, _ in blocks if s == stream} - {index}
    assert log.append(info, make_extent(info, [(index, size)])).wait() is None
    assert log.contents(info)[index] == block_bytes(stream, index, size)
    log.close()
    again = BenchLog(disk, dict(streams))
    assert set(again.contents(info)) == {i for s, i, _ in blocks if s == stream}
    again.close()


def test_a_lost_segment_header_costs_nothing():
    disk, streams, blocks, _ = written_segment()
    (inode,) = disk.names.values()
    for image in (inode.cached, inode.durable):
        image[:4096] = bytes(4096)
    good, _, log = served(disk, streams, blocks)
    assert good == len(blocks)
    assert "header" in log.report.damages[0].what

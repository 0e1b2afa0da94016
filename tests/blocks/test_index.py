"""The index against a naive model: what is handled, where it is, the gaps, the ledger and the digest."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hiss.blocks.index import NOT_HANDLED, Place, StreamIndex, digest_rows
from hiss.blocks.ledger import bounded, completeness
from hiss.blocks.record import BlockTable
from hiss.model import BlockStatus, LedgerEntry

from .bench_log import make_extent, stream_info

READABLE = (BlockStatus.STORED, BlockStatus.RAW_ONLY)
STAGES = ("first", "second")
WHY = {
    1: ("first", "vetoed"),
    2: ("first", "kernel-failed"),
    3: ("producer", "shed"),
    4: ("producer", "declared missing"),
    5: ("received", "lost in a crash"),
}


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.info = stream_info()
        self.tables: dict[int, BlockTable] = {}
        self.index = StreamIndex(self.info.id, self.info.columns_dtype, lambda _, record: self.tables[record])
        self.model: dict[int, tuple[int, int, int]] = {}  # index -> record, row, status
        self.digests: dict[int, int] = {}
        self.sizes: dict[int, int] = {}

    @rule(
        start=st.integers(0, 60),
        places=st.lists(st.integers(0, 12), min_size=1, max_size=8, unique=True),
        statuses=st.lists(st.sampled_from((0, 0, 0, 1, 2, 3, 4, 5, 6)), min_size=8, max_size=8),
        in_order=st.booleans(),
    )
    def add(self, start, places, statuses, in_order):
        places = sorted(places) if in_order else places
        start = self.index.next_index if in_order and statuses[0] else start
        blocks = [(start + place, 10 + place) for place in places if start + place not in self.model]
        if not blocks:
            return
        status = {index: statuses[k] for k, (index, _) in enumerate(blocks)}
        extent = make_extent(self.info, blocks, status)
        table = BlockTable.of(extent)
        number = len(self.tables)
        record = self.index.add(Place(number + 1, 4096 * (number + 1), 8192, len(blocks)), table)
        assert record == number
        self.tables[record] = table
        for row, (index, _) in enumerate(blocks):
            self.model[index] = (record, row, status[index])
            self.digests[index] = int(extent.digest[row])
            self.sizes[index] = int(extent.length[row])

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 1000), some=st.booleans(), data=st.data())
    def remove(self, which, some, data):
        record = which % len(self.tables)
        rows = len(self.tables[record].index)
        drop = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))) if some else None
        mine = [index for index, (r, row, _) in self.model.items() if r == record and (drop is None or drop[row])]
        assert self.index.remove(record, self.tables[record], drop) == len(mine)
        for index in mine:
            del self.model[index]
        left = sum(r == record for r, _, _ in self.model.values())
        assert self.index.live(record) == left

    @precondition(lambda self: self.tables)
    @rule(which=st.integers(0, 1000))
    def relocate(self, which):
        record = which % len(self.tables)
        place = Place(900 + which, 4096 * which, 4096, len(self.tables[record].index))
        before = self.index.place(record)
        wanted = self.index.live(record) > 0
        assert self.index.relocate(record, place) == wanted
        assert self.index.place(record) == (place if wanted else before)

    @invariant()
    def it_knows_what_the_model_knows(self):
        ask = np.arange(-2, 90)
        assert self.index.handled(ask).tolist() == [index in self.model for index in ask.tolist()]
        expected = [self.model[index][2] if index in self.model else NOT_HANDLED for index in ask.tolist()]
        assert self.index.status(ask).tolist() == expected
        assert self.index.next_index == max(self.model, default=-1) + 1
        assert self.index.first_index == min(self.model, default=None)
        known = np.array(sorted(self.model), np.int64)
        records, rows = self.index.locate(known)
        assert list(zip(records.tolist(), rows.tolist(), strict=True)) == [self.model[i][:2] for i in known.tolist()]
        sources = self.index.source_digests(known)
        assert sources.tolist() == [self.digests[i] ^ 1 for i in known.tolist()]
        stored = [index for index, (_, _, status) in self.model.items() if status == BlockStatus.STORED]
        assert self.index.newest() == max(stored, default=None)
        readable = sum(status in READABLE for _, _, status in self.model.values())
        assert (self.index.stored, self.index.stored_bytes) == (readable, sum(self.sizes[i] for i in stored))

    @invariant()
    def gaps_and_ledger_are_what_is_not_there(self):
        first, end = min(self.model, default=0), self.index.next_index
        gaps = [index for low, high in self.index.gaps(1000) for index in range(low, high + 1)]
        assert gaps == [index for index in range(first, end) if index not in self.model]
        whole = completeness(self.index, end + 3, STAGES)
        missing = {}
        for entry in whole.ledger:
            for index in range(entry.first, entry.last + 1):
                assert index not in missing
                missing[index] = (entry.stage, entry.reason)
        expected = {
            index: WHY[self.model[index][2]] if index in self.model else ("transport", "never received")
            for index in range(first, end + 3)
            if index not in self.model or self.model[index][2] not in READABLE
        }
        assert missing == expected
        assert whole.gaps == len(expected)
        assert whole.blocks == self.index.stored
        for left, right in zip(whole.ledger, whole.ledger[1:], strict=False):
            assert left.last < right.first
            assert (left.last + 1, left.stage, left.reason) != (right.first, right.stage, right.reason)

    @invariant()
    def the_rolling_digest_is_the_slow_one(self):
        rolling = self.index.rolling_digest()
        known = sorted(self.model)
        rows = digest_rows(
            np.array(known, np.int64),
            np.array([self.model[i][2] for i in known], np.uint8),
            np.array([self.digests[i] for i in known], np.uint64),
        )
        assert rolling is None or rolling == xxhash.xxh3_64_intdigest(rows)

    @invariant()
    def every_run_is_found_from_any_index(self):
        everything = self.index.runs(limit=10_000)
        assert [i for run in everything for i in range(run.first, run.last + 1)] == sorted(self.model)
        for start in range(-1, 80, 7):
            assert self.index.runs(start, 10_000) == [run for run in everything if run.last >= start]


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_the_index_is_small():
    """Blocks in order cost next to nothing; where none is like its neighbour they cost less than 24 bytes each."""
    info = stream_info(columns=())
    calm = StreamIndex(info.id, info.columns_dtype, lambda _, record: plain_table(record, calm=True))
    wild = StreamIndex(info.id, info.columns_dtype, lambda _, record: plain_table(record, calm=False))
    for record in range(128):
        calm.add(Place(1, 4096 * record, 4096, 2048), plain_table(record, calm=True))
        wild.add(Place(1, 4096 * record, 4096, 2048), plain_table(record, calm=False))
    blocks = 128 * 2048
    assert calm.nbytes < 0.1 * blocks
    assert wild.nbytes <= 24 * blocks
    assert calm.stored == blocks
    assert wild.stored == blocks // 2


def plain_table(record: int, *, calm: bool) -> BlockTable:
    """2048 blocks; every other one of them vetoed unless it is to be calm."""
    number = np.arange(2048) + record * 2048
    none, length = np.zeros(2048, np.uint64), np.full(2048, 9, np.uint32)
    status = np.zeros(2048, np.uint8) if calm else (number % 2).astype(np.uint8)
    columns = np.zeros((2048, 0), np.uint8)
    return BlockTable(number, number, number, none, none, length, status, np.zeros(2048, np.uint8), columns)


def test_a_ledger_has_a_bound_and_still_counts_all():
    entries = [LedgerEntry(2 * k, 2 * k, "s", "vetoed" if k % 2 else "shed") for k in range(100)]
    cut = list(bounded(iter(entries), 10))
    assert cut[:10] == entries[:10]
    assert [entry.reason for entry in cut[10:]] == ["shed: 45 blocks between these", "vetoed: 45 blocks between these"]
    assert (cut[-1].first, cut[-1].last) == (22, 198)


@pytest.mark.parametrize(("blocks", "allowed"), [(1, 48), (2, 24), (128, 0.5)])
def test_memory_of_the_index_for_each_block(blocks, allowed):
    """A million blocks in order, in records of so many."""
    index = StreamIndex("a" * 32, np.dtype([]), lambda *_: pytest.fail("nothing is read"))
    batch, none = 128 * 1024, np.zeros(0, np.int64)
    for first in range(0, 8 * batch, batch):
        count = batch // blocks
        table = BlockTable(
            index=np.arange(first, first + batch),
            time_ns=none,
            received_ns=none,
            digest=np.zeros(batch, np.uint64),
            source_digest=none.astype(np.uint64),
            length=np.full(batch, 4096, np.uint32),
            status=np.zeros(batch, np.uint8),
            cause=np.zeros(batch, np.uint8),
            columns=np.zeros((batch, 0), np.uint8),
        )
        index.add_records(1, 4096 * np.arange(count), np.full(count, 4096), np.full(count, blocks), table)
    assert index.stored == 8 * batch
    assert index.nbytes / index.stored <= allowed

"""Consumer groups: a state machine against a model, members that die, a server that dies, and what does not fit."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hiss import limits
from hiss.blocks import StorageOptions
from hiss.blocks.index import Place, StreamIndex
from hiss.blocks.record import BlockTable
from hiss.client import Buffer
from hiss.consumer_group import ConsumerGroup, Ranges
from hiss.errors import LimitExceeded, NotFound
from hiss.extent import Extent
from hiss.limits import MiB
from hiss.local import LocalStore
from hiss.model import BlockStatus
from hiss.node import Node
from hiss.sharing import Member, Wish, indices_of, ranges_of
from hiss.testing.processes import DataProcess
from hiss.testing.waiting import wait_for

# ------------------------------------------------------------------------------------------------------ ranges

INDICES = st.sets(st.integers(0, 40))


@given(INDICES, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=8), st.integers(0, 40))
def test_ranges_are_a_set_of_numbers(start: set[int], added: list[tuple[int, int]], low: int) -> None:
    ranges, model = Ranges(ranges_of(start)), set(start)
    for first, more in added:
        ranges.add(first, first + more)
        model.update(range(first, first + more + 1))
    assert tuple(ranges) == ranges_of(model), "sorted, and none touches another"
    assert len(ranges) == len(ranges_of(model))
    assert [number in ranges for number in range(50)] == [number in model for number in range(50)]
    assert indices_of(ranges.lacks(low, 50)) == [number for number in range(low, 51) if number not in model]


# ------------------------------------------------------------------------------------------------------ the machine


def table(blocks: dict[int, BlockStatus]) -> BlockTable:
    index = np.array(list(blocks), np.int64)
    stored = np.array([status is BlockStatus.STORED for status in blocks.values()])
    extent = Extent.of(index, np.zeros(int(stored.sum()), np.uint8), stored.astype(np.int64))
    extent.status[:] = list(blocks.values())
    return BlockTable.of(extent)


TIMEOUT_S = 10.0


class GroupMachine(RuleBasedStateMachine):
    """Blocks come in any order, members take, acknowledge, give back, die; the clock goes on; the server dies."""

    members = Bundle("members")

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[BlockTable] = []
        self.index = StreamIndex("0" * 32, np.dtype([]), lambda _, record: self.tables[record])
        self.group = ConsumerGroup(self.index)
        self.now_s = 0.0
        self.readable: set[int] = set()
        self.handled: set[int] = set()
        self.done: set[int] = set()  # acknowledged, as the group says
        self.written: set[int] = set()  # of those, what the catalog has
        self.saved: list[tuple[int, int]] = []
        self.leases: dict[int, tuple[str, float]] = {}
        self.delivered: Counter[int] = Counter()
        self.unasked: set[int] = set()  # acknowledged by somebody who never had it: his word is taken

    @initialize(target=members)
    def first(self) -> str:
        return "m"

    @rule(target=members, name=st.sampled_from("abcd"))
    def join(self, name: str) -> str:
        return name

    @rule(
        start=st.integers(0, 30),
        statuses=st.lists(st.sampled_from((None, 0, 0, 0, 1, 4, 6)), min_size=1, max_size=8),
        in_order=st.booleans(),
    )
    def arrive(self, start: int, statuses: list[int | None], in_order: bool) -> None:
        start = self.index.next_index if in_order else start
        blocks = {
            start + place: BlockStatus(status)
            for place, status in enumerate(statuses)
            if status is not None and start + place not in self.handled
        }
        assume(blocks)
        self.tables.append(table(blocks))
        self.index.add(Place(len(self.tables), 0, 4096, len(blocks)), self.tables[-1])
        self.handled |= blocks.keys()
        self.readable |= {index for index, status in blocks.items() if status in (0, 6)}

    def free(self) -> list[int]:
        held = {index for index, (_, until_s) in self.leases.items() if until_s > self.now_s}
        return sorted(self.readable - self.done - held)

    @rule(member=members, blocks=st.integers(1, 5))
    def take(self, member: str, blocks: int) -> None:
        taken = indices_of(self.group.take(member, blocks, self.now_s + TIMEOUT_S, self.now_s))
        assert taken == self.free()[:blocks], "the lowest that nobody has"
        self.leases |= dict.fromkeys(taken, (member, self.now_s + TIMEOUT_S))
        self.delivered.update(taken)

    @rule(member=members, data=st.data())
    def settle(self, member: str, data: st.DataObject) -> None:
        """Of what it has, of what was its own once, and of what never was."""
        index = st.lists(st.integers(0, 45), max_size=6, unique=True)
        done, back = data.draw(index), data.draw(index)
        refused = indices_of(self.group.settle(member, done, back, self.now_s))
        for each in done:
            holder, until_s = self.leases.get(each, ("", 0.0))
            others = holder != member and until_s > self.now_s
            ok = each in self.done or (each in self.readable and not others)
            if each not in self.handled or each in self.readable:  # what cannot be read is done once it was walked over
                assert (each not in refused) == ok
            if ok:
                self.unasked |= {each} - self.delivered.keys()
                self.done.add(each)
                self.leases.pop(each, None)
        for each in back:
            if self.leases.get(each, ("", 0.0))[0] == member:
                del self.leases[each]

    @rule(seconds=st.sampled_from((1.0, 6.0, 11.0)))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def write(self) -> None:
        self.saved, self.written = list(self.group.done), set(self.done)

    @rule()
    def crash(self) -> None:
        """What was held, and what was acknowledged since the last write, is to be had again; nothing else."""
        self.group = ConsumerGroup(self.index, self.saved)
        self.done, self.leases = set(self.written), {}

    @invariant()
    def holders(self) -> None:
        live = [member for member, until_s in self.leases.values() if until_s > self.now_s]
        assert Counter(self.group.held(self.now_s)) == Counter(live), "each block has the one holder that it was given"
        assert self.group.left() == len(self.readable - self.done)
        assert self.group.complete() == (not self.readable - self.done)

    @invariant()
    def few_pieces(self) -> None:
        """`done` has no more holes than there are blocks that are not done and indices that never came."""
        self.group.left()
        missing = len(set(range(self.index.next_index)) - self.handled)
        assert len(self.group.done) <= 1 + len(self.readable - self.done) + missing

    def teardown(self) -> None:
        """The rest comes to its end: each block that can be read was delivered, none is left."""
        self.now_s += TIMEOUT_S + 1
        while taken := indices_of(self.group.take("last", 7, self.now_s + TIMEOUT_S, self.now_s)):
            self.delivered.update(taken)
            assert not self.group.settle("last", taken, (), self.now_s)
            self.done.update(taken)
        assert self.done == self.readable
        assert self.delivered.keys() | self.unasked == self.readable, "each was delivered at least once"
        assert self.group.complete()


def run(machine: type[GroupMachine], examples: int, steps: int, *phases: Phase) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=phases or tuple(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_machine() -> None:
    run(GroupMachine, 60, 30)


@pytest.mark.torture
def test_the_machine_for_long() -> None:
    run(GroupMachine, 5000, 50)


class TwoHolders(ConsumerGroup):
    def take(self, *args: Any) -> Any:
        self._held.clear()
        return super().take(*args)


class OneTooMany(ConsumerGroup):
    def settle(self, member: str, done: Any, back: Any, now_s: float) -> Any:
        for index in done:
            self.done.add(index, index + 1)
        return super().settle(member, done, back, now_s)


class Blind:
    """An index that does not tell of late records."""

    def __init__(self, index: StreamIndex) -> None:
        self._index = index

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def news(self, records: int) -> tuple[int, None]:
        return records, None


class NeverLate(ConsumerGroup):
    def __init__(self, index: Any, done: Any = ()) -> None:
        super().__init__(Blind(index), done)  # type: ignore[arg-type]


@pytest.mark.control
@pytest.mark.parametrize("broken", [TwoHolders, OneTooMany, NeverLate])
def test_a_group_without_its_protection_fails(broken: type[ConsumerGroup], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ConsumerGroup", broken)
    with pytest.raises(AssertionError):
        run(GroupMachine, 100, 30, Phase.generate)


# ------------------------------------------------------------------------------------------------------ a node


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[LocalStore]:
    node = Node(
        tmp_path / "data",
        StorageOptions(arena_bytes=16 * MiB, segment_bytes=16 * MiB),
        backend="numpy",
        monotonic_s=clock,
    )
    yield LocalStore(node)
    node.close()


def stored(buffer: Buffer, count: int, name: str = "s") -> str:
    with buffer.collection("c").create_stream(name, dtype="u2", shape=(2,)) as s:
        s.extend(np.arange(2 * count, dtype="u2").reshape(count, 2))
    return s.info.id


def test_a_member_that_dies_loses_its_blocks_when_their_time_has_run_out(store: LocalStore, clock: Clock) -> None:
    stream = stored(Buffer(store), 10)
    dead, other = Member("g", "dead"), Member("g", "other")
    assert store.take_blocks(stream, dead, Wish(4, 30.0, 0.0)).ranges == ((0, 3),)
    assert store.take_blocks(stream, other, Wish(9, 50.0, 0.0)).ranges == ((4, 9),)
    assert store.settle_blocks(stream, other, [(4, 9)]) == ()
    clock.now_s += 29.9
    assert store.take_blocks(stream, other, Wish(9, 30.0, 0.0)).ranges == ()
    assert store.consumer_groups(stream)[0].held == 4
    clock.now_s += 0.2
    assert store.take_blocks(stream, other, Wish(2, 30.0, 0.0)).ranges == ((0, 1),)
    assert store.settle_blocks(stream, dead, [(0, 3)]) == ((0, 1),), "what nobody took meanwhile may be late"
    assert store.settle_blocks(stream, other, [(0, 1)]) == ()
    assert store.take_blocks(stream, other, Wish(2, 30.0, 0.0)).complete


def test_bounds_are_named(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = Buffer(store)
    stream = stored(buffer, 20)
    monkeypatch.setattr(limits, "SHARE_MEMBERS_MAX", 2)
    monkeypatch.setattr(limits, "SHARE_HELD_MAX", 12)
    monkeypatch.setattr(limits, "SHARE_GROUPS_MAX", 2)
    monkeypatch.setattr(limits, "SHARE_RANGES_MAX", 3)
    wish = Wish(10, 30.0, 0.0)
    assert store.take_blocks(stream, Member("g", "a"), wish).ranges == ((0, 9),)
    assert store.take_blocks(stream, Member("g", "b"), wish).ranges == ((10, 11),)
    assert store.take_blocks(stream, Member("g", "a"), wish).ranges == (), "until some are acknowledged"
    with pytest.raises(LimitExceeded, match="2 members"):
        store.take_blocks(stream, Member("g", "c"), wish)
    for index in (1, 3, 5, 7):
        store.settle_blocks(stream, Member("g", "a"), [(index, index)])
    with pytest.raises(LimitExceeded, match="4 pieces"):
        store.take_blocks(stream, Member("g", "a"), wish)
    with pytest.raises(LimitExceeded, match="12 blocks"):
        store.settle_blocks(stream, Member("g", "a"), [(0, 12)])
    store.take_blocks(stream, Member("h", "a"), wish)
    with pytest.raises(LimitExceeded, match="2 consumer groups"):
        store.take_blocks(stream, Member("i", "a"), wish)
    for blocks in (0, limits.SHARE_BLOCKS_MAX + 1):
        with pytest.raises(LimitExceeded):
            Wish(blocks, 30.0, 0.0)


def test_a_group_goes_with_its_stream(store: LocalStore) -> None:
    buffer = Buffer(store)
    stream = stored(buffer, 3)
    member = Member("g", "a")
    store.take_blocks(stream, member, Wish(1, 30.0, 0.0))
    store.settle_blocks(stream, member, [(0, 0)])
    store.delete_stream(stream)
    table = store._catalog.shares
    assert table.names(stream) == []
    store._node.shares.flush()
    assert table.names(stream) == [], "and is not written behind it"
    with pytest.raises(NotFound):
        store.settle_blocks(stream, member, [(1, 1)])


def test_a_buffer_that_was_closed_forgets_nothing(tmp_path: Path) -> None:
    def again() -> Node:
        return Node(tmp_path / "data", StorageOptions(arena_bytes=16 * MiB, segment_bytes=16 * MiB), backend="numpy")

    node = again()
    stream = stored(Buffer(LocalStore(node)), 9)
    member, wish = Member("g", "a"), Wish(3, 30.0, 0.0)
    LocalStore(node).take_blocks(stream, member, wish)
    LocalStore(node).settle_blocks(stream, member, [(0, 1)])
    node.close()
    node = again()
    assert LocalStore(node).take_blocks(stream, member, wish).ranges == ((2, 4),), "what was held is free again"
    node.close()


# ------------------------------------------------------------------------------------------------------ a server


def test_a_killed_server_gives_out_what_was_held_and_not_what_was_acknowledged(tmp_path: Path) -> None:
    options = {"arena_bytes": 16 * MiB, "segment_bytes": 16 * MiB}
    with DataProcess(tmp_path / "data", **options) as server, server.connect() as buffer:
        stream = stored(buffer, 40)
        survivor = buffer["c/s"].share("g", blocks=10)
        first, second = (next(survivor.batches()) for _ in range(2))
        assert survivor.done(*first) == []
        wait_for(lambda: catalog_has(tmp_path / "data", stream, "[[0,9]]"))
        server.kill()
        server.start()
        with server.connect() as later, later["c/s"].share("g", blocks=100) as other:
            rest = next(other.batches())
            assert [block.index for block in rest] == list(range(10, 40))
            assert [block.index for block in survivor.done(*second)] == list(range(10, 20)), "another's now"
            assert other.done(*rest) == []
            assert list(other) == []
        assert list(survivor) == [], "it found the server again, and that all is done"


def catalog_has(data: Path, stream: str, done: str) -> bool:
    database = sqlite3.connect(f"file:{data / 'catalog.db'}?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT done FROM consumer_group WHERE stream = ?", (stream,)).fetchall()
    finally:
        database.close()
    return rows == [(done,)]

"""The arena: regions never overlap, nothing is lost, requests are met whole and in order."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from hiss import limits
from hiss.blocks import Arena
from hiss.errors import DeadlineExceeded, InvalidInput, LimitExceeded
from hiss.limits import ARENA_PAGE_BYTES as PAGE


class ArenaMachine(RuleBasedStateMachine):
    """Against a model: what is allocated keeps its bytes, all of it comes back, and what is guaranteed is given at
    once, whatever came before.
    """

    regions = Bundle("regions")

    @initialize(pages=st.integers(4, 70), slot=st.integers(1, 6))
    def make(self, pages, slot):
        before, limits.ARENA_SLOT_BYTES = limits.ARENA_SLOT_BYTES, slot * PAGE  # small arenas, every proportion
        try:
            self.arena = Arena(pages * PAGE)
        finally:
            limits.ARENA_SLOT_BYTES = before
        self.live: dict[int, tuple] = {}
        self.stamp = 0
        assert 2 * self.arena.slots * self.arena.slot_bytes >= self.arena.capacity
        assert self.arena.largest_bytes == pages // 4 * PAGE

    def sizes(self) -> list[int]:
        return [region.data.size for region, _, _ in self.live.values()]

    def guaranteed(self, sizes) -> bool:
        slot, there = self.arena.slot_bytes, self.sizes()
        small = sum(0 < size <= slot for size in there + sizes)
        large = [size for size in there + sizes if size > slot]
        return small <= self.arena.slots and (
            not large or (large == sizes and len(large) == 1 and large[0] <= self.arena.largest_bytes)
        )

    @rule(target=regions, sizes=st.lists(st.integers(0, 19 * PAGE), min_size=1, max_size=3))
    def allocate(self, sizes):
        return self.try_to(sizes)

    @rule(target=regions, pages=st.integers(1, 3))
    def allocate_small(self, pages):
        return self.try_to([pages * PAGE])

    @rule(target=regions)
    def allocate_largest(self):
        return self.try_to([self.arena.largest_bytes])

    def try_to(self, sizes):
        try:
            regions = self.arena.allocate(*sizes, timeout_s=0)
        except (DeadlineExceeded, LimitExceeded):
            assert not self.guaranteed(sizes), "what is guaranteed was refused"
            return ()
        for region, size in zip(regions, sizes, strict=True):
            assert region.data.size == size
            self.stamp = self.stamp % 250 + 1
            region.data[:] = self.stamp
            self.live[id(region)] = (region, self.stamp, 1)
        return regions

    @rule(regions=regions)
    def hold(self, regions):
        for region in regions:
            if id(region) in self.live:
                _, stamp, holders = self.live[id(region)]
                region.hold()
                self.live[id(region)] = (region, stamp, holders + 1)

    @rule(regions=regions)
    def release(self, regions):
        for region in regions:
            if id(region) in self.live:
                _, stamp, holders = self.live.pop(id(region))
                assert (region.data == stamp).all()
                region.release()
                if holders > 1:
                    self.live[id(region)] = (region, stamp, holders - 1)

    @invariant()
    def nobody_wrote_to_anothers(self):
        for region, stamp, _ in self.live.values():
            assert (region.data == stamp).all()

    @invariant()
    def nothing_is_lost(self):
        taken = sum(region.data.size > 0 for region, _, _ in self.live.values())
        assert len(self.arena.live()) == taken
        pages = sum(-(-size // PAGE) for size in self.sizes())
        assert self.arena.free_bytes <= self.arena.capacity - pages * PAGE
        if not taken:
            assert self.arena.free_bytes == self.arena.capacity

    def teardown(self):
        for region, _, holders in getattr(self, "live", {}).values():
            for _ in range(holders):
                region.release()
        if hasattr(self, "arena"):
            assert self.arena.free_bytes == self.arena.capacity
            sizes = [self.arena.largest_bytes, *[self.arena.slot_bytes] * self.arena.slots]
            if self.arena.largest_bytes == self.arena.slot_bytes:
                sizes = sizes[1:]
            for region in self.arena.allocate(*sizes, timeout_s=0):  # all pieces have merged again
                region.release()


TestArena = ArenaMachine.TestCase
TestArena.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_large_region_of_an_odd_size_wastes_less_than_a_page():
    arena = Arena(1024 * PAGE)
    (region,) = arena.allocate(200 * PAGE + 1, timeout_s=0)
    assert arena.free_bytes == (1024 - 201) * PAGE
    region.release()


def test_the_default_arena_has_room_for_a_block_of_the_largest_size_and_512_mib_of_8_mib_blocks():
    """The figures of the guarantee, from the numbers alone: no memory is touched here."""
    assert limits.ARENA_BYTES_DEFAULT // 4 >= limits.BLOCK_BYTES_MAX
    assert limits.ARENA_SLOT_BYTES == 8 << 20
    arena = Arena(64 << 20)
    assert (arena.largest_bytes, arena.slot_bytes, arena.slots) == (16 << 20, 8 << 20, 4)


def test_what_is_only_kept_for_readers_is_let_go_where_there_is_no_room():
    arena = Arena(8 * PAGE)
    kept = list(arena.allocate(*[2 * PAGE] * 3, timeout_s=0))
    arena.on_pressure = lambda: bool(kept) and (kept.pop().release() or True)
    regions = arena.allocate(*[2 * PAGE] * 3, timeout_s=0)
    assert len(kept) == 0
    with pytest.raises(DeadlineExceeded):
        arena.allocate(2 * PAGE, timeout_s=0)
    for region in regions:
        region.release()


def test_what_never_fits_is_refused_at_once():
    arena = Arena(8 * PAGE)
    with pytest.raises(LimitExceeded, match="raise arena_bytes"):
        arena.allocate(3 * PAGE, timeout_s=None)
    with pytest.raises(LimitExceeded, match="raise arena_bytes"):
        arena.allocate(*[2 * PAGE] * 4, timeout_s=None)
    with pytest.raises(InvalidInput):
        Arena(4 * PAGE - 1)


def test_a_full_arena_times_out_and_says_so():
    arena = Arena(8 * PAGE)
    regions = arena.allocate(*[2 * PAGE] * 3, timeout_s=0)
    with pytest.raises(DeadlineExceeded, match="are free"):
        arena.allocate(1, timeout_s=0.01)
    for region in regions:
        region.release()
    arena.allocate(1, timeout_s=0)[0].release()


def test_releasing_twice_is_an_assertion():
    arena = Arena(8 * PAGE)
    first, empty = arena.allocate(PAGE, 0, timeout_s=0)
    for region in (first, empty):
        region.release()
        with pytest.raises(AssertionError, match="released twice"):
            region.release()


def test_a_large_request_is_not_starved_by_small_ones_behind_it():
    arena = Arena(8 * PAGE)
    held = arena.allocate(*[PAGE] * 4, timeout_s=0)
    order: list[str] = []
    waiting = threading.Semaphore(0)

    def ask(name: str, size: int) -> None:
        waiting.release()
        (region,) = arena.allocate(size, timeout_s=60)
        order.append(name)
        region.release()

    large = threading.Thread(target=ask, args=("large", 2 * PAGE))
    large.start()
    assert waiting.acquire(timeout=60)
    wait_until(lambda: len(arena._waiting) == 1)
    small = threading.Thread(target=ask, args=("small", PAGE))
    small.start()
    assert waiting.acquire(timeout=60)
    wait_until(lambda: len(arena._waiting) == 2)
    for region in held:
        region.release()
    large.join(60)
    small.join(60)
    assert order == ["large", "small"]
    assert not arena.live()


def wait_until(condition) -> None:
    event = threading.Event()
    for _ in range(6000):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("it never came to that")

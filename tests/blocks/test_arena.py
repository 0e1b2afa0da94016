"""The arena: regions never overlap, nothing is lost, requests are met whole and in order."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from hiss.blocks import Arena
from hiss.errors import DeadlineExceeded, InvalidInput, LimitExceeded
from hiss.limits import ARENA_PAGE_BYTES as PAGE


class ArenaMachine(RuleBasedStateMachine):
    """Against a model: what is allocated keeps its bytes, and all of it comes back."""

    regions = Bundle("regions")

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(23 * PAGE)  # no power of two
        self.live: dict[int, tuple] = {}
        self.stamp = 0

    @rule(target=regions, sizes=st.lists(st.integers(0, 9 * PAGE), min_size=1, max_size=3))
    def allocate(self, sizes):
        try:
            regions = self.arena.allocate(*sizes, timeout_s=0)
        except (DeadlineExceeded, LimitExceeded):
            return None
        for region, size in zip(regions, sizes, strict=True):
            assert region.data.size == size
            self.stamp = self.stamp % 250 + 1
            region.data[:] = self.stamp
            self.live[id(region)] = (region, self.stamp)
        return regions

    @rule(regions=consumes(regions))
    def release(self, regions):
        for region in regions or ():
            assert (region.data == self.live.pop(id(region))[1]).all()
            region.release()

    @invariant()
    def nobody_wrote_to_anothers(self):
        for region, stamp in self.live.values():
            assert (region.data == stamp).all()

    @invariant()
    def nothing_is_lost(self):
        pages = sum(-(-region.data.size // PAGE) for region, _ in self.live.values())
        assert self.arena.free_bytes == self.arena.capacity - pages * PAGE
        assert len(self.arena.live()) == sum(region.data.size > 0 for region, _ in self.live.values())

    def teardown(self):
        for region, _ in self.live.values():
            region.release()
        assert self.arena.free_bytes == self.arena.capacity
        (whole,) = self.arena.allocate(16 * PAGE, timeout_s=0)  # all pieces have merged again
        whole.release()


TestArena = ArenaMachine.TestCase
TestArena.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_region_of_an_odd_size_wastes_less_than_a_page():
    arena = Arena(64 * PAGE)
    (region,) = arena.allocate(33 * PAGE + 1, timeout_s=0)
    assert arena.free_bytes == 30 * PAGE
    region.release()


def test_what_never_fits_is_refused_at_once():
    arena = Arena(8 * PAGE)
    with pytest.raises(LimitExceeded, match="raise arena_bytes"):
        arena.allocate(5 * PAGE, 4 * PAGE, timeout_s=None)
    with pytest.raises(InvalidInput):
        Arena(PAGE - 1)


def test_a_full_arena_times_out_and_says_so():
    arena = Arena(8 * PAGE)
    (region,) = arena.allocate(8 * PAGE, timeout_s=0)
    with pytest.raises(DeadlineExceeded, match="0 of"):
        arena.allocate(1, timeout_s=0.01)
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
    held = arena.allocate(*[PAGE] * 8, timeout_s=0)
    order: list[str] = []
    waiting = threading.Semaphore(0)

    def ask(name: str, size: int) -> None:
        waiting.release()
        (region,) = arena.allocate(size, timeout_s=60)
        order.append(name)
        region.release()

    large = threading.Thread(target=ask, args=("large", 8 * PAGE))
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

"""What is lent to a reader: an array that somebody holds never changes, and nothing is lost of the budget."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hiss import limits
from hiss.limits import MiB
from hiss.transport.lent_memory import Budget, LentMemory
from hiss.transport.shared_memory import READER_SEALS, RESIZE_SEALS


class Leases(RuleBasedStateMachine):
    """A server's memory and its reader, who maps what it is told of, holds arrays and gives them back, or does not."""

    @initialize(most=st.integers(1, 4), budget=st.integers(1, 8))
    def begin(self, most: int, budget: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(limits, "SHARED_READ_MEMORIES_MAX", most)
        self.now_s = 0.0
        self.allowed = budget * MiB
        self.budget = Budget(self.allowed)
        self.lent = LentMemory(self.budget, lambda: self.now_s)
        self.maps: dict[int, mmap.mmap] = {}
        self.held: list[tuple[int, np.ndarray, int]] = []  # number, the reader's array, what it has to hold
        self.counter = 0

    @rule(size=st.sampled_from([1, 5000, MiB, MiB + 1, 3 * MiB]))
    def place(self, size: int) -> None:
        self.counter += 1
        placed = self.lent.place(np.full(size, self.counter % 251, np.uint8))
        if placed is None:
            free = self.budget._left < max(MiB, 1 << (size - 1).bit_length())
            busy = [lease for lease in self.lent._leases.values() if lease.lent and lease.until_s >= self.now_s]
            assert free or len(busy) == limits.SHARED_READ_MEMORIES_MAX, "there was room"
            return
        if placed.memory is not None:
            assert placed.memory.descriptor is not None
            assert placed.number not in self.maps, "no number is used twice"
            self.maps[placed.number] = mmap.mmap(placed.memory.descriptor, placed.memory.size, prot=mmap.PROT_READ)
            placed.memory.sent()
        if placed.gone is not None:
            self.maps.pop(placed.gone)
        array = np.frombuffer(self.maps[placed.number], np.uint8, size)
        self.held.append((placed.number, array, self.counter % 251))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        number, _, _ = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if all(number != other for other, _, _ in self.held):
            self.lent.give_back(number)

    @rule(number=st.integers(0, 40))
    def give_back_what_is_not_lent(self, number: int) -> None:
        if all(number != other for other, _, _ in self.held):
            self.lent.give_back(number)

    @rule()
    def wait(self) -> None:
        self.now_s += limits.SHARED_LEASE_S + 1

    @rule(kept=st.integers(0, 4))
    def end_of_a_read(self, kept: int) -> None:
        for number in self.lent.trim(kept * MiB):
            self.maps.pop(number)
        assert sum(lease.memory.size for lease in self.lent._leases.values()) <= kept * MiB
        assert set(self.maps) == set(self.lent._leases), "the reader has been told of all that is gone"

    @invariant()
    def what_is_held_does_not_change(self) -> None:
        for _, array, value in getattr(self, "held", []):
            assert (array == value).all()

    @invariant()
    def budgets_add_up(self) -> None:
        if hasattr(self, "lent"):
            sizes = [lease.memory.size for lease in self.lent._leases.values()]
            assert self.budget._left == self.allowed - sum(sizes) >= 0
            assert len(sizes) <= limits.SHARED_READ_MEMORIES_MAX

    def teardown(self) -> None:
        if hasattr(self, "lent"):
            self.lent.close()
            assert self.budget._left == self.allowed
            self.what_is_held_does_not_change()
            self.held.clear()
            self.maps.clear()
            self.patch.undo()
            assert "hiss reader" not in Path("/proc/self/maps").read_text()


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_nobody_else_can_write_what_is_lent() -> None:
    """Neither by the descriptor nor by one that is opened again; control: before the seals it could."""
    lent = LentMemory(Budget())
    placed = lent.place(np.full(MiB, 7, np.uint8))
    assert placed is not None
    assert placed.memory is not None
    descriptor = placed.memory.descriptor
    assert descriptor is not None
    attempts = ways_to_change(descriptor)
    for attempt in attempts.values():
        with pytest.raises(OSError):
            attempt()
    assert (np.frombuffer(mmap.mmap(descriptor, MiB, prot=mmap.PROT_READ), np.uint8) == 7).all()
    assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == RESIZE_SEALS | READER_SEALS
    lent.close()

    control = os.memfd_create("control", os.MFD_ALLOW_SEALING)
    os.ftruncate(control, MiB)
    for attempt in ways_to_change(control).values():
        attempt()
    os.close(control)


def ways_to_change(descriptor: int) -> dict[str, object]:
    def again() -> int:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)

    def with_new(act: object) -> object:
        def attempt() -> None:
            new = again()
            try:
                act(new)  # type: ignore[operator]
            finally:
                os.close(new)

        return attempt

    def store(place: int) -> None:
        with contextlib.closing(mmap.mmap(place, MiB)) as mapped:
            mapped[0] = 1

    return {
        "write": lambda: os.pwrite(descriptor, b"x", 0),
        "map": lambda: store(descriptor),
        "write, opened again": with_new(lambda new: os.pwrite(new, b"x", 0)),
        "map, opened again": with_new(store),
        "grow": lambda: os.ftruncate(descriptor, 2 * MiB),
        "shrink": lambda: os.ftruncate(descriptor, MiB // 2),
        "truncate, opened again": with_new(lambda new: os.ftruncate(new, 0)),
        "add seals": lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    }

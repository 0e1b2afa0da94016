"""The accounts of reservations, against a naive log that packs records into segments as badly as the real one may."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiss import limits
from hiss.blocks import Charge, Reservations, Room
from hiss.blocks.space_records import covers
from hiss.errors import Conflict, InvalidInput, ReservationNotFound, SpaceExhausted
from hiss.space import parse_size

SEGMENT = 1 << 20
BODY = SEGMENT - 3 * limits.RECORD_ALIGN_BYTES - SEGMENT // limits.FOOTER_FRACTION
LARGEST = SEGMENT // 16
HOUR_NS = 3_600_000_000_000


class Rows:
    """What the catalog keeps, in memory."""

    def __init__(self) -> None:
        self.kept = []

    def promises(self):
        return list(self.kept)

    def add_promise(self, promise) -> None:
        for other in self.kept:
            if covers(other.collection, promise.collection) or covers(promise.collection, other.collection):
                raise Conflict("taken")
        self.kept.append(promise)

    def end_promise(self, promise_id, kind) -> None:
        self.kept = [each for each in self.kept if each.id != promise_id]


@dataclass
class NaiveLog:
    """Records in segments: one that does not fit opens the next, and nothing comes back before a segment is empty."""

    segments: int
    tail: int = BODY  # of the active one, which there is none of yet
    written: dict[str, int] = field(default_factory=dict)

    def write(self, collection: str, size: int) -> bool:
        if self.tail + size > BODY:
            if not self.segments:
                return False
            self.segments, self.tail = self.segments - 1, 0
        self.tail += size
        self.written[collection] = self.written.get(collection, 0) + size
        return True

    def holds(self, sizes) -> bool:
        """Whether all of these could still be written, a record each."""
        copy = NaiveLog(self.segments, self.tail)
        return all(copy.write("", size) for size in sizes)


class World:
    """The accounts, the naive log, and what was promised."""

    def __init__(self, segments: int) -> None:
        self.rows, self.log, self.now_ns = Rows(), NaiveLog(segments), 0
        self.on_the_way: list[tuple[str, int, Charge]] = []
        self.promised: dict[str, tuple[str, int, int, int]] = {}  # id: collection, bytes, base, expiry
        self.accounts = self.opened()

    def opened(self) -> Reservations:
        return Reservations(
            self.rows,  # type: ignore[arg-type]
            lambda: Room(self.log.segments, SEGMENT, self.log.segments * SEGMENT),
            lambda path: sum(size for each, size in self.log.written.items() if covers(path, each)),
            lambda: self.now_ns,
            arena_bytes=1 << 40,
            wait_s=0.0,
        )

    def admit(self, collection: str, size: int) -> bool:
        try:
            charge = self.accounts.admit(collection, size, size, lambda: True)
        except SpaceExhausted:
            return False
        self.on_the_way.append((collection, size, charge))
        return True

    def land(self) -> None:
        """The oldest extent on its way is written."""
        collection, size, charge = self.on_the_way.pop(0)
        landed = self.log.write(collection, size)
        assert landed or not self.promised, f"{size} bytes of {collection} were admitted and found no room"
        if landed:
            charge.written(size)
        charge.settled(lost=not landed)

    def used(self, collection: str, base: int) -> int:
        log = sum(size for each, size in self.log.written.items() if covers(collection, each))
        way = sum(size for each, size, _ in self.on_the_way if covers(collection, each))
        return max(0, log - base) + way

    def check(self) -> None:
        self.promised = {key: kept for key, kept in self.promised.items() if kept[3] > self.now_ns}
        listed = {kept.id: kept for kept in self.accounts.reservations()}
        assert listed.keys() == self.promised.keys()
        way = [size for _, size, _ in self.on_the_way]
        left = []
        for key, (collection, size, base, _) in self.promised.items():
            used = self.used(collection, base)
            assert (listed[key].collection, listed[key].bytes, listed[key].used_bytes) == (collection, size, used)
            rest = max(0, size - used)
            left += [LARGEST] * (rest // LARGEST) + [rest % LARGEST]
        fits = not self.promised or self.log.holds([*way, *filter(None, left)])
        assert fits, "what was promised can no longer be written"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sampled_from("abc"), st.integers(1, 12 * SEGMENT), st.integers(1, 5)),
        st.tuples(st.just("admit"), st.sampled_from("abcxy"), st.integers(1, SEGMENT // 2), st.integers(1, 30)),
        st.tuples(st.just("land"), st.just(""), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("drop"), st.just(""), st.just(0), st.just(0)),
        st.tuples(st.just("release"), st.sampled_from("abc"), st.just(0), st.just(0)),
        st.tuples(st.just("hours"), st.just(""), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("evict"), st.sampled_from("abcx"), st.just(0), st.just(0)),
        st.tuples(st.just("restart"), st.just(""), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(st.integers(0, 24), STEPS)
@settings(max_examples=300, deadline=None)
def test_what_is_promised_can_always_be_written(segments, steps) -> None:
    world = World(segments)
    for what, name, number, more in steps:
        if what == "reserve":
            base = sum(size for each, size in world.log.written.items() if each == name)
            busy = any(kept[0] == name for kept in world.promised.values())
            on_the_way = any(each == name for each, _, _ in world.on_the_way)
            if on_the_way:
                continue  # what was admitted before belongs to nobody
            try:
                kept = world.accounts.reserve(name, number, more)
            except SpaceExhausted:
                pass
            except Conflict:
                assert busy, f"{name} has no reservation"
            else:
                assert not busy
                world.promised[kept.id] = name, number, base, world.now_ns + more * HOUR_NS
        elif what == "admit":
            reserved = name in "abc"
            for _ in range(more):
                if not world.admit(name, min(number, LARGEST) if reserved else number):
                    mine = [kept for kept in world.promised.values() if kept[0] == name and kept[3] > world.now_ns]
                    rest = [kept[1] - world.used(name, kept[2]) for kept in mine]
                    assert not rest or rest[0] < min(number, LARGEST), "refused below its own promise"
                    break
        elif what == "land":
            for _ in range(min(number, len(world.on_the_way))):
                world.land()
        elif what == "drop" and world.on_the_way:
            world.on_the_way.pop()[2].settled(lost=True)
        elif what == "release":
            for key in [key for key, kept in world.promised.items() if kept[0] == name]:
                world.accounts.release(key)
                del world.promised[key]
        elif what == "hours":
            world.now_ns += number * HOUR_NS
        elif what == "evict":
            world.accounts.freed(name, world.log.written.pop(name, 0))
        elif what == "restart":
            while world.on_the_way:
                world.land()
            world.accounts = world.opened()
        world.check()


def test_without_the_rule_the_promise_breaks(monkeypatch) -> None:
    """The control: others are let in as if nothing were promised."""
    monkeypatch.setattr(Reservations, "_short", lambda *_: None)
    world = World(8)
    kept = world.accounts.reserve("a", 4 * SEGMENT, 1)
    world.promised[kept.id] = "a", 4 * SEGMENT, 0, HOUR_NS

    def greedy() -> None:
        for _ in range(30):
            world.admit("x", SEGMENT // 4)
            world.land()
            world.check()

    with pytest.raises(AssertionError, match="no longer be written"):
        greedy()


def test_a_refusal_says_what_there_is() -> None:
    world = World(8)
    world.accounts.evictable_bytes = lambda: 77
    world.accounts.reserve("a", 3 * SEGMENT, 1)
    with pytest.raises(SpaceExhausted, match="77 could be evicted") as caught:
        world.accounts.reserve("b", 6 * SEGMENT, 1)
    assert caught.value.details["promised"] == str(3 * SEGMENT)
    assert caught.value.details["disk_free"] == str(8 * SEGMENT)
    world.accounts.reserve("b", 1 * SEGMENT, 1)


def test_room_is_made_where_that_is_allowed() -> None:
    world = World(2)

    def evict(segments: int) -> None:
        world.log.segments += segments

    world.accounts.make_room = evict
    assert world.accounts.reserve("a", 5 * SEGMENT, 1).bytes == 5 * SEGMENT
    assert world.log.segments > 5


def test_one_reservation_above_or_below_is_enough() -> None:
    world = World(20)
    world.accounts.reserve("beam/scan", 1, 1)
    for path in ("beam", "beam/scan", "beam/scan/part"):
        with pytest.raises(Conflict):
            world.accounts.reserve(path, 1, 1)
    assert world.accounts.covering("beam/scan/part") is not None
    assert world.accounts.covering("beam/scans") is None
    with pytest.raises(ReservationNotFound, match="hiss reserve --list"):
        world.accounts.release("0" * 16)


def test_others_leave_a_part_of_the_arena_free() -> None:
    world = World(1000)
    accounts = Reservations(
        world.rows,  # type: ignore[arg-type]
        lambda: Room(1000, SEGMENT, 0),
        lambda path: 0,
        lambda: 0,
        arena_bytes=4000,
        wait_s=0.0,
    )
    accounts.reserve("a", 1000, 1)
    waited = []

    def alive() -> bool:
        waited.append(True)
        return len(waited) < 2

    held = [accounts.admit("x", 1, 1000, alive) for _ in range(3)]
    assert not waited
    accounts.admit("a", 1, 1000, alive)
    assert not waited, "who has a reservation does not wait for the others' share"
    late = accounts.admit("x", 1, 1000, alive)
    assert waited, "three quarters are the others' share"
    late.settled()
    for charge in held:
        charge.settled()


@pytest.mark.parametrize(
    ("text", "size"), [("200GB", 200 * 10**9), ("200 GB", 200 * 10**9), ("1.5 MiB", 3 << 19), ("7", 7), (7, 7)]
)
def test_sizes_as_people_write_them(text, size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1 GB", "1 XB", "0", "1e9", "99999999999 PB", "١ GB"])
def test_sizes_that_are_none(text) -> None:
    with pytest.raises(InvalidInput):
        parse_size(text)


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf"), 1e9])
def test_hours_that_are_none(hours) -> None:
    with pytest.raises(InvalidInput, match="hours"):
        World(9).accounts.reserve("a", 1, hours)

"""What crosses boundaries where consumers share a stream's blocks: what a member takes, and how a group stands.

Ranges are of the producer's index, first and last included. Frozen; built from a caller's word they check themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hiss import limits
from hiss.errors import InvalidInput, LimitExceeded
from hiss.model import check_name

IndexRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Member:
    """Who takes: one consumer of a group, under a name that no other one of the group has."""

    group: str
    name: str

    def __post_init__(self) -> None:
        check_name(self.group, "consumer group")
        check_name(self.name, "member of a consumer group")


@dataclass(frozen=True, slots=True)
class Wish:
    """How many blocks to take, for how long, and how long to wait for the first of them."""

    blocks: int
    timeout_s: float
    wait_s: float

    def __post_init__(self) -> None:
        if not 0 < self.blocks <= limits.SHARE_BLOCKS_MAX:
            raise LimitExceeded(
                f"{self.blocks} blocks to take at once; expected 1 to {limits.SHARE_BLOCKS_MAX}",
                limit="SHARE_BLOCKS_MAX",
                allowed=limits.SHARE_BLOCKS_MAX,
            )
        if not 0 < self.timeout_s <= limits.SHARE_TIMEOUT_S_MAX:
            raise InvalidInput(f"timeout_s {self.timeout_s}: expected seconds, at most {limits.SHARE_TIMEOUT_S_MAX}")
        if not self.wait_s >= 0:
            raise InvalidInput(f"wait_s {self.wait_s}: expected seconds, at least 0")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a member was given. `complete`: the stream is final and all of it is acknowledged."""

    ranges: tuple[IndexRange, ...]
    complete: bool = False


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """How far the consumers of a group are with a stream."""

    name: str
    acknowledged: int  # blocks
    held: int  # blocks that members have and have not acknowledged
    left: int  # readable blocks that are not acknowledged, those that are held included
    members: int  # that hold blocks


def indices_of(ranges: Iterable[IndexRange]) -> list[int]:
    """All indices of some ranges.

    Raises
    ------
    InvalidInput, LimitExceeded
        No ranges, or more indices than a group can have out.
    """
    checked, count = [], 0
    for first, last in ranges:
        if not 0 <= first <= last:
            raise InvalidInput(f"indices {first} to {last}: no range")
        count += last - first + 1
        if count > limits.SHARE_HELD_MAX:
            raise LimitExceeded(f"more than {limits.SHARE_HELD_MAX} blocks are acknowledged or given back at once")
        checked.append((first, last))
    return [index for first, last in checked for index in range(first, last + 1)]


def ranges_of(indices: Iterable[int]) -> tuple[IndexRange, ...]:
    """Indices as the fewest ranges, sorted."""
    found: list[IndexRange] = []
    for index in sorted(indices):
        if found and found[-1][1] >= index - 1:
            found[-1] = found[-1][0], index
        else:
            found.append((index, index))
    return tuple(found)

"""What a producer does when its blocks are taken more slowly than they come, for longer than it can wait.

Decided in the client, before a byte is sent: the policy (`Overload`), and how one producer fares under it
(`Shedding`). A block that is not kept is declared to the buffer in its place, so that it stands in the stream's ledger
with the policy's name. Policies are constant; a `Shedding` is its writer's, under the writer's lock.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from hiss import limits
from hiss.errors import InvalidInput
from hiss.model import BlockStatus


class OverloadPolicy(enum.IntEnum):
    WAIT = 0  # for as long as it takes: back-pressure reaches the instrument
    PRESCALE = 1  # keep those whose index is a multiple of `keep_every`
    DROP = 2  # keep none


@dataclass(frozen=True, slots=True)
class Overload:
    """A stream's overload policy.

    It sets in when a block has waited for `patience_s` and there is still no room for it, and ends when half of the
    stream's credit is free again. Meanwhile a block that is kept waits for no longer than `patience_s` either.
    """

    policy: OverloadPolicy = OverloadPolicy.WAIT
    keep_every: int = 1
    patience_s: float = limits.PATIENCE_S

    def __post_init__(self) -> None:
        if not 0 <= self.patience_s < math.inf:
            raise InvalidInput(f"overload: patience_s {self.patience_s}; it is at least 0 seconds")
        prescale = self.policy is OverloadPolicy.PRESCALE
        if prescale and self.keep_every < 2:
            raise InvalidInput(f"overload: prescale keeps every n-th block, n at least 2, not {self.keep_every}")

    @classmethod
    def parse(cls, text: str | Overload, patience_s: float | None = None) -> Self | Overload:
        """From `"wait"`, `"drop"`, `"prescale:10"`; `patience_s` overrides the default."""
        if isinstance(text, Overload):
            return text
        name, _, number = text.partition(":")
        patience = limits.PATIENCE_S if patience_s is None else patience_s
        if name == "prescale" and number.isascii() and number.isdigit():
            return cls(OverloadPolicy.PRESCALE, int(number), patience)
        if name in ("wait", "drop") and not number:
            return cls(OverloadPolicy[name.upper()], 1, patience)
        raise InvalidInput(f"overload {text[:40]!r}: expected 'wait', 'drop', or 'prescale:N' to keep every N-th block")

    @property
    def waits(self) -> bool:
        return self.policy is OverloadPolicy.WAIT

    def keeps(self, index: int) -> bool:
        """Whether a block of that index is kept under overload, if there is room for it."""
        return self.policy is OverloadPolicy.PRESCALE and index % self.keep_every == 0

    @property
    def status(self) -> BlockStatus:
        """What is declared of a block that is not kept."""
        return BlockStatus.PRESCALED if self.policy is OverloadPolicy.PRESCALE else BlockStatus.DROPPED


class Shedding:
    """Whether the blocks of one producer are kept.

    Parameters
    ----------
    policy : Overload
    wait_for_room : callable
        `(bytes, timeout_s)`: waits until so many bytes may be held, and says whether they may; None waits for as long
        as it takes. Raises what ended the stream.
    check : callable
        Raises what ended the stream, if it is over.
    half_is_free : callable
        Whether half of the stream's credit is free.

    Attributes
    ----------
    waits : bool
        Whether every block is kept, however long that takes.
    shed_blocks : int
        How many were not kept.
    """

    def __init__(
        self,
        policy: Overload,
        wait_for_room: Callable[[int, float | None], bool],
        check: Callable[[], None],
        half_is_free: Callable[[], bool],
    ) -> None:
        self._policy = policy
        self.waits = policy.waits
        self._wait_for_room = wait_for_room
        self._check = check
        self._half_is_free = half_is_free
        self._overloaded = False
        self.shed_blocks = 0

    @property
    def status(self) -> BlockStatus:
        """What is declared of a block that is not kept."""
        return self._policy.status

    def lets_in(self, index: int, size: int) -> bool:
        """Whether a block is kept, else it counts as shed; waits for room as long as the policy lets it."""
        if self.waits:
            return self._wait_for_room(size, None)
        policy = self._policy
        self._look()
        if not self._overloaded or policy.keeps(index):
            if self._wait_for_room(size, policy.patience_s):
                return True
            self._overloaded = True
        else:
            self._check()
        self.shed_blocks += 1
        return False

    def lets_all_in(self, size: int) -> bool:
        """Whether blocks of `size` bytes together are kept, all of them. If not, none counts as shed yet."""
        if self.waits:
            return self._wait_for_room(size, None)
        self._look()
        return not self._overloaded and self._wait_for_room(size, 0.0)

    def _look(self) -> None:
        if self._overloaded and self._half_is_free():
            self._overloaded = False

"""What a producer does when its blocks are taken more slowly than they come, for longer than it can wait. Pure.

Decided in the client, before a byte is sent. A block that is not kept is declared to the buffer in its place, so that
it stands in the stream's ledger with the policy's name.
"""

from __future__ import annotations

import enum
import math
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

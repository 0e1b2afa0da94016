"""What a caller may do with the streams of a buffer: the one place where that is decided.

    right    | a token that has it may, below its prefix
    read     | read blocks, follow, reduce, replay, see events
    write    | make collections and streams, append, amend, seal, abort, send feedback
    run      | add, change and remove patterns and recipes, handle jobs (`meow_bridge.rights`)
    admin    | delete, attach kernels, reserve, evict, set the retention, record archives, handle tokens
    any      | see which collections and streams there are, and what they are

The owner may do everything. An attempt of a job reads everything, writes below its prefix, and does nothing of `admin`.
What is of the buffer as a whole needs a token for all of it. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hiss.errors import PermissionRefused
from hiss.model import BoundKernel, Caller, StreamParam
from hiss.tokens import is_within

_OF_ATTEMPTS: Final = ("read", "write")


class Rights:
    """What `caller` may do. Each method raises `PermissionRefused` for what it may not."""

    def __init__(self, caller: Caller) -> None:
        self.caller: Final = caller

    def has(self, right: str) -> bool:
        """Whether it has a right of `tokens.RIGHTS`, wherever."""
        if self.caller.token is not None:
            return right in self.caller.rights
        return self.caller.attempt is None or right in _OF_ATTEMPTS

    def sees(self, path: str) -> bool:
        """Whether it may know that something is at `path`."""
        return is_within(path, self.caller.read_prefix)

    def see(self, path: str) -> None:
        if not self.sees(path):
            raise self._elsewhere("sees what is", self.caller.read_prefix, path)

    def read(self, path: str) -> None:
        self.need("read", f"reads {path!r}")
        self.see(path)

    def read_parameters(self, kernels: Iterable[BoundKernel]) -> None:
        """Of the streams among the parameters of kernels: what they hold shows in the result."""
        for kernel in kernels:
            for param in kernel.params.values():
                if isinstance(param, StreamParam):
                    self.read(param.path)

    def write(self, path: str) -> None:
        self.need("write", f"writes {path!r}")
        if not is_within(path, self.caller.write_prefix):
            raise self._elsewhere("may write", self.caller.write_prefix, path)

    def delete(self, path: str) -> None:
        """As `write`; of tokens, only those that administer take away what is there."""
        if self.caller.token is not None:
            self.administer(f"deletes {path!r}", path)
        else:
            self.write(path)

    def administer(self, what: str, path: str = "") -> None:
        """For `what`, below `path`; '' is the buffer as a whole."""
        if self.caller.attempt is not None:
            raise PermissionRefused(f"a job's attempt may not do that: only the operator {what}")
        self.need("admin", what)
        if not is_within(path, self.caller.write_prefix):
            raise self._elsewhere(f"{what}", self.caller.write_prefix, path)

    def whole(self, right: str, what: str) -> None:
        """For what tells of all collections or changes something for all."""
        self.need(right, what)
        if self.caller.token is not None and self.caller.read_prefix:
            raise self._elsewhere(what, self.caller.read_prefix, "")

    def need(self, right: str, what: str) -> None:
        if not self.has(right):
            raise PermissionRefused(
                f"token {self.caller.token} has {', '.join(self.caller.rights)}, but {what} who has {right!r}; "
                "ask whoever handed it out for another one",
                right=right,
            )

    @staticmethod
    def _elsewhere(what: str, prefix: str, path: str) -> PermissionRefused:
        where = repr(path) if path else "everywhere"
        return PermissionRefused(f"this token {what} below {prefix!r} only, not {where}", prefix=prefix)

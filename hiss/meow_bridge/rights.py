"""What a job may do to patterns, recipes and other jobs: with the right `rules`, whatever its own pattern may do.

Nobody grants more than he has. So a job may add, change or remove a pattern only if the jobs of that pattern can write
nowhere but where the job itself may, and have no right that it lacks; a recipe only if that holds for each pattern that
names it, since the recipe's code runs with their rights. A person may do everything. Pure functions over what the
caller is and what the rule book holds; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hiss.errors import PermissionRefused
from hiss.meow_bridge.file_paths import is_file
from hiss.model import Caller
from hiss.workflow import Pattern

RULES: Final = "rules"


def check_may(caller: Caller, what: str) -> None:
    """Raises `PermissionRefused` for a job without the right `rules`."""
    if caller.attempt is not None and RULES not in caller.rights:
        raise PermissionRefused(
            f"job {caller.attempt.partition('.')[0][:12]} {what}; its pattern gives it no right to: a pattern with "
            f"rights=[{RULES!r}] does",
            job=caller.attempt,
        )


def check_patterns(caller: Caller, patterns: Iterable[Pattern], what: str) -> None:
    """Raises `PermissionRefused` where one of the patterns gives its jobs what the caller has not."""
    check_may(caller, what)
    if caller.attempt is None:
        return
    for pattern in patterns:
        more = sorted(set(pattern.rights) - set(caller.rights))
        if more:
            raise PermissionRefused(
                f"{what}: jobs of pattern {pattern.name!r} have the right {more[0]!r}, the one that asks has not"
            )
        below = writes_below(pattern)
        if not _is_within(below, caller.write_prefix):
            raise PermissionRefused(
                f"{what}: jobs of pattern {pattern.name!r} may write below {below or 'whatever matches'!r}, the one "
                f"that asks below {caller.write_prefix!r} only; give `writes` within that",
                prefix=caller.write_prefix,
            )


def writes_below(pattern: Pattern) -> str:
    """The path below which all jobs of a pattern write, as far as the pattern itself says; '' for anywhere."""
    if pattern.writes is None:
        if is_file(pattern.trigger):
            return f"files/{pattern.name}"
        first = pattern.trigger.partition("/")[0]
        return "" if "*" in first or "?" in first else first
    literal, brace, _ = pattern.writes.partition("{")
    return literal.rpartition("/")[0] if brace else literal


def _is_within(path: str, prefix: str) -> bool:
    return not prefix or path == prefix or path.startswith(prefix + "/")

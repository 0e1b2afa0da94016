"""What a caller may do to patterns, recipes and jobs, and which of them he sees.

A job with the right `rules` may do whatever its own pattern may, whoever shows a token with the right `run` whatever
that token may. Nobody grants more than he has. So they may add, change or remove a pattern only if its jobs can write
nowhere but where they themselves may, if it looks at nothing but what they may see, and if its jobs have no right that
they lack; a recipe only if that holds for each pattern that names it, since the recipe's code runs with their rights. A
token shows rules and jobs below its prefix. The owner may do everything. Pure functions over what the caller is and
what the rule book holds; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hiss.errors import PermissionRefused
from hiss.meow_bridge.file_paths import is_file
from hiss.meow_bridge.trigger import is_glob
from hiss.model import Caller
from hiss.tokens import is_within
from hiss.workflow import Job, Pattern

RULES: Final = "rules"
RUN: Final = "run"


def check_may(caller: Caller, what: str) -> None:
    """Raises `PermissionRefused` for a job without the right `rules`, and for a token without `run`."""
    if caller.token is not None and RUN not in caller.rights:
        raise PermissionRefused(
            f"token {caller.token} {what}; it has {', '.join(caller.rights)}, and that takes one with {RUN!r}: recipes "
            "are code",
            token=caller.token,
        )
    if caller.attempt is not None and RULES not in caller.rights:
        raise PermissionRefused(
            f"job {caller.attempt.partition('.')[0][:12]} {what}; its pattern gives it no right to: a pattern with "
            f"rights=[{RULES!r}] does",
            job=caller.attempt,
        )


def check_patterns(caller: Caller, patterns: Iterable[Pattern], what: str) -> None:
    """Raises `PermissionRefused` where one of the patterns gives its jobs what the caller has not."""
    check_may(caller, what)
    if not is_limited(caller):
        return
    for pattern in patterns:
        more = sorted(set(pattern.rights) - set(caller.rights))
        if more and caller.token is None:
            raise PermissionRefused(
                f"{what}: jobs of pattern {pattern.name!r} have the right {more[0]!r}, the one that asks has not"
            )
        below = writes_below(pattern)
        if not sees_pattern(caller, pattern):
            raise PermissionRefused(
                f"{what}: pattern {pattern.name!r} looks at {pattern.trigger!r}, the one that asks sees what is below "
                f"{caller.read_prefix!r} only",
                prefix=caller.read_prefix,
            )
        if not is_within(below, caller.write_prefix):
            raise PermissionRefused(
                f"{what}: jobs of pattern {pattern.name!r} may write below {below or 'whatever matches'!r}, the one "
                f"that asks below {caller.write_prefix!r} only; give `writes` within that",
                prefix=caller.write_prefix,
            )


def is_limited(caller: Caller) -> bool:
    """Whether there is anything that the caller may not do."""
    return caller.attempt is not None or caller.token is not None


def check_sees(caller: Caller, what: str) -> None:
    """Raises `PermissionRefused` for a token that neither reads nor runs anything."""
    if caller.token is not None and not {RUN, "read"} & set(caller.rights):
        raise PermissionRefused(f"token {caller.token} {what}; that takes one with 'read'", token=caller.token)


def sees_pattern(caller: Caller, pattern: Pattern) -> bool:
    """Whether all that a pattern looks at may be seen."""
    literal: list[str] = []
    for part in pattern.trigger.split("/"):
        if is_glob(part):
            break
        literal.append(part)
    return is_within("/".join(literal), caller.read_prefix)


def sees_recipe(caller: Caller, recipe: str, patterns: Iterable[Pattern]) -> bool:
    """Whether a recipe is used where the caller may look only, or nowhere."""
    return all(sees_pattern(caller, pattern) for pattern in patterns if pattern.recipe == recipe)


def sees_job(caller: Caller, job: Job) -> bool:
    return is_within(job.path, caller.read_prefix)


def writes_below(pattern: Pattern) -> str:
    """The path below which all jobs of a pattern write, as far as the pattern itself says; '' for anywhere."""
    if pattern.writes is None:
        if is_file(pattern.trigger):
            return f"files/{pattern.name}"
        first = pattern.trigger.partition("/")[0]
        return "" if "*" in first or "?" in first else first
    literal, brace, _ = pattern.writes.partition("{")
    return literal.rpartition("/")[0] if brace else literal

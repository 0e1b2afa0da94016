"""Triggers: globs over paths, and the index that finds the triggers of a path without trying each.

`*` stands for any run of characters within one part of a path and `?` for one of them; a part `**` stands for any
number of whole parts, none included. Nothing but its own name stands for the part `_jobs`, where executed notebooks
are kept, or every job with a notebook would start the next. Triggers over watched files begin with `file:/`.

The index is a tree over the parts of triggers. Below each node literal parts are found in a dict, globs by the
literal text that they begin with; so the cost of a look-up grows with what matches and with the length of the path,
not with the number of triggers. Globs run as regular expressions without backtracking. Not thread-safe: the engine's
lock covers it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from hiss import limits
from hiss.errors import InvalidPattern
from hiss.meow_bridge.file_paths import file_trigger_parts, is_file

T = TypeVar("T")

JOBS_PART: Final = "_jobs"
DEEP: Final = "**"
_TRIGGER_PART = re.compile(r"[A-Za-z0-9_.\-*?]+")


def trigger_parts(trigger: str, owner: str = "pattern") -> tuple[str, ...]:
    """The parts of a trigger, checked; repeated `**` are one."""
    if is_file(trigger):
        return file_trigger_parts(trigger, owner)
    parts: list[str] = []
    for part in trigger.split("/"):
        if not _TRIGGER_PART.fullmatch(part) or (DEEP in part and part != DEEP):
            raise InvalidPattern(
                f"{owner}: trigger {trigger[:80]!r} has the part {part[:80]!r}; expected a name, in which "
                "'*' and '?' may stand for other characters, or '**' alone for any number of parts"
            )
        if part != DEEP or parts[-1:] != [DEEP]:
            parts.append(part)
    if len(parts) > limits.PATH_PARTS_MAX:
        raise InvalidPattern(
            f"{owner}: trigger {trigger[:80]!r} has {len(parts)} parts, allowed {limits.PATH_PARTS_MAX}"
        )
    return tuple(parts)


def is_glob(part: str) -> bool:
    return "*" in part or "?" in part


def compile_part(part: str) -> re.Pattern[str]:
    """One part of a trigger as a regular expression that takes time linear in the name for each `*`.

    The text between two stars is sought at its first place, atomically: a later place can never help.
    """
    first, *rest = [re.escape(piece).replace(r"\?", ".") for piece in part.split("*")]
    if not rest:
        return re.compile(first)
    middle = "".join(f"(?>.*?{piece})" for piece in rest[:-1])
    return re.compile(f"{first}{middle}.*{rest[-1]}")


def matches(trigger: str, path: str) -> bool:
    """Whether one trigger matches one path."""
    index: TriggerIndex[bool] = TriggerIndex()
    index.add(trigger, True)
    return any(index.matching(path))


@dataclass
class _Node(Generic[T]):
    values: list[T] = field(default_factory=list)
    literal: dict[str, _Node[T]] = field(default_factory=dict)
    globs: dict[str, dict[str, tuple[re.Pattern[str], _Node[T]]]] = field(default_factory=dict)  # by literal prefix
    deep: _Node[T] | None = None
    is_deep: bool = False

    def empty(self) -> bool:
        return not (self.values or self.literal or self.globs or self.deep)

    def child(self, part: str) -> _Node[T]:
        """The node below for this part of a trigger, made if it is not there."""
        if part == DEEP:
            if self.deep is None:
                self.deep = _Node(is_deep=True)
            return self.deep
        if not is_glob(part):
            return self.literal.setdefault(part, _Node())
        group = self.globs.setdefault(_literal_prefix(part), {})
        if part not in group:
            group[part] = (compile_part(part), _Node())
        return group[part][1]

    def drop(self, part: str) -> None:
        if part == DEEP:
            self.deep = None
        elif not is_glob(part):
            del self.literal[part]
        else:
            prefix = _literal_prefix(part)
            del self.globs[prefix][part]
            if not self.globs[prefix]:
                del self.globs[prefix]

    def step(self, name: str) -> Iterator[_Node[T]]:
        """The nodes that one part of a path leads to."""
        if name in self.literal:
            yield self.literal[name]
        if name == JOBS_PART:
            return
        if self.is_deep:
            yield self
        if self.globs:
            for end in range(len(name) + 1):
                for pattern, node in self.globs.get(name[:end], {}).values():
                    if pattern.fullmatch(name):
                        yield node


class TriggerIndex(Generic[T]):
    """Values by trigger, looked up by path."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, trigger: str, value: T) -> None:
        node = self._root
        for part in trigger_parts(trigger):
            node = node.child(part)
        node.values.append(value)

    def remove(self, trigger: str, value: T) -> None:
        """Take `value` out, and the nodes that nothing needs any more."""
        way = [self._root]
        parts = trigger_parts(trigger)
        for part in parts:
            way.append(way[-1].child(part))
        way[-1].values.remove(value)
        for part, parent, node in zip(reversed(parts), reversed(way[:-1]), reversed(way), strict=False):
            if not node.empty():
                return
            parent.drop(part)

    def matching(self, path: str) -> list[T]:
        """The values of all triggers that match, in no particular order, each once."""
        nodes = _with_deep([self._root])
        for name in path.split("/"):
            nodes = _with_deep([child for node in nodes for child in node.step(name)])
        return [value for node in nodes for value in node.values]


def _with_deep(nodes: list[_Node[T]]) -> list[_Node[T]]:
    """These nodes and those that `**` for no part at all leads to, each once."""
    found = {id(node): node for node in nodes}
    for node in nodes:
        if node.deep is not None:
            found[id(node.deep)] = node.deep
    return list(found.values())


def _literal_prefix(part: str) -> str:
    return re.split(r"[*?]", part, maxsplit=1)[0]

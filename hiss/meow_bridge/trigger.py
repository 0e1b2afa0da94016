"""Triggers: globs over paths, and the index that finds the triggers of a path without trying each.

`*` stands for any run of characters within one part of a path and `?` for one of them; a part `**` stands for any
number of whole parts, none included. Nothing but its own name stands for the part `_jobs`, where executed notebooks
are kept, or every job with a notebook would start the next. Triggers over watched files begin with `file:/`.

The index looks a path up as a whole among the triggers without globs, and walks a tree over the parts of the others.
Below each of its nodes literal parts are found in a dict, and globs by what they say literally: how they begin, how
they end, and their longest piece in between. All globs of one *shape*, which is the lengths of these three, share a
dict from the three texts, so that a name is cut once for each shape and not tried with each glob. A trigger's last glob
is looked up together with the literal parts that follow it, which leads to its values at once: among many triggers a
look-up takes as long as the objects that it has to fetch from memory. Its cost grows with what matches, with the length
of the path, and with the number of different shapes, not with the number of triggers. What is found so is tried as a
regular expression without backtracking, unless nothing is left to try. Not thread-safe: the engine's lock covers it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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


Ends = tuple[int, int]  # characters of a glob's beginning and of its end
Shape = tuple[int, int, int]  # and of its longest piece in between


class _Node(Generic[T]):
    """What has been matched so far. Its dicts are made when they are needed: most nodes of many have none."""

    __slots__ = ("deep", "globs", "is_deep", "lasts", "literal", "values")

    def __init__(self, is_deep: bool = False) -> None:
        self.values: list[T] | None = None
        self.literal: dict[str, _Node[T]] | None = None
        self.globs: _Globs[T] | None = None
        self.lasts: dict[Ends, dict[str, list[T]]] | None = None  # values of a last glob and the literal rest
        self.deep: _Node[T] | None = None
        self.is_deep = is_deep

    def empty(self) -> bool:
        return not (self.values or self.literal or self.globs or self.lasts or self.deep)

    def child(self, part: str) -> _Node[T]:
        """The node below for this part of a trigger, made if it is not there."""
        if part == DEEP:
            if self.deep is None:
                self.deep = _Node(is_deep=True)
            return self.deep
        if is_glob(part):
            if self.globs is None:
                self.globs = _Globs()
            return self.globs.node(part)
        if self.literal is None:
            self.literal = {}
        return self.literal.setdefault(part, _Node())

    def drop(self, part: str) -> None:
        if part == DEEP:
            self.deep = None
        elif is_glob(part):
            assert self.globs is not None
            self.globs.drop(part)
            if self.globs.empty():
                self.globs = None
        else:
            assert self.literal is not None
            del self.literal[part]

    def add_last(self, parts: Sequence[str], value: T) -> None:
        ends, key = _last_place(parts)
        if self.lasts is None:
            self.lasts = {}
        self.lasts.setdefault(ends, {}).setdefault(key, []).append(value)

    def remove_last(self, parts: Sequence[str], value: T) -> None:
        ends, key = _last_place(parts)
        assert self.lasts is not None
        self.lasts[ends][key].remove(value)
        if not self.lasts[ends][key]:
            del self.lasts[ends][key]
        if not self.lasts[ends]:
            del self.lasts[ends]
        if not self.lasts:
            self.lasts = None


class _Glob(Generic[T]):
    """One part of a trigger with `*` or `?`, that has to be tried, and the node that it leads to."""

    __slots__ = ("_compiled", "node", "part")

    def __init__(self, part: str) -> None:
        self.part = part
        self.node: _Node[T] = _Node()
        self._compiled: re.Pattern[str] | None = None

    def matches(self, name: str) -> bool:
        if self._compiled is None:
            self._compiled = compile_part(self.part)
        return self._compiled.fullmatch(name) is not None


class _Globs(Generic[T]):
    """The globs below one node, by shape and by what they say literally."""

    __slots__ = ("decided", "tried")

    def __init__(self) -> None:
        self.decided: dict[Ends, dict[str, _Node[T]]] = {}
        self.tried: dict[Shape, dict[str, list[_Glob[T]]]] = {}

    def empty(self) -> bool:
        return not (self.decided or self.tried)

    def node(self, part: str) -> _Node[T]:
        (first, last, middle), key = _place(part)
        if is_decided(part):
            return self.decided.setdefault((first, last), {}).setdefault(key, _Node())
        group = self.tried.setdefault((first, last, middle), {}).setdefault(key, [])
        for glob in group:
            if glob.part == part:
                return glob.node
        group.append(_Glob(part))
        return group[-1].node

    def drop(self, part: str) -> None:
        (first, last, middle), key = _place(part)
        if is_decided(part):
            del self.decided[first, last][key]
            if not self.decided[first, last]:
                del self.decided[first, last]
            return
        groups = self.tried[first, last, middle]
        groups[key] = [glob for glob in groups[key] if glob.part != part]
        if not groups[key]:
            del groups[key]
        if not groups:
            del self.tried[first, last, middle]

    def step(self, name: str, found: list[_Node[T]]) -> None:
        """Add the nodes that `name` leads to."""
        size = len(name)
        for (first, last), nodes in self.decided.items():
            node = nodes.get(f"{name[:first]}*{name[size - last :]}")
            if node is not None and size >= first + last:
                found.append(node)
        for (first, last, middle), groups in self.tried.items():
            if size < first + last + middle:
                continue
            begin, end = name[:first], name[size - last :]
            pieces = (
                {f"*{name[at : at + middle]}" for at in range(first, size - last - middle + 1)} if middle else ("",)
            )
            for piece in pieces:
                group = groups.get(f"{begin}{piece}*{end}")
                if group is not None:
                    found += [glob.node for glob in group if glob.matches(name)]


class TriggerIndex(Generic[T]):
    """Values by trigger, looked up by path."""

    def __init__(self) -> None:
        self._whole: dict[str, list[T]] = {}  # of the triggers without globs
        self._root: _Node[T] = _Node()
        self._deep = 0  # triggers with `**`

    def add(self, trigger: str, value: T) -> None:
        parts = trigger_parts(trigger)
        if not any(map(is_glob, parts)):
            self._whole.setdefault(trigger, []).append(value)
            return
        self._deep += DEEP in parts
        last = _last_glob(parts)
        node = self._root
        for part in parts[:last]:
            node = node.child(part)
        if last is not None:
            node.add_last(parts[last:], value)
            return
        if node.values is None:
            node.values = []
        node.values.append(value)

    def remove(self, trigger: str, value: T) -> None:
        """Take `value` out, and the nodes that nothing needs any more."""
        parts = trigger_parts(trigger)
        if not any(map(is_glob, parts)):
            self._whole[trigger].remove(value)
            if not self._whole[trigger]:
                del self._whole[trigger]
            return
        self._deep -= DEEP in parts
        last = _last_glob(parts)
        way = [self._root]
        for part in parts[:last]:
            way.append(way[-1].child(part))
        if last is not None:
            way[-1].remove_last(parts[last:], value)
        else:
            values = way[-1].values
            assert values is not None
            values.remove(value)
        for part, parent, node in zip(reversed(parts[:last]), reversed(way[:-1]), reversed(way), strict=False):
            if not node.empty():
                return
            parent.drop(part)

    def matching(self, path: str) -> list[T]:
        """The values of all triggers that match, in no particular order, each once."""
        whole = self._whole.get(path)
        values = [] if whole is None else whole.copy()
        nodes = _with_deep([self._root]) if self._deep else [self._root]
        end = -1
        for name in path.split("/"):
            end += 1 + len(name)  # of this part
            found: list[_Node[T]] = []
            for node in nodes:
                if node.literal is not None:
                    child = node.literal.get(name)
                    if child is not None:
                        found.append(child)
                if name == JOBS_PART:
                    continue
                if node.is_deep:
                    found.append(node)
                if node.globs is not None:
                    node.globs.step(name, found)
                if node.lasts is not None:
                    size = len(name)
                    for (first, last), ways in node.lasts.items():
                        some = ways.get(f"{name[:first]}*{name[size - last :]}{path[end:]}")
                        if some is not None and size >= first + last:
                            values += some
            if not found:
                return values
            nodes = _with_deep(found) if self._deep else found
        for node in nodes:
            if node.values is not None:
                values += node.values
        return values


def _with_deep(nodes: list[_Node[T]]) -> list[_Node[T]]:
    """These nodes and those that `**` for no part at all leads to, each once."""
    deep = [node.deep for node in nodes if node.deep is not None]
    if not deep:
        return nodes
    return list({id(node): node for node in (*nodes, *deep)}.values())


def is_decided(part: str) -> bool:
    """Whether a glob's beginning and its end are all that it asks."""
    return part.count("*") == 1 and "?" not in part


def _last_glob(parts: Sequence[str]) -> int | None:
    """Where the trigger's last glob stands, if it is decided by its beginning and its end."""
    last = max(place for place, part in enumerate(parts) if is_glob(part))
    return last if is_decided(parts[last]) else None


def _last_place(parts: Sequence[str]) -> tuple[Ends, str]:
    """Of a decided glob and the literal parts after it."""
    (first, last, _), key = _place(parts[0])
    return (first, last), "/".join((key, *parts[1:]))


def _place(part: str) -> tuple[Shape, str]:
    """Where a glob stands in the index: its shape, and the key of what it says literally."""
    first, *between, last = re.split(r"[*?]", part)
    middle = max(between, key=len, default="")
    key = f"{first}*{middle}*{last}" if middle else f"{first}*{last}"
    return (len(first), len(last), len(middle)), key

"""Triggers match what a naive matcher says, alone and in an index of many that changes."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiss.errors import InvalidPattern
from hiss.meow_bridge.trigger import TriggerIndex, _Glob, compile_part, matches, trigger_parts


def naive_part(glob: str, name: str) -> bool:
    """One part, by trying every way."""
    if not glob:
        return not name
    if glob[0] == "*":
        return naive_part(glob[1:], name) or (bool(name) and naive_part(glob, name[1:]))
    return bool(name) and glob[0] in ("?", name[0]) and naive_part(glob[1:], name[1:])


def naive(trigger: list[str], path: list[str]) -> bool:
    if not trigger:
        return not path
    if trigger[0] == "**":
        stands = bool(path) and path[0] != "_jobs"
        return naive(trigger[1:], path) or (stands and naive(trigger, path[1:]))
    if not path or (path[0] == "_jobs" and trigger[0] != "_jobs"):
        return False
    return naive_part(trigger[0], path[0]) and naive(trigger[1:], path[1:])


NAMES = st.one_of(st.text("ab.", min_size=1, max_size=5), st.just("_jobs"))
GLOBS = st.one_of(st.text("ab.*?", min_size=1, max_size=6).filter(lambda part: "**" not in part), st.just("**"), NAMES)
PATHS = st.lists(NAMES, min_size=1, max_size=6)
TRIGGERS = st.lists(GLOBS, min_size=1, max_size=6)


@given(TRIGGERS, PATHS)
def test_one_trigger(trigger: list[str], path: list[str]) -> None:
    assert matches("/".join(trigger), "/".join(path)) == naive(trigger, path)


@given(st.lists(st.tuples(TRIGGERS, st.booleans()), max_size=12), st.lists(PATHS, min_size=1, max_size=6), st.randoms())
def test_an_index_that_changes(
    entries: list[tuple[list[str], bool]], paths: list[list[str]], order: random.Random
) -> None:
    index: TriggerIndex[int] = TriggerIndex()
    for number, (trigger, _) in enumerate(entries):
        index.add("/".join(trigger), number)
    gone = [number for number, (_, goes) in enumerate(entries) if goes]
    order.shuffle(gone)
    for number in gone:
        index.remove("/".join(entries[number][0]), number)
    for path in paths:
        expected = [n for n, (trigger, goes) in enumerate(entries) if not goes and naive(trigger, path)]
        assert sorted(index.matching("/".join(path))) == expected


def test_an_emptied_index_keeps_nothing() -> None:
    index: TriggerIndex[str] = TriggerIndex()
    for trigger in ("a/b*/c", "**/d", "a/b*/**", "x"):
        index.add(trigger, trigger)
        index.add(trigger, trigger)
    for trigger in ("a/b*/c", "**/d", "a/b*/**", "x"):
        index.remove(trigger, trigger)
        index.remove(trigger, trigger)
    assert index._root.empty()
    assert not index._whole


@pytest.mark.parametrize(
    ("trigger", "path", "expected"),
    [
        ("beamtime42/*/proj", "beamtime42/scan7/proj", True),
        ("beamtime42/*/proj", "beamtime42/scan7/proj.raw", False),
        ("beamtime42/*/proj", "beamtime42/a/b/proj", False),
        ("beamtime42/**/proj", "beamtime42/a/b/proj", True),
        ("beamtime42/**/proj", "beamtime42/proj", True),
        ("**", "a/b", True),
        ("scan?/x", "scan7/x", True),
        ("scan?/x", "scan/x", False),
        ("a.c/x", "abc/x", False),
        ("**", "a/_jobs/1.ipynb", False),
        ("a/*/*", "a/_jobs/1.ipynb", False),
        ("a/_jobs/*", "a/_jobs/1.ipynb", True),
    ],
)
def test_examples(trigger: str, path: str, expected: bool) -> None:
    assert matches(trigger, path) is expected


@pytest.mark.parametrize(
    "trigger", ["", "/a", "a/", "a//b", "a**/b", "a/b***", "a/[b]", "a b/c", "a/../é", "/".join("a" * 17)]
)
def test_what_cannot_be_a_trigger(trigger: str) -> None:
    with pytest.raises(InvalidPattern, match="trigger"):
        trigger_parts(trigger)


def test_many_stars_take_no_exponential_time() -> None:
    """With a backtracking expression this would not end."""
    part = compile_part("*a" * 40 + "b")
    assert part.fullmatch("a" * 128) is None
    assert isinstance(part, re.Pattern)


def test_a_lookup_steps_through_few_nodes_of_many_triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost grows with what matches, not with the number of rules."""
    index: TriggerIndex[int] = TriggerIndex()
    for number in range(5000):
        index.add(f"beamtime{number}/scan*/proj", number)
        index.add(f"one/proj{number}-*", number)
        index.add(f"two/*-{number}_?", number)
        index.add(f"three/*x{number}y*", number)
    tried: list[str] = []
    matches = _Glob.matches

    def counting(glob: _Glob[int], name: str) -> bool:
        tried.append(name)
        return matches(glob, name)

    monkeypatch.setattr(_Glob, "matches", counting)
    assert index.matching("beamtime77/scan3/proj") == [77]
    assert index.matching("one/proj4711-a") == [4711]
    assert index.matching("two/a-4711_b") == [4711]
    assert index.matching("three/x4711y") == [4711]
    assert len(tried) <= 2

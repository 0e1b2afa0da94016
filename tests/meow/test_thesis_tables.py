"""Each row of the tables of requirements in the MEOW thesis (6.1 to 6.3) by its number, in the small.

`test_rules_machine` holds all of them to any sequence of steps; what lies behind each row has its own module.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hiss.errors import InvalidRecipe
from hiss.meow_bridge import Engine
from hiss.workflow import JobState, Recipe, RecipeKind

from .conftest import deal, finished, pattern, script
from .memory_store import MemoryStore

MakeEngine = Callable[..., Engine]


@pytest.fixture
def still(make_engine: MakeEngine) -> Engine:
    """Without threads: events are dealt with by `deal`, jobs wait."""
    return make_engine(start=False)


def made(engine: Engine) -> set[tuple[str, str]]:
    """Pattern and path of each job that waits."""
    return {(job.pattern, job.path) for job in engine.jobs(state=JobState.QUEUED)}


def ruled(engine: Engine) -> set[tuple[str, str]]:
    return {(rule.pattern, rule.recipe) for rule in engine.rules()}


# ---- table 6.1: recipes


def test_r1_a_recipe_has_a_unique_name(still: Engine) -> None:
    still.add(script("r", "1"))
    still.add(script("s", "1"))
    still.add(script("r", "2"))
    assert {recipe.name: recipe.body for recipe in still.recipes()} == {"r": "2", "s": "1"}


def test_r2_a_recipe_holds_runnable_code(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "print(6 * 7)"))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/x")
    assert finished(engine, 1)[0].output == "42\n"
    with pytest.raises(InvalidRecipe):
        engine.add(Recipe("broken", "print(", kind=RecipeKind.SCRIPT))


def test_r3_a_recipe_makes_a_rule_with_every_pattern_that_names_it(still: Engine) -> None:
    for name, recipe in (("p", "r"), ("q", "r"), ("other", "s")):
        still.add(pattern(name, "a/*", recipe))
    assert ruled(still) == set()
    still.add(script("r", "1"))
    assert ruled(still) == {("p", "r"), ("q", "r")}


def test_r4_removing_a_recipe_removes_its_rules_at_once(still: Engine, store: MemoryStore) -> None:
    for name in ("r", "s"):
        still.add(script(name, "1"))
        still.add(pattern(f"with-{name}", "a/*", name))
    still.remove_recipe("r")
    assert ruled(still) == {("with-s", "s")}
    store.seal("a/x")
    deal(still, store)
    assert made(still) == {("with-s", "a/x")}


def test_r5_changing_a_recipe_is_removing_it_and_creating_it_anew(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    still.add(pattern("p", "a/*", "r"))
    store.seal("a/x")
    deal(still, store)
    (before,) = still.rules()
    still.add(script("r", "2"))
    (after,) = still.rules()
    assert before.id != after.id
    assert {job.rule: job.state for job in still.jobs()} == {before.id: JobState.CANCELLED, after.id: JobState.QUEUED}


# ---- table 6.2: patterns


def test_p1_a_pattern_has_a_unique_name(still: Engine) -> None:
    still.add(pattern("p", "a/*", "r"))
    still.add(pattern("q", "a/*", "r"))
    still.add(pattern("p", "b/*", "r"))
    assert {each.name: each.trigger for each in still.patterns()} == {"p": "b/*", "q": "a/*"}


def test_p2_a_pattern_names_its_recipe(still: Engine) -> None:
    still.add(script("r", "1"))
    still.add(script("s", "1"))
    still.add(pattern("p", "a/*", "s"))
    assert ruled(still) == {("p", "s")}


def test_p3_a_pattern_holds_the_filter_of_events(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    still.add(pattern("p", "a/*/proj", "r", where={"technique": "tomography"}))
    for path, attrs in (("a/1/proj", {"technique": "tomography"}), ("a/2/proj", {}), ("a/1/dark", {})):
        store.seal(path, attrs=attrs)
    deal(still, store)
    assert made(still) == {("p", "a/1/proj")}


def test_p4_a_pattern_holds_the_variables_of_the_recipe(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "print(centre, filter)"))
    engine.add(pattern("p", "a/*", "r", variables={"centre": 296, "filter": "ramp"}))
    store.seal("a/x")
    assert finished(engine, 1)[0].output == "296 ramp\n"


def test_p5_a_pattern_makes_a_rule_if_its_recipe_is_there(still: Engine) -> None:
    still.add(script("r", "1"))
    still.add(pattern("p", "a/*", "r"))
    still.add(pattern("q", "a/*", "absent"))
    assert ruled(still) == {("p", "r")}


def test_p6_removing_a_pattern_removes_its_rule_at_once(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    for name in ("p", "q"):
        still.add(pattern(name, "a/*", "r"))
    still.remove_pattern("p")
    assert ruled(still) == {("q", "r")}
    store.seal("a/x")
    deal(still, store)
    assert made(still) == {("q", "a/x")}


def test_p7_changing_a_pattern_is_removing_it_and_creating_it_anew(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    still.add(pattern("p", "a/*", "r"))
    store.seal("a/x")
    store.seal("b/x")
    deal(still, store)
    (before,) = still.rules()
    still.add(pattern("p", "b/*", "r"))
    (after,) = still.rules()
    assert before.id != after.id
    assert {(job.path, job.state) for job in still.jobs()} == {
        ("a/x", JobState.CANCELLED),
        ("b/x", JobState.QUEUED),
    }


# ---- table 6.3: monitoring


def test_m1_a_rule_is_uniquely_identified(make_engine: MakeEngine) -> None:
    engine = make_engine(start=False)
    engine.add(script("r", "1"))
    for name in ("p", "q"):
        engine.add(pattern(name, "a/*", "r"))
    ids = {rule.pattern: rule.id for rule in engine.rules()}
    assert len(set(ids.values())) == 2
    engine.stop()
    assert {rule.pattern: rule.id for rule in make_engine(start=False).rules()} == ids, "for good"


def test_m2_a_rule_takes_its_filter_from_the_pattern(still: Engine) -> None:
    still.add(script("r", "1"))
    still.add(pattern("p", "a/*", "r", event="stream.aborted"))
    (rule,) = still.rules()
    assert (rule.trigger, rule.event) == ("a/*", "stream.aborted")


def test_m3_a_rule_links_the_pattern_and_the_recipe(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    still.add(pattern("p", "a/*", "r"))
    store.seal("a/x")
    deal(still, store)
    (rule,), (job,) = still.rules(), still.jobs()
    assert (rule.pattern, rule.recipe) == (job.pattern, job.recipe) == ("p", "r")
    assert job.rule == rule.id


def test_m4_one_store_is_monitored(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    still.add(pattern("all", "**", "r"))
    still.add(pattern("part", "a/**", "r"))
    for path in ("a/x", "b/x"):
        store.seal(path)
    deal(still, store)
    assert made(still) == {("all", "a/x"), ("all", "b/x"), ("part", "a/x")}


def test_m5_with_everything_below_it(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    still.add(pattern("p", "a/**", "r"))
    deep = "a/" + "/".join(f"d{number}" for number in range(10))
    for path in ("a/x", "a/b/x", f"{deep}/x"):
        store.seal(path)
    deal(still, store)
    assert made(still) == {("p", "a/x"), ("p", "a/b/x"), ("p", f"{deep}/x")}


def test_m6_no_event_is_missed(make_engine: MakeEngine, store: MemoryStore) -> None:
    """Neither while the buffer is away, nor while no engine runs."""
    engine = make_engine()
    engine.add(script("r", "1"))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/first")
    finished(engine, 1)
    store.set_away(True)
    store.set_away(False)
    store.seal("a/second")
    finished(engine, 2)
    engine.stop()
    store.seal("a/third")
    assert [job.path for job in finished(make_engine(), 3)] == ["a/first", "a/second", "a/third"]


def test_m7_every_event_is_compared_with_every_rule(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    triggers = {"all": "**", "top": "a/*", "ending": "**/*.h5", "one": "a/x.h5", "none": "c/*"}
    for name, trigger in triggers.items():
        still.add(pattern(name, trigger, "r"))
    for path in ("a/x.h5", "a/y", "b/z.h5"):
        store.seal(path)
    deal(still, store)
    assert made(still) == {
        *((name, "a/x.h5") for name in ("all", "top", "ending", "one")),
        *((name, "a/y") for name in ("all", "top")),
        *((name, "b/z.h5") for name in ("all", "ending")),
    }


def test_m8_by_its_properties(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    conditions = {
        "kind": {"event": "stream.aborted"},
        "attribute": {"where": {"good": True}},
        "whole": {"complete_only": True},
        "any": {},
    }
    for name, condition in conditions.items():
        still.add(pattern(name, "a/*", "r", **condition))
    store.seal("a/good", attrs={"good": True})
    store.seal("a/gappy", gaps=2)
    deal(still, store)
    assert made(still) == {
        *((name, "a/good") for name in ("attribute", "whole", "any")),
        ("any", "a/gappy"),
    }


def test_m9_a_match_makes_jobs_as_the_pattern_says(still: Engine, store: MemoryStore) -> None:
    still.add(script("r", "1"))
    still.add(pattern("p", "a/*", "r", variables={"fixed": 1}, sweep={"a": [1, 2], "b": ["x", "y", "z"]}))
    store.seal("a/x")
    deal(still, store)
    points = {(job.variables["fixed"], job.variables["a"], job.variables["b"]) for job in still.jobs()}
    assert points == {(1, a, b) for a in (1, 2) for b in "xyz"}
    assert len(still.jobs()) == 6


def test_m10_a_new_rule_meets_what_is_there(still: Engine, store: MemoryStore) -> None:
    for path in ("a/x", "a/deep/x", "b/x"):
        store.seal(path)
    still.add(script("r", "1"))
    still.add(pattern("p", "a/**", "r"))
    deal(still, store)
    assert made(still) == {("p", "a/x"), ("p", "a/deep/x")}
    assert len(still.jobs()) == 2, "once"


def test_m11_removing_a_rule_cancels_its_unfinished_jobs(engine: Engine, store: MemoryStore) -> None:
    engine.add(script("r", "pass"))
    engine.add(script("for-ever", "while True: pass"))
    engine.add(pattern("p", "a/*", "r"))
    store.seal("a/x")
    finished(engine, 1)
    engine.add(pattern("q", "a/*", "for-ever"))
    engine.remove_pattern("q")
    engine.remove_pattern("p")
    assert {job.pattern: job.state for job in finished(engine, 2)} == {"p": JobState.DONE, "q": JobState.CANCELLED}

"""Rules, patterns, recipes and jobs after any sequence of steps are those of a naive model (R1-R5, P1-P7, M1-M11); so
is what the limits of patterns hold back."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hiss.meow_bridge import Engine
from hiss.meow_bridge.identity import pattern_json
from hiss.model import Caller, Event
from hiss.workflow import JobState, Pattern, Recipe, RecipeKind

from .conftest import ROOM
from .memory_store import MemoryStore

IN_MEMORY = Path("/dev/shm")  # thousands of commits: not on a disk, where there is another place
PATHS = ["a/s1/proj", "a/s1/dark", "a/s2/proj", "b/proj"]
TRIGGERS = {  # and the paths of those above that they match, worked out by hand
    "a/*/proj": {"a/s1/proj", "a/s2/proj"},
    "**": set(PATHS),
    "a/s1/*": {"a/s1/proj", "a/s1/dark"},
    "b/proj": {"b/proj"},
    "**/dark": {"a/s1/dark"},
}
SWEEPS: list[dict[str, Any]] = [{}, {"x": [1, 2]}, {"x": {"start": 0, "stop": 1, "step": 0.5}, "y": ["k"]}]
POINTS: list[list[dict[str, Any]]] = [[{}], [{"x": 1}, {"x": 2}], [{"x": x, "y": "k"} for x in (0.0, 0.5, 1.0)]]
HOUR_NS = 3600 * 10**9
LIMITS: list[dict[str, Any]] = [
    {"jobs_expected": 2},
    {"jobs_an_hour": 2},
    {"jobs_an_hour": 1, "jobs_expected": 3},
    {"chain_jobs": 1},
    {"chain_jobs": 3, "jobs_an_hour": 4},
    {"lifetime_s": 2000.0},
    {"jobs_at_once": 1},
]

PATTERNS = st.builds(
    lambda name, trigger, recipe, sweep, where, complete, bounds: Pattern(
        name, trigger, recipe, sweep=SWEEPS[sweep], where=where, complete_only=complete, **bounds
    ),
    st.sampled_from(["p0", "p1", "p2"]),
    st.sampled_from(sorted(TRIGGERS)),
    st.sampled_from(["r0", "r1"]),
    st.integers(0, 2),
    st.sampled_from([{}, {}, {"kind": "good"}]),
    st.sampled_from([False, False, True]),
    st.sampled_from([*({} for _ in LIMITS), *LIMITS]),
)
RECIPES = st.builds(
    lambda name, body: Recipe(name, body, kind=RecipeKind.SCRIPT),
    st.sampled_from(["r0", "r1"]),
    st.sampled_from(["1", "2"]),
)

Key = tuple[str, str, str, str]  # event's id, pattern as JSON, recipe's body, sweep point as JSON


@dataclasses.dataclass
class ModelRule:
    pattern: Pattern
    body: str
    since: int
    created_ns: int


class Rules(RuleBasedStateMachine):
    @initialize(patterns=st.lists(PATTERNS, min_size=1, max_size=2), seals=st.lists(st.sampled_from(PATHS), max_size=3))
    def begin(self, patterns: list[Pattern], seals: list[str]) -> None:
        self.directory = Path(tempfile.mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.store = MemoryStore()
        self.now = 0
        self.store.clock_ns = self.clock_ns
        self.engine = self.new_engine()
        self.recipes: dict[str, str] = {}
        self.patterns: dict[str, tuple[Pattern, int]] = {}
        self.rules: dict[str, ModelRule] = {}
        self.jobs: dict[str, tuple[Key, str]] = {}  # by a name of the model's own: the key and the state
        self.chain: dict[str, int] = {}  # by the job's name, as in `jobs`
        self.admitted: dict[str, int] = {}  # when
        self.causes: dict[str, str] = {}  # the event's id to the job's name
        self.dealt_with = 0
        self.facts: dict[tuple[str, int], tuple[dict[str, Any], int]] = {}  # streams that exist
        self.add_recipe(Recipe("r0", "1", kind=RecipeKind.SCRIPT))  # so that most runs have rules from the start
        self.add_recipe(Recipe("r1", "1", kind=RecipeKind.SCRIPT))
        for path in seals:
            self.seal(path, True, 0)
        for pattern in patterns:
            self.add_pattern(pattern, True)

    def new_engine(self) -> Engine:
        engine = Engine(self.directory, self.store, lambda *_: {}, clock_ns=self.clock_ns)  # type: ignore[arg-type]
        engine._scheduler.adopt(self.store.node)  # as its threads do first
        return engine

    def clock_ns(self) -> int:
        self.now += 1
        return self.now

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.stop()
            shutil.rmtree(self.directory)

    # ---- the model

    def fits(self, rule: ModelRule, event: Event, must_exist: bool) -> bool:
        pattern = rule.pattern
        if event.path not in TRIGGERS[pattern.trigger]:
            return False
        facts = self.facts.get((event.path, event.version))
        if facts is None:
            return not (must_exist or pattern.where or pattern.complete_only)
        attrs, gaps = facts
        return all(attrs.get(key) == value for key, value in pattern.where.items()) and not (
            pattern.complete_only and gaps
        )

    def make_jobs(self, rule: ModelRule, event: Event) -> int:
        made = 0
        for point in POINTS[SWEEPS.index(dict(rule.pattern.sweep))]:
            key = (event.id, pattern_json(rule.pattern), rule.body, json.dumps(point, sort_keys=True))
            name = repr(key)
            state = self.jobs.get(name, (key, "none"))[1]
            if state in ("none", "with rule"):
                self.chain[name] = 1 + self.chain.get(self.causes.get(event.id, ""), 0)
                held = self.is_held(rule, event, key, self.chain[name])
                self.jobs[name] = (key, "held" if held else "queued")
                if not held:
                    self.admitted[name] = self.now
                made += 1
        return made

    def is_held(self, rule: ModelRule, event: Event, key: Key, chain: int) -> bool:
        pattern = rule.pattern
        counted = [at for name, at in self.admitted.items() if self.jobs[name][0][1:3] == key[1:3]]
        return (
            (pattern.chain_jobs is not None and chain > pattern.chain_jobs)
            or (pattern.lifetime_s is not None and event.time_ns > rule.created_ns + pattern.lifetime_s * 1e9)
            or (pattern.jobs_expected is not None and len(counted) >= pattern.jobs_expected)
            or (
                pattern.jobs_an_hour is not None
                and sum(at > self.now - HOUR_NS for at in counted) >= pattern.jobs_an_hour
            )
        )

    def drop_rule(self, pattern: str) -> None:
        rule = self.rules.pop(pattern, None)
        if rule is None:
            return
        for name, (key, state) in self.jobs.items():
            if key[1:3] == (pattern_json(rule.pattern), rule.body) and state in ("queued", "held"):
                self.jobs[name] = (key, "with rule")
                self.admitted.pop(name, None)

    def make_rule(self, pattern: str, created_ns: int) -> int:
        """The pattern's rule, if its recipe is there, with what it makes of what is there."""
        what, after = self.patterns[pattern]
        if what.recipe not in self.recipes:
            return 0
        events = self.store.all_events()
        rule = self.rules[pattern] = ModelRule(what, self.recipes[what.recipe], len(events), created_ns)
        return sum(
            self.make_jobs(rule, event) for event in events if event.seq > after and self.fits(rule, event, True)
        )

    # ---- steps

    @rule(recipe=RECIPES)
    def add_recipe(self, recipe: Recipe) -> None:
        created_ns = self.now + 1
        self.engine.add_recipe(recipe)
        if self.recipes.get(recipe.name) != recipe.body:
            using = [name for name, (pattern, _) in self.patterns.items() if pattern.recipe == recipe.name]
            for name in using:
                self.drop_rule(name)
            self.recipes[recipe.name] = recipe.body
            for name in using:
                self.make_rule(name, created_ns)

    @precondition(lambda self: self.recipes)
    @rule(data=st.data())
    def remove_recipe(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.recipes)))
        self.engine.remove_recipe(name)
        del self.recipes[name]
        for pattern in [key for key, each in self.rules.items() if each.pattern.recipe == name]:
            self.drop_rule(pattern)

    @rule(pattern=PATTERNS, existing=st.booleans())
    def add_pattern(self, pattern: Pattern, existing: bool) -> None:
        counted = self.engine.count_existing(pattern)
        created_ns = self.now + 1
        made = self.engine.add_pattern(pattern, existing=existing)
        expected = 0
        if self.patterns.get(pattern.name, (None, 0))[0] != pattern:
            self.drop_rule(pattern.name)
            self.patterns[pattern.name] = (pattern, 0 if existing else len(self.store.all_events()))
            expected = self.make_rule(pattern.name, created_ns)
        assert made == expected
        assert not existing or counted == expected

    @precondition(lambda self: self.patterns)
    @rule(data=st.data())
    def remove_pattern(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.patterns)))
        self.engine.remove_pattern(name)
        del self.patterns[name]
        self.drop_rule(name)

    @rule(path=st.sampled_from(PATHS), good=st.booleans(), gaps=st.integers(0, 1))
    def seal(self, path: str, good: bool, gaps: int) -> None:
        attrs = {"kind": "good" if good else "bad"}
        info = self.store.seal(path, attrs=attrs, gaps=gaps)
        self.facts[path, info.version] = (attrs, gaps)

    @precondition(lambda self: self.facts)
    @rule(data=st.data())
    def delete_stream(self, data: st.DataObject) -> None:
        path, version = data.draw(st.sampled_from(sorted(self.facts)))
        self.store.delete(path, version)
        del self.facts[path, version]

    @rule(again=st.booleans())
    def deal_with_events(self, again: bool) -> None:
        """What the engine's thread does; events that come again change nothing."""
        first = 0 if again else self.dealt_with
        events = list(self.store.events(first, threading.Event(), follow=False))
        while events:
            events = self.engine._scheduler.deal_with(events)
        for event in self.store.all_events()[self.dealt_with :]:
            for each in self.rules.values():
                if event.seq > each.since and self.fits(each, event, False):
                    self.make_jobs(each, event)
        self.dealt_with = len(self.store.all_events())

    @rule(well=st.booleans(), output=st.sampled_from([None, *PATHS]))
    def run_a_job(self, well: bool, output: str | None) -> None:
        attempt = self.engine._jobs.claim(self.clock_ns(), "here", ROOM)
        if attempt is None:
            return
        job = self.engine.job(attempt.job)
        if well:
            assert self.engine._jobs.begin_commit(attempt)
            if output is not None:
                info = self.store.seal(output, caller=Caller(attempt.id, ""))
                self.facts[output, info.version] = ({}, 0)
            before = len(self.store.all_events())
            self.store.commit_attempt(attempt.id, "job.finished", {})
            self.engine._jobs.finish(attempt, (), (), "", self.clock_ns())
            name = self.name_of(attempt.event, attempt.pattern, attempt.recipe.body, dict(job.variables))
            self.jobs[name] = (self.jobs[name][0], "done")
            self.causes |= {event.id: name for event in self.store.all_events()[before:]}
        else:
            self.engine._jobs.release(attempt, self.clock_ns())

    @precondition(lambda self: any(state == "queued" for _, state in self.jobs.values()))
    @rule(data=st.data())
    def cancel_a_job(self, data: st.DataObject) -> None:
        queued = self.engine.jobs(state=JobState.QUEUED)
        job = data.draw(st.sampled_from(queued))
        assert self.engine.cancel_job(job.id[:20]).state is JobState.CANCELLED
        active = self.engine._rules.active(job.rule)
        assert active is not None
        body = self.engine.recipe(job.recipe).body
        name = self.name_of(job.event, active.pattern, body, dict(job.variables))
        self.jobs[name] = (self.jobs[name][0], "on request")

    @precondition(lambda self: any(state == "held" for _, state in self.jobs.values()))
    @rule(data=st.data())
    def release_a_job(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.engine.jobs(state=JobState.HELD)))
        assert job.error.startswith("held back: ")
        assert self.engine.release_job(job.id).state is JobState.QUEUED
        active = self.engine._rules.active(job.rule)
        assert active is not None
        name = self.name_of(job.event, active.pattern, self.engine.recipe(job.recipe).body, dict(job.variables))
        self.jobs[name] = (self.jobs[name][0], "queued")
        self.admitted[name] = self.now

    @rule()
    def half_an_hour_passes(self) -> None:
        self.now += HOUR_NS // 2

    @rule()
    def restart(self) -> None:
        self.engine.stop()
        self.engine = self.new_engine()

    # ---- what must hold

    @staticmethod
    def name_of(event: str, pattern: Pattern, body: str, variables: dict[str, Any]) -> str:
        point = {key: variables[key] for key in pattern.sweep}
        return repr((event, pattern_json(pattern), body, json.dumps(point, sort_keys=True)))

    @invariant()
    def same_words(self) -> None:
        assert {recipe.name: recipe.body for recipe in self.engine.recipes()} == self.recipes
        assert {pattern.name: pattern for pattern in self.engine.patterns()} == {
            name: pattern for name, (pattern, _) in self.patterns.items()
        }
        rules = self.engine.rules()
        assert {(rule.pattern, rule.recipe, rule.trigger) for rule in rules} == {
            (rule.pattern.name, rule.pattern.recipe, rule.pattern.trigger) for rule in self.rules.values()
        }
        assert len({rule.id for rule in rules}) == len(rules)
        assert {pattern.name for pattern in self.engine.waiting_patterns()} == set(self.patterns) - set(self.rules)

    @invariant()
    def same_jobs(self) -> None:
        found: dict[str, int] = {}
        for job in self.engine.jobs(limit=10_000):
            row = f"{job.state.name.lower()} {job.chain}"
            found[f"{job.event} {row}"] = found.get(f"{job.event} {row}", 0) + 1
        expected: dict[str, int] = {}
        for name, (key, state) in self.jobs.items():
            row = f"{'cancelled' if state in ('with rule', 'on request') else state} {self.chain[name]}"
            expected[f"{key[0]} {row}"] = expected.get(f"{key[0]} {row}", 0) + 1
        assert found == expected


Rules.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRules = Rules.TestCase

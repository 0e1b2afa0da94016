"""The rule book: recipes, patterns, and the rules that exist exactly while both of a pair do (R1-R5, P1-P7, M1-M3).

It is kept in `jobs.db` and, for matching, in memory, an index of triggers for each kind of event. Memory follows the
database after each commit, under the same lock. Changing a pattern or recipe is deleting it and creating it anew;
adding one unchanged changes nothing. Callable from any thread.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hiss.errors import PatternNotFound, RecipeNotFound
from hiss.meow_bridge.database import Database
from hiss.meow_bridge.file_paths import is_file
from hiss.meow_bridge.identity import (
    content_hash,
    pattern_from_json,
    pattern_json,
    recipe_from_json,
    recipe_json,
    rule_id,
)
from hiss.meow_bridge.sweep import sweep_points
from hiss.meow_bridge.timetable import timetable
from hiss.meow_bridge.trigger import TriggerIndex, trigger_parts
from hiss.workflow import Pattern, Recipe, Rule

TIMER: Final = "timer"


@dataclass(frozen=True, eq=False)
class ActiveRule:
    """A rule with what matching needs."""

    rule: Rule
    pattern: Pattern
    pattern_hash: str
    recipe_hash: str
    points: list[dict[str, Any]]  # of its sweep
    timeout_s: float
    retries: int
    cores: int
    memory_bytes: int | None
    since_seq: int  # earlier events are met by looking back


@dataclass(frozen=True, slots=True)
class Change:
    """The ids of the rules that an addition or removal took away and made."""

    removed: tuple[str, ...] = ()
    made: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a rule's looking back has come, and where it ends: numbers of events."""

    met_seq: int
    since_seq: int


class RuleBook:
    def __init__(self, database: Database) -> None:
        self._database = database
        self.newest_file: Callable[[], int] = lambda: 0  # event of a watched file: their rules look back up to it
        self._rules: dict[str, ActiveRule] = {}
        self._index: dict[str, TriggerIndex[ActiveRule]] = {}  # by kind of event
        with database.transaction():
            self._remember_all()

    # ---- matching

    def matching(self, kind: str, path: str) -> list[ActiveRule]:
        """The rules whose trigger and kind of event fit; conditions are the caller's. Inside a transaction."""
        index = self._index.get(kind)
        return [] if index is None else index.matching(path)

    def active(self, rule: str) -> ActiveRule | None:
        with self._database.transaction():
            return self._rules.get(rule)

    def looking_back(self) -> list[str]:
        """The rules that have not met all that was there before them."""
        with self._database.transaction():
            return [row["id"] for row in self._database.rows("SELECT id FROM rules WHERE met_seq < since_seq")]

    def marks(self, rules: Sequence[str]) -> dict[ActiveRule, Mark]:
        """Of those of the rules that have not met all that was there before them: how far each has come."""
        with self._database.transaction():
            rows = (self._database.row("SELECT met_seq, since_seq FROM rules WHERE id = ?", rule) for rule in rules)
            return {
                self._rules[rule]: Mark(row["met_seq"], row["since_seq"])
                for rule, row in zip(rules, rows, strict=True)
                if row is not None and row["met_seq"] < row["since_seq"]
            }

    def set_met(self, rules: Sequence[str], seq: int) -> None:
        """They have met all up to `seq`, or up to where their looking back ends."""
        with self._database.transaction():
            self._database.execute_many(
                "UPDATE rules SET met_seq = max(met_seq, min(since_seq, ?)) WHERE id = ?",
                [(seq, rule) for rule in rules],
            )

    def active_patterns(self) -> list[Pattern]:
        """The patterns that make rules."""
        with self._database.transaction():
            return [active.pattern for active in self._rules.values()]

    def timers(self) -> list[ActiveRule]:
        """The rules whose event is a time."""
        with self._database.transaction():
            return [active for active in self._rules.values() if active.pattern.event == TIMER]

    def timed(self, rule: str) -> int | None:
        """Up to when a timer's times have been dealt with; None if the rule is gone."""
        with self._database.transaction():
            row = self._database.row("SELECT timed_ns FROM rules WHERE id = ?", rule)
            return None if row is None else row["timed_ns"]

    def set_timed(self, rule: str, time_ns: int) -> None:
        with self._database.transaction():
            self._database.execute("UPDATE rules SET timed_ns = ? WHERE id = ?", time_ns, rule)

    def forget_events(self) -> None:
        """The events are those of another node: nothing of them was met."""
        with self._database.transaction():
            names = [active.pattern.name for active in self._rules.values() if not is_file(active.pattern.trigger)]
            for name in names:
                self._database.execute("UPDATE patterns SET after_seq = 0 WHERE name = ?", name)
                self._database.execute("UPDATE rules SET since_seq = 0, met_seq = 0 WHERE pattern = ?", name)
            self._database.after_commit(self._start_anew)

    def _start_anew(self) -> None:
        for active in [each for each in self._rules.values() if not is_file(each.pattern.trigger)]:
            self._forget(active)
            self._remember(dataclasses.replace(active, since_seq=0))

    # ---- changing

    def put_recipe(self, recipe: Recipe, seq: int, now_ns: int) -> Change:
        """`seq` is the last event that there is: the rules look back up to it."""
        with self._database.transaction():
            body = recipe_json(recipe)
            content = content_hash(body)
            old = self._database.row("SELECT hash FROM recipes WHERE name = ?", recipe.name)
            if old is not None and old["hash"] == content:
                return Change()
            removed = self._remove_rules("recipe", recipe.name)
            self._keep(content, body)
            self._database.execute("INSERT OR REPLACE INTO recipes(name, hash) VALUES (?,?)", recipe.name, content)
            waiting = self._database.rows("SELECT * FROM patterns WHERE recipe = ?", recipe.name)
            return Change(removed, tuple(self._make_rule(row, recipe, content, seq, now_ns) for row in waiting))

    def put_pattern(self, pattern: Pattern, after_seq: int, seq: int, now_ns: int) -> Change:
        """Events up to `after_seq` are not for it; up to `seq` its rule looks back."""
        self._checked_points(pattern)
        with self._database.transaction():
            body = pattern_json(pattern)
            content = content_hash(body)
            old = self._database.row("SELECT hash FROM patterns WHERE name = ?", pattern.name)
            if old is not None and old["hash"] == content:
                return Change()
            removed = self._remove_rules("pattern", pattern.name)
            self._keep(content, body)
            self._database.execute(
                "INSERT OR REPLACE INTO patterns(name, recipe, hash, after_seq) VALUES (?,?,?,?)",
                pattern.name,
                pattern.recipe,
                content,
                after_seq,
            )
            recipe = self._database.row("SELECT hash FROM recipes WHERE name = ?", pattern.recipe)
            if recipe is None:
                return Change(removed)
            row = self._database.row("SELECT * FROM patterns WHERE name = ?", pattern.name)
            assert row is not None
            return Change(removed, (self._make_rule(row, self.recipe(pattern.recipe), recipe["hash"], seq, now_ns),))

    def preview(self, pattern: Pattern) -> ActiveRule | None:
        """The rule that a pattern would make now, kept nowhere; None where there is no recipe, or where it is there."""
        points = self._checked_points(pattern)
        with self._database.transaction():
            recipe = self._database.row("SELECT hash FROM recipes WHERE name = ?", pattern.recipe)
        if recipe is None:
            return None
        content = content_hash(pattern_json(pattern))
        rule = Rule(rule_id(content, recipe["hash"]), pattern.name, pattern.recipe, pattern.trigger, pattern.event, 0)
        if self.active(rule.id) is not None:
            return None
        return ActiveRule(
            rule=rule,
            pattern=pattern,
            pattern_hash=content,
            recipe_hash=recipe["hash"],
            points=points,
            timeout_s=0.0,
            retries=0,
            cores=1,
            memory_bytes=None,
            since_seq=0,
        )

    @staticmethod
    def _checked_points(pattern: Pattern) -> list[dict[str, Any]]:
        trigger_parts(pattern.trigger, f"pattern {pattern.name!r}")
        if pattern.event == TIMER:
            timetable(pattern)
        return sweep_points(pattern.sweep, f"pattern {pattern.name!r}")

    def drop_recipe(self, name: str) -> Change:
        with self._database.transaction():
            if not self._database.execute("DELETE FROM recipes WHERE name = ?", name).rowcount:
                raise _no_recipe(name)
            return Change(self._remove_rules("recipe", name))

    def drop_pattern(self, name: str) -> Change:
        with self._database.transaction():
            if not self._database.execute("DELETE FROM patterns WHERE name = ?", name).rowcount:
                raise _no_pattern(name)
            return Change(self._remove_rules("pattern", name))

    def _keep(self, content: str, body: str) -> None:
        self._database.execute("INSERT OR IGNORE INTO contents(hash, body) VALUES (?,?)", content, body)

    def _remove_rules(self, column: str, name: str) -> tuple[str, ...]:
        assert column in ("pattern", "recipe")
        removed = tuple(row["id"] for row in self._database.rows(f"SELECT id FROM rules WHERE {column} = ?", name))
        for rule in removed:
            self._database.execute("DELETE FROM rules WHERE id = ?", rule)
            self._database.after_commit(lambda rule=rule: self._forget(self._rules[rule]))  # type: ignore[misc]
        return removed

    def _make_rule(self, row: sqlite3.Row, recipe: Recipe, recipe_hash: str, seq: int, now_ns: int) -> str:
        """The rule of a pattern, which is a row, and a recipe; its id."""
        pattern = pattern_from_json(self._content(row["hash"]))
        if is_file(pattern.trigger):
            seq = self.newest_file()
        rule = rule_id(row["hash"], recipe_hash)
        met_seq = min(row["after_seq"], seq)
        self._database.execute(
            "INSERT INTO rules(id, pattern, recipe, pattern_hash, recipe_hash, created_ns, since_seq, met_seq,"
            " timed_ns) VALUES (?,?,?,?,?,?,?,?,?)",
            *(rule, pattern.name, recipe.name, row["hash"], recipe_hash, now_ns, seq, met_seq, now_ns),
        )
        active = _active(rule, pattern, row["hash"], recipe, recipe_hash, now_ns, seq)
        self._database.after_commit(lambda: self._remember(active))
        return rule

    # ---- looking

    def recipes(self) -> list[Recipe]:
        return [recipe_from_json(body) for body in self._bodies("recipes")]

    def patterns(self) -> list[Pattern]:
        return [pattern_from_json(body) for body in self._bodies("patterns")]

    def recipe(self, name: str) -> Recipe:
        body = self._body("recipes", name)
        if body is None:
            raise _no_recipe(name)
        return recipe_from_json(body)

    def pattern(self, name: str) -> Pattern:
        body = self._body("patterns", name)
        if body is None:
            raise _no_pattern(name)
        return pattern_from_json(body)

    def named(self, name: str) -> list[Pattern]:
        """The pattern of that name, if there is one."""
        body = self._body("patterns", name)
        return [] if body is None else [pattern_from_json(body)]

    def pattern_of(self, content: str) -> Pattern:
        """By the hash of its content, whether or not it is still there."""
        with self._database.transaction():
            return pattern_from_json(self._content(content))

    def rules(self) -> list[Rule]:
        with self._database.transaction():
            return sorted((active.rule for active in self._rules.values()), key=lambda rule: rule.pattern)

    def waiting(self) -> list[Pattern]:
        """The patterns that make no rule, because there is no recipe of the name that they give."""
        with self._database.transaction():
            rows = self._database.rows(
                "SELECT body FROM patterns JOIN contents USING (hash)"
                " WHERE recipe NOT IN (SELECT name FROM recipes) ORDER BY name"
            )
            return [pattern_from_json(row["body"]) for row in rows]

    def _bodies(self, table: str) -> list[str]:
        with self._database.transaction():
            return [
                row["body"]
                for row in self._database.rows(f"SELECT body FROM {table} JOIN contents USING (hash) ORDER BY name")
            ]

    def _body(self, table: str, name: str) -> str | None:
        with self._database.transaction():
            row = self._database.row(f"SELECT body FROM {table} JOIN contents USING (hash) WHERE name = ?", name)
            return None if row is None else row["body"]

    def _content(self, content: str) -> str:
        row = self._database.row("SELECT body FROM contents WHERE hash = ?", content)
        assert row is not None, content
        return str(row["body"])

    # ---- memory

    def _remember_all(self) -> None:
        recipes: dict[str, Recipe] = {}
        for row in self._database.rows("SELECT * FROM rules"):
            content = row["recipe_hash"]
            if content not in recipes:
                recipes[content] = recipe_from_json(self._content(content))
            pattern = pattern_from_json(self._content(row["pattern_hash"]))
            since = row["created_ns"], row["since_seq"]
            self._remember(_active(row["id"], pattern, row["pattern_hash"], recipes[content], content, *since))

    def _remember(self, active: ActiveRule) -> None:
        self._rules[active.rule.id] = active
        self._index.setdefault(active.pattern.event, TriggerIndex()).add(active.pattern.trigger, active)

    def _forget(self, active: ActiveRule) -> None:
        del self._rules[active.rule.id]
        self._index[active.pattern.event].remove(active.pattern.trigger, active)


def _active(
    rule: str,
    pattern: Pattern,
    pattern_hash: str,
    recipe: Recipe,
    recipe_hash: str,
    created_ns: int,
    since_seq: int,
) -> ActiveRule:
    """A pattern and its recipe as a rule; what the pattern says goes before what the recipe says."""
    return ActiveRule(
        rule=Rule(rule, pattern.name, recipe.name, pattern.trigger, pattern.event, created_ns),
        pattern=pattern,
        pattern_hash=pattern_hash,
        recipe_hash=recipe_hash,
        points=sweep_points(pattern.sweep),
        timeout_s=recipe.timeout_s if pattern.timeout_s is None else pattern.timeout_s,
        retries=recipe.retries if pattern.retries is None else pattern.retries,
        cores=recipe.cores if pattern.cores is None else pattern.cores,
        memory_bytes=recipe.memory_bytes if pattern.memory_bytes is None else pattern.memory_bytes,
        since_seq=since_seq,
    )


def _no_recipe(name: str) -> RecipeNotFound:
    return RecipeNotFound(f"no recipe {name!r}; `hiss recipe ls` lists them", recipe=name)


def _no_pattern(name: str) -> PatternNotFound:
    return PatternNotFound(f"no pattern {name!r}; `hiss pattern ls` lists them", pattern=name)

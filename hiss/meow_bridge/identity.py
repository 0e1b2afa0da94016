"""Patterns and recipes as canonical JSON, and the ids that follow from it.

A rule's id is the hash of its pattern and its recipe, a job's the hash of (event, rule, sweep point): both say the
same on any node and after any restart. Hashes are BLAKE2b of 16 bytes, in hex. Pure functions, callable from any
thread.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from hiss.errors import InvalidPattern
from hiss.workflow import Pattern, Recipe, RecipeKind


def canonical_json(value: Any) -> str:
    """The one text for a JSON value: sorted names, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def content_hash(*texts: str) -> str:
    """32 hex digits. Each text's length goes in as well, so that no two sequences read the same."""
    state = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def pattern_json(pattern: Pattern) -> str:
    """Raises `InvalidPattern` where the sweep holds what JSON cannot."""
    try:
        return canonical_json({entry.name: getattr(pattern, entry.name) for entry in dataclasses.fields(Pattern)})
    except (TypeError, ValueError) as error:
        raise InvalidPattern(f"pattern {pattern.name!r}: {error}; use JSON values") from None


def pattern_from_json(text: str) -> Pattern:
    return Pattern(**json.loads(text))


def recipe_json(recipe: Recipe) -> str:
    fields: dict[str, Any] = {entry.name: getattr(recipe, entry.name) for entry in dataclasses.fields(Recipe)}
    fields["kind"] = recipe.kind.name
    return canonical_json(fields)


def recipe_from_json(text: str) -> Recipe:
    fields = json.loads(text)
    name, body, kind = fields.pop("name"), fields.pop("body"), RecipeKind[fields.pop("kind")]
    return Recipe(name, body, kind=kind, **fields)


def rule_id(pattern_hash: str, recipe_hash: str) -> str:
    return content_hash("rule", pattern_hash, recipe_hash)


def job_id(event: str, rule: str, point: Mapping[str, Any]) -> str:
    return content_hash("job", event, rule, canonical_json(point))


def attempt_id(job: str, number: int) -> str:
    """Of the `number`-th attempt of a job, from 1."""
    return f"{job}.{number}"


def failed_attempt_id(job: str) -> str:
    """Under which a job that failed for good publishes its `job.failed`, and nothing else."""
    return f"{job}.failed"


def looping_event_id(job: str) -> str:
    """Under which the warning that a chain of causes loops is published."""
    return f"{job}.looping"


def job_of_attempt(attempt: str) -> str:
    """The job's id, from an attempt's or the job's own."""
    return attempt.partition(".")[0]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} is no JSON value")

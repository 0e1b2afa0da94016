"""From an event and a rule to the jobs that they make. Pure functions, callable from any thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hiss import limits
from hiss.meow_bridge.file_paths import SCHEME, is_file, keyword_root
from hiss.meow_bridge.identity import canonical_json, job_id
from hiss.meow_bridge.jobs import NewJob
from hiss.meow_bridge.keywords import keyword_values, replaced
from hiss.meow_bridge.rules import ActiveRule
from hiss.model import Attrs, Event, StreamWatch
from hiss.workflow import Pattern

PROGRESS: Final = "stream.progress"
STALLED: Final = "stream.stalled"
PROGRESS_VARIABLES: Final = ("blocks", "end_index")  # of its job: how far the stream was
_OF_JOBS: Final = ("job.", "chain.")  # kinds of event that the rule engine tells of jobs


@dataclass(frozen=True, slots=True)
class Subject:
    """The stream or collection that an event is of, as far as conditions look at it."""

    attrs: Attrs
    gaps: int


def placed(event: Event) -> Event:
    """What the rule engine tells of a job is an event of the stream, or collection, that triggered the job."""
    path, version = event.data.get("path"), event.data.get("version", 0)
    if event.collection or not event.kind.startswith(_OF_JOBS) or not isinstance(path, str) or not path:
        return event
    collection, _, stream = path.rpartition("/") if version else (path, "", "")
    return dataclasses.replace(event, collection=collection, stream=stream, version=int(version))


def is_own(rule: ActiveRule, event: Event) -> bool:
    """Whether the event tells of a job of the rule's own pattern: reacting to it would never end."""
    return event.kind.startswith(_OF_JOBS) and event.data.get("pattern") == rule.pattern.name


def concerns(rule: ActiveRule, event: Event) -> bool:
    """Whether an event of an open stream is one that the rule's pattern asked for: others may have asked for others."""
    pattern = rule.pattern
    if event.kind == PROGRESS and pattern.every is not None:
        return int(event.data.get("blocks", 0)) % pattern.every == 0
    if event.kind == STALLED and pattern.stalled_s is not None:
        return bool(event.data.get("after_s") == pattern.stalled_s)
    return True


def wished_watches(patterns: Iterable[Pattern]) -> list[StreamWatch]:
    """What the buffer is to watch open streams for, each once."""
    wished = {
        StreamWatch(pattern.trigger, pattern.every or 0, pattern.stalled_s or 0.0)
        for pattern in patterns
        if pattern.every is not None or pattern.stalled_s is not None
    }
    return sorted(wished, key=lambda watch: (watch.trigger, watch.every, watch.stalled_s))


def has_conditions(rule: ActiveRule) -> bool:
    return bool(rule.pattern.where) or rule.pattern.complete_only


def accepts(rule: ActiveRule, subject: Subject) -> bool:
    """Whether a rule's conditions hold."""
    if rule.pattern.complete_only and subject.gaps:
        return False
    return all(name in subject.attrs and subject.attrs[name] == value for name, value in rule.pattern.where.items())


def new_jobs(rule: ActiveRule, event: Event) -> Iterator[NewJob]:
    """One job for each point of the rule's sweep."""
    for point in rule.points:
        job = job_id(event.id, rule.rule.id, point)
        root = keyword_root(rule.pattern.trigger) if is_file(rule.pattern.trigger) else ""
        values = keyword_values(event.collection, event.stream, event.version, event.id, job, root)
        variables = _variables(rule, event, point, values)
        variables_json = canonical_json(variables)
        size = len(variables_json)
        error = ""
        if size > limits.VARIABLES_BYTES_MAX:
            error = (
                f"its variables take {size} characters with their keywords replaced, {limits.VARIABLES_BYTES_MAX} may"
            )
            variables_json = "{}"
        yield NewJob(
            id=job,
            rule=rule.rule.id,
            pattern=rule.rule.pattern,
            recipe=rule.rule.recipe,
            pattern_hash=rule.pattern_hash,
            recipe_hash=rule.recipe_hash,
            event=event.id,
            path=event.path,
            version=event.version,
            input=rule.pattern.input,
            write_prefix=_write_prefix(rule, event, values),
            variables_json=variables_json,
            timeout_s=rule.timeout_s,
            retries=rule.retries,
            cores=rule.cores,
            memory_bytes=rule.memory_bytes,
            at_once=rule.pattern.jobs_at_once,
            error=error,
        )


def _variables(rule: ActiveRule, event: Event, point: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    given = {**rule.pattern.variables, **rule.pattern.outputs, **point}
    variables = {rule.pattern.input: event.path.removeprefix(SCHEME), **replaced(given, values)}
    if event.kind == PROGRESS:
        variables |= {name: event.data[name] for name in PROGRESS_VARIABLES if name in event.data}
    return variables


def _write_prefix(rule: ActiveRule, event: Event, values: Mapping[str, str]) -> str:
    """What the pattern says, or the first part of the path. An event of no path lets its job write below its own id,
    one of a watched file below `files/` and the pattern's name."""
    if rule.pattern.writes is not None:
        return str(replaced(rule.pattern.writes, values))
    if is_file(event.path):
        return f"files/{rule.pattern.name}"
    return event.path.partition("/")[0] or values["JOB"]

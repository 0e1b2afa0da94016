"""The rule engine behind gRPC: `RemoteMeow` does what `hiss.workflow.Meow` says, by calls to a server. Any thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hiss.transport import workflow_wire as wire
from hiss.transport.methods import MEOW
from hiss.workflow import EngineCounts, Job, JobState, Meow, Pattern, ProvenanceGraph, Recipe, Rerun, Rule


class RemoteMeow(Meow):
    """A rule engine at the server that `ask` calls: a `Method` and the request's fields to the reply."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._call = ask

    def _ask(self, key: str, **fields: Any) -> Any:
        return self._call(MEOW[f"Meow.{key}"], **fields)

    def add_recipe(self, recipe: Recipe) -> None:
        self._ask("AddRecipe", recipe=wire.encode_recipe(recipe))

    def remove_recipe(self, name: str) -> None:
        self._ask("RemoveRecipe", name=name)

    def recipes(self) -> list[Recipe]:
        return list(map(wire.decode_recipe, self._ask("ListRecipes").recipes))

    def recipe(self, name: str) -> Recipe:
        return wire.decode_recipe(self._ask("GetRecipe", name=name).recipe)

    def add_pattern(self, pattern: Pattern, *, existing: bool = True) -> int:
        return int(self._ask("AddPattern", pattern=wire.encode_pattern(pattern), existing=existing).jobs)

    def count_existing(self, pattern: Pattern) -> int:
        return int(self._ask("CountExisting", pattern=wire.encode_pattern(pattern)).jobs)

    def remove_pattern(self, name: str) -> None:
        self._ask("RemovePattern", name=name)

    def patterns(self) -> list[Pattern]:
        return list(map(wire.decode_pattern, self._ask("ListPatterns").patterns))

    def pattern(self, name: str) -> Pattern:
        return wire.decode_pattern(self._ask("GetPattern", name=name).pattern)

    def rules(self) -> list[Rule]:
        return list(map(wire.decode_rule, self._ask("ListRules").rules))

    def jobs(self, *, state: JobState | None = None, limit: int = 1000) -> list[Job]:
        reply = self._ask("ListJobs", state=0 if state is None else int(state), limit=limit)
        return list(map(wire.decode_job, reply.jobs))

    def counts(self) -> EngineCounts:
        reply = self._ask("GetCounts")
        return EngineCounts(dict(reply.jobs), reply.event_seq)

    def job(self, job_id: str) -> Job:
        return wire.decode_job(self._ask("GetJob", id=job_id).job)

    def cancel_job(self, job_id: str) -> Job:
        return wire.decode_job(self._ask("CancelJob", id=job_id).job)

    def release_job(self, job_id: str) -> Job:
        return wire.decode_job(self._ask("ReleaseJob", id=job_id).job)

    def rerun_job(self, job_id: str) -> Rerun:
        return wire.decode_rerun(self._ask("RerunJob", id=job_id))

    def provenance(self, path: str, version: int | None = None) -> ProvenanceGraph:
        return wire.decode_provenance(self._ask("GetProvenance", path=path, version=version))

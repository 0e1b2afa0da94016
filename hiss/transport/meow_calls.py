"""The calls of the rule engine: each turns a request into the model, calls the engine, and turns the answer back.

Called from a server's pool threads, many at once; keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hiss.model import Caller
from hiss.transport import workflow_wire as wire
from hiss.v1 import meow_pb2
from hiss.workflow import Meow, acting

JOBS_DEFAULT: Final = 1000


def add_recipe(meow: Meow, request: meow_pb2.AddRecipeRequest) -> Any:
    meow.add_recipe(wire.decode_recipe(request.recipe))
    return meow_pb2.AddRecipeResponse()


def remove_recipe(meow: Meow, request: meow_pb2.RemoveRecipeRequest) -> Any:
    meow.remove_recipe(request.name)
    return meow_pb2.RemoveRecipeResponse()


def list_recipes(meow: Meow, request: meow_pb2.ListRecipesRequest) -> Any:
    return meow_pb2.ListRecipesResponse(recipes=map(wire.encode_recipe, meow.recipes()))


def get_recipe(meow: Meow, request: meow_pb2.GetRecipeRequest) -> Any:
    return meow_pb2.GetRecipeResponse(recipe=wire.encode_recipe(meow.recipe(request.name)))


def add_pattern(meow: Meow, request: meow_pb2.AddPatternRequest) -> Any:
    return meow_pb2.AddPatternResponse(
        jobs=meow.add_pattern(wire.decode_pattern(request.pattern), existing=request.existing)
    )


def count_existing(meow: Meow, request: meow_pb2.CountExistingRequest) -> Any:
    return meow_pb2.CountExistingResponse(jobs=meow.count_existing(wire.decode_pattern(request.pattern)))


def remove_pattern(meow: Meow, request: meow_pb2.RemovePatternRequest) -> Any:
    meow.remove_pattern(request.name)
    return meow_pb2.RemovePatternResponse()


def list_patterns(meow: Meow, request: meow_pb2.ListPatternsRequest) -> Any:
    return meow_pb2.ListPatternsResponse(patterns=map(wire.encode_pattern, meow.patterns()))


def get_pattern(meow: Meow, request: meow_pb2.GetPatternRequest) -> Any:
    return meow_pb2.GetPatternResponse(pattern=wire.encode_pattern(meow.pattern(request.name)))


def list_rules(meow: Meow, request: meow_pb2.ListRulesRequest) -> Any:
    return meow_pb2.ListRulesResponse(rules=map(wire.encode_rule, meow.rules()))


def get_counts(meow: Meow, request: meow_pb2.GetCountsRequest) -> Any:
    counts = meow.counts()
    return meow_pb2.GetCountsResponse(jobs=counts.jobs, event_seq=counts.event_seq)


def list_jobs(meow: Meow, request: meow_pb2.ListJobsRequest) -> Any:
    state = wire.decode_job_state(request.state)
    return meow_pb2.ListJobsResponse(
        jobs=map(wire.encode_job, meow.jobs(state=state, limit=request.limit or JOBS_DEFAULT))
    )


def get_job(meow: Meow, request: meow_pb2.GetJobRequest) -> Any:
    return meow_pb2.GetJobResponse(job=wire.encode_job(meow.job(request.id)))


def cancel_job(meow: Meow, request: meow_pb2.CancelJobRequest) -> Any:
    return meow_pb2.CancelJobResponse(job=wire.encode_job(meow.cancel_job(request.id)))


def release_job(meow: Meow, request: meow_pb2.ReleaseJobRequest) -> Any:
    return meow_pb2.ReleaseJobResponse(job=wire.encode_job(meow.release_job(request.id)))


def rerun_job(meow: Meow, request: meow_pb2.RerunJobRequest) -> Any:
    return wire.encode_rerun(meow.rerun_job(request.id))


def get_provenance(meow: Meow, request: meow_pb2.GetProvenanceRequest) -> Any:
    version = request.version if request.HasField("version") else None
    return wire.encode_provenance(meow.provenance(request.path, version))


def on_behalf_of(engine_and_caller: tuple[Meow, Caller], key: str, request: Any) -> Any:
    """Make the call `key`; the engine knows by `workflow.acting_caller` whether an attempt of a job makes it."""
    meow, caller = engine_and_caller
    with acting(caller):
        return CALLS[key](meow, request)


CALLS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "Meow.AddRecipe": add_recipe,
    "Meow.RemoveRecipe": remove_recipe,
    "Meow.ListRecipes": list_recipes,
    "Meow.GetRecipe": get_recipe,
    "Meow.AddPattern": add_pattern,
    "Meow.CountExisting": count_existing,
    "Meow.RemovePattern": remove_pattern,
    "Meow.ListPatterns": list_patterns,
    "Meow.GetPattern": get_pattern,
    "Meow.ListRules": list_rules,
    "Meow.ListJobs": list_jobs,
    "Meow.GetCounts": get_counts,
    "Meow.GetJob": get_job,
    "Meow.CancelJob": cancel_job,
    "Meow.ReleaseJob": release_job,
    "Meow.RerunJob": rerun_job,
    "Meow.GetProvenance": get_provenance,
}

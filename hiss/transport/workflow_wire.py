"""The words of MEOW on the wire and back: recipes, patterns, rules, jobs, provenance.

Pure functions, as in `wire`; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hiss import limits
from hiss.errors import LimitExceeded
from hiss.transport.wire import checked, decode_object, encode_attrs
from hiss.v1 import meow_pb2, types_pb2
from hiss.workflow import (
    Job,
    JobState,
    KernelUse,
    Pattern,
    ProvenanceGraph,
    ProvenanceNode,
    Recipe,
    RecipeKind,
    Rerun,
    RerunOutput,
    Rule,
    StreamRef,
)


@checked
def encode_recipe(recipe: Recipe) -> meow_pb2.Recipe:
    return meow_pb2.Recipe(
        name=recipe.name,
        kind=int(recipe.kind),  # type: ignore[arg-type]
        body=recipe.body,
        entry=recipe.entry,
        timeout_s=recipe.timeout_s,
        retries=recipe.retries,
        cores=recipe.cores,
        memory_bytes=recipe.memory_bytes,
        packages=recipe.packages,
        input_as=recipe.input_as,
    )


@checked
def decode_recipe(message: meow_pb2.Recipe) -> Recipe:
    if len(message.body) > limits.RECIPE_BYTES_MAX:
        raise LimitExceeded(
            f"recipe {message.name[:80]!r}: {len(message.body)} characters, at most "
            f"{limits.RECIPE_BYTES_MAX} are allowed"
        )
    return Recipe(
        message.name,
        message.body,
        kind=RecipeKind(message.kind),
        entry=message.entry,
        timeout_s=message.timeout_s,
        retries=message.retries,
        cores=message.cores or 1,
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        packages=tuple(message.packages),
        input_as=message.input_as or "stream",
    )


@checked
def encode_pattern(pattern: Pattern) -> meow_pb2.Pattern:
    return meow_pb2.Pattern(
        name=pattern.name,
        trigger=pattern.trigger,
        recipe=pattern.recipe,
        event=pattern.event,
        input=pattern.input,
        variables_json=encode_attrs(pattern.variables),
        outputs=dict(pattern.outputs),
        sweep_json=encode_attrs(pattern.sweep),
        where_json=encode_attrs(pattern.where),
        complete_only=pattern.complete_only,
        writes=pattern.writes,
        timeout_s=pattern.timeout_s,
        retries=pattern.retries,
        cores=pattern.cores,
        memory_bytes=pattern.memory_bytes,
        jobs_at_once=pattern.jobs_at_once,
        jobs_an_hour=pattern.jobs_an_hour,
        jobs_expected=pattern.jobs_expected,
        chain_jobs=pattern.chain_jobs,
        lifetime_s=pattern.lifetime_s,
        every_s=pattern.every_s,
        cron=pattern.cron,
        catch_up=pattern.catch_up,
        every=pattern.every,
        stalled_s=pattern.stalled_s,
        rights=pattern.rights,
    )


@checked
def decode_pattern(message: meow_pb2.Pattern) -> Pattern:
    return Pattern(
        name=message.name,
        trigger=message.trigger,
        recipe=message.recipe,
        event=message.event or "stream.sealed",
        input=message.input or "input",
        variables=decode_object(message.variables_json, limits.VARIABLES_BYTES_MAX),
        outputs={name: message.outputs[name] for name in sorted(message.outputs)},
        sweep=decode_object(message.sweep_json, limits.VARIABLES_BYTES_MAX),
        where=decode_object(message.where_json, limits.ATTRS_BYTES_MAX),
        complete_only=message.complete_only,
        writes=message.writes if message.HasField("writes") else None,
        timeout_s=message.timeout_s if message.HasField("timeout_s") else None,
        retries=message.retries if message.HasField("retries") else None,
        cores=message.cores if message.HasField("cores") else None,
        memory_bytes=message.memory_bytes if message.HasField("memory_bytes") else None,
        jobs_at_once=message.jobs_at_once if message.HasField("jobs_at_once") else None,
        jobs_an_hour=message.jobs_an_hour if message.HasField("jobs_an_hour") else None,
        jobs_expected=message.jobs_expected if message.HasField("jobs_expected") else None,
        chain_jobs=message.chain_jobs if message.HasField("chain_jobs") else None,
        lifetime_s=message.lifetime_s if message.HasField("lifetime_s") else None,
        every_s=message.every_s if message.HasField("every_s") else None,
        cron=message.cron if message.HasField("cron") else None,
        catch_up=message.catch_up or "one",
        every=message.every if message.HasField("every") else None,
        stalled_s=message.stalled_s if message.HasField("stalled_s") else None,
        rights=tuple(message.rights),
    )


@checked
def encode_rule(rule: Rule) -> meow_pb2.Rule:
    return meow_pb2.Rule(
        id=rule.id,
        pattern=rule.pattern,
        recipe=rule.recipe,
        trigger=rule.trigger,
        event=rule.event,
        created_ns=rule.created_ns,
    )


@checked
def decode_rule(message: meow_pb2.Rule) -> Rule:
    return Rule(message.id, message.pattern, message.recipe, message.trigger, message.event, message.created_ns)


@checked
def encode_refs(refs: Iterable[StreamRef]) -> list[types_pb2.StreamReference]:
    return [types_pb2.StreamReference(id=ref.id, path=ref.path, version=ref.version, digest=ref.digest) for ref in refs]


@checked
def decode_refs(messages: Any) -> tuple[StreamRef, ...]:
    return tuple(StreamRef(ref.id, ref.path, ref.version, ref.digest) for ref in messages)


@checked
def encode_job(job: Job) -> meow_pb2.Job:
    return meow_pb2.Job(
        id=job.id,
        rule=job.rule,
        pattern=job.pattern,
        recipe=job.recipe,
        event=job.event,
        path=job.path,
        version=job.version,
        variables_json=encode_attrs(job.variables),
        state=int(job.state),  # type: ignore[arg-type]
        attempts=job.attempts,
        created_ns=job.created_ns,
        started_ns=job.started_ns,
        finished_ns=job.finished_ns,
        host=job.host,
        error=job.error,
        output=job.output,
        reads=encode_refs(job.reads),
        writes=encode_refs(job.writes),
        chain=job.chain,
        trigger=None if job.trigger is None else encode_refs([job.trigger])[0],
        kernels=map(_encode_kernel_use, job.kernels),
    )


def _encode_kernel_use(use: KernelUse) -> meow_pb2.KernelUse:
    return meow_pb2.KernelUse(
        path=use.path,
        version=use.version,
        stage=use.stage,
        name=use.name,
        hash=use.hash,
        kind=use.kind,
        params_json=encode_attrs(use.params),
    )


def _decode_kernel_use(use: meow_pb2.KernelUse) -> KernelUse:
    params = decode_object(use.params_json)
    return KernelUse(use.path, use.version, use.stage, use.name, use.hash, use.kind, params)


@checked
def encode_rerun(rerun: Rerun) -> meow_pb2.RerunJobResponse:
    return meow_pb2.RerunJobResponse(
        job=rerun.job,
        same=rerun.same,
        error=rerun.error,
        output=rerun.output,
        outputs=[
            meow_pb2.RerunOutput(
                path=each.path,
                version=each.version,
                digest=each.digest,
                again=each.again,
                same=each.same,
                note=each.note,
            )
            for each in rerun.outputs
        ],
    )


@checked
def decode_rerun(message: meow_pb2.RerunJobResponse) -> Rerun:
    return Rerun(
        message.job,
        message.same,
        message.error,
        message.output,
        tuple(
            RerunOutput(each.path, each.version, each.digest, each.again, each.same, each.note)
            for each in message.outputs
        ),
    )


@checked
def decode_job(message: meow_pb2.Job) -> Job:
    return Job(
        id=message.id,
        rule=message.rule,
        pattern=message.pattern,
        recipe=message.recipe,
        event=message.event,
        path=message.path,
        version=message.version,
        variables=decode_object(message.variables_json),
        state=JobState(message.state),
        attempts=message.attempts,
        created_ns=message.created_ns,
        started_ns=message.started_ns,
        finished_ns=message.finished_ns,
        host=message.host,
        error=message.error,
        output=message.output,
        reads=decode_refs(message.reads),
        writes=decode_refs(message.writes),
        chain=message.chain,
        trigger=decode_refs([message.trigger])[0] if message.HasField("trigger") else None,
        kernels=tuple(map(_decode_kernel_use, message.kernels)),
    )


@checked
def encode_provenance(graph: ProvenanceGraph) -> meow_pb2.GetProvenanceResponse:
    return meow_pb2.GetProvenanceResponse(
        nodes=[
            meow_pb2.ProvenanceNode(id=node.id, kind=node.kind, label=node.label, attrs_json=encode_attrs(node.attrs))
            for node in graph.nodes
        ],
        edges=[meow_pb2.ProvenanceEdge(from_id=a, to_id=b, role=role) for a, b, role in graph.edges],
    )


@checked
def decode_provenance(message: meow_pb2.GetProvenanceResponse) -> ProvenanceGraph:
    return ProvenanceGraph(
        tuple(ProvenanceNode(node.id, node.kind, node.label, decode_object(node.attrs_json)) for node in message.nodes),
        tuple((edge.from_id, edge.to_id, edge.role) for edge in message.edges),
    )


@checked
def decode_job_state(state: int) -> JobState | None:
    """A state to ask for; None for any."""
    return JobState(state) if state else None

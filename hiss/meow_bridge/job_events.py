"""What the events of jobs tell, within the bound of an event. Pure functions, callable from any thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hiss import limits
from hiss.model import Attrs
from hiss.workflow import Job, StreamRef

if TYPE_CHECKING:
    from hiss.meow_bridge.jobs import Attempt


def finished_event(attempt: Attempt, reads: Sequence[StreamRef]) -> Attrs:
    """Of `job.finished`."""
    return _bounded(
        {
            "job": attempt.job,
            "rule": attempt.rule,
            "pattern": attempt.pattern.name,
            "recipe": attempt.recipe.name,
            "event": attempt.event,
            "path": attempt.path,
            "version": attempt.version,
            "reads": [{"path": ref.path, "version": ref.version, "digest": ref.digest} for ref in reads],
            "variables": dict(attempt.variables),
        }
    )


def failed_event(job: Job) -> Attrs:
    """Of `job.failed`."""
    return _bounded({**_job_event(job), "error": job.error, "attempts": job.attempts, "variables": dict(job.variables)})


def looping_event(job: Job, laps: int) -> Attrs:
    """Of `chain.looping`: so many jobs of the same pattern led to this one."""
    return {**_job_event(job), "laps": laps, "chain": job.chain}


def _job_event(job: Job) -> dict[str, Any]:
    return {
        "job": job.id,
        "rule": job.rule,
        "pattern": job.pattern,
        "recipe": job.recipe,
        "event": job.event,
        "path": job.path,
        "version": job.version,
    }


def _bounded(event: dict[str, Any]) -> dict[str, Any]:
    """Without the variables, then the reads, where all is too much; `hiss job show` has them."""
    for name in ("variables", "reads"):
        if len(json.dumps(event)) <= limits.EVENT_DATA_BYTES_MAX // 2:
            break
        event.pop(name, None)
    return event

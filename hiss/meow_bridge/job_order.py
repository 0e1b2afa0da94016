"""What an executor is told of an attempt. Pure functions, callable from any thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiss.meow_bridge.executor import Order
from hiss.meow_bridge.jobs import Attempt


def order_of(attempt: Attempt, environment: Mapping[str, str]) -> Order:
    """The order for an attempt."""
    return Order(
        attempt.id,
        specification_of(attempt),
        dict(environment),
        attempt.timeout_s,
        attempt.cores,
        attempt.memory_bytes,
    )


def specification_of(attempt: Attempt) -> dict[str, Any]:
    """What an attempt's process is told of its job."""
    return {
        "job": attempt.job,
        "attempt": attempt.id,
        "rule": attempt.rule,
        "event": attempt.event,
        "path": attempt.path,
        "version": attempt.version,
        "input": attempt.pattern.input,
        "kind": attempt.pattern.event,
        "writes": attempt.write_prefix,
        "outputs": dict(attempt.pattern.outputs),
        "variables": dict(attempt.variables),
        "recipe": {
            "name": attempt.recipe.name,
            "kind": attempt.recipe.kind.name,
            "body": attempt.recipe.body,
            "entry": attempt.recipe.entry,
            "packages": list(attempt.recipe.packages),
            "input_as": attempt.recipe.input_as,
        },
    }

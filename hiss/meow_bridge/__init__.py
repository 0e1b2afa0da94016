"""The rule engine: events of sealed streams become jobs, as Patterns and Recipes say, and their outputs further
events.

In the order in which an event passes: `schedule` takes it from the buffer, `trigger` and `matching` find the rules
that it fits (`rules`, with `sweep` and `keywords`), `jobs` keeps what they make (`database`), `dispatch` has an
`executor` run each job (`local_executor`: `warm`, `zygote`, `keeper`; `dask_executor`) and the buffer publish what it
wrote. `engine` composes them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiss.meow_bridge.engine import Engine as Engine
    from hiss.meow_bridge.graph_page import provenance_page as provenance_page
    from hiss.meow_bridge.graph_text import provenance_text as provenance_text

_WHERE = {
    "Engine": "engine",
    "provenance_page": "graph_page",
    "provenance_text": "graph_text",
}

__all__ = ["Engine", "provenance_page", "provenance_text"]


def __getattr__(name: str) -> Any:
    """Import at first use: a job's process needs nothing of the engine and starts sooner without it."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value

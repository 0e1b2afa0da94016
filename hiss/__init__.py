"""hiss: a storage buffer for scientific instruments.

Names are imported when they are first used, so that `import hiss` and `hiss --help` cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiss.client import Buffer as Buffer
    from hiss.client import Collection as Collection
    from hiss.client import connect as connect
    from hiss.client import open as open
    from hiss.drain_policy import DrainTarget as DrainTarget
    from hiss.errors import HissError as HissError
    from hiss.job import job as job
    from hiss.kernels import column as column
    from hiss.kernels import filter as filter
    from hiss.kernels import hk as hk
    from hiss.kernels import kernel as kernel
    from hiss.kernels import reduce as reduce
    from hiss.kernels import scan as scan
    from hiss.overload import Overload as Overload
    from hiss.reader import Block as Block
    from hiss.reader import Join as Join
    from hiss.reader import Stream as Stream
    from hiss.space import Reservation as Reservation
    from hiss.space import Retention as Retention
    from hiss.workflow import Pattern as Pattern
    from hiss.workflow import Recipe as Recipe
    from hiss.writer import StreamWriter as StreamWriter

__version__ = "0.1.0"

_WHERE = {
    "Block": "hiss.reader",
    "Buffer": "hiss.client",
    "Collection": "hiss.client",
    "DrainTarget": "hiss.drain_policy",
    "HissError": "hiss.errors",
    "Join": "hiss.reader",
    "Overload": "hiss.overload",
    "Pattern": "hiss.workflow",
    "Recipe": "hiss.workflow",
    "Reservation": "hiss.space",
    "Retention": "hiss.space",
    "Stream": "hiss.reader",
    "StreamWriter": "hiss.writer",
    "column": "hiss.kernels",
    "connect": "hiss.client",
    "filter": "hiss.kernels",
    "hk": "hiss.kernels",
    "job": "hiss.job",
    "kernel": "hiss.kernels",
    "open": "hiss.client",
    "reduce": "hiss.kernels",
    "scan": "hiss.kernels",
}

__all__ = ["__version__"]
__all__ += list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'hiss' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

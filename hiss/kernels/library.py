"""Reductions that come with hiss, written in the kernel language itself.

`mean` sums in float64 and gives float64 for integers, the frames' own dtype for floats, as `np.mean`; `maximum` keeps
the frames' dtype and is NaN where one frame is. Constant after import; any thread.
"""

from __future__ import annotations

from typing import Final

from hiss.errors import KernelNotFound
from hiss.model import KernelDef, KernelKind

_MEAN: Final = '''\
class mean:
    """The mean over blocks, summed in float64 in the order of the index."""

    def init(frame):
        return np.zeros_like(frame, np.float64), 0, np.zeros((1,), np.mean(frame).dtype)

    def step(state, frame):
        total, count, like = state
        return total + frame, count + 1, like

    def finish(state):
        total, count, like = state
        return (total / count).astype(like.dtype)
'''
_MAXIMUM: Final = '''\
class maximum:
    """The largest value over blocks."""

    def init(frame):
        return frame

    def step(state, frame):
        return np.maximum(state, frame)

    def finish(state):
        return state
'''
BUILTIN: Final = {
    "mean": KernelDef("mean", KernelKind.REDUCE, _MEAN),
    "maximum": KernelDef("maximum", KernelKind.REDUCE, _MAXIMUM),
}


def builtin(name: str) -> KernelDef:
    """The reduction called `name`, or `KernelNotFound`."""
    try:
        return BUILTIN[name]
    except KeyError:
        known = ", ".join(sorted(BUILTIN))
        raise KernelNotFound(f"no reduction {name!r}; there are: {known}") from None

# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Running statistics: reductions over the blocks of a stream, pixel by pixel, in the order of the index.

Those of `BUILTIN` can be named on the wire (`stream.mean()`). Integers are summed in 64 bits, floats in float64.
Constant after import; any thread.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from hiss.errors import KernelNotFound
from hiss.kernels.authoring import reduce
from hiss.model import KernelDef


@reduce
class mean:
    """The mean over blocks.

    Frames of any dtype and shape. Gives float64 for integers and the frames' own dtype for floats, as `np.mean`;
    summed in float64.
    """

    def init(frame):
        return np.zeros_like(frame, np.float64), 0, np.zeros((1,), np.mean(frame).dtype)

    def step(state, frame):
        total, count, like = state
        return total + frame, count + 1, like

    def finish(state):
        total, count, like = state
        return (total / count).astype(like.dtype)


@reduce
class maximum:
    """The largest value over blocks, in the frames' dtype; NaN where one block is NaN."""

    def init(frame):
        return frame

    def step(state, frame):
        return np.maximum(state, frame)

    def finish(state):
        return state


@reduce
class minimum:
    """The smallest value over blocks, in the frames' dtype; NaN where one block is NaN."""

    def init(frame):
        return frame

    def step(state, frame):
        return np.minimum(state, frame)

    def finish(state):
        return state


@reduce
class total:
    """The sum over blocks: int64 or uint64 for integers, float64 for floats."""

    def init(frame):
        wide = frame.astype(np.float64) if frame.dtype == np.float32 else frame
        return np.zeros_like(frame, np.sum(wide).dtype)

    def step(state, frame):
        return state + frame.astype(state.dtype)

    def finish(state):
        return state


@reduce
class variance:
    """The variance over blocks in float64, divided by (blocks - ddof); NaN where that is 0.

    One pass that does not lose digits where the mean is large against the spread: B. P. Welford, Technometrics 4 (1962)
    419, doi:10.1080/00401706.1962.10490022. Its square root is the noise of each pixel, its quotient with the mean
    the gain (photon transfer: J. Janesick, "Photon Transfer", SPIE 2007, doi:10.1117/3.725073).
    """

    def init(frame):
        return np.zeros_like(frame, np.float64), np.zeros_like(frame, np.float64), 0

    def step(state, frame):
        mean, squares, count = state
        deviation = frame - mean
        mean = mean + deviation / (count + 1)
        return mean, squares + deviation * (frame - mean), count + 1

    def finish(state, ddof=0):
        _, squares, count = state
        return squares / np.where(count > ddof, count - ddof, np.nan)


_REDUCTIONS: Final[tuple[Any, ...]] = (mean, maximum, minimum, total, variance)
BUILTIN: Final[dict[str, KernelDef]] = {one.definition.name: one.definition for one in _REDUCTIONS}


def builtin(name: str) -> KernelDef:
    """The reduction called `name`, or `KernelNotFound`."""
    try:
        return BUILTIN[name]
    except KeyError:
        known = ", ".join(sorted(BUILTIN))
        raise KernelNotFound(f"no reduction {name!r}; there are: {known}") from None

"""Sweeps: a variable that takes several values, one job for each; several sweeps multiply.

Pure functions, callable from any thread. A range is `{"start", "stop", "step"}` with the stop included when a whole
number of steps reaches it; it is worked out in decimal, so that 0 to 1 in steps of 0.1 are eleven values and the
fourth is 0.3. The number of points is checked before any is made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from hiss import limits
from hiss.errors import InvalidPattern, LimitExceeded

_RANGE_KEYS: Final = {"start", "stop", "step"}


def sweep_points(sweep: Mapping[str, Any], owner: str = "sweep") -> list[dict[str, Any]]:
    """Every point of the sweep, the last variable running fastest; one empty point where nothing is swept.

    Raises
    ------
    InvalidPattern
        An empty list, a range that lacks a key or never reaches its stop, a value that is neither.
    LimitExceeded
        More than `limits.SWEEP_POINTS_MAX` points.
    """
    count = math.prod(_value_count(name, values, owner) for name, values in sweep.items())
    if count > limits.SWEEP_POINTS_MAX:
        raise LimitExceeded(
            f"{owner}: the sweep over {', '.join(sweep)} has {count} points, allowed are {limits.SWEEP_POINTS_MAX}; "
            "sweep over less or in larger steps",
            limit="SWEEP_POINTS_MAX",
            allowed=limits.SWEEP_POINTS_MAX,
            found=count,
        )
    values = (list(_values(name, entry, owner)) for name, entry in sweep.items())
    return [dict(zip(sweep, point, strict=True)) for point in itertools.product(*values)]


def _value_count(name: str, entry: Any, owner: str) -> int:
    if isinstance(entry, Mapping):
        start, stop, step = _range(name, entry, owner)
        return 1 if start == stop else int((stop - start) / step) + 1
    if not isinstance(entry, list | tuple) or not entry:
        raise InvalidPattern(
            f"{owner}: sweep of {name!r} is {entry!r}; expected a list with at least one value, or an object with "
            "start, stop and step; a single value belongs into variables"
        )
    return len(entry)


def _values(name: str, entry: Any, owner: str) -> Iterator[Any]:
    if not isinstance(entry, Mapping):
        yield from entry
        return
    start, _, step = _range(name, entry, owner)
    whole = all(isinstance(entry[key], int) for key in _RANGE_KEYS)
    for number in range(_value_count(name, entry, owner)):
        value = start + number * step
        yield int(value) if whole else float(value)


def _range(name: str, entry: Mapping[str, Any], owner: str) -> tuple[Decimal, Decimal, Decimal]:
    if set(entry) != _RANGE_KEYS:
        raise InvalidPattern(f"{owner}: sweep of {name!r} has {sorted(entry)}; expected start, stop and step")
    start, stop, step = (_decimal(name, key, entry[key], owner) for key in ("start", "stop", "step"))
    if start != stop and (step == 0 or (step > 0) != (stop > start)):
        raise InvalidPattern(
            f"{owner}: sweep of {name!r} never reaches {stop} from {start} in steps of {step}; "
            f"use a step {'above' if stop > start else 'below'} 0"
        )
    return start, stop, step


def _decimal(name: str, key: str, value: Any, owner: str) -> Decimal:
    """The number as it is written: `0.1` is one tenth."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidPattern(f"{owner}: sweep of {name!r}: {key} is {value!r}, expected a finite number")
    return Decimal(repr(value))

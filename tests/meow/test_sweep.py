"""Sweeps: every value, exactly, the stop included, bounded before anything is made."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiss import limits
from hiss.errors import InvalidPattern, LimitExceeded
from hiss.meow_bridge.sweep import sweep_points


def values(entry: Any) -> list[Any]:
    return [point["x"] for point in sweep_points({"x": entry})]


def test_nothing_swept_is_one_point() -> None:
    assert sweep_points({}) == [{}]


def test_three_by_two_is_six() -> None:
    points = sweep_points({"a": [1, 2, 3], "b": ["x", "y"]})
    assert points == [{"a": a, "b": b} for a, b in itertools.product([1, 2, 3], "xy")]


@pytest.mark.parametrize(
    ("start", "stop", "step", "expected"),
    [
        (0, 3, 1, [0, 1, 2, 3]),
        (3, 0, -1, [3, 2, 1, 0]),
        (5, 5, 1, [5]),
        (5, 5, 0, [5]),
        (0, 10, 4, [0, 4, 8]),
        (0, 1, 0.1, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (0.3, -0.3, -0.3, [0.3, 0.0, -0.3]),
        (1e-3, 3e-3, 1e-3, [0.001, 0.002, 0.003]),
    ],
)
def test_ranges(start: float, stop: float, step: float, expected: list[float]) -> None:
    found = values({"start": start, "stop": stop, "step": step})
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


DECIMALS = st.decimals(-100, 100, places=3, allow_nan=False)


@given(DECIMALS, st.decimals("0.001", 10, places=3), st.integers(0, 200), st.booleans())
def test_a_range_is_what_decimal_arithmetic_says(start: Decimal, step: Decimal, count: int, down: bool) -> None:
    step = -step if down else step
    exact = [start + number * step for number in range(count + 1)]
    found = values({"start": float(start), "stop": float(exact[-1]), "step": float(step)})
    assert found == [float(value) for value in exact]


@pytest.mark.parametrize(
    "entry",
    [
        [],
        5,
        "abc",
        None,
        {"start": 0, "stop": 1},
        {"start": 0, "stop": 1, "step": 0},
        {"start": 0, "stop": 1, "step": -1},
        {"start": 1, "stop": 0, "step": 1},
        {"start": 0, "stop": math.inf, "step": 1},
        {"start": 0, "stop": 1, "step": math.nan},
        {"start": "0", "stop": 1, "step": 1},
        {"start": True, "stop": 1, "step": 1},
        {"start": 0, "stop": 1, "step": 1, "more": 1},
    ],
)
def test_what_makes_no_sense_is_refused(entry: Any) -> None:
    with pytest.raises(InvalidPattern, match="'x'"):
        sweep_points({"x": entry})


def test_the_bound_holds_before_anything_is_made() -> None:
    most = {"start": 1, "stop": limits.SWEEP_POINTS_MAX, "step": 1}
    assert len(values(most)) == limits.SWEEP_POINTS_MAX
    with pytest.raises(LimitExceeded, match="points"):
        sweep_points({"x": {"start": 0, "stop": 1e300, "step": 1e-300}})
    with pytest.raises(LimitExceeded):
        sweep_points({"x": most, "y": [1, 2]})

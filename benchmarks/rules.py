"""How many events a second find their rules, by the number of rules.

Two kinds of trigger: `literal`, a stream by its whole path, and `glob`, with `*` within parts of the path, at the
beginning, at the end and in the middle of names. Each event matches one rule; paths are drawn at random. Only the
look-up is measured, not the making of jobs (`schedule` does that). No other engine that we know has an index to
compare with; `10` is what the others are to be held against.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.measure import Case, measure
from hiss.meow_bridge.trigger import TriggerIndex

_EVENTS = 50_000


def run(quick: bool) -> Iterator[dict[str, Any]]:
    for kind in ("literal", "glob"):
        for count in (10, 1000) if quick else (10, 1000, 100_000):
            index: TriggerIndex[int] = TriggerIndex()
            for number in range(count):
                index.add(_trigger(kind, number), number)
            chance = random.Random(1)
            paths = [_path(kind, chance.randrange(count)) for _ in range(_EVENTS // 10 if quick else _EVENTS)]
            case = Case(f"rules/{kind}/{count}", "events", "1/s", lambda i=index, p=paths: _rate(i, p))
            yield measure(case, 2 if quick else 5)


def _trigger(kind: str, number: int) -> str:
    if kind == "literal":
        return f"beam{number % 100}/scan{number}/proj"
    top = f"beam{number % 100}"
    return (f"{top}/scan{number:06}-*/proj", f"{top}/*_{number:06}/proj", f"{top}/run*_{number:06}/proj*")[number % 3]


def _path(kind: str, number: int) -> str:
    if kind == "literal":
        return f"beam{number % 100}/scan{number}/proj"
    top = f"beam{number % 100}"
    return (f"{top}/scan{number:06}-a/proj", f"{top}/foam_{number:06}/proj", f"{top}/run3_{number:06}/proj2")[
        number % 3
    ]


def _rate(index: TriggerIndex[int], paths: list[str]) -> float:
    begin_s = time.perf_counter()
    found = sum(len(index.matching(path)) for path in paths)
    took_s = time.perf_counter() - begin_s
    assert found == len(paths), f"{found} matches of {len(paths)} events"
    return len(paths) / took_s

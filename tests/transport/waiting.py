"""Waiting for conditions, with a limit far above what a slow machine needs."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 30.0


def wait_until(condition: Callable[[], object], what: str | Callable[[], str]) -> None:
    """Return when `condition` holds; fail with `what` when it does not within `LIMIT_S`."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, what if isinstance(what, str) else what()
        time.sleep(0.002)

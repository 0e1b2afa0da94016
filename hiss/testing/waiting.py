"""Waiting for what happens in another thread or process, without sleeping for a guess."""

from __future__ import annotations

import threading
from typing import Any


def wait_for(condition: Any, timeout_s: float = 60.0) -> None:
    """Wait until `condition()` holds; fail after `timeout_s`."""
    ticks = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if condition():
            return
        ticks.wait(0.01)
    raise AssertionError(f"not within {timeout_s} s: {condition}")

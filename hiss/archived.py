"""Waiting until a stream is archived: what the ack level `archived` means to a client. Any thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from hiss.errors import DeadlineExceeded, StreamNotFinal, Unavailable
from hiss.model import StreamInfo
from hiss.store import Store

_PAUSE_MIN_S: Final = 0.05
_PAUSE_MAX_S: Final = 2.0


def wait_archived(
    store: Store, info: StreamInfo, timeout_s: float | None, clock_s: Callable[[], float] = time.monotonic
) -> StreamInfo:
    """Wait until `Store.archived` says so of a final stream; what is known of it then. A server that is away is waited
    for.

    Raises
    ------
    StreamNotFinal, DeadlineExceeded
    """
    if not info.state.final:
        raise StreamNotFinal(
            f"stream {info.path} is open; what is not final is not archived. Seal it", stream=info.path
        )
    give_up_s = None if timeout_s is None else clock_s() + timeout_s
    pause_s = _PAUSE_MIN_S
    while True:
        why = "`hiss drains` shows what waits, and why"
        try:
            if store.archived(info.id):
                return store.stream(info.path, info.version)
        except Unavailable as error:
            why = str(error)
        left_s = _PAUSE_MAX_S if give_up_s is None else give_up_s - clock_s()
        if left_s <= 0:
            raise DeadlineExceeded(f"stream {info.path} is not archived after {timeout_s} s; {why}", stream=info.path)
        time.sleep(min(pause_s, left_s))
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)

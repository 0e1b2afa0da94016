"""What the drain process does for streams that are still written: the targets of policies whose `when` is `live`.

`look` finds the open streams of such targets and lets each `LiveDrain` make a round, at most once in
`limits.LIVE_LOOK_S`; what goes wrong with one is told and tried again at the next look. When a stream is final its
entry comes up in the queue like any other, and `finish` ends what was begun, with the segments that are there, whoever
wrote them. For the thread that drains.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hiss import limits
from hiss.drain.frames import Progress
from hiss.drain.live import LiveDrain
from hiss.drain.targets import make_parents
from hiss.drain_policy import Drain, entry
from hiss.errors import HissError, Stopping, Unavailable
from hiss.store import Store

log = logging.getLogger(__name__)


class LiveWork:
    """
    Parameters
    ----------
    store : Store
        The buffer.
    rate : callable
        Makes what takes the bytes of one target, and waits where they are too many.
    clock_s : callable
        Seconds, never set back.
    """

    def __init__(
        self, store: Store, rate: Callable[[int], Progress], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._rate = rate
        self._clock_s = clock_s
        self._next_s = clock_s()
        self._drains: dict[str, LiveDrain] = {}  # by the id of their entry

    def look(self) -> None:
        """Drain what open streams have, where it is time. Raises `Unavailable` and `Stopping`."""
        if self._clock_s() < self._next_s:
            return
        self._next_s = self._clock_s() + limits.LIVE_LOOK_S
        found = {each.id: each for each in self._open()}
        self._drains = {key: drain for key, drain in self._drains.items() if key in found}
        for each in found.values():
            try:
                self._of(each).look()
            except (Unavailable, Stopping):
                raise
            except (HissError, OSError) as error:
                log.warning("draining %s to %s: %s", each.source, each.url, error)

    def finish(self, final: Drain) -> None:
        """Drain the rest of a stream that is final."""
        self._of(final).look()
        del self._drains[final.id]  # if this raised, it goes on from there

    def _of(self, wanted: Drain) -> LiveDrain:
        found = self._drains.get(wanted.id)
        if found is None:
            make_parents(wanted.target.url, wanted.url)
            found = self._drains[wanted.id] = LiveDrain(
                self._store,
                wanted.source,
                Path(wanted.url),
                version=wanted.version,
                compression=wanted.target.compression,
                on_progress=self._rate(wanted.target.bytes_per_s),
            )
        return found

    def _open(self) -> Iterator[Drain]:
        """The entries that open streams will have."""
        for collection in self._store.collections():
            targets = [] if collection.sealed else self._store.drain_policy(collection.path).targets
            live = [target for target in targets if target.live]
            for info in self._store.streams(collection.path) if live else ():
                if not info.state.final:
                    yield from (entry(target, info.collection, info.name, info.version, 0) for target in live)

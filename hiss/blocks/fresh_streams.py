"""What the catalog knows by heart: streams that this process made and that nothing has changed since.

An open stream is asked for at each step of its short life; what was just written need not be read again. Invariants:
only what is committed is in it, as it would be read; a transaction that changes a stream takes it out before it
commits, so whoever sees the change elsewhere finds nothing old here. Changed by the catalog inside of its transactions,
read by any thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from hiss.blocks.catalog_database import CatalogDatabase
from hiss.model import StreamInfo


@dataclass(frozen=True, slots=True)
class FreshStream:
    info: StreamInfo
    attrs: str  # JSON: each caller gets attributes of its own
    attempt: str | None


class FreshStreams:
    """
    Parameters
    ----------
    database : CatalogDatabase
    """

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database
        self._known: dict[str, FreshStream] = {}

    def get(self, stream_id: str) -> StreamInfo | None:
        """What `catalog_rows.stream_info` would make of its row; None where that must be read."""
        found = self._known.get(stream_id)
        return None if found is None else replace(found.info, attrs=json.loads(found.attrs))

    def attempt_of(self, stream_id: str) -> tuple[str | None] | None:
        """Whose staged output it is, in a tuple; None where that must be read."""
        found = self._known.get(stream_id)
        return None if found is None else (found.attempt,)

    def made(self, info: StreamInfo, attrs: str, attempt: str | None) -> None:
        """This transaction enters it."""
        if not info.stages and not info.shadows:  # their parameters come back as JSON has them
            fresh = FreshStream(info, attrs, attempt)
            self._database.on_commit(lambda: self._known.__setitem__(info.id, fresh))

    def changed(self, stream_ids: Iterable[str]) -> None:
        """This transaction changes or deletes them."""
        for stream_id in stream_ids:
            self._known.pop(stream_id, None)
            self._database.on_commit(lambda stream_id=stream_id: self._known.pop(stream_id, None))  # type: ignore[misc]

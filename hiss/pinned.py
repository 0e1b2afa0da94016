"""A buffer as it was for somebody: where no version of a stream is named, the one that was read then is meant.

As thread-safe as the store below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiss.model import StreamInfo
from hiss.store import Store


class PinnedStore:
    """A `Store` that names versions of streams for those who name none; all else is the store's own."""

    def __init__(self, store: Store, versions: Mapping[str, int]) -> None:
        self._store = store
        self._versions = versions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def stream(self, path: str, version: int | None = None) -> StreamInfo:
        return self._store.stream(path, self._versions.get(path) if version is None else version)

"""The suite on a buffer in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hiss
from hiss.client import Buffer
from hiss.limits import MiB
from hiss.testing.conformance import BufferConformance
from hiss.testing.consumers import SharingConformance


class TestEmbedded(BufferConformance, SharingConformance):
    @pytest.fixture
    def buffer(self, tmp_path: Path) -> Iterator[Buffer]:
        with hiss.open(tmp_path / "data", arena_bytes=32 * MiB, segment_bytes=16 * MiB, backend="numpy") as buffer:
            yield buffer

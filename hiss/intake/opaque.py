"""Files as they are: opaque bytes. One block where the file fits into one, else several in their order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hiss import limits
from hiss.intake.parts import Part, Run, Wishes, stream_name
from hiss.model import FrameSpec

OPAQUE = FrameSpec(None, (None,))


@contextmanager
def open_bytes(path: Path, member: str, wishes: Wishes) -> Iterator[list[Part]]:
    size = path.stat().st_size
    step = size if size <= limits.BLOCK_BYTES_MAX else limits.INTAKE_RUN_BYTES

    def runs() -> Iterator[Run]:
        with path.open("rb") as file:
            for content in pieces(file.read, step) if size else [b""]:
                yield Run([content])

    yield [Part(stream_name(path.name), OPAQUE, size, runs, origin=str(path))]


def pieces(read: object, size: int) -> Iterator[bytes]:
    """What `read(size)` gives until it gives nothing."""
    assert callable(read)
    while content := read(size):
        yield content

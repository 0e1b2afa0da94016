"""Timepix3 files: packets of whole chunks, each a block of uint64 words, as `hiss.kernels.library` takes them.

A file is a row of chunks: a header word whose lower half is "TPX3", with the chip in bits 32-39 and the size of what
follows, in bytes, in bits 48-63; then so many bytes of 64-bit words (T. Poikela et al., J. Instrum. 9 (2014) C05013,
and files of ASI's Serval). Chunks are never split, so every packet begins with a header. What is no such file is
stored as bytes. Called from the thread that puts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from hiss import limits
from hiss.errors import InvalidInput
from hiss.intake.opaque import open_bytes
from hiss.intake.parts import Part, Run, Wishes, stream_name
from hiss.model import FrameSpec

_MAGIC: Final = int.from_bytes(b"TPX3", "little")
_WORD_BYTES: Final = 8
_SIZE_SHIFT: Final = 48


@contextmanager
def open_tpx3(path: Path, member: str, wishes: Wishes) -> Iterator[list[Part]]:
    """The packets of a file; as bytes where it does not begin with a chunk, or not consist of words."""
    size = path.stat().st_size
    words = np.memmap(path, "<u8", "r") if size and size % _WORD_BYTES == 0 else np.zeros(0, "<u8")
    if not len(words) or _is_not_a_header(int(words[0])):
        with open_bytes(path, member, wishes) as parts:
            yield parts
        return

    def runs() -> Iterator[Run]:
        first = 0
        for stop in _packet_ends(words, path):
            yield Run([np.array(words[first:stop])])
            first = stop

    attrs = {"event_format": "Timepix3 raw"}
    yield [Part(stream_name(path.stem), FrameSpec("<u8", (None,)), size, runs, attrs=attrs, origin=str(path))]


def _packet_ends(words: np.ndarray[tuple[int], np.dtype[np.uint64]], path: Path) -> Iterator[int]:
    """Where packets end: at the last chunk's end before they were too large."""
    begin = place = 0
    most = limits.INTAKE_PACKET_BYTES // _WORD_BYTES
    while place < len(words):
        head = int(words[place])
        if _is_not_a_header(head):
            raise InvalidInput(
                f"{path}: word {place} is {head:#018x}, expected the header of a chunk; use --bytes to store the file "
                "as it is"
            )
        after = min(len(words), place + 1 + (head >> _SIZE_SHIFT) // _WORD_BYTES)  # the last chunk may be cut
        if after - begin > most and place > begin:
            yield place
            begin = place
        place = after
    if place > begin:
        yield place


def _is_not_a_header(word: int) -> bool:
    return word & 0xFFFFFFFF != _MAGIC

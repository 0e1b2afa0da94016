"""A stream's bytes and nothing else: a .npy file, or the blocks one after another, an object stored as it came.

Such a file has no place for digests, ledger or attributes; those stay in the buffer's record of the stream, so
`hiss verify` cannot check it by itself. It is compared before it gets its name as every other format is. The form of
.npy: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0. One extent is in memory at a
time. Called from the thread that drains.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hiss.drain.formats import Content, Outcome, Placed, check_count
from hiss.drain.frames import Progress, gather, wrong_in_pieces
from hiss.errors import BlockDamaged, Damaged, InvalidInput
from hiss.limits import MiB
from hiss.model import ByteArray, IntArray, Selection, StreamInfo
from hiss.store import Store

_READ_BYTES = 8 * MiB


class Bare:
    """A format of `drain` for one stream: `npy` where all blocks have one size, `raw` for any."""

    compression = "none"
    holds_all = False  # no columns, no times, no indices

    def __init__(self, form: str, compression: str = "auto") -> None:
        if compression not in ("auto", "none"):
            raise InvalidInput(f"compression {compression!r}: a {form} file holds bytes as they are; choose none")
        self._npy = form == "npy"

    def write(self, part: Path, name: str, content: Content, store: Store, progress: Progress) -> Outcome:
        if len(content.streams) != 1:
            raise InvalidInput(
                f"{name}: holds one stream, {content.title} has {len(content.streams)}; name one, or choose another "
                "format"
            )
        (info,) = content.streams
        if self._npy and info.frame.variable:
            raise InvalidInput(f"{info.path}: blocks differ in length and form no array; choose the format raw")
        with part.open("xb") as out:
            if self._npy:
                write_npy_header(out, info, info.completeness.blocks)

            def append(data: ByteArray) -> None:
                out.write(data.data)

            written = gather(info, store.read(info.id, Selection()), append, progress)
        check_count(info, written)
        if self._npy and len(written) != info.completeness.blocks:  # computed on the way out, some of them vetoed
            with part.open("r+b") as head:
                write_npy_header(head, info, len(written))
        return Outcome((Placed(info, "", name, written),))

    def compare(self, part: Path, outcome: Outcome, progress: Progress) -> None:
        (one,) = outcome.placed
        with part.open("rb") as file:
            start = _npy_start(file) if self._npy else 0
            ends: IntArray = np.cumsum(one.written.length)
            wrong = next(wrong_in_pieces(_pieces(file, start), ends, one.written.digest, 1, progress), None)
        if wrong is not None:
            index = int(one.written.index[wrong[0]])
            raise BlockDamaged(
                f"block {index} of {one.info.path} read back from {part} {wrong[1]}; drain again, to another disk if "
                "it happens twice",
                stream=one.info.path,
                index=index,
            )
        if part.stat().st_size != start + one.written.bytes:
            raise Damaged(f"{part}: {part.stat().st_size} bytes, written were {start + one.written.bytes}; drain again")


def write_npy_header(out: BinaryIO, info: StreamInfo, blocks: int) -> None:
    """The header of a version 1.0 file; NumPy pads it so that a count of any size fits in place."""
    shape = (blocks, *(length for length in info.frame.shape if length is not None))
    header = {"descr": info.frame.numpy_dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)


def _npy_start(file: BinaryIO) -> int:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return file.tell()


def _pieces(file: BinaryIO, start: int) -> Iterator[tuple[int, Any]]:
    file.seek(start)
    while piece := file.read(_READ_BYTES):
        yield len(piece), np.frombuffer(piece, np.uint8)

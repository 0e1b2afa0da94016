"""What a file holds, as streams that could be made of it: `Part`s, read in `Run`s of blocks.

Nothing is read whole: a part says of which form its blocks are, and reads about `limits.INTAKE_RUN_BYTES` at a time.
Arrays that are big-endian in the file become little-endian, as all of a buffer's are. Pure but for what the
formats' modules hand in; called from the thread that puts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.errors import HissError, InvalidInput
from hiss.model import Attrs, Column, FrameSpec, IntArray


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user says of a file's form, where the file leaves it open."""

    whole: bool = False  # one block of the whole array
    rows: bool = False  # one block for each entry of the first axis, also where there are fewer than three
    as_bytes: bool = False  # the file as it is
    split: bool = False  # all that the file has, as streams of their own, rather than its main one
    columns: tuple[str, ...] = ()  # 'NAME=DATASET[ UNIT]'


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Consecutive blocks: an array `(n, *shape)`, or a list of arrays or bytes where they differ in length."""

    blocks: npt.NDArray[Any] | list[Any]
    values: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)  # of the columns
    time_ns: IntArray | None = None
    index: IntArray | None = None

    @property
    def bytes(self) -> int:
        if isinstance(self.blocks, np.ndarray):
            return self.blocks.nbytes
        return sum(len(block) if isinstance(block, bytes) else block.nbytes for block in self.blocks)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One stream's worth of a file, to be read (`read`) while the file is open.

    `name` is what its stream is called where the user names none, `origin` where in the file it was.
    """

    name: str
    frame: FrameSpec
    bytes: int
    runs: Callable[[], Iterator[Run]]
    columns: tuple[Column, ...] = ()
    attrs: Attrs = field(default_factory=dict)
    collection_attrs: Attrs = field(default_factory=dict)
    origin: str = ""

    def read(self) -> Iterator[Run]:
        """The runs; whatever the format's reader raises, as files that are damaged make it, is `InvalidInput`."""
        try:
            yield from self.runs()
        except HissError:
            raise
        except Exception as error:
            raise InvalidInput(f"{self.origin}: cannot be read: {' '.join(str(error).split())[:300]}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What a file has for each block beside the blocks."""

    columns: tuple[Column, ...] = ()
    values: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    time_ns: IntArray | None = None
    index: IntArray | None = None

    def of(self, rows: slice) -> tuple[dict[str, npt.NDArray[Any]], IntArray | None, IntArray | None]:
        return (
            {name: values[rows] for name, values in self.values.items()},
            None if self.time_ns is None else self.time_ns[rows],
            None if self.index is None else self.index[rows],
        )


NOTHING = Beside()


def counts_blocks(array: Any, wishes: Wishes) -> bool:
    """Whether the first axis of an array counts blocks; else the array is one block."""
    return not wishes.whole and (array.ndim >= 3 or (wishes.rows and array.ndim >= 1))


def array_part(
    name: str, array: Any, wishes: Wishes, *, beside: Beside = NOTHING, attrs: Attrs | None = None, origin: str = "",
    collection_attrs: Attrs | None = None,
) -> Part:  # fmt: skip
    """A part of an array, or of what is sliced as one: a mapped file, a dataset.

    Raises
    ------
    InvalidInput
        Its dtype is no number.
    BlockTooLarge
    """
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "biufc":
        raise InvalidInput(f"{origin or name}: dtype {dtype}: expected numbers; use --bytes to store the file as it is")
    many = counts_blocks(array, wishes)
    frame = FrameSpec(dtype.str, tuple(array.shape[1:] if many else array.shape))
    count = int(array.shape[0]) if many else 1

    def runs() -> Iterator[Run]:
        step = max(1, limits.INTAKE_RUN_BYTES // frame.item_bytes)
        for first in range(0, count, step):
            rows = slice(first, first + step)
            blocks = np.asarray(array[rows] if many else array[()])
            values, time_ns, index = beside.of(rows)
            blocks = np.ascontiguousarray(blocks if many else blocks[np.newaxis], frame.numpy_dtype)
            yield Run(blocks.reshape(-1, *frame.shape), values, time_ns, index)

    total = count * frame.item_bytes
    return Part(name, frame, total, runs, beside.columns, attrs or {}, collection_attrs or {}, origin)


def stream_name(text: str) -> str:
    """A text as a stream may be called: letters, digits, `_`, `-`, inner dots; never one of a raw companion."""
    name = re.sub(r"[^A-Za-z0-9_.\-]", "_", text)[: limits.NAME_CHARS_MAX].rstrip(".")
    name = name if re.match(r"[A-Za-z0-9_]", name) else f"_{name}"[: limits.NAME_CHARS_MAX].rstrip(".")
    return f"{name[:-4]}_raw" if name.endswith(".raw") else name


def column_name(text: str, taken: Mapping[str, Any]) -> str:
    """A text as a column may be called, and as none of `taken` is."""
    base = stream_name(text)
    base = f"{base}_" if base in ("index", "time_ns") else base
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name

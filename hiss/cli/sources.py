"""Files that `hiss put` reads, as batches of blocks: .npy, HDF5 datasets, and any file as bytes.

Nothing is read whole: .npy files are mapped, HDF5 datasets read in batches of about `BATCH_BYTES`. Called from the main
thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from hiss.errors import BlockTooLarge, InvalidInput
from hiss.limits import BLOCK_BYTES_MAX, MiB

BATCH_BYTES: Final = 32 * MiB

Batch = tuple[Any, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Frames:
    """Blocks of one element type: an `array` whose first axis counts them, or opaque `content`, which is one block."""

    dtype: str | None
    shape: tuple[int | None, ...]
    bytes: int
    array: Any = None
    columns: dict[str, str] = field(default_factory=dict)  # name -> 'DTYPE UNIT'
    values: dict[str, Any] = field(default_factory=dict)  # name -> one value for each block
    content: memoryview | None = None

    def batches(self) -> Iterator[Batch]:
        """Runs of blocks with their columns' values."""
        count = len(self.array)
        step = max(1, BATCH_BYTES // max(1, self.bytes // max(1, count)))
        for first in range(0, count, step):
            part = slice(first, first + step)
            yield np.ascontiguousarray(self.array[part]), {name: values[part] for name, values in self.values.items()}


@contextmanager
def open_source(text: str, *, whole: bool, as_bytes: bool, columns: Sequence[str]) -> Iterator[Frames]:
    """Open `FILE[::DATASET]`.

    Raises
    ------
    InvalidInput
        No such file or dataset, a dtype that is no number, columns that do not fit.
    """
    file, separator, dataset = text.partition("::")
    path = Path(file)
    if not path.is_file():
        raise InvalidInput(f"{file}: there is no such file")
    if separator:
        with _open_dataset(path, dataset, whole, columns) as frames:
            yield frames
        return
    if columns:
        raise InvalidInput("--column takes datasets of an HDF5 file: name it as FILE::DATASET")
    if path.suffix == ".npy" and not as_bytes:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InvalidInput(f"{file}: not a .npy file of numbers: {error}") from None
        yield _frames(array, whole)
    else:
        if path.stat().st_size > BLOCK_BYTES_MAX:
            raise BlockTooLarge(
                f"{file}: {path.stat().st_size} bytes, one block may have {BLOCK_BYTES_MAX}; store it in parts",
                allowed=BLOCK_BYTES_MAX,
                found=path.stat().st_size,
            )
        content = path.read_bytes()
        yield Frames(None, (None,), len(content), content=memoryview(content))


@contextmanager
def _open_dataset(path: Path, name: str, whole: bool, columns: Sequence[str]) -> Iterator[Frames]:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InvalidInput(f"{path}: not an HDF5 file that can be read: {error}") from None
    with file:
        frames = _frames(_dataset(file, name), whole)
        specs: dict[str, str] = {}
        values: dict[str, Any] = {}
        for text in columns:
            column, _, rest = text.partition("=")
            member, _, unit = rest.partition(" ")
            found = _dataset(file, member)[()]
            if found.shape != (len(frames.array),):
                raise InvalidInput(
                    f"column {column!r}: {member} has the shape {found.shape}, expected one value for each of "
                    f"{len(frames.array)} blocks"
                )
            specs[column] = f"{found.dtype.str} {unit}".strip()
            values[column] = found
        yield Frames(frames.dtype, frames.shape, frames.bytes, frames.array, specs, values)


def _dataset(file: Any, name: str) -> Any:
    import h5py

    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        known: list[str] = []
        file.visititems(lambda path, item: known.append(path) if isinstance(item, h5py.Dataset) else None)
        raise InvalidInput(f"{file.filename}: no dataset {name!r}; there are {', '.join(known[:20]) or 'none'}")
    return found


def _frames(array: Any, whole: bool) -> Frames:
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "biufc":
        raise InvalidInput(f"dtype {dtype}: expected numbers; use --bytes to store the file as it is")
    count = int(np.prod(array.shape, dtype=np.int64)) * dtype.itemsize
    if whole or array.ndim < 3:
        return Frames(dtype.str, tuple(array.shape), count, np.asarray(array[()])[np.newaxis])
    return Frames(dtype.str, tuple(array.shape[1:]), count, array)

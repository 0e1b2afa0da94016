""".npy and .npz files. A .npy file is mapped, a member of an .npz file read when its turn comes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hiss.errors import InvalidInput
from hiss.intake.parts import Part, Wishes, array_part, stream_name


@contextmanager
def open_npy(path: Path, member: str, wishes: Wishes) -> Iterator[list[Part]]:
    """The array of a .npy file; it has no members."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidInput(f"{path}: not a .npy file of numbers: {error}") from None
    yield [array_part(stream_name(path.stem), array, wishes, origin=str(path))]


@contextmanager
def open_npz(path: Path, member: str, wishes: Wishes) -> Iterator[list[Part]]:
    """The arrays of an .npz file, or the one called `member`."""
    try:
        file = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{path}: not an .npz file: {error}") from None
    with file:
        if member and member not in file.files:
            raise InvalidInput(f"{path}: no array {member!r}; there are {', '.join(file.files) or 'none'}")
        yield [_part(path, name, file, wishes) for name in ([member] if member else file.files)]


def _part(path: Path, name: str, file: Any, wishes: Wishes) -> Part:
    try:
        array = file[name]
    except ValueError as error:
        raise InvalidInput(f"{path}::{name}: {error}") from None
    return array_part(stream_name(name), array, wishes, origin=f"{path}::{name}")

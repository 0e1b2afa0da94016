"""Recipes that work with files: their input as a file, and the files that they leave as streams. One thread.

A file comes back under its name, beside the job's input, one in a folder below a collection of the folder's name.
What no path of the buffer may hold is replaced by `_`. A `.npy` file is a stream of its array's dtype and shape, the
first axis counting blocks; any other is a stream of opaque blocks, with `media_type` by its name and `file`, its own
path, among the attributes. Links, empty files, and what is named like Python's and Jupyter's own (`.x`, `__pycache__`)
are left out.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hiss import limits
from hiss.errors import InvalidRecipe, LimitExceeded
from hiss.job import CurrentJob

_FORMS: Final = {"nexus": ("nexus", ".nxs"), "npy": ("npy", ".npy"), "path": ("raw", "")}
_CHUNK_BYTES: Final = limits.EXTENT_BYTES_TARGET


def input_file(current: CurrentJob, form: str, directory: Path) -> Path:
    """Write the version of the stream that triggered the job into a file, checked by its digests.

    Raises
    ------
    InvalidRecipe
        A collection triggered it, and the form is not `nexus`; a timer did.
    """
    from hiss.drain import drain

    path: str = current.specification["path"]
    version: int = current.specification["version"]
    drained, suffix = _FORMS[form]
    if not version and form != "nexus":
        raise InvalidRecipe(f"input_as={form!r} is for streams, and {path} is a collection; a nexus file holds one")
    name = path.rpartition("/")[2]
    target = directory / (name if name.endswith(suffix) else name + suffix)
    directory.mkdir(mode=0o700)
    drain(
        current.buffer.store,
        path if version else f"{path}/",
        target,
        version=version or None,
        form=drained,
        compression="none",
    )
    return target


def keep_files(current: CurrentJob, directory: Path) -> None:
    """Store the files below `directory` as streams of the job.

    Raises
    ------
    LimitExceeded
        More than `limits.JOB_FILES_MAX` files, or `limits.JOB_WORK_BYTES_MAX` bytes.
    """
    found = sorted(_files(directory))
    if len(found) > limits.JOB_FILES_MAX:
        raise LimitExceeded(
            f"it left {len(found)} files in its working directory, {limits.JOB_FILES_MAX} may come back as streams; "
            "remove what is not wanted, or pack them"
        )
    size = sum(path.stat().st_size for path in found)
    if size > limits.JOB_WORK_BYTES_MAX:
        raise LimitExceeded(f"it left files of {size} bytes, {limits.JOB_WORK_BYTES_MAX} may come back as streams")
    taken: set[str] = set()
    for path in found:
        name = _free(stream_name(path.relative_to(directory)), taken)
        _keep(current, path, f"{current.collection}/{name}", str(path.relative_to(directory)))


def stream_name(relative: Path) -> str:
    """A file's path as the path of a stream, below a collection."""
    return "/".join(_part(part) for part in relative.parts[-limits.PATH_PARTS_MAX // 2 :])


def _part(name: str) -> str:
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[: limits.NAME_CHARS_MAX - 4]
    clean = re.sub(r"^[.-]", "_", clean)
    return re.sub(r"\.$", "_", clean) or "_"


def _free(name: str, taken: set[str]) -> str:
    """The name, or with a number behind it if another file's is the same by now."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _files(directory: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not _is_private(name)]
        for name in names:
            path = Path(folder, name)
            if not _is_private(name) and path.is_file() and not path.is_symlink() and path.stat().st_size:
                yield path


def _is_private(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def _keep(current: CurrentJob, path: Path, stream: str, relative: str) -> None:
    if path.suffix == ".npy" and _keep_array(current, path, stream, relative):
        return
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    writer = current.output(stream, dtype=None, attrs={"media_type": media_type, "file": relative})
    assert writer is not None
    with writer, path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            writer.append(chunk)


def _keep_array(current: CurrentJob, path: Path, stream: str, relative: str) -> bool:
    """Store the array of a .npy file; False where it holds none of numbers."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError):
        return False
    if array.dtype.kind not in "biufc" or array.size == 0:
        return False
    current.output(stream, array, attrs={"file": relative})
    return True

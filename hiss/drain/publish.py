"""A file that appears under its name only when it is whole.

The bytes are written to a hidden temporary name beside the target, synced, checked by the caller, and only then given
their name; the directory is synced after that. A crash leaves at most a `.NAME.….part`, which nobody takes for the
file. Called from the thread that drains.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hiss.errors import AlreadyExists, InvalidInput


@contextmanager
def published(target: Path, *, overwrite: bool = False, token: str | None = None) -> Iterator[Path]:
    """Yield the temporary path; on a normal exit sync it and give it the name `target`, on an error remove it.

    `token` is part of the temporary name, which who uses the same one again can find.

    Raises
    ------
    AlreadyExists
        `target` is there and `overwrite` is False.
    InvalidInput
        The directory of `target` is not there.
    """
    if not target.parent.is_dir():
        raise InvalidInput(f"{target}: there is no directory {target.parent}; create it first")
    if target.exists() and not overwrite:
        raise _taken(target)
    if target.is_dir() and not (target / "zarr.json").is_file():
        raise InvalidInput(f"{target}: is a directory, and no Zarr group that could be replaced; choose another name")
    token = token or secrets.token_hex(4)
    part = target.parent / f".{target.name}.{token}.part"
    try:
        yield part
        sync_tree(part)
        if overwrite:
            _replace(part, target, token)
        else:
            _rename_new(part, target)
        _sync_directory(target.parent)
    finally:
        remove(part)


def sync_file(path: Path) -> None:
    """Force a file to the disk and drop it from the page cache, so that what is read next comes from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """`sync_file` of a file, or of all files of a directory and of the directories in it."""
    if not path.is_dir():
        sync_file(path)
        return
    for below in path.iterdir():
        sync_tree(below)
    _sync_directory(path)


def tree_bytes(path: Path) -> int:
    """The size of a file, or of all files in a directory."""
    return sum(below.stat().st_size for below in (path.rglob("*") if path.is_dir() else (path,)) if below.is_file())


def _replace(part: Path, target: Path, token: str) -> None:
    """Give `part` the name of what is there. A directory cannot be replaced in one step: it is moved aside first."""
    if not target.is_dir():
        os.replace(part, target)
        return
    aside = target.parent / f".{target.name}.{token}.old"
    os.rename(target, aside)
    os.rename(part, target)
    remove(aside)


def remove(path: Path) -> None:
    """A file or a tree, where it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _rename_new(part: Path, target: Path) -> None:
    """Rename without replacing: a link fails where the name is taken; not all file systems have links."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:
        if target.exists():
            raise _taken(target) from None
        os.rename(part, target)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _taken(target: Path) -> AlreadyExists:
    return AlreadyExists(f"{target} is there already; choose another name, or overwrite it", path=str(target))

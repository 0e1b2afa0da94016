"""A file that appears under its name only when it is whole.

The bytes are written to a hidden temporary name beside the target, synced, checked by the caller, and only then given
their name; the directory is synced after that. A crash leaves at most a `.NAME.….part`, which nobody takes for the
file. Called from the thread that drains.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hiss.errors import AlreadyExists, InvalidInput


@contextmanager
def published(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield the temporary path; on a normal exit sync it and give it the name `target`, on an error remove it.

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
    part = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        yield part
        sync_file(part)
        if overwrite:
            os.replace(part, target)
        else:
            _rename_new(part, target)
        _sync_directory(target.parent)
    finally:
        part.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Force a file to the disk and drop it from the page cache, so that what is read next comes from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


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

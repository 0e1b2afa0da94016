"""Paths of watched files as the rule engine names them: `file:` and the absolute path, in triggers, events and jobs.

A part `.` of a trigger says which directory `{VGRID}` is: in `file:/data/./scan*/raw/*.tif` it is `/data`. Without it,
that is the directory that is watched.

Pure functions, callable from any thread.
"""

from __future__ import annotations

import posixpath
from typing import Final

from hiss import limits
from hiss.errors import InvalidPattern

SCHEME: Final = "file:"
KIND: Final = "file.written"  # the event
NODE: Final = "file"  # of the event's id


def is_file(trigger_or_path: str) -> bool:
    return trigger_or_path.startswith(SCHEME)


def local_path(path: str) -> str:
    """The absolute path in the file system."""
    assert is_file(path), path
    return path.removeprefix(SCHEME)


def watched_root(trigger: str) -> str:
    """The directory that is watched for a trigger: its parts before the first with a `*` or `?`, the last left out."""
    directories = local_path(trigger).split("/")[:-1]
    literal: list[str] = []
    for part in directories:
        if part == ".":
            continue
        if "*" in part or "?" in part:
            break
        literal.append(part)
    return "/".join(literal) or "/"


def keyword_root(trigger: str) -> str:
    """The directory that `{VGRID}` stands for, and `{REL_PATH}` is below."""
    root, marker, _ = local_path(trigger).partition("/./")
    return (root or "/") if marker else watched_root(trigger)


def file_trigger_parts(trigger: str, owner: str) -> tuple[str, ...]:
    """The parts of a trigger over files, checked; their names may hold what names of files may."""
    path = local_path(trigger)
    parts = path.split("/")[1:]
    if "." in parts[1:-1]:
        parts.remove(".")
    if not path.startswith("/") or not all(parts) or any(part in (".", "..") or "\0" in part for part in parts):
        raise InvalidPattern(
            f"{owner}: trigger {trigger[:80]!r}; expected 'file:' and an absolute path, without empty parts and '..', "
            "and with one '.' at most, in which '*' and '?' may stand for other characters, or '**' alone for any "
            "number of parts"
        )
    if any("**" in part and part != "**" for part in parts) or len(parts) > limits.FILE_PATH_PARTS_MAX:
        raise InvalidPattern(
            f"{owner}: trigger {trigger[:80]!r}; '**' stands alone between two '/', and there are at most "
            f"{limits.FILE_PATH_PARTS_MAX} parts"
        )
    kept = [part for place, part in enumerate(parts) if part != "**" or parts[place - 1 : place] != ["**"]]
    return (SCHEME, *kept)


def file_keywords(path: str, root: str) -> dict[str, str]:
    """What the keywords of paths stand for where a file below `root` made the event."""
    name = posixpath.basename(path)
    directory = posixpath.dirname(path)
    prefix, extension = posixpath.splitext(name)
    below = posixpath.relpath(path, root)
    return {
        "PATH": path,
        "COLLECTION": directory,
        "STREAM": name,
        "DIR": directory,
        "REL_PATH": below,
        "REL_DIR": posixpath.dirname(below),
        "FILENAME": name,
        "PREFIX": prefix,
        "EXTENSION": extension,
        "VGRID": root,
    }

"""The keywords of a pattern's string values: `{PATH}`, `{COLLECTION}`, `{JOB}` and their like (thesis of D. Marchant,
table 10.1, with `{COLLECTION}`, `{STREAM}`, `{EVENT}` and `{VERSION}` added).

Pure functions, callable from any thread. Replacement is one pass: what a keyword brings in is not looked at again,
and braces that hold anything else (`{x}`, `{}`) stay as they are.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any, Final

from hiss.meow_bridge.file_paths import file_keywords, local_path

KEYWORDS: Final = {
    "PATH": "the stream's path, COLLECTION/STREAM",
    "COLLECTION": "the collection's path",
    "STREAM": "the stream's name",
    "DIR": "the same as {COLLECTION}",
    "REL_PATH": "{PATH} below {VGRID}",
    "REL_DIR": "{DIR} below {VGRID}",
    "FILENAME": "the stream's name with its extension",
    "PREFIX": "the stream's name without its extension",
    "EXTENSION": "the extension with its dot: {PREFIX}{EXTENSION} is {FILENAME}",
    "VGRID": "the root that is monitored: the first part of the path",
    "JOB": "the job's id",
    "EVENT": "the event's id",
    "VERSION": "the stream's version",
}

_KEYWORD = re.compile(r"\{(" + "|".join(KEYWORDS) + r")\}")


def keyword_values(
    collection: str, stream: str, version: int, event: str, job: str, file_root: str = ""
) -> dict[str, str]:
    """What each keyword stands for; `stream` is '' for the event of a collection.

    For the event of a watched file they are of its path in the file system, and `file_root` is the watched directory.
    """
    if file_root:
        path = local_path(f"{collection}/{stream}")
        return {**file_keywords(path, file_root), "JOB": job, "EVENT": event, "VERSION": str(version)}
    path = f"{collection}/{stream}" if stream else collection
    root, _, below = path.partition("/")
    prefix, extension = posixpath.splitext(stream)
    return {
        "PATH": path,
        "COLLECTION": collection,
        "STREAM": stream,
        "DIR": collection,
        "REL_PATH": below,
        "REL_DIR": collection.partition("/")[2],
        "FILENAME": stream,
        "PREFIX": prefix,
        "EXTENSION": extension,
        "VGRID": root,
        "JOB": job,
        "EVENT": event,
        "VERSION": str(version),
    }


def replaced(value: Any, values: Mapping[str, str]) -> Any:
    """`value` with the keywords replaced in every string in it, at any depth. The names in objects stay."""
    if isinstance(value, str):
        return _KEYWORD.sub(lambda match: values[match[1]], value)
    if isinstance(value, Mapping):
        return {name: replaced(entry, values) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(entry, values) for entry in value]
    return value

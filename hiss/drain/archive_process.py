"""The process that reads archives for a data process: `python -m hiss.drain.archive_process`, a socket on its
standard input.

HDF5, its filters and a file system that hangs stay in here; whoever waits too long ends it. A request is 4 bytes, the
length of what follows, and JSON: `location`, the stream, and with `first` and `stop` a run of blocks. A reply is 4
bytes and JSON, `sizes` of the arrays whose bytes follow, or `error`: the class and the text. It answers one request
after the other, keeps the newest archives open, and ends when its socket does or after `limits.ARCHIVE_IDLE_S`
without a request.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections import OrderedDict
from typing import Any

import numpy as np

from hiss import limits
from hiss.drain.archived import VECTORS, ArchivedStream, Wanted, opened, stamp
from hiss.errors import Damaged, HissError

_LENGTH = struct.Struct("<I")


class Archives:
    """The archives that are open, at most `limits.ARCHIVES_OPEN_MAX`."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[Any, ...], ArchivedStream] = OrderedDict()

    def answer(self, request: dict[str, Any]) -> list[Any]:
        """The arrays that were asked for."""
        location = str(request["location"])
        columns = tuple((str(name), str(dtype)) for name, dtype in request["columns"])
        wanted = Wanted(request["id"], request["digest"], request["dtype"], bool(request["variable"]), columns)
        archive = self._opened(location, wanted)
        try:
            if "first" not in request:
                table = archive.table()
                return [np.ascontiguousarray(table[name]) for name in (*VECTORS, "columns")]
            return [np.ascontiguousarray(archive.blocks(int(request["first"]), int(request["stop"])))]
        except HissError:
            raise
        except Exception as error:  # whatever HDF5 and zarr-python make of a damaged file is the finding
            raise Damaged(
                f"{location} cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
                archive=location,
            ) from None

    def _opened(self, location: str, wanted: Wanted) -> ArchivedStream:
        key = (location, wanted, *stamp(location))
        if key not in self._open:
            self._open[key] = opened(location, wanted)
            while len(self._open) > limits.ARCHIVES_OPEN_MAX:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]


def serve(line: socket.socket) -> None:
    """Answer until the other end closes, or nobody asks for long."""
    archives = Archives()
    line.settimeout(limits.ARCHIVE_IDLE_S)
    while (head := _received(line, _LENGTH.size)) is not None:
        body = _received(line, _LENGTH.unpack(head)[0])
        if body is None:
            return
        try:
            arrays = archives.answer(json.loads(body))
            _reply(line, {"sizes": [array.nbytes for array in arrays]})
            for array in arrays:
                line.sendall(array.reshape(-1).view(np.uint8))
        except HissError as error:
            _reply(line, {"error": [type(error).__name__, error.message], "details": error.details})


def _reply(line: socket.socket, said: dict[str, Any]) -> None:
    text = json.dumps(said).encode()
    line.sendall(_LENGTH.pack(len(text)) + text)


def _received(line: socket.socket, count: int) -> bytes | None:
    """So many bytes; None where the other end has closed, or nothing came for long."""
    parts, missing = [], count
    while missing:
        try:
            part = line.recv(missing)
        except (TimeoutError, ConnectionError):
            return None
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    from hiss.process import die_with_parent

    die_with_parent()
    os.chdir("/")
    serve(socket.socket(fileno=0))

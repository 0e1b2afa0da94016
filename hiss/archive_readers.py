"""The processes that read archives, as the data process uses them: started when they are needed, ended when they hang.

HDF5 has one lock and a file system can hang for minutes; neither may touch the way of the data. So archives are read by
`hiss.drain.archive_process`, at most `limits.ARCHIVE_READERS_MAX` at once, each asked by one thread at a time over a
socket of its own. One that does not answer within `limits.ARCHIVE_READ_S` is killed, and its archive is not asked again
for `limits.ARCHIVE_SILENT_S`; one that dies is replaced, one that nobody asks ends by itself. Any thread; how long and
how many wait is bounded.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np

from hiss import limits
from hiss.errors import ArchiveUnreachable, Damaged, HissError, from_name
from hiss.model import ByteArray

_LENGTH = struct.Struct("<I")
_SOCKET_BYTES = 4 * limits.MiB
_GONE_S = 1.0


class _Ended(Exception):
    """The process is not there any more."""


class _Reader:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        for each in (self._line, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        with theirs:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "hiss.drain.archive_process"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the server, which then closes the socket
            )

    def ask(self, request: bytes, until_s: float) -> list[ByteArray]:
        """Raises `TimeoutError`, `_Ended`, or what the process says."""
        try:
            self._wait(until_s)
            self._line.sendall(_LENGTH.pack(len(request)) + request)
            head = bytes(self._receive(_LENGTH.size, until_s))
            said = json.loads(bytes(self._receive(_LENGTH.unpack(head)[0], until_s)))
            found = [self._receive(size, until_s) for size in said.get("sizes", ())]
        except ConnectionError:
            raise _Ended from None
        if "error" in said:
            raise from_name(said["error"][0], said["error"][1], said["details"])
        return found

    def _receive(self, count: int, until_s: float) -> ByteArray:
        if not 0 <= count <= limits.ARCHIVE_REPLY_BYTES_MAX:
            raise _Ended
        found = np.empty(count, np.uint8)
        view = found.data
        done = 0
        while done < count:
            self._wait(until_s)
            got = self._line.recv_into(view[done:])
            if not got:
                raise _Ended
            done += got
        return found

    def _wait(self, until_s: float) -> None:
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._line.settimeout(left_s)

    def end(self, *, kill: bool = False) -> int | None:
        """Its exit status; None where it does not even die, in a file system that hangs."""
        self._line.close()
        if kill:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_GONE_S)
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_GONE_S)
        return None


class ArchiveReaders:
    """The processes, none of them at first."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(limits.ARCHIVE_READERS_MAX)
        self._lock = threading.Lock()
        self._idle: list[_Reader] = []
        self._asked = 0  # requests that are answered now or wait
        self._silent: dict[str, float] = {}  # archives that did not answer, and until when they are left alone
        self._closed = False

    def ask(self, location: str, **request: Any) -> list[ByteArray]:
        """The arrays that an archive process answers with.

        Raises
        ------
        ArchiveUnreachable
            It cannot be read, does not answer, or its reading ends the process.
        Damaged
            What is there is not what was drained.
        """
        with self._lock:
            if self._asked >= limits.ARCHIVE_READERS_MAX + limits.ARCHIVE_WAITING_MAX:
                raise _unreachable(location, f"{self._asked} reads of archives are waiting; try again")
            self._asked += 1
        try:
            self._check_answers(location)
            if not self._free.acquire(timeout=limits.ARCHIVE_READ_S):
                raise _unreachable(location, "all processes that read archives are busy; try again")
            try:
                self._check_answers(location)
                return self._ask(location, json.dumps({"location": location, **request}).encode())
            finally:
                self._free.release()
        finally:
            with self._lock:
                self._asked -= 1

    def _check_answers(self, location: str) -> None:
        with self._lock:
            self._silent = {each: until_s for each, until_s in self._silent.items() if until_s > time.monotonic()}
            if location in self._silent:
                left_s = self._silent[location] - time.monotonic()
                raise _unreachable(location, f"it did not answer a moment ago, and is asked again in {left_s:.0f} s")

    def _ask(self, location: str, request: bytes) -> list[ByteArray]:
        until_s = time.monotonic() + limits.ARCHIVE_READ_S
        for again in (True, False):
            reader, fresh = self._take()
            try:
                found = reader.ask(request, until_s)
            except TimeoutError:
                reader.end(kill=True)
                with self._lock:
                    self._silent[location] = time.monotonic() + limits.ARCHIVE_SILENT_S
                raise _unreachable(
                    location, f"no answer within {limits.ARCHIVE_READ_S:g} s; is the file system there?"
                ) from None
            except _Ended:
                status = reader.end(kill=True)
                if not again or (fresh and status is None):
                    raise _unreachable(location, f"the process that read it ended with status {status}") from None
            except HissError:
                self._give_back(reader)
                raise
            except BaseException:
                reader.end(kill=True)
                raise
            else:
                self._give_back(reader)
                return found
        raise AssertionError("a reader that ended twice was not told")

    def _take(self) -> tuple[_Reader, bool]:
        with self._lock:
            if self._closed:
                raise ArchiveUnreachable("the buffer is closing; archives are not read any more")
            if self._idle:
                return self._idle.pop(), False
        return _Reader(), True

    def _give_back(self, reader: _Reader) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(reader)
                return
        reader.end()

    def close(self) -> None:
        """End them all; one that is asked now ends with its answer."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.end()


def _unreachable(location: str, why: str) -> ArchiveUnreachable:
    return ArchiveUnreachable(f"{location} cannot be read: {why}", archive=location)


def as_damaged(location: str, what: str) -> Damaged:
    """An archive whose answer is not the stream's."""
    return Damaged(f"{location}: {what}; `hiss verify` tells what else is wrong with it", archive=location)

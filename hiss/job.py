"""What a recipe uses in its job's process: `hiss.job()`.

`hiss.job_process` makes the job known here. Processes that a recipe starts (a notebook's kernel, a script run by a
command) find the same job through the variable HISS_JOB, so `hiss.job()` works there as well. The buffer is reached
when it is first needed, through HISS_LINE, which is quick to open, or HISS_ADDRESS, with HISS_TOKEN; whatever is
written with that token is published when the job has ended well, all at once, and never otherwise. `CurrentJob` is as
thread-safe as the client below it.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiss.errors import InvalidInput, JobNotFound
from hiss.meow_bridge.file_paths import is_file, local_path

if TYPE_CHECKING:
    from hiss.client import Buffer
    from hiss.store import Store
    from hiss.writer import StreamWriter


class CurrentJob:
    """The job that this process belongs to.

    Attributes
    ----------
    id : str
        The job's id.
    variables : mapping
        All that the recipe gets: the input's path, the pattern's variables and outputs, the point of the sweep.
    """

    def __init__(self, specification: Mapping[str, Any]) -> None:
        self.specification = specification
        self.id: str = specification["job"]
        self.variables: Mapping[str, Any] = types.MappingProxyType(specification["variables"])

    def __repr__(self) -> str:
        return f"<job {self.id[:12]} for {self.specification['path']} version {self.specification['version']}>"

    @cached_property
    def buffer(self) -> Buffer:
        """The buffer, connected with this attempt's token."""
        from hiss.client import Buffer
        from hiss.tls import ClientTls
        from hiss.transport.remote import RemoteStore

        address = os.environ.get("HISS_ADDRESS")
        if not address:
            raise JobNotFound("this job's process was given no address of a buffer (HISS_ADDRESS)")
        line, token = os.environ.get("HISS_LINE"), os.environ.get("HISS_TOKEN")
        store: Store = RemoteStore.connect(address, token, line=line, tls=ClientTls.of(None))
        if "pinned" in self.specification:  # run once more, a job reads what it read then
            from hiss.pinned import PinnedStore

            store = PinnedStore(store, self.specification["pinned"])
        return Buffer(store)

    @cached_property
    def input(self) -> Any:
        """The `Stream` that triggered the job, in that version; for `stream.progress` as far as it was then. For a
        watched file its `Path`."""
        if is_file(self.specification["path"]):
            return Path(local_path(self.specification["path"]))
        stream = self.buffer.stream(self.specification["path"], self.specification["version"])
        if self.specification.get("kind") != "stream.progress":
            return stream
        from hiss.stream_part import StreamPart

        return StreamPart(stream, self.variables["end_index"])

    @property
    def collection(self) -> str:
        """The path of the collection that the job was triggered in."""
        path: str = self.specification["path"]
        if is_file(path):
            return str(self.specification["writes"])
        return path.rpartition("/")[0] if self.specification["version"] else path

    def output(
        self, name: str, array: Any = None, *, rows: Mapping[str, Any] | None = None, **stream: Any
    ) -> StreamWriter | None:
        """Store an array as a stream, or open a stream for writing.

        Parameters
        ----------
        name : str
            A stream in the trigger's collection, or with a '/' a path from the top.
        array : array_like of shape (n, *shape), optional
            Stored as a sealed stream of `n` blocks. Without it the writer is returned, a context manager.
        rows : mapping, optional
            With `array`: `n` values for each column, and `index` or `time_ns`.
        **stream
            For `Collection.create_stream`: `dtype`, `shape`, `columns`, `attrs`, `kernels` and so on.

        A stream that is there already gets a new version. With `array`, `dtype` converts it.
        """
        if array is None:
            return self._writer(name, **stream)
        import numpy as np

        blocks = np.atleast_1d(np.asarray(array, stream.get("dtype")))
        blocks = blocks.astype(blocks.dtype.newbyteorder("<"), copy=False)
        with self._writer(name, **{"shape": blocks.shape[1:], **stream, "dtype": blocks.dtype.str}) as writer:
            writer.extend(blocks, **(rows or {}))
        return None

    def output_bytes(self, name: str, data: bytes, media_type: str = "application/octet-stream") -> None:
        """Store a picture or file as a stream of one opaque block; its kind is the attribute `media_type`."""
        with self._writer(name, dtype=None, attrs={"media_type": media_type}) as writer:
            writer.append(bytes(data))

    def feedback(self, data: Any, *, stream: str | None = None) -> bool:
        """Send small JSON to the producer of the job's input, or of another stream.

        A job may send to streams that it may write to, and with the right `feedback` of its pattern to all. Unlike what
        it writes, this is not held back until the job has ended well, and an attempt that is repeated sends it again.

        Parameters
        ----------
        data
            JSON: text, numbers, lists, objects.
        stream : str, optional
            The path of the stream, in its newest version; by default the one that triggered the job.

        Returns
        -------
        bool
            Whether a producer is connected that hears it; the producer of a sealed stream is not.
        """
        if stream is None:
            if is_file(self.specification["path"]) or not self.specification["version"]:
                raise InvalidInput(f"{self!r} has no stream as its input; name one: feedback(…, stream='scan/proj')")
            return self.buffer.stream(self.specification["path"], self.specification["version"]).send_feedback(data)
        return self.buffer.stream(stream).send_feedback(data)

    def _writer(self, name: str, **stream: Any) -> StreamWriter:
        collection, _, last = name.rpartition("/")
        return self.buffer.collection(collection or self.collection).create_stream(
            last, **{"new_version": True, **stream}
        )


_current: CurrentJob | None = None


def become(current: CurrentJob) -> None:
    """Make `current` the job that this process belongs to."""
    global _current
    _current = current


def job() -> CurrentJob:
    """The job that this process belongs to. Raises `JobNotFound` outside of one."""
    global _current
    if _current is None:
        path = os.environ.get("HISS_JOB")
        if not path:
            raise JobNotFound("hiss.job() works in a job's process only: in a recipe that a rule started")
        _current = CurrentJob(json.loads(Path(path).read_text("utf-8")))
    return _current


class _CallableModule(types.ModuleType):
    """Makes `hiss.job()` work whether the name `hiss.job` is bound to the function or, by an import, to this module."""

    def __call__(self) -> CurrentJob:
        return job()


sys.modules[__name__].__class__ = _CallableModule

"""One batch of `hiss watch`: its stream made or found again, its files sent, sealed, read back and compared.

Sending is idempotent: the indices of a file's blocks are in the state before the first of them is sent, and the buffer
keeps one block of each index. Which stream is a batch's own stands in the stream's attribute `watch`, so that a process
which was killed after creating it, and before it could note that, finds it again. Called from the thread that watches.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np
import xxhash

from hiss import limits
from hiss.errors import BlockDamaged, HissError, InvalidInput, NotFound, StreamNotFound
from hiss.intake.formats import open_source
from hiss.intake.opaque import OPAQUE, pieces
from hiss.intake.parts import Part, Run, Wishes, stream_name
from hiss.intake.settling import identity_of
from hiss.intake.watch_state import Batch, Taken, WatchState
from hiss.model import Attrs, Column, Selection, StreamInfo, StreamSpec, StreamState
from hiss.store import Store
from hiss.writer import StreamWriter

FILE_COLUMN: Final = Column("source_file", "|S128")  # beside frames: the end of the path of the file that it was in


class Changed(Exception):
    """A file is not what it was when it was taken. Stays in this package."""


@contextmanager
def open_file(path: str, *, frames: bool) -> Iterator[Part]:
    """A file as it is sent: its bytes in blocks of `limits.WATCH_BLOCK_BYTES`, or its frames.

    Raises
    ------
    InvalidInput
        There are no frames of one fixed size in it, or several streams of them.
    OSError
    """
    if not frames:
        yield _bytes_of(path)
        return
    with open_source(path, Wishes()) as parts:
        if len(parts) != 1 or parts[0].frame.variable:
            raise InvalidInput(f"{path}: expected frames of one size; it has {[part.origin for part in parts]}")
        yield replace(parts[0], columns=(*parts[0].columns, FILE_COLUMN))


def blocks_of(part: Part) -> int:
    """How many blocks a file makes."""
    step = limits.WATCH_BLOCK_BYTES if part.frame.opaque else part.frame.item_bytes
    return max(1, -(-part.bytes // step)) if part.frame.opaque else part.bytes // step


def _bytes_of(path: str) -> Part:
    def runs() -> Iterator[Run]:
        with open(path, "rb", buffering=0) as file:
            empty = True
            for content in pieces(file.read, limits.WATCH_BLOCK_BYTES):
                empty = False
                yield Run([content])
            if empty:
                yield Run([b""])

    return Part(os.path.basename(path), OPAQUE, os.path.getsize(path), runs)


class OpenBatch:
    """A batch whose stream takes blocks, or is final already.

    Parameters
    ----------
    part : Part, optional
        The first file, of whose form the stream is made; None where it was made before.
    attrs : mapping
        For the stream, where it has to be made.

    Raises
    ------
    NotFound
        It has no stream, and no `part` to make it from.
    """

    def __init__(
        self, store: Store, state: WatchState, directory: str, batch: Batch, part: Part | None, attrs: Attrs
    ) -> None:
        self._store = store
        self._state = state
        self._directory = directory
        self._token = f"{state.id}-{batch.id}"
        self._info = self._found(batch, part) or self._made(batch, part, attrs)
        self.batch = batch
        self._writer = None if self._info.state.final else StreamWriter(store, self._info, self._info.frame)
        self._read: list[tuple[Taken, str]] = []  # sent, and their digests, which are not noted yet

    @property
    def opaque(self) -> bool:
        return self._info.frame.opaque

    @property
    def is_final(self) -> bool:
        return self._writer is None

    def fits(self, part: Part) -> bool:
        return (part.frame, part.columns) == (self._info.frame, self._info.columns)

    def let_go(self) -> None:
        """The stream stays open, and is taken up again."""
        if self._writer is not None:
            with suppress(HissError):
                self._writer.detach()

    def append(self, file: Taken, part: Part) -> None:
        """Send a file's blocks, in the background.

        Raises
        ------
        Changed
            It is not what was taken.
        InvalidInput
            It cannot be read to its end.
        """
        if self._writer is None:
            return
        whole = os.path.join(self._directory, file.path)
        digest = xxhash.xxh3_128()
        index = file.first
        for run in part.read():
            after = index + len(run.blocks)
            if identity_of(whole) != file.identity or after > file.first + file.count:
                raise Changed(f"{file.path} was changed while it was sent")
            self._append_run(self._writer, file, run, index, digest)
            index = after
        if index != file.first + file.count or identity_of(whole) != file.identity:
            raise Changed(f"{file.path} was changed while it was sent")
        self._read.append((file, digest.hexdigest()))

    def _append_run(self, writer: StreamWriter, file: Taken, run: Run, index: int, digest: xxhash.xxh3_128) -> None:
        if not isinstance(run.blocks, np.ndarray):
            for place, block in enumerate(run.blocks):
                digest.update(block)
                writer.append(block, index=index + place, time_ns=file.identity.mtime_ns)
            return
        digest.update(run.blocks.reshape(-1).view(np.uint8).data)
        count = len(run.blocks)
        times = np.full(count, file.identity.mtime_ns) if run.time_ns is None else run.time_ns
        values: dict[str, Any] = {**run.values, FILE_COLUMN.name: np.full(count, os.fsencode(file.path)[-128:])}
        writer.extend(run.blocks, index=np.arange(index, index + count), time_ns=times, **values)

    def flush(self) -> None:
        """Wait until all that was sent is durable; then the files' digests are noted."""
        if self._writer is not None and self._read:
            self._writer.flush()
            with self._state.transaction():
                self._state.created(self.batch, self._info.version)
                for file, digest in self._read:
                    self._state.digest(file, digest)
            self._read = []

    def finish(self) -> StreamInfo:
        """Seal the stream, read it back, compare it with what was read of the files, and note that it is stored.

        Raises
        ------
        BlockDamaged
            What came back is something else; the files stay.
        """
        self.flush()
        files = self._state.of(self.batch)
        if self._writer is not None:
            if self.opaque:
                self._store.amend_stream(self._info.id, {"source_digest": files[0].digest})
            self._info = self._writer.seal(max(file.first + file.count for file in files))
        compare(self._store, self._info, files)
        self._state.stored(self.batch, self._info.version)
        return self._info

    def abort(self, reason: str) -> None:
        if self._writer is not None:
            self._writer.abort(reason)

    # ---- its stream

    def _found(self, batch: Batch, part: Part | None) -> StreamInfo | None:
        """The stream that is the batch's: made before, or, where the state was lost, with the same bytes of the same
        file."""
        try:
            there = self._store.stream(batch.path, batch.version or None)
        except NotFound:
            return None
        if there.state is StreamState.ABORTED:
            return None
        if there.attrs.get("watch") == self._token:
            return there
        (first, *_) = self._state.of(batch)
        alike = there.frame.opaque and there.state.final and there.attrs.get("source_file") == first.path
        if part is None or not part.frame.opaque or not alike:
            return None
        digest = xxhash.xxh3_128()
        for run in part.read():
            digest.update(run.blocks[0])
        if there.attrs.get("source_digest") != digest.hexdigest():
            return None
        with self._state.transaction():
            self._state.digest(first, digest.hexdigest())
        return there

    def _made(self, batch: Batch, part: Part | None, attrs: Attrs) -> StreamInfo:
        if part is None:
            raise StreamNotFound(f"{batch.path}: the batch {self._token} has no stream yet")
        self._store.create_collection(batch.collection, part.collection_attrs, ())
        spec = StreamSpec(part.frame, part.columns, attrs={**part.attrs, **attrs, "watch": self._token})
        return self._store.create_stream(batch.collection, batch.name, spec, new_version=True)


def compare(store: Store, info: StreamInfo, files: list[Taken]) -> None:
    """Read a stream from the disk of its buffer and compare its blocks, file by file.

    Raises
    ------
    BlockDamaged
    """
    found = {file.id: xxhash.xxh3_128() for file in files}
    counts = dict.fromkeys(found, 0)
    following = iter(files)
    file = next(following)
    for extent in store.read(info.id, Selection(from_disk=True)):
        offsets = extent.offsets
        for row, index in enumerate(extent.index.tolist()):
            while index >= file.first + file.count:
                file = next(following)
            found[file.id].update(extent.data[offsets[row] : offsets[row + 1]].data)
            counts[file.id] += 1
    for file in files:
        if file.state == "taken" and (counts[file.id], found[file.id].hexdigest()) != (file.count, file.digest):
            raise BlockDamaged(
                f"{info.path}: {file.path} was sent as {file.count} blocks with the digest {file.digest}; read back "
                f"were {counts[file.id]} with {found[file.id].hexdigest()}; the file stays where it is",
                stream=info.path,
            )


def batch_name(path: str, *, frames: bool) -> tuple[str, str]:
    """The directories and the stream of a file's batch, as the buffer may call them; what had to be changed in a name
    is told apart by a digest of it."""
    folder, _, name = path.rpartition("/")
    name = name.rpartition(".")[0] or name if frames else name
    return "".join(f"/{_plain(part)}" for part in folder.split("/") if part), _plain(name)


def _plain(text: str) -> str:
    name = stream_name(text)
    if name == text:
        return name
    return f"{name[: limits.NAME_CHARS_MAX - 9]}-{xxhash.xxh32_hexdigest(os.fsencode(text))}"


def file_attrs(file: Taken) -> dict[str, Any]:
    """What a stream of one file says of it."""
    return {
        "source_file": file.path,
        "source_bytes": file.identity.bytes,
        "source_mtime_ns": file.identity.mtime_ns,
    }

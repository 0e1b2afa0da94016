"""Files into streams: `put` stores the parts of one file, or several files as one series.

A client of the buffer as any other: it sees a `Store`. What goes wrong in the middle aborts the stream, which says why.
Called from the caller's thread; the writer has its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hiss import limits
from hiss.errors import InvalidInput, LimitExceeded, SpecMismatch
from hiss.intake.formats import open_source
from hiss.intake.parts import Part, Run, Wishes
from hiss.model import AckLevel, Attrs, StreamInfo, StreamSpec, check_path, split_stream_path
from hiss.store import Store
from hiss.writer import StreamWriter

Progress = Callable[[int, int], None]  # bytes done, and of how many


def put(
    store: Store,
    sources: Sequence[str],
    target: str,
    *,
    wishes: Wishes | None = None,
    attrs: Attrs | None = None,
    ack: AckLevel = AckLevel.DURABLE,
    new_version: bool = False,
    join: str = "",
    on_progress: Progress = lambda done, total: None,
) -> list[StreamInfo]:
    """Store files, and seal what they become.

    Parameters
    ----------
    sources : sequence of str
        `FILE[::MEMBER]`; several are one series, in natural order of their names.
    target : str
        `COLLECTION/STREAM`, or `COLLECTION/` for all that the file has, each stream named as the file says.
    wishes : Wishes, optional
        What the files leave open.
    attrs : mapping, optional
        Added to those of the files, and before them.
    join : str
        The streams become modules of this join of the collection, after those that it has.

    Returns
    -------
    list of StreamInfo
        As they are when sealed.

    Raises
    ------
    InvalidInput, SpecMismatch, AlreadyExists, MissingExtra
    """
    wishes = wishes or Wishes()
    collection, name = (
        (check_path(target[:-1], "collection"), "") if target.endswith("/") else split_stream_path(target)
    )
    if not name:
        wishes = Wishes(wishes.whole, wishes.rows, wishes.as_bytes, True, wishes.columns)
    ordered = in_natural_order(sources)
    putting = _Putting(store, collection, wishes, attrs or {}, ack, new_version, on_progress)
    made = putting.series(ordered, name) if len(ordered) > 1 else putting.file(ordered[0], name)
    if join:
        there = store.collection(collection).joins.get(join, ())
        names = [*there, *(info.name for info in made if info.name not in there)]
        store.join(collection, join, names)
    return made


def in_natural_order(sources: Sequence[str]) -> list[str]:
    """By name, with the numbers in the names as numbers: `a2` comes before `a10`."""
    if not sources:
        raise InvalidInput("no file is named")
    if len(sources) > limits.INTAKE_FILES_MAX:
        raise LimitExceeded(f"{len(sources)} files in one series, at most {limits.INTAKE_FILES_MAX}")
    return sorted(sources, key=natural_key)


def natural_key(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", text) if part]


class _Putting:
    """One call of `put`."""

    def __init__(
        self, store: Store, collection: str, wishes: Wishes, attrs: Attrs, ack: AckLevel, new_version: bool,
        on_progress: Progress,
    ) -> None:  # fmt: skip
        self._store = store
        self._collection = collection
        self._wishes = wishes
        self._attrs = attrs
        self._ack = ack
        self._new_version = new_version
        self._on_progress = on_progress
        self._done = 0
        self._total = 0

    def file(self, source: str, name: str) -> list[StreamInfo]:
        """The parts of one file; with a `name` it has to be one part."""
        with open_source(source, self._wishes) as parts:
            if name and len(parts) != 1:
                there = ", ".join(part.origin for part in parts)
                raise InvalidInput(
                    f"{source} has {len(parts)} streams: {there}; name one, FILE::NAME, or put all: {self._collection}/"
                )
            self._total = sum(part.bytes for part in parts)
            made = []
            for part in parts:
                attrs = {"source_file": _file_name(source)}
                with self._stream(part, name or part.name, attrs) as stream:
                    self._append(stream, part)
                made.append(stream.info)
            return made

    def series(self, sources: Sequence[str], name: str) -> list[StreamInfo]:
        """Several files as one stream; each has one part, of the same form."""
        with open_source(sources[0], self._wishes) as parts:
            first = _only(parts, sources[0])
            self._total = first.bytes * len(sources)
            attrs = {"source_file": _file_name(sources[0]), "source_files": len(sources)}
            stream = self._stream(first, name or first.name, attrs)
            with stream:
                self._append(stream, first)
                for source in sources[1:]:
                    with open_source(source, self._wishes) as more:
                        self._append(stream, _like(_only(more, source), first))
        return [stream.info]

    def _stream(self, part: Part, name: str, attrs: dict[str, Any]) -> StreamWriter:
        self._store.create_collection(self._collection, part.collection_attrs, ())
        spec = StreamSpec(part.frame, part.columns, self._ack, {**part.attrs, **attrs, **self._attrs})
        info = self._store.create_stream(self._collection, name, spec, new_version=self._new_version)
        return StreamWriter(self._store, info, part.frame)

    def _append(self, stream: StreamWriter, part: Part) -> None:
        for run in part.read():
            append_run(stream, run)
            self._done += run.bytes
            self._on_progress(self._done, max(self._total, self._done))


def append_run(stream: StreamWriter, run: Run) -> None:
    """Give a run to a writer."""
    if run.index is not None and len(run.index) and int(run.index[0]) < stream.next_index:
        raise InvalidInput(
            f"stream {stream.info.path}: a file begins at index {int(run.index[0])}, and the one before it ended at "
            f"{stream.next_index - 1}; put them as streams of their own"
        )
    values: dict[str, Any] = dict(run.values)
    if isinstance(run.blocks, np.ndarray):
        stream.extend(run.blocks, index=run.index, time_ns=run.time_ns, **values)
        return
    for place, block in enumerate(run.blocks):
        time_ns = 0 if run.time_ns is None else int(run.time_ns[place])
        index = None if run.index is None else int(run.index[place])
        stream.append(
            block, index=index, time_ns=time_ns, **{name: values[place] for name, values in run.values.items()}
        )


def _only(parts: Sequence[Part], source: str) -> Part:
    if len(parts) != 1:
        there = ", ".join(part.origin for part in parts)
        raise InvalidInput(f"{source} has {len(parts)} streams: {there}; in a series each file has one, FILE::NAME")
    return parts[0]


def _like(part: Part, first: Part) -> Part:
    if part.frame != first.frame or part.columns != first.columns:
        raise SpecMismatch(
            f"{part.origin}: {part.frame.dtype} {part.frame.shape} with columns "
            f"{[column.name for column in part.columns]}; {first.origin} has {first.frame.dtype} {first.frame.shape} "
            f"with {[column.name for column in first.columns]}; a series has one form"
        )
    return part


def _file_name(source: str) -> str:
    return Path(source.partition("::")[0]).name

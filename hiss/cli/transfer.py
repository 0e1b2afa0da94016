"""`hiss get`, `tail`: data out of a buffer. Called from the main thread."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from hiss.cli.output import Advance, progress, say_json, size
from hiss.cli.reach import Reach, command
from hiss.errors import InvalidInput, StreamNotFinal

if TYPE_CHECKING:
    from hiss.extent import Extent
    from hiss.model import Selection, StreamInfo
    from hiss.store import Store

group = click.Group()


# ------------------------------------------------------------------------------------------------------------- get


@command(group, "get")
@click.argument("path", metavar="COLLECTION/STREAM")
@click.argument("file", default="-")
@click.option("--version", type=int, help="Of the stream; the newest by default.")
@click.option("--index", type=int, help="Only the block of this index.")
@click.option("--start", type=int, help="From this index on.")
@click.option("--stop", type=int, help="Up to this index, which is not included.")
@click.option("--newest", is_flag=True, help="Only the newest block.")
@click.option(
    "--format", "form", type=click.Choice(["npy", "raw"]), help="npy, or the blocks' bytes one after another."
)
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
def get(
    reach: Reach, path: str, file: str, version: int | None, index: int | None, start: int | None, stop: int | None,
    newest: bool, form: str | None, force: bool,
) -> None:  # fmt: skip
    """Write blocks to FILE or standard output.

    The default form is npy, an array of one entry for each stored block; raw for streams whose blocks differ in length.
    """
    from hiss.drain.bare import write_npy_header
    from hiss.model import Selection

    if index is not None:
        start, stop = index, index + 1
    with reach.buffer() as buffer:
        store: Store = buffer.store
        info = store.stream(path, version)
        form = form or ("raw" if info.frame.variable else "npy")
        if form == "npy" and info.frame.variable:
            raise InvalidInput(f"{path}: blocks differ in length and form no array; use --format raw")
        chosen, count = _fixed(store, info, Selection(start, stop, newest=newest))
        if index is not None and not count:
            buffer.stream(path, version).block(index)  # raises: it says why the block is not there
        with _output(file, force) as out, progress(f"get {path}", shown=file != "-") as advance:
            if form == "npy":
                write_npy_header(out, info, count)
            extents = store.read(info.id, chosen) if count else iter(())
            blocks, done = _write(out, extents, info.completeness.bytes, advance)
            if blocks != count:
                raise StreamNotFinal(f"{path}: blocks arrived while it was read; seal it, or try again")
    if file != "-" and not reach.json:
        click.echo(f"{file}: {blocks} blocks, {size(done)}", err=True)
    elif file != "-":
        say_json({"file": file, "blocks": blocks, "bytes": done})


def _fixed(store: Store, info: StreamInfo, chosen: Selection) -> tuple[Selection, int]:
    """The selection as a range of indices that later blocks do not lengthen, and how many blocks it has now."""
    index = [number for extent in store.read(info.id, replace(chosen, data=False)) for number in extent.index.tolist()]
    if not index:
        return chosen, 0
    return replace(chosen, start=index[0], stop=index[-1] + 1, newest=False), len(index)


@contextmanager
def _output(file: str, force: bool) -> Iterator[BinaryIO]:
    """Standard output for `-`, else a file that has its name only when it is whole."""
    if file == "-":
        yield sys.stdout.buffer
        return
    from hiss.drain.publish import published

    with published(Path(file), overwrite=force) as part, part.open("xb") as out:
        yield out


def _write(out: BinaryIO, extents: Iterator[Extent], total: int, advance: Advance) -> tuple[int, int]:
    """Write the blocks' bytes one after another; returns how many blocks and bytes."""
    blocks = done = 0
    for extent in extents:
        out.write(extent.data.data)
        blocks += len(extent)
        done += extent.data.nbytes
        advance(done, max(total, done))
    out.flush()
    return blocks, done


# ------------------------------------------------------------------------------------------------------------- tail


@command(group, "tail")
@click.argument("path", metavar="COLLECTION/STREAM")
@click.option(
    "-n", "--blocks", "count", type=click.IntRange(0), default=10, show_default=True, help="Last blocks to show."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come, until the stream is final.")
def tail(reach: Reach, path: str, count: int, follow: bool) -> None:
    """Show the newest blocks of a stream.

    One line for each: index, time, bytes, digest, columns.
    """
    import threading

    from hiss.model import Selection

    with reach.buffer() as buffer:
        store: Store = buffer.store
        info = store.stream(path)
        index = [number for extent in store.read(info.id, Selection(data=False)) for number in extent.index.tolist()]
        start = index[-count] if 0 < count <= len(index) else (index[-1] + 1 if index and not count else None)
        if follow and not info.state.final:
            extents = store.follow(info.id, start, threading.Event())
        else:
            extents = store.read(info.id, Selection(start, data=False))
        for extent in extents:
            for row in range(len(extent)):
                _say_block(reach, info, extent, row)


def _say_block(reach: Reach, info: StreamInfo, extent: Extent, row: int) -> None:
    columns = {column.name: extent.columns[column.name][row] for column in info.columns}
    index, count, digest = int(extent.index[row]), int(extent.length[row]), f"{int(extent.digest[row]):016x}"
    time_ns = int(extent.time_ns[row] or extent.received_ns[row])
    if reach.json:
        block = {"index": index, "time_ns": time_ns, "bytes": count, "digest": digest, "columns": columns}
        say_json(block, line=True)
        return
    from hiss.model import now_text

    values = "  ".join(f"{name}={value}" for name, value in columns.items())
    clock = now_text(time_ns).removesuffix("Z")
    click.echo(f"{index:>10}  {clock}  {size(count):>8}  {digest}  {values}".rstrip())

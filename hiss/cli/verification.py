"""`hiss verify`: read everything again, of a drained file or of a buffer. Called from the main thread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hiss.cli.failure import exit_status
from hiss.cli.output import progress, say_json, say_table, size
from hiss.cli.reach import Reach, command
from hiss.errors import Damaged, NotFound

if TYPE_CHECKING:
    from hiss.drain import Verification
    from hiss.model import StreamInfo
    from hiss.store import Store

group = click.Group()


@command(group, "verify")
@click.argument("what", metavar="[FILE | s3://BUCKET/KEY | COLLECTION[/STREAM]]", default="")
@click.option("--version", type=int, help="Of the stream; all of them by default.")
def verify(reach: Reach, what: str, version: int | None) -> None:
    """Read every block again and compare it with its digest.

    FILE is what `hiss drain` wrote, NeXus or Zarr, or s3://BUCKET/KEY: it holds its own digests, so no buffer is
    needed, and whatever else it says is compared too. Otherwise a stream, the streams of a collection and of those
    below it, or with nothing
    named the whole buffer. Goes on after a damaged block, names it, and ends with status 7.
    """
    if what and (what.startswith("s3://") or Path(what).is_file() or (Path(what) / "zarr.json").is_file()):
        from hiss.drain import verify_file
        from hiss.drain.targets import fetched

        with progress(f"verify {what}") as advance, fetched(what, s3=reach.settings.s3) as file:
            found = replace(verify_file(file, advance), source=what)
    else:
        from hiss.drain import verify_streams

        with reach.buffer() as buffer, progress(f"verify {what}".rstrip()) as advance:
            found = verify_streams(buffer.store, what or "buffer", _named(buffer.store, what, version), advance)
    _say(found, as_json=reach.json)
    if not found.ok:
        click.get_current_context().exit(exit_status(Damaged()))


def _named(store: Store, what: str, version: int | None) -> list[StreamInfo]:
    """The streams that `what` names, with all their versions."""
    path = what.rstrip("/")
    collections = [c.path for c in store.collections(path) if not path or f"{c.path}/".startswith(f"{path}/")]
    found = [info for collection in collections for info in store.streams(collection, all_versions=True)]
    above, _, name = path.rpartition("/")
    if above and path == what and any(collection.path == above for collection in store.collections(above)):
        found += [info for info in store.streams(above, all_versions=True) if info.name == name]
    if version is not None:
        found = [info for info in found if info.version == version]
    if not found and (what or version is not None):
        raise NotFound(f"{what}: no file, no stream and no collection of that name; `hiss ls` shows what there is")
    return found


def _say(found: Verification, *, as_json: bool) -> None:
    if as_json:
        say_json(found.to_json())
        return
    rows = [
        (stream.path, stream.version, stream.state, stream.blocks, size(stream.bytes), len(stream.damage))
        for stream in found.streams
    ]
    say_table(("stream", "version", "state", "good blocks", "size", "damaged"), rows)
    click.echo(str(found))

"""`hiss put`: files into a buffer. Called from the main thread."""

from __future__ import annotations

from typing import Any

import click

from hiss.cli.output import progress, say_json, size
from hiss.cli.reach import Reach, command
from hiss.errors import InvalidInput

group = click.Group()


@command(group, "put")
@click.argument("sources", metavar="FILE[::DATASET]...", nargs=-1, required=True)
@click.argument("target", metavar="COLLECTION/[STREAM]")
@click.option("--whole", is_flag=True, help="One block of the whole array, whatever its dimensions.")
@click.option("--rows", is_flag=True, help="One block for each entry of the first dimension, however few there are.")
@click.option("--bytes", "as_bytes", is_flag=True, help="The file as it is: opaque bytes, one block.")
@click.option("--column", "columns", multiple=True, metavar="NAME=DATASET[ UNIT]", help="A column, from the HDF5 file.")
@click.option("--attr", "attrs", multiple=True, metavar="KEY=VALUE", help="An attribute; VALUE is JSON or text.")
@click.option("--join", default="", metavar="NAME", help="The stream is a module of this join of its collection.")
@click.option(
    "--ack", type=click.Choice(["received", "written", "durable"]), default="durable", show_default=True,
    help="How safe a block is when it is acknowledged.",
)  # fmt: skip
@click.option("--new-version", is_flag=True, help="A new version, where the stream is there already.")
def put(
    reach: Reach, sources: tuple[str, ...], target: str, whole: bool, rows: bool, as_bytes: bool,
    columns: tuple[str, ...], attrs: tuple[str, ...], join: str, ack: str, new_version: bool,
) -> None:  # fmt: skip
    """Store files as sealed streams.

    HDF5 and NeXus (the default signal, or FILE::DATASET), TIFF, CBF, EDF, npy, npz and Timepix3 files are read as what
    they are, with columns and attributes; any other file becomes one block of bytes. Arrays of three or more dimensions
    become one block for each entry of the first. Several files are one series, in natural order.

    COLLECTION/ without a stream takes all that the file has, each stream named as the file says.
    """
    from hiss.intake import Wishes
    from hiss.intake import put as put_files
    from hiss.model import AckLevel

    with reach.buffer() as buffer, progress(f"put {target}") as advance:
        made = put_files(
            buffer.store,
            sources,
            target,
            wishes=Wishes(whole=whole, rows=rows, as_bytes=as_bytes, columns=columns),
            attrs=parsed_attrs(attrs),
            ack=AckLevel.parse(ack),
            new_version=new_version,
            join=join,
            on_progress=advance,
        )
    if reach.json:
        say_json(made[0] if len(made) == 1 else made)
    else:
        for info in made:
            click.echo(f"{info.path}: {info.completeness}, {size(info.completeness.bytes)}")


def parsed_attrs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` options as a dictionary; a value that is JSON is taken as such, any other as text."""
    import json

    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(f"{pair!r}: expected KEY=VALUE")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found

"""`hiss put`, `watch`, `bridge`: files and process variables into a buffer. Called from the main thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiss.cli.output import progress, say_json, size
from hiss.cli.reach import Reach, command
from hiss.errors import InvalidInput

if TYPE_CHECKING:
    import threading

    from hiss.store import Store

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


@command(group, "watch")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("collection")
@click.option("--frames", is_flag=True, help="Gather the files into streams of frames; else each is bytes as it is.")
@click.option("--remove", is_flag=True, help="Remove files when they are stored, and at the level of --ack.")
@click.option(
    "--ack", type=click.Choice(["durable", "archived"]), default="durable", show_default=True,
    help="What has to be true of a file's stream before it is removed.",
)  # fmt: skip
@click.option("--include", multiple=True, metavar="GLOB", help="Only files of such names.")
@click.option(
    "--exclude", multiple=True, metavar="GLOB", default=("*.tmp", "*.part", "*~"), show_default=True,
    help="No files of such names.",
)  # fmt: skip
@click.option("--settle", "settle_s", type=click.FloatRange(0), default=0.0, metavar="S",
              help="A file has to be the same for so long.  [0; 2 where the system tells of no writers]")  # fmt: skip
@click.option("--batch", "batch_files", type=click.IntRange(1), default=1000, show_default=True, metavar="N",
              help="With --frames: files of one stream.")  # fmt: skip
@click.option("--batch-idle", "batch_idle_s", type=click.FloatRange(0), default=10.0, show_default=True, metavar="S",
              help="With --frames: a stream ends after so long without a file.")  # fmt: skip
@click.option("--attr", "attrs", multiple=True, metavar="KEY=VALUE", help="An attribute; VALUE is JSON or text.")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where it is kept which files were sent.  [DIRECTORY/.hiss-watch]")  # fmt: skip
@click.option("--once", is_flag=True, help="End when all files that are there are stored.")
def watch(
    reach: Reach, directory: Path, collection: str, frames: bool, remove: bool, ack: str, include: tuple[str, ...],
    exclude: tuple[str, ...], settle_s: float, batch_files: int, batch_idle_s: float, attrs: tuple[str, ...],
    state: Path | None, once: bool,
) -> None:  # fmt: skip
    """Send the files that an instrument writes into DIRECTORY.

    Each file that is settled (closed, moved into place, or the same for a while) is sent once, sealed, read back and
    compared. Directories below become collections below. Goes on where it was after a restart, waits where the buffer
    is away, and ends with Ctrl-C or SIGTERM.
    """
    import threading

    from hiss.intake import Watch, WatchOptions
    from hiss.model import AckLevel

    options = WatchOptions(
        frames=frames,
        remove=remove,
        level=AckLevel.parse(ack),
        include=include,
        exclude=exclude,
        settle_s=settle_s,
        batch_files=batch_files,
        batch_idle_s=batch_idle_s,
        attrs=parsed_attrs(attrs),
        once=once,
    )
    stop = threading.Event()
    _stop_on_signals(stop)
    _log_to_stderr()
    watching = Watch(directory, collection, lambda: _store(reach), options, stop, state=state, tell=_teller(reach))
    try:
        watching.run()
    finally:
        watching.close()


def _store(reach: Reach) -> Store:
    import hiss

    if reach.embedded is not None:
        return hiss.open(reach.embedded).store
    return hiss.connect(reach.settings.address, token=reach.settings.token).store


def _stop_on_signals(stop: threading.Event) -> None:
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.ERROR)
    for name in ("hiss.watch", "hiss.bridge"):
        logging.getLogger(name).setLevel(logging.INFO)


def _teller(reach: Reach) -> Callable[[str, dict[str, Any]], None]:
    def tell(what: str, of: dict[str, Any]) -> None:
        if reach.json:
            say_json({"what": what, **of}, line=True)
        elif what == "stored":
            click.echo(f"stored {of['file']} -> {of['stream']} version {of['version']}, {size(of['bytes'])}")
        elif what == "removed":
            click.echo(f"removed {of['file']}")

    return tell


@command(group, "bridge")
@click.argument("source", metavar="pva://PV")
@click.argument("target", metavar="COLLECTION/STREAM")
@click.option("--count", type=click.IntRange(0), default=0, metavar="N", help="End after so many images.  [never]")
@click.option(
    "--idle", "idle_s", type=click.FloatRange(0), default=0.0, metavar="S",
    help="Seal after so long without an image; the next one begins a new version.  [never]",
)  # fmt: skip
@click.option(
    "--queue", type=click.IntRange(1), default=64, show_default=True, metavar="N",
    help="Images that wait; pvAccess drops what is more.",
)  # fmt: skip
@click.option("--attr", "attrs", multiple=True, metavar="KEY=VALUE", help="An attribute; VALUE is JSON or text.")
@click.option(
    "--ack", type=click.Choice(["received", "written", "durable"]), default="durable", show_default=True,
    help="How safe a block is when it is acknowledged.",
)  # fmt: skip
def bridge(
    reach: Reach, source: str, target: str, count: int, idle_s: float, queue: int, attrs: tuple[str, ...], ack: str
) -> None:
    """Store the images of an EPICS channel.

    Each NTNDArray of the channel is a block under its uniqueId, with its time stamps and attributes; images that
    pvAccess dropped are in the stream's ledger. Images of another form begin a new version. Ends, and seals the
    stream, with Ctrl-C or SIGTERM.
    """
    import threading

    from hiss.intake.pva import Bridge
    from hiss.model import AckLevel

    stop = threading.Event()
    _stop_on_signals(stop)
    _log_to_stderr()
    made = Bridge(
        source,
        target,
        lambda: _store(reach),
        stop,
        attrs=parsed_attrs(attrs),
        ack=AckLevel.parse(ack),
        count=count,
        idle_s=idle_s,
        queue=queue,
    )
    report = made.run()
    if reach.json:
        say_json(report)
    else:
        click.echo(f"{target}: {report.images} images, {report.missed} missed, {report.versions} versions")


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

"""`hiss drain`, `drains`, `drain-policy`: data to permanent storage, by hand and by themselves. Called from the main
thread."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiss.cli.output import progress, say_json, say_table, size
from hiss.cli.reach import Reach, command
from hiss.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from hiss.drain_policy import Drain, DrainPolicy
    from hiss.store import Store

group = click.Group()

_FORM = click.option(
    "--format", "form", type=click.Choice(["auto", "nexus", "zarr", "npy", "raw"]), default="auto", show_default=True,
    help="auto goes by the name: .zarr, .npy, else nexus; npy and raw hold the blocks of one stream only.",
)  # fmt: skip
_COMPRESSION = click.option(
    "--compression", type=click.Choice(["auto", "none", "gzip", "zstd", "bitshuffle-lz4"]), default="auto",
    show_default=True, help="auto is bitshuffle-lz4; for nexus gzip where hdf5plugin is missing.",
)  # fmt: skip


@command(group, "drain")
@click.argument("source", metavar="[COLLECTION[/STREAM]]", default="")
@click.argument("file", metavar="[FILE | s3://BUCKET/KEY]", default="")
@click.option("--version", type=int, help="Of the stream; the newest by default.")
@_FORM
@_COMPRESSION
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
@click.option("--live", is_flag=True, help="While it is still written: a NeXus master that is readable at any moment.")
@click.option("--segment", metavar="SIZE", default="1GiB", show_default=True, help="With --live, of its files.")
@click.option(
    "--within", metavar="SECONDS", type=click.FloatRange(0.1), default=30.0, show_default=True,
    help="With --live, the longest that a new block waits.",
)  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be done.")
def drain(
    reach: Reach, source: str, file: str, version: int | None, form: str, compression: str, force: bool, live: bool,
    segment: str, within: float, dry_run: bool,
) -> None:  # fmt: skip
    """Write final data to a NeXus file, a Zarr directory, or bare.

    A stream or a whole collection; every block is read back and compared before the file gets its name. Without FILE:
    what the drain policies want of it is due now, and the server's drain process does it. With --dry-run and nothing
    named: what that process has to do. With --live it goes on until the stream is final, or the collection sealed;
    Ctrl-C ends it in good order, and the same command goes on with it.
    """
    if not source and not dry_run:
        raise click.UsageError("expected COLLECTION[/STREAM], or --dry-run")
    if not file:
        with reach.buffer() as buffer:
            found = _planned(buffer.store, source.rstrip("/"), dry_run=dry_run)
        _say_drains(reach, found)
    elif dry_run:
        _foresee(reach, source, file, version, form, force)
    elif live:
        if form not in ("auto", "nexus") or file.startswith("s3://"):
            raise click.UsageError("--live makes a NeXus file, in a file system")
        _drain_live(
            reach, source, Path(file), segment, within, version=version, compression=compression, overwrite=force
        )
    else:
        _drain_now(reach, source, file, version=version, form=form, compression=compression, overwrite=force)


def _drain_now(reach: Reach, source: str, file: str, **options: Any) -> None:
    from hiss.drain import drain as drain_to
    from hiss.drain.targets import target_of

    target = target_of(file, s3=reach.settings.s3)
    with reach.buffer() as buffer, progress(f"drain {source}") as advance:
        report = drain_to(buffer.store, source, target, on_progress=advance, **options)
    if reach.json:
        say_json(report.to_json())
    else:
        click.echo(str(report))


def _drain_live(reach: Reach, source: str, file: Path, segment: str, within: float, **options: Any) -> None:
    import signal
    import threading

    from hiss.drain.live import LiveDrain
    from hiss.space import parse_size

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with reach.buffer() as buffer:
        segment_bytes = parse_size(segment)
        live = LiveDrain(buffer.store, source, file, segment_bytes=segment_bytes, segment_s=within, **options)
        report = live.run(stop)
    if reach.json:
        say_json({"file": str(file), "final": False} if report is None else {**report.to_json(), "final": True})
    else:
        click.echo(f"{file}: not final yet; the same command goes on with it" if report is None else str(report))


def _foresee(reach: Reach, source: str, file: str, version: int | None, form: str, force: bool) -> None:
    """Show what draining by hand would write, and what stands against it."""
    from hiss.drain.draining import chosen_content
    from hiss.drain.targets import target_of

    target = target_of(file, s3=reach.settings.s3)
    with reach.buffer() as buffer:
        streams = chosen_content(buffer.store, source, version).streams
    against = [f"{info.path} is open" for info in streams if not info.state.final]
    against += [f"{info.path} is evicted" for info in streams if info.eviction is not None]
    if target.exists() and not force:
        against.append(f"{target.location} is there already")
    total = sum(info.completeness.bytes for info in streams)
    if reach.json:
        paths = [{"path": info.path, "version": info.version, "bytes": info.completeness.bytes} for info in streams]
        say_json({"target": target.location, "format": form, "streams": paths, "bytes": total, "against": against})
        return
    rows = [(info.path, info.version, info.completeness.blocks, size(info.completeness.bytes)) for info in streams]
    say_table(("stream", "version", "blocks", "size"), rows)
    click.echo(f"{size(total)} to {target.location}" + "".join(f"; but {why}" for why in against))


def _planned(store: Store, path: str, *, dry_run: bool) -> list[Drain]:
    from hiss.drain_policy import DrainState

    found = store.plan_drains([path], ask=not dry_run, dry_run=dry_run)
    if dry_run:
        return [each for each in found if each.state is not DrainState.DONE]
    if not found:
        raise NotFound(f"{path}: no drain policy wants anything of it; name a FILE, or see `hiss drain-policy`")
    return found


@command(group, "drains")
@click.argument("path", metavar="[COLLECTION[/STREAM]]", default="")
@click.option("-a", "--all", "everything", is_flag=True, help="Also what is done.")
def drains(reach: Reach, path: str, everything: bool) -> None:
    """Show what the drain policies want, and how far it is.

    In the order in which it goes. What failed is tried again at the time that is shown; with a stream named, what is
    done is shown too.
    """
    from hiss.drain_policy import DrainState

    path = path.rstrip("/")
    with reach.buffer() as buffer:
        named = any(each.source == path for each in buffer.store.drains(path)) if path else False
        found = buffer.store.drains(path, unfinished=not (everything or named))
    _say_drains(reach, [each for each in found if each.state is not DrainState.DROPPED])


def _say_drains(reach: Reach, found: list[Drain]) -> None:
    if reach.json:
        say_json([each.to_json() for each in found])
        return
    rows = [
        (each.source, each.version or "", each.url, each.state.value, each.attempts, _next(each), each.reason)
        for each in found
    ]
    say_table(("source", "version", "target", "state", "attempts", "due", "last failure"), rows)


def _next(entry: Drain) -> str:
    from hiss.drain_policy import DrainState
    from hiss.model import now_text

    if entry.state not in (DrainState.WANTED, DrainState.FAILED):
        return ""
    return entry.target.when if entry.due_ns is None else now_text(max(entry.due_ns, entry.next_ns))


@command(group, "drain-policy")
@click.argument("collection")
@click.option("--to", "url", metavar="URL", help="Add or change this target; the options below are of it.")
@_FORM
@_COMPRESSION
@click.option(
    "--when", default="seal", show_default=True, help="seal, live, pressure, manual, 'at HH:MM' (UTC) or 'every Nh'."
)
@click.option("--priority", type=int, default=0, show_default=True, help="Higher goes first.")
@click.option("--limit", metavar="SIZE", default="", help="Bytes a second at most, such as 200MB.")
@click.option("--remove", metavar="URL", help="Take this target away.")
@click.option("--none", "nowhere", is_flag=True, help="Drain nowhere, whatever the collections above say.")
@click.option("--default", "inherit", is_flag=True, help="Take the collection's own policy away.")
def drain_policy(
    reach: Reach, collection: str, url: str | None, remove: str | None, nowhere: bool, inherit: bool, **target: Any
) -> None:
    """Show to where the streams of a COLLECTION are drained, or change it.

    It holds for the collections below it too. URL is an absolute path or s3://BUCKET/KEY with {collection}, {stream},
    {version} in it; without {stream} all streams become one file when the collection is sealed.
    """
    if (url is not None, remove is not None, nowhere, inherit).count(True) > 1:
        raise click.UsageError("expected one of --to, --remove, --none, --default")
    with reach.buffer() as buffer:
        store: Store = buffer.store
        path = collection.rstrip("/")
        found = store.drain_policy(path)
        if inherit:
            found = store.set_drain_policy(path, None)
        elif url is not None or remove is not None or nowhere:
            found = store.set_drain_policy(path, _changed(found, url, remove, nowhere, target))
    if reach.json:
        say_json(found)
        return
    rows = [
        (each.url, each.form, each.compression, each.when, each.priority,
         f"{size(each.bytes_per_s)}/s" if each.bytes_per_s else "none")
        for each in found.targets
    ]  # fmt: skip
    say_table(("target", "format", "compression", "when", "priority", "limit"), rows)


def _changed(
    policy: DrainPolicy, url: str | None, remove: str | None, nowhere: bool, options: dict[str, Any]
) -> DrainPolicy:
    from hiss.drain_policy import DrainPolicy, DrainTarget
    from hiss.space import parse_size

    if nowhere:
        return DrainPolicy()
    others = tuple(each for each in policy.targets if each.url not in (url, remove))
    if url is None:
        if len(others) == len(policy.targets):
            raise InvalidInput(f"{remove}: no target of this policy; it has {[each.url for each in policy.targets]}")
        return replace(policy, targets=others)
    limit = options.pop("limit")
    return DrainPolicy((*others, DrainTarget(url, bytes_per_s=parse_size(limit) if limit else 0, **options)))

"""`hiss ls`, `stat`, `seal`, `rm`: collections and streams as they are. Called from the main thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hiss.cli.output import plain, say_fields, say_json, say_table, size
from hiss.cli.reach import Reach, command
from hiss.errors import NotFound

if TYPE_CHECKING:
    from hiss.model import Attachment, CollectionInfo, StageInfo, StreamInfo
    from hiss.space import Reservation
    from hiss.store import Store

group = click.Group()


@command(group, "ls")
@click.argument("path", default="")
@click.option("-a", "--all", "all_versions", is_flag=True, help="Old versions too.")
def list_paths(reach: Reach, path: str, all_versions: bool) -> None:
    """List collections, or the streams of one.

    PATH is a collection, or the beginning of the paths of several.
    """
    with reach.buffer() as buffer:
        store: Store = buffer.store
        path = path.rstrip("/")
        found = [info for info in store.collections(path) if _below(info.path, path)]
        exact = [info for info in found if info.path == path]
        streams = store.streams(path, all_versions=all_versions) if exact else []
        if path and not found:
            raise NotFound(f"{path}: no collection of that path or below it; `hiss ls` shows all")
        below = [info for info in found if info.path != path]
        promises = store.reservations()
    if reach.json:
        say_json({"collections": below, "streams": streams, "reservations": promises})
        return
    reserved = {kept.collection: f"{size(kept.used_bytes)} of {size(kept.bytes)}" for kept in promises}
    if streams or exact:
        _say_streams(streams)
    if below or not path:
        if streams:
            click.echo()
        rows = [
            (info.path, len(info.streams), info.sealed, reserved.get(info.path), _time(info.created_ns))
            for info in below
        ]
        say_table(("collection", "streams", "sealed", "reserved", "created"), rows)


def _below(path: str, top: str) -> bool:
    return not top or path == top or path.startswith(top + "/")


def _say_streams(streams: list[StreamInfo]) -> None:
    rows = [
        (
            info.name,
            info.version,
            info.state.name.lower() + (", evicted" if info.eviction else ", archived" if info.archives else ""),
            element(info),
            info.completeness.blocks,
            size(info.completeness.bytes),
            info.completeness.gaps,
            ", ".join(stage.name for stage in info.stages) or None,
        )
        for info in streams
    ]
    say_table(("stream", "version", "state", "element", "blocks", "size", "gaps", "kernels"), rows)


def element(info: StreamInfo) -> str:
    """A stream's element type for people: `uint16 2160x2560`, `uint32 ?x2`, `bytes`."""
    if info.frame.opaque:
        return "bytes"
    shape = "x".join("?" if length is None else str(length) for length in info.frame.shape)
    return f"{info.frame.numpy_dtype.name} {shape}".strip()


def _time(time_ns: int) -> str | None:
    from hiss.model import now_text

    return now_text(time_ns) if time_ns else None


@command(group, "stat")
@click.argument("path")
@click.option("--version", type=int, help="Of the stream; the newest by default.")
def stat(reach: Reach, path: str, version: int | None) -> None:
    """Show a stream or a collection.

    All that is known of it, its gaps and their reasons too.
    """
    with reach.buffer() as buffer:
        info = _find(buffer.store, path, version)
        of_stream = hasattr(info, "completeness")
        kept = None if of_stream else _reservation(buffer.store, info.path)
        policy = buffer.store.retention(info.collection if of_stream else info.path)
    if reach.json:
        say_json({**plain(info), "retention": policy, **({} if of_stream else {"reservation": kept})})
    elif of_stream:
        _say_stream(info)
    else:
        _say_collection(info, kept)


def _find(store: Store, path: str, version: int | None) -> Any:
    if "/" in path and not path.endswith("/"):
        try:
            return store.stream(path, version)
        except NotFound:
            pass
    try:
        return store.collection(path.rstrip("/"))
    except NotFound:
        raise NotFound(f"{path}: no stream and no collection of that path; `hiss ls` shows what there is") from None


def _reservation(store: Store, path: str) -> Reservation | None:
    """The room that is kept for a collection."""
    found = [kept for kept in store.reservations() if f"{path}/".startswith(f"{kept.collection}/")]
    return found[0] if found else None


def _say_collection(info: CollectionInfo, kept: Reservation | None) -> None:
    promise = kept and f"{size(kept.used_bytes)} of {size(kept.bytes)} used, until {_time(kept.expires_ns)} ({kept.id})"
    say_fields(
        (
            ("collection", info.path),
            ("created", _time(info.created_ns)),
            ("sealed", info.sealed),
            ("expects", ", ".join(info.expect)),
            ("reserved", promise),
            ("streams", "\n".join(info.streams)),
            ("kernels", "\n".join(_attachment(one) for one in info.kernels)),
            ("joined", "\n".join(f"{name}: {', '.join(streams)}" for name, streams in info.joins.items())),
            ("attributes", "\n".join(f"{key} = {value}" for key, value in info.attrs.items())),
        )
    )


def _say_stream(info: StreamInfo) -> None:
    complete, gone = info.completeness, info.eviction
    say_fields(
        (
            ("stream", f"{info.path} (version {info.version})"),
            ("state", info.state.name.lower() + (f": {info.abort_reason}" if info.abort_reason else "")),
            ("evicted", gone and f"{_time(gone.time_ns)}, by policy {gone.policy}"),
            ("archived", "\n".join(f"{each.location}, compared {_time(each.verified_ns)}" for each in info.archives)),
            ("element", element(info)),
            ("columns", "\n".join(f"{c.name}: {c.dtype} {c.unit}".rstrip() for c in info.columns)),
            ("acknowledged", info.ack.name.lower()),
            ("keeps", info.keep.name.lower() if info.stages else None),
            ("blocks", f"{complete.blocks} ({size(complete.bytes)})"),
            ("indices", None if complete.first_index is None else f"{complete.first_index} to {complete.last_index}"),
            ("completeness", str(complete)),
            ("gaps", "\n".join(f"{_range(e.first, e.last)}: {e.reason} ({e.stage})" for e in complete.ledger)),
            ("kernels", "\n".join(_stage(stage) for stage in info.stages)),
            ("shadows", "\n".join(_stage(stage) for stage in info.shadows)),
            ("raw", f"{info.path}.raw" if info.raw_id else None),
            ("made by", f"job {info.produced_by}" if info.produced_by else None),
            ("created", _time(info.created_ns)),
            ("final", _time(info.final_ns)),
            ("digest", info.digest),
            ("id", info.id),
            ("attributes", "\n".join(f"{key} = {value}" for key, value in info.attrs.items())),
        )
    )


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _stage(stage: StageInfo) -> str:
    mark = ", quarantined" if stage.quarantined else ""
    mark += ", of the collection" if stage.attached else ""
    mark += "" if stage.since is None else f", from index {stage.since} on"
    fared = ", ".join(f"{name} {value}" for name, value in stage.report.items())
    warned = "".join(f"\nwarning: {text}" for text in stage.warnings)
    return (
        f"{stage.name} ({stage.kind.name.lower()} {stage.hash[:12]}{mark})" + (f": {fared}" if fared else "") + warned
    )


def _attachment(one: Attachment) -> str:
    return f"{_stage(one.stage)} for streams {one.streams}" + (", as a shadow" if one.shadow else "")


@command(group, "seal")
@click.argument("path")
@click.option("--end-index", type=int, help="One past the last index, so that a missing end counts as a gap.")
def seal(reach: Reach, path: str, end_index: int | None) -> None:
    """Make a stream or a collection final. A sealed one cannot be changed any more."""
    from hiss.model import StreamInfo

    with reach.buffer() as buffer:
        store: Store = buffer.store
        info = _find(store, path, None)
        if isinstance(info, StreamInfo):
            info = store.seal_stream(info.id, end_index)
            said = f"{info.path}: {info.completeness}"
        else:
            info = store.seal_collection(info.path)
            said = f"{info.path}: sealed, {len(info.streams)} streams"
    if reach.json:
        say_json(info)
    else:
        click.echo(said)


@command(group, "rm")
@click.argument("path")
@click.option("--version", type=int, help="Of the stream; the newest by default.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove(reach: Reach, path: str, version: int | None, yes: bool) -> None:
    """Delete a stream or a collection.

    A collection goes with all its streams, for good.
    """
    from hiss.model import StreamInfo

    with reach.buffer() as buffer:
        store: Store = buffer.store
        info = _find(store, path, version)
        if isinstance(info, StreamInfo):
            what = f"stream {info.path} version {info.version}: {info.completeness.blocks} blocks"
        else:
            what = f"collection {info.path} with {len(info.streams)} streams"
        if not yes:
            click.confirm(f"delete {what}?", abort=True, err=True)
        if isinstance(info, StreamInfo):
            store.delete_stream(info.id)
        else:
            store.delete_collection(info.path)
    if reach.json:
        say_json({"deleted": info.path})
    else:
        click.echo(f"deleted {what}")

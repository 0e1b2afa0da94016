"""`hiss reserve`, `retention`, `evict`: who may have how much of the disk, and for how long. Called from the main
thread."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hiss.cli.output import say_fields, say_json, say_table, size
from hiss.cli.reach import Reach, command

if TYPE_CHECKING:
    from hiss.space import Evicted, Reservation, Retention
    from hiss.store import Store

group = click.Group()


@command(group, "reserve")
@click.argument("collection", default="")
@click.argument("amount", metavar="SIZE", default="")
@click.option("--hours", type=float, help="How long it is kept.")
@click.option("--list", "listed", is_flag=True, help="Show what is reserved.")
@click.option("--release", metavar="ID", help="End a reservation.")
def reserve(reach: Reach, collection: str, amount: str, hours: float | None, listed: bool, release: str | None) -> None:
    """Keep room in the log for a collection: SIZE such as 200GB.

    Promised or refused at once. What is promised and not used is kept free whatever others send. It counts records:
    blocks with their headers and columns.
    """
    from hiss.space import parse_size

    asked = bool(collection or amount)
    if (listed, release is not None, asked).count(True) != 1 or (asked and not (collection and amount and hours)):
        raise click.UsageError("expected COLLECTION SIZE --hours N, or --list, or --release ID")
    with reach.buffer() as buffer:
        store: Store = buffer.store
        if release is not None:
            store.release(release)
            found = []
        elif asked:
            found = [store.reserve(collection.rstrip("/"), parse_size(amount), hours or 0.0)]
        else:
            found = store.reservations()
    if release is not None:
        say_json({"released": release}) if reach.json else click.echo(f"released {release}")
    elif reach.json:
        say_json(found if listed else found[0])
    else:
        _say_reservations(found)


def _say_reservations(found: list[Reservation]) -> None:
    from hiss.model import now_text

    rows = [
        (kept.id, kept.collection, size(kept.bytes), size(kept.used_bytes), now_text(kept.expires_ns)) for kept in found
    ]
    say_table(("reservation", "collection", "promised", "used", "until"), rows)


@command(group, "retention")
@click.argument("collection", default="")
@click.option("--age-hours", type=float, help="Evict so long after a stream became final; -1: not for its age.")
@click.option("--drained-hours", type=float, help="Evict so long after a stream was archived; -1: not for that.")
@click.option("--pressure/--no-pressure", default=None, help="Evict where space runs short, oldest archive first.")
@click.option("--undrained/--no-undrained", default=None, help="Also what is archived nowhere: the data are gone then.")
@click.option("--default", "inherit", is_flag=True, help="Take the collection's own policy away.")
def retention(reach: Reach, collection: str, inherit: bool, **changes: Any) -> None:
    """Show when the streams of a COLLECTION leave the log, or change it.

    It holds for the collections below it too. Without COLLECTION the policy of the buffer, which hiss.toml has.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if (given and inherit) or ((given or inherit) and not collection):
        raise click.UsageError("expected a COLLECTION, and options or --default")
    with reach.buffer() as buffer:
        store: Store = buffer.store
        path = collection.rstrip("/")
        found = store.retention(path)
        if inherit:
            found = store.set_retention(path, None)
        elif given:
            found = store.set_retention(path, _changed(found, given))
    if reach.json:
        say_json(found)
        return
    say_fields(
        (
            ("collection", path or "(all)"),
            ("age", _hours(found.age_s)),
            ("drained", _hours(found.drained_s)),
            ("pressure", found.pressure),
            ("undrained", found.undrained),
        )
    )


def _changed(policy: Retention, given: dict[str, Any]) -> Retention:
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name.endswith("_hours"):
            fields[name.removesuffix("_hours") + "_s"] = None if value == -1 else 3600 * value
        else:
            fields[name] = value
    return replace(policy, **fields)


def _hours(seconds: float | None) -> str:
    return "never" if seconds is None else f"after {seconds / 3600:g} h"


@command(group, "evict")
@click.argument("path", default="")
@click.option("--version", type=int, help="Of the stream; all of them by default.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would go.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def evict(reach: Reach, path: str, version: int | None, dry_run: bool, yes: bool) -> None:
    """Free the space of a stream, or of what may go of a collection.

    Without PATH: what the policies take now. A stream that is archived nowhere stays, unless its owner allowed that it
    goes. It stays in the catalog, with where it is archived.
    """
    with reach.buffer() as buffer:
        store: Store = buffer.store
        found = store.evict(path, version, dry_run=True)
        if found and not dry_run:
            if not yes:
                _say_evicted(found)
                click.confirm(f"evict {len(found)} streams?", abort=True, err=True)
            found = store.evict(path, version)
    if reach.json:
        say_json({"dry_run": dry_run, "streams": found})
    else:
        _say_evicted(found)


def _say_evicted(found: list[Evicted]) -> None:
    rows = [
        (gone.path, gone.version, size(gone.bytes), gone.policy, gone.location or "archived nowhere: lost")
        for gone in found
    ]
    say_table(("stream", "version", "size", "policy", "archive"), rows)

"""`hiss token create`, `ls`, `revoke`, `share`: who else may use a buffer. Called from the main thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from hiss.cli.output import say_fields, say_json, say_table
from hiss.cli.reach import Reach, command

if TYPE_CHECKING:
    from hiss.tokens import TokenInfo

group = click.Group()
tokens = click.Group("token", help="Hand out tokens, and take them back.")
group.add_command(tokens)

_SHARE_HOURS = 24.0


def _rights(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            function = click.option(f"--{name}", is_flag=True, help=_WHAT[name])(function)
        return function

    return declare


_WHAT = {
    "read": "May read blocks and see events.",
    "write": "May write collections and streams.",
    "run": "May register recipes, which are code that runs as the server's user.",
    "admin": "May delete, reserve, evict, attach kernels, hand out tokens.",
}
_FROM = click.option("--from", "addresses", default="", metavar="RANGE", help="Good from there only: 10.1.0.0/16.")


@command(tokens, "create")
@click.option("--label", default="", help="For people.")
@click.option("--prefix", default="", metavar="COLLECTION", help="Good there and below; by default everywhere.")
@_rights("read", "write", "run", "admin")
@click.option("--hours", type=float, help="How long it is good; by default until it is revoked.")
@_FROM
def create(reach: Reach, label: str, prefix: str, hours: float | None, addresses: str, **rights: bool) -> None:
    """Make a token for somebody else.

    Without a right it may read. The token is shown once: the buffer keeps a hash of it.
    """
    with reach.buffer() as buffer:
        made = buffer.create_token(label, _named(rights), prefix=prefix.rstrip("/"), hours=hours, addresses=addresses)
    if reach.json:
        say_json({"text": made.text, "token": made.info})
        return
    _say_token(made.info)
    click.echo(made.text)


@command(tokens, "ls")
def ls(reach: Reach) -> None:
    """List the tokens that were handed out and not revoked."""
    with reach.buffer() as buffer:
        found = buffer.tokens()
    if reach.json:
        say_json(found)
        return
    rows = [
        (info.id, info.label, " ".join(info.rights), info.prefix or "(all)", info.addresses or "anywhere", _end(info))
        for info in found
    ]
    say_table(("token", "label", "rights", "prefix", "from", "until"), rows)


@command(tokens, "revoke")
@click.argument("token_id", metavar="ID")
def revoke(reach: Reach, token_id: str) -> None:
    """End a token at once, and those that were handed out with it.

    What its holder has open ends too.
    """
    with reach.buffer() as buffer:
        gone = buffer.revoke_token(token_id)
    if reach.json:
        say_json({"revoked": [info.id for info in gone]})
    else:
        click.echo(f"revoked {', '.join(info.id for info in gone)}")


@command(tokens, "share")
@click.argument("collection")
@_rights("read", "write")
@click.option("--hours", type=float, default=_SHARE_HOURS, show_default=True, help="How long it is good.")
@click.option("--host", metavar="HOST:PORT", help="The server as others reach it; by default as you do.")
@_FROM
def share(reach: Reach, collection: str, hours: float, host: str | None, addresses: str, **rights: bool) -> None:
    """Make a link to a COLLECTION, and those below it, for somebody else.

    Without --read or --write it is for reading. `hiss ls --address LINK` and `hiss.connect(LINK)` take it.
    """
    from hiss.client import Collection
    from hiss.link import Link

    with reach.buffer() as buffer:
        found = Collection(buffer.store, buffer.store.collection(collection.rstrip("/")))
        url = found.share(_named(rights), hours=hours, address=host, addresses=addresses)
    if reach.json:
        say_json({"url": url, "collection": found.path, "rights": _named(rights), "hours": hours})
    else:
        click.echo(url)
    if Link.parse(url).address.rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]"):
        click.echo("the link is good on this machine only: --host names the server as others reach it", err=True)


def _named(rights: dict[str, bool]) -> list[str]:
    return [name for name, wanted in rights.items() if wanted] or ["read"]


def _say_token(info: TokenInfo) -> None:
    say_fields(
        (
            ("token", info.id),
            ("rights", " ".join(info.rights)),
            ("prefix", info.prefix or "(all)"),
            ("from", info.addresses or "anywhere"),
            ("until", _end(info)),
        )
    )


def _end(info: TokenInfo) -> str:
    from hiss.model import now_text

    return now_text(info.expires_ns) if info.expires_ns else "revoked"

"""How a command reaches a buffer, and the options that all commands share.

A command is declared with `command(group)`, takes a `Reach` first, and opens the buffer through it only when it needs
one. `--data DIR` opens a data directory in this process, for when no server runs. Called from the main thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiss.cli.settings import Settings

if TYPE_CHECKING:
    from hiss.client import Buffer


@dataclass(frozen=True, slots=True)
class Reach:
    """The settings as the options changed them."""

    settings: Settings
    json: bool = False
    embedded: Path | None = None  # a data directory to open in this process

    @contextmanager
    def buffer(self) -> Iterator[Buffer]:
        """The buffer, for as long as the context lasts."""
        import hiss

        if self.embedded is not None:
            with hiss.open(self.embedded) as buffer:
                yield buffer
        else:
            settings = self.settings
            with hiss.connect(settings.address, token=settings.token, tls=settings.tls) as buffer:
                yield buffer


def command(
    group: click.Group, name: str | None = None, **options: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command of `group` that talks to a buffer: `--address`, `--token`, `--tls-ca`, `--data`, `--json` come
    along."""

    def declare(function: Callable[..., Any]) -> click.Command:
        @click.pass_context
        @functools.wraps(function)
        def run(
            context: click.Context,
            /,
            address: str | None,
            token: str | None,
            tls_ca: str | None,
            embedded: Path | None,
            as_json: bool,
            **rest: Any,
        ) -> Any:
            reach: Reach = context.find_root().obj
            changes: dict[str, str] = {}
            if address:
                changes["address"] = address
            if token:
                changes["token"] = token
            if tls_ca:
                changes["trust"] = tls_ca
            reach = replace(
                reach,
                settings=replace(reach.settings, **changes),  # type: ignore[arg-type]
                json=reach.json or as_json,
                embedded=embedded or reach.embedded,
            )
            context.find_root().obj = reach
            return function(reach, **rest)

        for option in (_JSON, _DATA, _TLS_CA, _TOKEN, _ADDRESS):
            run = option(run)
        return group.command(name, **options)(run)

    return declare


def local_command(
    group: click.Group, name: str | None = None, **options: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command that needs no running buffer: only `--json` comes along."""

    def declare(function: Callable[..., Any]) -> click.Command:
        @click.pass_context
        @functools.wraps(function)
        def run(context: click.Context, /, as_json: bool, **rest: Any) -> Any:
            reach: Reach = context.find_root().obj
            reach = replace(reach, json=reach.json or as_json)
            context.find_root().obj = reach
            return function(reach, **rest)

        return group.command(name, **options)(_JSON(run))

    return declare


_ADDRESS = click.option("--address", metavar="HOST:PORT", help="The buffer's address, or a link.  [HISS_ADDRESS]")
_TLS_CA = click.option("--tls-ca", metavar="FILE", help="Connect by TLS; trust these certificates.  [HISS_TLS_CA]")
_TOKEN = click.option("--token", metavar="TOKEN", help="The token to show.  [HISS_TOKEN]")
_DATA = click.option(
    "--data",
    "embedded",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Open this data directory here instead of asking a server.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

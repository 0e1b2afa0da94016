"""`hiss prov`: how a stream came to be, for people and in the formats of others. Called from the main thread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hiss.cli.output import plain
from hiss.cli.reach import Reach, command

if TYPE_CHECKING:
    from hiss.workflow import ProvenanceGraph

group = click.Group()


@command(group, "prov")
@click.argument("path", metavar="COLLECTION/STREAM")
@click.option("--version", type=int, help="Of the stream; the newest by default.")
@click.option("--up", is_flag=True, help="Only what led to it.")
@click.option("--down", is_flag=True, help="Only what it led to.")
@click.option("--name", default="", metavar="GLOB", help="Only what is called so.")
@click.option(
    "--path", "below", default="", metavar="GLOB", help="Only streams of such paths; * in one part, ** across."
)
@click.option(
    "--pattern", "pattern_name", default="", metavar="GLOB", help="Only jobs of such patterns, and their data."
)
@click.option("--recipe", "recipe_name", default="", metavar="GLOB", help="Only jobs of such recipes, and their data.")
@click.option(
    "--since", default="", metavar="TIME", help="Only what was made from then on: 2026-11-20, 2026-11-20T08:30."
)
@click.option("--until", default="", metavar="TIME", help="Only what was made up to then.")
@click.option("--format", "form", type=click.Choice(["text", "html", "json", "prov", "ro-crate"]), default="text",
              show_default=True, help="prov is W3C PROV-JSON; ro-crate a directory, a Process Run Crate.")  # fmt: skip
@click.option("-o", "--output", "to", type=click.Path(path_type=Path), help="Write it there.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="The same as --format html -o FILE.")
@click.option("--license", "licensed", default="https://spdx.org/licenses/CC0-1.0", show_default=True,
              help="Of an RO-Crate.")  # fmt: skip
def provenance(
    reach: Reach, path: str, version: int | None, up: bool, down: bool, name: str, below: str, pattern_name: str,
    recipe_name: str, since: str, until: str, form: str, to: Path | None, html: Path | None, licensed: str,
) -> None:  # fmt: skip
    """Show how a stream came to be.

    Back to the instrument, and what came of it. What is left out by the options is bridged by an edge `…`.
    """
    from hiss.errors import InvalidInput
    from hiss.meow_bridge.graph_filter import GraphFilter, filtered

    by = GraphFilter(
        name, below, pattern_name, recipe_name, since, until, causes=up or not down, effects=down or not up
    )
    with reach.buffer() as buffer:
        graph: ProvenanceGraph = filtered(buffer.meow.provenance(path, version), by)
    form, to = ("html", html) if html is not None else ("json" if reach.json else form, to)
    if form == "ro-crate" and to is None:
        raise InvalidInput("an RO-Crate is a directory: name it with -o DIRECTORY")
    _write_provenance(graph, f"Provenance of {path}", form, to, licensed)


def _write_provenance(graph: ProvenanceGraph, title: str, form: str, to: Path | None, licensed: str) -> None:
    from hiss.meow_bridge import provenance_page, provenance_text

    if form == "ro-crate":
        from hiss.meow_bridge.run_crate import write_run_crate

        assert to is not None
        write_run_crate(graph, title, provenance_page(graph, title), licensed, to)
        click.echo(str(to))
        return
    if form == "prov":
        from hiss.meow_bridge.prov_document import prov_json

        text = prov_json(graph)
    elif form == "json":
        text = json.dumps(plain(graph), indent=2, ensure_ascii=False)
    else:
        text = provenance_page(graph, title) if form == "html" else provenance_text(graph)
    if to is None:
        click.echo(text)
    else:
        to.write_text(text if text.endswith("\n") else text + "\n", "utf-8")
        click.echo(str(to))

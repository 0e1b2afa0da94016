"""`hiss feedback`, `hiss group`: a word to a stream's producer, how consumers stand. Called from the main thread."""

from __future__ import annotations

import json

import click

from hiss.cli.output import say_json, say_table
from hiss.cli.reach import Reach, command
from hiss.errors import InvalidInput, Unavailable

group = click.Group()


@command(group, "feedback")
@click.argument("path", metavar="COLLECTION/STREAM")
@click.argument("text", metavar="JSON")
def feedback(reach: Reach, path: str, text: str) -> None:
    """Send JSON to the producer of an open stream.

    It gets it from `StreamWriter.feedback()`. Ends with 5 where no producer is connected.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"feedback {text[:80]!r} is no JSON: {error}; text needs quotes: '\"stop\"'") from None
    with reach.buffer() as buffer:
        if not buffer.stream(path).send_feedback(data):
            raise Unavailable(f"stream {path}: no producer is connected; nobody heard it")
    if reach.json:
        say_json({"delivered": True})
    else:
        click.echo(f"{path}: delivered to its producer")


@group.group("group")
def consumer_group() -> None:
    """Consumers that share the blocks of a stream."""


@command(consumer_group, "ls")
@click.argument("path", metavar="COLLECTION/STREAM")
def list_groups(reach: Reach, path: str) -> None:
    """Show how far the consumer groups of a stream are."""
    with reach.buffer() as buffer:
        found = buffer.store.consumer_groups(buffer.store.stream(path).id)
    if reach.json:
        say_json(found)
    else:
        rows = [(one.name, one.acknowledged, one.held, one.left, one.members) for one in found]
        say_table(("group", "acknowledged", "held", "left", "members"), rows)


@command(consumer_group, "rm")
@click.argument("path", metavar="COLLECTION/STREAM")
@click.argument("name", metavar="GROUP")
def remove_group(reach: Reach, path: str, name: str) -> None:
    """Forget a consumer group; one of that name starts anew."""
    with reach.buffer() as buffer:
        buffer.store.delete_consumer_group(buffer.store.stream(path).id, name)
    if reach.json:
        say_json({"removed": name})
    else:
        click.echo(f"{name}: removed from {path}")

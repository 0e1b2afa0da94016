"""`hiss feedback`: a word to a stream's producer. Called from the main thread."""

from __future__ import annotations

import json

import click

from hiss.cli.output import say_json
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

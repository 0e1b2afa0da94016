"""The root of the command line: `hiss COMMAND`.

Importing this imports click and nothing else that is slow: NumPy, gRPC, rich and HDF5 are imported by the commands that
need them, so that `hiss --help` is instant. All runs in the main thread.
"""

from __future__ import annotations

import os
import sys

import click

from hiss.cli.attachments import group as kernel_commands
from hiss.cli.consumers import group as consumer_commands
from hiss.cli.draining import group as drain_commands
from hiss.cli.failure import INTERRUPTED, exit_status, say_failure
from hiss.cli.intake import group as intake_commands
from hiss.cli.node import group as node_commands
from hiss.cli.provenance import group as provenance_commands
from hiss.cli.reach import Reach
from hiss.cli.rules import group as rule_commands
from hiss.cli.settings import settings_of_this_process
from hiss.cli.space import group as space_commands
from hiss.cli.storage import group as storage_commands
from hiss.cli.tokens import group as token_commands
from hiss.cli.transfer import group as transfer_commands
from hiss.cli.verification import group as verification_commands
from hiss.errors import HissError


class _Root(click.Group):
    """Lists its commands in the order in which a user meets them; prints errors as one message."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except HissError as error:
            say_failure(error, as_json=isinstance(context.obj, Reach) and context.obj.json)
            context.exit(exit_status(error))
        except KeyboardInterrupt:
            context.exit(INTERRUPTED)


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hiss", prog_name="hiss")
@click.pass_context
def root(context: click.Context) -> None:
    """A storage buffer for scientific instruments.

    Start with `hiss demo`, or with `hiss serve` and, in another shell, `hiss ls`.
    """
    context.obj = Reach(settings_of_this_process())


for _group in (
    node_commands,
    storage_commands,
    space_commands,
    intake_commands,
    transfer_commands,
    drain_commands,
    consumer_commands,
    verification_commands,
    kernel_commands,
    rule_commands,
    provenance_commands,
    token_commands,
):
    root.commands.update(_group.commands)


def main() -> None:
    """Run the command line of this process."""
    try:
        root(prog_name="hiss")
    except BrokenPipeError:  # whoever read our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush into the pipe at exit
        sys.exit(0)

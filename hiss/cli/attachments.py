"""`hiss kernel attach` and `detach`: kernels for the streams to come of a collection. Called from the main thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hiss.cli import specimen
from hiss.cli.kernel_code import group as group
from hiss.cli.kernels import kernel
from hiss.cli.output import say_json
from hiss.cli.reach import Reach, command
from hiss.errors import InvalidInput

if TYPE_CHECKING:
    from hiss.model import BoundKernel, Param


@command(kernel, "attach")
@click.argument("name", metavar="NAME|FILE[:NAME]")
@click.argument("collection")
@click.option("--streams", default="*", show_default=True, metavar="GLOB", help="Of the streams' names, as 'proj*'.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated.")
@click.option("--shadow", is_flag=True, help="Only report what it would have done.")
@click.option("--every", type=int, default=0, metavar="N", help="Of a reduction: a result for each N indices.")
@click.option(
    "--feedback-every", type=int, default=0, metavar="N", help="Tell the producer how it fares each N blocks."
)
@click.option("--budget-s", type=float, help="The longest that it may take for one extent.")
def attach(reach: Reach, name: str, collection: str, streams: str, params: tuple[str, ...], **rest: Any) -> None:
    """Give a kernel to the streams that are created in a COLLECTION from now on, without kernels of their own.

    A parameter is a number, `column:NAME`, an .npy file, a stream, or `STREAM.mean()`, `STREAM.maximum()`. Kernels run
    in the order in which they were attached. A stream that does not fit is refused when it is created. `hiss stat
    COLLECTION` shows what is attached.
    """
    with reach.buffer() as buffer:
        bound = _bound(specimen.definition(buffer, name), params, **rest)
        info = buffer.store.attach(collection, bound, streams)
    if reach.json:
        say_json(info.kernels)
    else:
        click.echo(f"{bound.kernel.name}: attached to {info.path} for streams {streams}")


@command(kernel, "detach")
@click.argument("name")
@click.argument("collection")
@click.option("--streams", metavar="GLOB", help="Only from this glob; from all by default.")
def detach(reach: Reach, name: str, collection: str, streams: str | None) -> None:
    """Take the kernel NAME from a COLLECTION. Streams that are there keep it."""
    with reach.buffer() as buffer:
        info = buffer.store.detach(collection, name, streams)
    if reach.json:
        say_json(info.kernels)
    else:
        click.echo(f"{name}: detached from {info.path}" + (f" for streams {streams}" if streams else ""))


def _bound(definition: Any, params: Sequence[str], *, budget_s: float | None, **options: Any) -> BoundKernel:
    from hiss import limits
    from hiss.model import BoundKernel

    values = {name: _param(name, text) for name, text in map(specimen.split, params)}
    return BoundKernel(definition, values, limits.KERNEL_BUDGET_S if budget_s is None else budget_s, **options)


def _param(name: str, text: str) -> Param:
    """A parameter as the buffer takes it: it reads streams itself, and records which version it read."""
    import numpy as np

    from hiss.model import ArrayParam, ColumnParam, ScalarParam, StreamParam

    number = specimen.literal(text)
    if number is not None:
        return ScalarParam(number)
    if text.startswith("column:"):
        return ColumnParam(text.removeprefix("column:"))
    if text.endswith(".npy"):
        try:
            return ArrayParam(np.load(text, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"--param {name}: {error}") from None
    if reduced := specimen.REDUCED.fullmatch(text):
        return StreamParam(reduced[1], reduce=reduced[2])
    return StreamParam(text)

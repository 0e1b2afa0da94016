"""Prints nests that compute one value for each element of their domain. See `numba_writer`."""

from __future__ import annotations

from hiss.kernels import views
from hiss.kernels.numba_places import Axes, Body, Place
from hiss.kernels.numba_writer import Writer
from hiss.kernels.schedule import Nest


def print_group(writer: Writer, group: list[Nest]) -> None:
    """Print the loop that the nests of a group share."""
    domain = group[0].domain
    here = views.identity(len(domain))
    body = Body(len(domain))
    stores: list[tuple[Place, str]] = []
    singles: list[tuple[str, str]] = []
    for nest in group:
        value = writer.value(body, nest.root, here, own=None if _reads_stored(writer, nest) else nest.root)
        place = writer.written(nest)
        if place is None:
            writer.names[id(nest.root)] = writer.fresh("t")
            singles.append((writer.names[id(nest.root)], value))
        else:
            stores.append((place, value))
    axes = Axes(domain, (), [*body.places(), *(place for place, _ in stores)])

    def inner(index: list[str | int]) -> None:
        at = axes.index(index)
        writer.emit(body, at)
        for place, value in stores:
            writer.line(f"{place.text(at)} = {value}")
        for name, value in singles:
            writer.line(f"{name} = {value}")

    writer.loops(axes.kept, inner)


def _reads_stored(writer: Writer, nest: Nest) -> bool:
    """Whether a copy takes its root from where another nest stored it."""
    return nest.copy and writer.plan.stored.get(id(nest.root)) is not nest

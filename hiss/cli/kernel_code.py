"""`hiss kernel show`, `emit` and `bench`: a kernel, the code that it becomes, and how fast it runs here.

They work in this process, on what `specimen` finds; a server is only asked for kernels and blocks. Called from the main
thread.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from hiss.cli import specimen
from hiss.cli.kernels import group as group
from hiss.cli.kernels import kernel
from hiss.cli.output import say_fields, say_json, say_table
from hiss.cli.reach import Reach, command

_TARGETS = ("numpy", "numba", "opencl", "fpga-opencl")


@command(kernel, "show")
@click.argument("name", metavar="NAME|FILE[:NAME]")
@click.option("--source", type=click.Choice(_TARGETS[:3]), help="Show what it becomes instead, beside its own lines.")
@specimen.options
def show(reach: Reach, name: str, source: str | None, **sight: Any) -> None:
    """Show a kernel and its source, by name or hash.

    With --source, which needs --like or --dtype and --shape, the generated code: each line of the kernel stands as a
    comment above what was made of it.
    """
    if source is not None:
        from hiss.kernels.emission import emit as emitted

        found = specimen.specimen(reach, name, **sight)
        text = emitted(found.stage, found.frame, source, readable=True)
        if reach.json:
            say_json({"target": source, "code": text})
        else:
            click.echo(text, nl=False)
        return
    with reach.buffer() as buffer:
        info = buffer.store.kernel(name)
    if reach.json:
        say_json(info)
        return
    definition = info.definition
    say_fields((("kernel", definition.name), ("kind", definition.kind.name.lower()), ("hash", info.hash)))
    click.echo()
    click.echo(definition.source.rstrip())


@command(kernel, "emit")
@click.argument("name", metavar="NAME|FILE[:NAME]")
@click.option("--target", type=click.Choice(_TARGETS), default="fpga-opencl", show_default=True, help="What to print.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file.")
@specimen.options
def emit(reach: Reach, name: str, target: str, output: Path | None, **sight: Any) -> None:
    """Print the code that a kernel becomes for blocks of one type.

    `fpga-opencl` is OpenCL C for the compilers of FPGA makers: one work-item, static loops, no recursion, no
    allocation.
    """
    from hiss.kernels.emission import emit as emitted

    found = specimen.specimen(reach, name, **sight)
    text = emitted(found.stage, found.frame, target)
    if output is not None:
        output.write_text(text, "utf-8")
    elif reach.json:
        say_json({"target": target, "code": text})
    else:
        click.echo(text, nl=False)


@command(kernel, "bench")
@click.argument("name", metavar="NAME|FILE[:NAME]")
@click.option("--seconds", type=float, default=1.0, show_default=True, help="How long each back end is measured.")
@specimen.options
def bench(reach: Reach, name: str, seconds: float, **sight: Any) -> None:
    """Measure a kernel on this machine: GB/s of input on each back end, next to copying the same blocks in memory.

    Blocks are the stream's first ones (64 MiB at most) or, where it has none, random numbers.
    """
    from hiss.kernels.timing import timed

    found = specimen.specimen(reach, name, **sight)
    with tempfile.TemporaryDirectory() as directory:
        rows = timed(found.stage, found.frame, found.frames, found.columns, Path(directory) / "cache", seconds)
    if reach.json:
        say_json(rows)
        return
    say_table(
        ("back end", "GB/s", "of a copy", "ms a block", "attach ms", "note"),
        [
            (r.backend, _rounded(r.gb_per_s), _rounded(r.of_copy), _rounded(r.block_ms), _rounded(r.attach_ms), r.note)
            for r in rows
        ],
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")

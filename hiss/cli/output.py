"""What the command line prints: aligned tables for people, one JSON document (or one a line) for machines.

Nothing here imports more than the standard library until a progress bar is shown, which needs `rich` and a terminal on
stderr. Called from the main thread.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import click


def plain(value: Any) -> Any:
    """`value` as JSON values: dataclasses as objects, enumerations by name, in lower case."""
    if isinstance(value, IntEnum):
        return value.name.lower()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return value


def say_json(value: Any, *, line: bool = False) -> None:
    """Print one JSON document; with `line` on one line, so that many make JSON Lines."""
    click.echo(json.dumps(plain(value), indent=None if line else 2, ensure_ascii=False))


def say_table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows below their heads; numbers to the right. Nothing but the heads where there are no rows."""
    texts = [[_cell(cell) for cell in row] for row in rows]
    widths = [max([len(head), *(len(row[i]) for row in texts)]) for i, head in enumerate(heads)]
    right = [bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(heads))]
    for row in [[head.upper() for head in heads], *texts]:
        cells = (
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def say_fields(pairs: Sequence[tuple[str, Any]]) -> None:
    """Print one `name  value` line for each pair whose value is not None or empty."""
    shown = [(name, _cell(value)) for name, value in pairs if value not in (None, "", (), {}, [])]
    width = max((len(name) for name, _ in shown), default=0)
    for name, text in shown:
        first, *rest = text.split("\n")
        click.echo(f"{name.ljust(width)}  {first}")
        for more in rest:
            click.echo(f"{' ' * width}  {more}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def size(count: int) -> str:
    """Bytes for people, in powers of 1000 as disks are sold: `3.9 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit != "B" else f"{count} B"
        value /= 1000
    return f"{value:.3g} PB"


Advance = Callable[[int, int], None]  # done, total


@contextmanager
def progress(what: str, *, shown: bool = True) -> Iterator[Advance]:
    """A progress bar of bytes on stderr where that is a terminal, else nothing."""
    if not shown or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

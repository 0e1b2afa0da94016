"""What the demo prints: lines, progress while data flows, and the closing tables.

On a terminal progress is a bar, elsewhere a line at each quarter. Called from the main thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

_WIDTH: Final = 118  # where there is no terminal to ask


class Screen:
    """A place to print on; `quiet` prints nothing, for a caller that wants JSON only."""

    def __init__(self, *, quiet: bool = False) -> None:
        probe = Console()
        self._console = Console(quiet=quiet, width=None if probe.is_terminal else _WIDTH, highlight=False)
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._quarters: dict[str, int] = {}

    def say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, markup=False)

    def say_verbatim(self, text: str) -> None:
        """Text to be pasted elsewhere: not wrapped."""
        self._console.print(text, markup=False, soft_wrap=True)

    def title(self, text: str) -> None:
        self._console.print()
        self._console.print(text, style="bold", markup=False)

    def progress(self, name: str, done: int, total: int) -> None:
        """How far a stream is; `total` 0 where that is not known."""
        if self._console.is_terminal:
            self._bar(name, done, total)
            return
        quarter = 4 * done // total if total else 0
        if done and quarter > self._quarters.get(name, 0):
            self._quarters[name] = quarter
            self.say(f"  {name}: {done} of {total} blocks acknowledged")

    def progress_ends(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._tasks = {}

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> None:
        """Rows below their heads; the columns at the places `right` to the right."""
        table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", expand=False)
        for place, head in enumerate(heads):
            table.add_column(head, justify="right" if place in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self._console.print()
        self._console.print(table, markup=False)

    def _bar(self, name: str, done: int, total: int) -> None:
        if self._bars is None:
            columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bars = Progress(*columns, console=self._console)
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total or None)
        self._bars.update(self._tasks[name], completed=done)

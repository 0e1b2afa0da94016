"""The source of a recipe as Python sees it: compiled under a name of its own, with its lines shown in tracebacks."""

from __future__ import annotations

import linecache
import sys
import traceback
from types import CodeType, TracebackType


def source_name(recipe: str) -> str:
    return f"<recipe {recipe}>"


def compiled(recipe: str, body: str) -> CodeType:
    """The code of a function or script recipe."""
    name = source_name(recipe)
    linecache.cache[name] = (len(body), None, body.splitlines(keepends=True), name)
    return compile(body, name, "exec", dont_inherit=True)


def print_recipe_traceback(error: BaseException) -> None:
    """To stderr, from the recipe's own first line on: how it was started is of no interest to who wrote it."""
    start: TracebackType | None = error.__traceback__
    while start is not None and not start.tb_frame.f_code.co_filename.startswith("<recipe "):
        start = start.tb_next
    traceback.print_exception(type(error), error, start or error.__traceback__, file=sys.stderr)

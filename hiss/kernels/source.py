"""The text of a kernel: what is refused before and while it is parsed, and how an error points into it.

Nothing here, or in any module that is given the result, executes the source. Pure; any thread.
"""

from __future__ import annotations

import ast
import io
import tokenize
import unicodedata
from dataclasses import dataclass
from typing import Final, NamedTuple

from hiss import limits
from hiss.errors import HissError, KernelRejected, LimitExceeded

_SHOWN_CHARS: Final = 160  # of a source line in a message
_OPEN, _CLOSE = "([{", ")]}"


class Where(NamedTuple):
    """A place in the source: the line from 1, the column from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class SourceText:
    """A kernel's name and text."""

    name: str
    text: str

    def line(self, number: int) -> str:
        lines = self.text.split("\n")
        return lines[number - 1].rstrip("\r") if 0 < number <= len(lines) else ""

    def shown(self, where: Where, reason: str) -> str:
        """`reason` with its place, the line of source and a caret under the column."""
        line = self._printable(where.line)
        text = f"line {where.line}, column {where.column}: {reason}"
        if line.strip():
            text += f"\n    {line}"
            if where.column <= len(line):
                text += f"\n    {' ' * (where.column - 1)}^"
        return text

    def _printable(self, number: int) -> str:
        line = self.line(number)[:_SHOWN_CHARS]
        return "".join(character if character.isprintable() else "\ufffd" for character in line)

    def error(
        self, where: Where, reason: str, kind: type[HissError] = KernelRejected, **details: str | int
    ) -> HissError:
        """An error of class `kind` that names the place, shows its line and says the reason."""
        message = f"kernel {self.name!r}, {self.shown(where, reason)}"
        return kind(message, line=where.line, column=where.column, source_line=self._printable(where.line), **details)

    def too_much(self, where: Where, what: str, limit: str, found: int) -> HissError:
        """`LimitExceeded` for the bound called `limit`."""
        allowed = getattr(limits, limit)
        reason = f"{what}: {found:,}, allowed are {allowed:,} ({limit})"
        return self.error(where, reason, LimitExceeded, limit=limit, allowed=allowed, found=found)


def parse(source: SourceText) -> ast.Module:
    """Check the text and parse it.

    Raises
    ------
    KernelRejected
        Not text, control or direction characters, names outside ASCII, not Python.
    LimitExceeded
        Longer or deeper than `limits.KERNEL_SOURCE_BYTES_MAX`, `limits.KERNEL_NESTING_MAX`.
    """
    _check_characters(source)
    _check_tokens(source)
    try:
        return ast.parse(source.text)
    except SyntaxError as error:
        where = Where(error.lineno or 1, max(error.offset or 1, 1))
        raise source.error(where, f"this is not Python: {error.msg}") from None
    except (ValueError, OverflowError) as error:
        raise source.error(Where(1, 1), f"this is not Python: {error}") from None
    except (RecursionError, MemoryError):
        raise source.too_much(
            Where(1, 1), "expressions nest too deeply", "KERNEL_NESTING_MAX", limits.KERNEL_NESTING_MAX + 1
        ) from None


def _check_characters(source: SourceText) -> None:
    text = source.text
    if len(text) > limits.KERNEL_SOURCE_BYTES_MAX:  # never fewer bytes than characters
        raise LimitExceeded(
            f"kernel {source.name!r}: source of {len(text):,} characters, allowed are "
            f"{limits.KERNEL_SOURCE_BYTES_MAX:,} bytes (KERNEL_SOURCE_BYTES_MAX)",
            limit="KERNEL_SOURCE_BYTES_MAX",
            allowed=limits.KERNEL_SOURCE_BYTES_MAX,
            found=len(text),
        )
    if text.isascii() and text.isprintable():
        return
    for number, line in enumerate(text.split("\n"), 1):
        for column, character in enumerate(line.removesuffix("\r"), 1):
            if character != "\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
                code = f"U+{ord(character):04X}"
                name = unicodedata.name(character, "a control character")
                raise source.error(Where(number, column), f"{code} ({name}) may not stand in a kernel; remove it")


def _check_tokens(source: SourceText) -> None:
    """Names are ASCII (Python folds others into them), and brackets do not nest deeper than allowed."""
    depth = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
            where = Where(token.start[0], token.start[1] + 1)
            if token.type == tokenize.OP:
                depth += (token.string in _OPEN) - (token.string in _CLOSE)
                if depth > limits.KERNEL_NESTING_MAX:
                    raise source.too_much(where, "brackets nest too deeply", "KERNEL_NESTING_MAX", depth)
            elif not token.string.isascii() and token.type not in (tokenize.COMMENT, tokenize.STRING):
                raise source.error(where, f"{token.string[:40]!r}: names are written in ASCII")
    except tokenize.TokenError as error:
        text, (line, column) = error.args
        raise source.error(Where(line, column + 1), f"this is not Python: {text}") from None
    except IndentationError as error:
        where = Where(error.lineno or 1, max(error.offset or 1, 1))
        raise source.error(where, f"this is not Python: {error.msg}") from None

"""The table of functions as Markdown, for docs/kernels.md.

`python -m hiss.kernels.reference docs/kernels.md` writes it between the file's two markers; a test compares. So the
documentation cannot say other than the table that the checker uses. Run by developers; any thread.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from hiss.kernels.functions import ALIASES, FUNCTIONS, TableFunction
from hiss.kernels.primitives import PRIMITIVES, VERSION

BEGIN: Final = "<!-- table: written by python -m hiss.kernels.reference -->"
END: Final = "<!-- end of table -->"


def table() -> str:
    """The rows of the function table, in its order."""
    lines = [
        f"Version {VERSION} of the table.",
        "",
        "| written | dtype of the result | note |",
        "|---|---|---|",
    ]
    for row in FUNCTIONS.values():
        notes = [row.note] if row.note else []
        notes += [f"also `np.{alias}`" for alias, name in ALIASES.items() if name == row.name]
        if row.name in PRIMITIVES and not PRIMITIVES[row.name].exact:
            notes.append("within 4 ulp")
        lines.append(f"| {_written(row)} | {row.dtypes} | {_cell('; '.join(notes))} |")
    return "\n".join(lines)


def _written(row: TableFunction) -> str:
    forms = []
    if "n" in row.forms:
        forms.append(f"`np.{row.name}({row.signature})`")
    if "h" in row.forms:
        forms.append(f"`hk.{row.name}({row.signature})`")
    first, _, rest = row.signature.partition(", ")
    if "m" in row.forms:
        forms.append(f"`{first}.{row.name}({rest})`")
    if "a" in row.forms:
        forms.append(f"`{first}.{row.name}`")
    if "o" in row.forms:
        forms.append(row.note.split("`")[1].join("``"))
    return _cell(", ".join(forms))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def with_table(text: str) -> str:
    """A document with the table between its markers brought up to date."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(with_table(document.read_text("utf-8")), "utf-8")

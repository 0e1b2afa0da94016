"""The generated parts of docs/kernel-language.md: the functions, the bounds, and what typical mistakes are answered.

`python -m hiss.kernels.reference docs/kernel-language.md` writes them between the document's markers; a test compares.
So the documentation cannot say other than what the checker does. Run by developers; any thread.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from hiss import limits
from hiss.errors import HissError
from hiss.kernels.checker import check
from hiss.kernels.compiler import ResolvedStage, program_of
from hiss.kernels.functions import ALIASES, SECTIONS, TableFunction
from hiss.kernels.primitives import PRIMITIVES, VERSION
from hiss.kernels.specialiser import FrameType
from hiss.model import KernelDef, KernelKind

MARKERS: Final = re.compile(
    r"<!-- (\w+): written by python -m hiss\.kernels\.reference -->\n.*?<!-- end -->", re.DOTALL
)
BOUNDS: Final = {
    "KERNEL_SOURCE_BYTES_MAX": "bytes of source",
    "KERNEL_NESTING_MAX": "brackets or expressions within one another",
    "KERNEL_NODES_MAX": "expressions",
    "KERNEL_PARAMETERS_MAX": "parameters, entries of a tuple, parts of a state",
    "RANK_MAX": "dimensions of an array",
    "KERNEL_OUTPUT_BYTES_MAX": "bytes of a block's result",
    "KERNEL_TEMPORARY_BYTES_MAX": "bytes of temporaries for a block, and of any array",
    "KERNEL_OPS_PER_BYTE_MAX": "operations for each byte that goes in",
    "KERNEL_COMPILE_S_MAX": "seconds to compile",
    "KERNEL_BUDGET_S": "seconds for an extent, unless the binding says otherwise",
    "KERNEL_FAULTS_MAX": "faulty extents in a row, then a stage is quarantined",
    "PIPELINE_STAGES_MAX": "kernels of a pipeline",
}
MISTAKES: Final = {  # what it is: source, for frames of uint16, 64 x 64
    "A loop": "def k(frame):\n    total = 0\n    for row in frame:\n        total = total + row\n    return total\n",
    "`if` on data": "def k(frame):\n    if frame.max() > 100:\n        return frame\n    return frame * 0\n",
    "`print`": "def k(frame):\n    print(frame)\n    return frame\n",
    "A float as an index": "def k(frame):\n    return frame[64 / 2]\n",
    "Shapes that do not fit": "def k(frame):\n    return frame[:, 1:] - frame[:, :-2]\n",
    "An unknown function": "def k(frame):\n    return np.avrage(frame)\n",
    "A misspelt name": "def k(frame):\n    corrected = frame.astype(np.float32)\n    return corected * 2\n",
    "A change in place": "def k(frame):\n    frame[frame > 100] = 0\n    return frame\n",
    "A mask in the middle": "def k(frame):\n    return frame[frame > 100].mean()\n",
    "A number that does not fit": "def k(frame):\n    return frame + 70000\n",
    "An import": "def k(frame):\n    import scipy.ndimage\n    return scipy.ndimage.median_filter(frame, 3)\n",
    "The larger of two values": "def k(frame):\n    return max(frame, 100)\n",
    "A chain of comparisons": "def k(frame):\n    return np.count_nonzero(5 < frame < 9)\n",
    "A size that is no integer": "def k(frame):\n    return frame[: frame.shape[0] / 2]\n",
    "A table": "def k(frame):\n    return np.arange(65536)[frame]\n",
    "Binning that does not divide": "def k(frame):\n    return hk.bin2d(frame, 3)\n",
    "A list": "def k(frame):\n    return np.stack([frame, frame])\n",
    "A condition on data": "def k(frame):\n    return frame if frame.mean() > 3 else frame * 2\n",
    "An outer product": "def k(frame):\n    f = np.pad(frame, 99).ravel()\n    return f[:, None] * f[None, :]\n",
    "Another library's function": "def k(frame):\n    return np.histogram(frame, 100)\n",
}


def functions() -> str:
    """The rows of the function table, section by section."""
    lines = [f"Version {VERSION} of the table.", ""]
    for title, rows in SECTIONS.items():
        lines += [f"### {title}", "", "| written | dtype of the result | note |", "|---|---|---|"]
        for row in rows:
            notes = [row.note] if row.note else []
            notes += [f"also `np.{alias}`" for alias, name in ALIASES.items() if name == row.name]
            if row.name in PRIMITIVES and not PRIMITIVES[row.name].exact:
                notes.append("within 4 ulp")
            lines.append(f"| {_written(row)} | {row.dtypes} | {_cell('; '.join(notes))} |")
        lines.append("")
    return "\n".join(lines[:-1])


def bounds() -> str:
    """The bounds of `limits` that a kernel meets."""
    rows = [f"| {what} | {getattr(limits, name):,} | `{name}` |" for name, what in BOUNDS.items()]
    return "\n".join(["| what | at most | in `hiss/limits.py` |", "|---|---|---|", *rows])


def mistakes() -> str:
    """What typical mistakes are answered."""
    parts = []
    for title, source in MISTAKES.items():
        parts.append(f"**{title}**\n\n```python\n{source}```\n\n```text\n{answer(source)}\n```\n")
    return "\n".join(parts).rstrip("\n")


def answer(source: str) -> str:
    """What is said of a map for frames of uint16, 64 x 64; empty where it is accepted."""
    definition = KernelDef("k", KernelKind.MAP, source)
    frame = FrameType(np.dtype(np.uint16), (64, 64), np.dtype([]))
    try:
        program_of(check(definition), frame, ResolvedStage(definition))
    except HissError as error:
        return str(error)
    return ""


GENERATED: Final[dict[str, Callable[[], str]]] = {"functions": functions, "bounds": bounds, "mistakes": mistakes}


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


def up_to_date(text: str) -> str:
    """A document with its generated parts written anew."""
    found = MARKERS.findall(text)
    if sorted(found) != sorted(GENERATED):
        raise ValueError(f"the document has the parts {found}; expected each of {list(GENERATED)} once")

    def part(match: Any) -> str:
        head = match.group(0).split("\n", 1)[0]
        return f"{head}\n\n{GENERATED[match.group(1)]()}\n\n<!-- end -->"

    return MARKERS.sub(part, text)


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(up_to_date(document.read_text("utf-8")), "utf-8")

"""Notebooks as recipes: their parameters replaced, executed by papermill.

A parameter is set where the notebook assigns it: every assignment to its name in the notebook's own scope gets the
value, in whatever cell and however deep in `if`, `for`, `with` or `try`; inside of functions and classes nothing
changes. What is assigned is found with `ast`, never by searching text, so a value may hold what it likes. A parameter
that the notebook assigns nowhere is put into a cell of its own before the first code cell. Runs in the job's process,
one thread.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from hiss.errors import InvalidRecipe, JobFailed, MissingExtra

INJECTED_TAG: Final = "injected-parameters"  # papermill's own

_PYTHON_CELL_MAGICS: Final = {"time", "timeit", "capture", "prun"}  # what follows their line is Python
_MAGIC_LINE: Final = re.compile(r"^(\s*)([%!?].*|[\w.]+\?{1,2}\s*)$")
_MAGIC_VALUE: Final = re.compile(r"^(\s*[\w.,\s]+=\s*)([%!])(?!=).*$")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")

_Edit = tuple[int, int, int, int, str]  # from line, byte, to line, byte (0-based), the text instead


# ---------------------------------------------------------------------------------------------------------- parameters


def parameterised(notebook: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a notebook (its JSON, format 4) with the parameters set."""
    result: dict[str, Any] = deepcopy(dict(notebook))
    assigned: set[str] = set()
    for cell in result["cells"]:
        if cell.get("cell_type") == "code":
            cell["source"], names = parameterised_source(_text(cell["source"]), values)
            assigned |= names
    lacking = {name: value for name, value in values.items() if name not in assigned}
    if lacking:
        kinds = [cell.get("cell_type") for cell in result["cells"]]
        place = kinds.index("code") if "code" in kinds else len(kinds)
        result["cells"].insert(place, _cell(lacking, "id" in (result["cells"] or [{"id": ""}])[0]))
    return result


def parameterised_source(source: str, values: Mapping[str, Any]) -> tuple[str, set[str]]:
    """One cell's source with the assignments replaced, and the names that it assigns.

    Source that is not Python, even without its magics, stays as it is.
    """
    try:
        tree = ast.parse(_without_magics(source))
    except (SyntaxError, ValueError):
        return source, set()
    names: set[str] = set()
    edits: list[_Edit] = []
    for statement in _own_statements(tree.body):
        for name, edit in _assignments(statement, values):
            names.add(name)
            edits.append(edit)
    return _edited(source, edits), names


def literal(value: Any) -> str:
    """A JSON value as Python."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {literal(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(entry) for entry in value) + "]"
    return repr(value)


def _own_statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements that run in the notebook's own scope."""
    for statement in body:
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for block in ("body", "orelse", "finalbody"):
                yield from _own_statements(getattr(statement, block, ()))
            for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                yield from _own_statements(part.body)


def _assignments(statement: ast.stmt, values: Mapping[str, Any]) -> Iterator[tuple[str, _Edit]]:
    """The parameters that a statement assigns, each with the edit that sets it."""
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets: list[ast.expr] = [statement.target]
        value = statement.value
    elif isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    else:
        return
    if len(targets) == 1:
        simple = list(_pairs(targets[0], value))
        if all(target is None or isinstance(target, ast.Name) for target, _ in simple):
            for target, part in simple:
                if isinstance(target, ast.Name) and target.id in values:
                    yield target.id, (*_span(part), literal(values[target.id]))
            return
    set_after = [name for name in dict.fromkeys(_bound_names(targets)) if name in values]
    if set_after:  # the rest of the statement is still wanted: it runs, and the parameters are set after it
        _, _, line, byte = _span(statement)
        text = "".join(f"; {name} = {literal(values[name])}" for name in set_after)
        for place, name in enumerate(set_after):
            yield name, (line, byte, line, byte, text if place == 0 else "")


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr | None, ast.expr]]:
    """Each target with the part of the value that it gets; as they are where the two do not fall into pairs.

    A target that is no name or tuple (`a[0]`, `a.b`) is None: nothing of it is a parameter.
    """
    sequence = ast.Tuple | ast.List
    if isinstance(target, sequence):
        starred = isinstance(value, sequence) and any(
            isinstance(part, ast.Starred) for part in (*target.elts, *value.elts)
        )
        if isinstance(value, sequence) and not starred and len(target.elts) == len(value.elts):
            for one, part in zip(target.elts, value.elts, strict=True):
                yield from _pairs(one, part)
        else:
            yield target, value
    else:
        yield (target if isinstance(target, ast.Name) else None), value


def _bound_names(targets: Iterable[ast.expr]) -> Iterator[str]:
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _span(node: ast.expr | ast.stmt) -> tuple[int, int, int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return node.lineno - 1, node.col_offset, node.end_lineno - 1, node.end_col_offset


def _edited(source: str, edits: Iterable[_Edit]) -> str:
    """The edits do not overlap; columns count bytes, as in `ast`."""
    lines = [line.encode() for line in _lines(source)]
    for line, byte, end_line, end_byte, text in sorted(edits, reverse=True):
        if (line, byte) != (end_line, end_byte) or text:
            joined = lines[line][:byte] + text.encode() + lines[end_line][end_byte:]
            lines[line : end_line + 1] = [joined]
    return b"".join(lines).decode()


def _lines(source: str) -> list[str]:
    """Lines as Python's parser counts them: form feeds and the like do not end one."""
    return re.findall(r"[^\n]*\n|[^\n]+", source.replace("\r\n", "\n").replace("\r", "\n"))


def _without_magics(source: str) -> str:
    """The source with IPython's own lines made harmless, every other character in its place."""
    lines = _lines(source)
    if lines and lines[0].startswith("%%"):
        if lines[0][2:].split(maxsplit=1)[0] not in _PYTHON_CELL_MAGICS:
            raise SyntaxError("a cell of another language")
        lines[0] = "\n"
    clean = []
    for line in lines:
        line = _MAGIC_LINE.sub(r"\1pass", line)
        clean.append(_MAGIC_VALUE.sub(r"\1None", line))
    return "".join(clean)


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _cell(values: Mapping[str, Any], with_id: bool) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"tags": [INJECTED_TAG]},
        "outputs": [],
        "source": "\n".join(f"{name} = {literal(value)}" for name, value in values.items()),
    }
    return {**cell, "id": INJECTED_TAG} if with_id else cell


# ---------------------------------------------------------------------------------------------------------- execution


def execute(recipe: str, body: str, variables: Mapping[str, Any], directory: Path) -> bytes:
    """Run a notebook by a kernel of this interpreter, in this working directory.

    Parameters
    ----------
    directory : Path
        For the kernel's own files; nothing is written into the user's home.

    Returns
    -------
    bytes
        The executed notebook, as JSON.

    Raises
    ------
    MissingExtra
        papermill or ipykernel is absent.
    InvalidRecipe
        The notebook is of another language than Python.
    JobFailed
        A cell raised; the traceback is printed.
    """
    notebook = json.loads(body)
    language = notebook.get("metadata", {}).get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise InvalidRecipe(f"recipe {recipe!r}: its notebook is written in {language}; only Python notebooks can run")
    absent = [name for name in ("papermill", "ipykernel") if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingExtra(
            f"recipe {recipe!r} is a notebook, and {' and '.join(absent)} cannot be imported: "
            "pip install 'hiss[notebook]'"
        )
    kernel = _install_kernel(directory / "jupyter")
    import papermill
    from traitlets.config import Config

    asked, executed = directory / "asked.ipynb", directory / "executed.ipynb"
    asked.write_text(json.dumps(parameterised(notebook, variables)), "utf-8")
    try:
        papermill.execute_notebook(
            str(asked),
            str(executed),
            kernel_name=kernel,
            language="python",
            progress_bar=False,
            cwd=os.getcwd(),
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            config=Config(
                {
                    "KernelManager": {"transport_encryption": "auto"},
                    "NotebookClient": {"kernel_manager_class": _uninterrupted_kernels()},
                }
            ),
        )
    except papermill.PapermillExecutionError as error:
        print(_ANSI.sub("", "\n".join(error.traceback)), file=sys.stderr)
        raise JobFailed(f"cell {error.cell_index}: {error.ename}: {error.evalue}") from None
    return executed.read_bytes()


def _uninterrupted_kernels() -> type:
    """A kernel manager that asks a kernel to end and does not interrupt it first.

    The interrupt is for cells that still run. Ours have ended, and the kernel, if it is just closing its last message,
    would print that it was interrupted, among what the cells printed. Whoever cancels a job kills its processes.
    """
    from jupyter_client.manager import AsyncKernelManager

    class UninterruptedKernels(AsyncKernelManager):
        async def _async_interrupt_kernel(self) -> None:
            pass

    return UninterruptedKernels


def _install_kernel(directory: Path) -> str:
    """Make a kernel of this very interpreter known, and known only here. Returns its name."""
    name = "hiss-job"
    folder = directory / "kernels" / name
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    specification = {
        "argv": argv,
        "display_name": "Python (hiss job)",
        "language": "python",
        "metadata": {"supported_encryption": ["curve"]},
    }
    (folder / "kernel.json").write_text(json.dumps(specification), "utf-8")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(directory), os.environ.get("JUPYTER_PATH")]))
    os.environ["JUPYTER_RUNTIME_DIR"] = str(directory / "runtime")
    os.environ["IPYTHONDIR"] = str(directory / "ipython")
    return name

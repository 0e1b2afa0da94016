"""`hiss kernel …`: register, list and check kernels, of a file or of the library.

A file's kernels are its top-level definitions under `@hiss.kernel`, `@hiss.filter`, `@hiss.scan` or `@hiss.reduce`;
they are found by parsing, and nothing of the file is executed. Called from the main thread.
"""

from __future__ import annotations

import ast
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hiss.cli.output import plain, say_json, say_table
from hiss.cli.reach import Reach, command, local_command
from hiss.errors import InvalidInput, KernelNotFound, KernelRejected

if TYPE_CHECKING:
    from hiss.model import KernelDef

group = click.Group()
kernel = click.Group("kernel", help="Array functions that run in transit. Ready-made ones: `hiss kernel ls --library`.")
group.add_command(kernel)

_DECORATORS = {"kernel": "MAP", "filter": "FILTER", "scan": "SCAN", "reduce": "REDUCE"}
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def definitions(file: Path) -> list[KernelDef]:
    """The kernels of a Python file, in their order.

    Raises
    ------
    KernelRejected
        The file does not parse.
    InvalidInput
        No definition has a decorator of hiss.
    """
    from hiss.model import KernelDef, KernelKind

    try:
        text = file.read_text("utf-8")
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise KernelRejected(f"{file}: {error}; nothing was registered") from None
    found = []
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (kind := _kind(node)) is not None:
            source = ast.get_source_segment(text, node) or ""  # without the decorators
            found.append(KernelDef(node.name, KernelKind[kind], source + "\n"))
    if not found:
        raise InvalidInput(
            f"{file}: no kernel in it; write @hiss.kernel, @hiss.filter, @hiss.scan or @hiss.reduce above a definition"
        )
    return found


def _kind(node: ast.FunctionDef | ast.ClassDef) -> str | None:
    for decorator in node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
        if name in _DECORATORS:
            return _DECORATORS[name]
    return None


def library_kernels(names: tuple[str, ...]) -> list[KernelDef]:
    """Kernels of the library, in the order of `names`.

    Raises
    ------
    KernelNotFound
        The library has no kernel of a name.
    """
    from hiss.kernels import library

    for name in names:
        if name not in library.KERNELS:
            close = difflib.get_close_matches(name, library.KERNELS, 1)
            hint = f"did you mean {close[0]}?" if close else "see `hiss kernel ls --library`"
            raise KernelNotFound(f"the library has no kernel {name!r}; {hint}")
    return [getattr(library, name).definition for name in names]


@command(kernel, "add")
@click.argument("file", type=_FILE, required=False)
@click.option("--library", "names", metavar="NAME", multiple=True, help="A kernel of the library; may be repeated.")
def add(reach: Reach, file: Path | None, names: tuple[str, ...]) -> None:
    """Register the kernels of a Python FILE under their functions' names, and kernels of the library under theirs.

    The file is parsed, never executed.
    """
    if file is None and not names:
        raise InvalidInput("nothing to register: name a FILE, or a kernel of the library with --library")
    found = [*(definitions(file) if file else []), *library_kernels(names)]
    with reach.buffer() as buffer:
        infos = [buffer.store.register_kernel(definition) for definition in found]
    if reach.json:
        say_json(infos)
    else:
        for info in infos:
            click.echo(f"{info.definition.name}  {info.definition.kind.name.lower()}  {info.hash}")


@command(kernel, "ls")
@click.option("--library", "shipped", is_flag=True, help="List the kernels that come with hiss instead.")
def list_kernels(reach: Reach, shipped: bool) -> None:
    """List the registered kernels, and how they fared since the buffer was started."""
    from hiss.model import now_text

    if shipped:
        _list_library(reach)
        return
    with reach.buffer() as buffer:
        infos, fared = buffer.store.kernels(), buffer.status().kernels
    if reach.json:
        say_json([{**plain(info), "report": fared.get(info.hash, {})} for info in infos])
        return
    counts = ("blocks", "vetoed", "failed", "p50_ms", "p99_ms")
    rows = [
        (
            *(info.definition.name, info.definition.kind.name.lower(), info.hash[:16], now_text(info.registered_ns)),
            *(fared.get(info.hash, {}).get(name) for name in counts),
        )
        for info in infos
    ]
    say_table(("kernel", "kind", "hash", "registered", "blocks", "vetoed", "failed", "p50 ms", "p99 ms"), rows)


def _list_library(reach: Reach) -> None:
    from hiss.kernels import library

    kernels = [getattr(library, name) for name in library.KERNELS]
    rows = [
        {
            "name": kernel.definition.name,
            "kind": kernel.definition.kind.name.lower(),
            "parameters": list(kernel.parameters),
            "summary": kernel.summary,
        }
        for kernel in kernels
    ]
    if reach.json:
        say_json(rows)
        return
    columns = ("kernel", "kind", "parameters", "what it gives")
    say_table(columns, [(row["name"], row["kind"], ", ".join(row["parameters"]), row["summary"]) for row in rows])


@local_command(kernel, "check")
@click.argument("file", type=_FILE)
def check(reach: Reach, file: Path) -> None:
    """Check the kernels of a Python FILE against the language, without a server and without executing it."""
    found: list[dict[str, Any]] = [_checked(definition) for definition in definitions(file)]
    if reach.json:
        say_json(found)
    else:
        for result in found:
            click.echo(f"{result['name']}({', '.join(result['parameters'])})  {result['kind']}  {result['hash'][:16]}")


def _checked(definition: KernelDef) -> dict[str, Any]:
    from hiss.kernels import check as check_kernel

    checked = check_kernel(definition)
    return {
        "name": definition.name,
        "kind": definition.kind.name.lower(),
        "hash": checked.hash,
        "parameters": list(checked.parameters),
    }


@command(kernel, "promote")
@click.argument("name")
@click.argument("stream")
def promote(reach: Reach, name: str, stream: str) -> None:
    """Make a filter that runs as a shadow beside an open STREAM a stage of its pipeline, from the next extent on.

    A shadow map cannot be promoted, because what the blocks of a stream are does not change while it is open: attach
    it to a new stream.
    """
    with reach.buffer() as buffer:
        info = buffer.store.promote(buffer.store.stream(stream).id, name)
    stage = next(stage for stage in info.stages if stage.name == name)
    if reach.json:
        say_json(stage)
    else:
        click.echo(f"{name}: a stage of {info.path} from index {stage.since} on")


@command(kernel, "replay")
@click.argument("name")
@click.argument("stream")
@click.option("--file", type=_FILE, help="Take the kernel from a Python file instead of the registered ones.")
@click.option("--recorded", is_flag=True, help="Run the stream's own version of the kernel, not the registered one.")
def replay(reach: Reach, name: str, stream: str, file: Path | None, recorded: bool) -> None:
    """Run a STREAM's pipeline over its retained raw blocks once more, with the kernel NAME as it is registered now.

    The blocks are compared with what was stored; nothing is changed. With `keep="both"` and `"raw"` all raw blocks are
    there, with `"result"` those on which a kernel failed.
    """
    with reach.buffer() as buffer:
        info = buffer.store.stream(stream)
        if recorded:
            definition = None
        elif file is not None:
            found = {one.name: one for one in definitions(file)}
            if name not in found:
                raise InvalidInput(f"{file} has no kernel {name!r}; it has {', '.join(found)}")
            definition = found[name]
        else:
            definition = buffer.store.kernel(name).definition
        result = buffer.store.replay(info.id, definition)
    if reach.json:
        say_json(result)
        return
    counts = ("blocks", "same", "different", "vetoed", "kept", "recovered", "failed")
    say_table(counts, [tuple(getattr(result, count) for count in counts)])
    if result.first is not None:
        click.echo(f"the first that is not the same: {result.first}; largest difference {result.largest:g}")

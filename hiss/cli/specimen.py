"""What a kernel is tried on: its definition, a type of blocks, values for its parameters, as options of commands say
them.

`--like STREAM` takes the blocks and columns of a stream; `--dtype` and `--shape` say them without a buffer. `--param
NAME=VALUE` gives a parameter: a number; `column:NAME`; a stream, or `STREAM.mean()`, `STREAM.maximum()`; an .npy file;
or `DTYPE:SHAPE`, an array of ones, where only its type matters. Called from the main thread.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hiss.cli.kernels import definitions
from hiss.cli.reach import Reach
from hiss.errors import InvalidInput

if TYPE_CHECKING:
    from hiss.client import Buffer
    from hiss.kernels import ResolvedStage
    from hiss.kernels.specialiser import FrameType

_FRAMES_BYTES: Final = 64 << 20  # of a stream that are read to try a kernel on
_TYPED: Final = re.compile(r"(bool|u?int\d+|float\d+):(\d+(?:x\d+)*)?")
REDUCED: Final = re.compile(r"(.+)\.(mean|maximum)\(\)")


@dataclass(frozen=True, slots=True)
class Specimen:
    """A kernel and blocks for it. `frames` are some of the stream's, with `columns`; empty where none was named."""

    stage: ResolvedStage
    frame: FrameType
    frames: Any
    columns: Any


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--like`, `--dtype`, `--shape`, `--param`."""
    for option in (
        click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated."),
        click.option("--shape", metavar="HxW", help="Of one block, as 2048x2048; without --like."),
        click.option("--dtype", metavar="DTYPE", help="Of the blocks, as uint16; without --like."),
        click.option("--like", metavar="STREAM", help="Take the blocks, their type and columns of a stream."),
    ):
        function = option(function)
    return function


def specimen(
    reach: Reach, kernel: str, like: str | None, dtype: str | None, shape: str | None, params: Sequence[str]
) -> Specimen:
    """The kernel and its blocks; asks a buffer only for what is in one.

    Raises
    ------
    InvalidInput
        Options that do not go together, or a value that is none of the forms.
    """
    path = Path(kernel.partition(":")[0])
    known = dict(split(text) for text in params)
    local = path.suffix == ".py" and like is None and not any(_is_stream(value) for value in known.values())
    if local:
        return _specimen(None, kernel, None, dtype, shape, known)
    with reach.buffer() as buffer:
        return _specimen(buffer, kernel, like, dtype, shape, known)


def _specimen(
    buffer: Buffer | None,
    kernel: str,
    like: str | None,
    dtype: str | None,
    shape: str | None,
    params: Mapping[str, str],
) -> Specimen:
    import numpy as np

    from hiss.kernels import ResolvedStage
    from hiss.kernels.specialiser import FrameType

    values = {name: _value(buffer, name, text) for name, text in params.items()}
    stage = ResolvedStage(definition(buffer, kernel), values)
    if (like is None) != (dtype is not None):
        raise InvalidInput("say what the blocks are: --like STREAM, or --dtype and --shape")
    if like is not None:
        assert buffer is not None
        stream = buffer[like]
        info = stream.info
        if info.frame.variable:
            raise InvalidInput(f"stream {info.path}: blocks of a variable length; name --dtype and --shape")
        sizes = tuple(size for size in info.frame.shape if size is not None)
        count = max(1, _FRAMES_BYTES // max(1, info.frame.item_bytes))
        indices = stream.index[:count].tolist()
        last = indices[-1] + 1 if indices else 0
        names = info.columns_dtype.names or ()
        columns = np.zeros(len(indices), info.columns_dtype)
        for name in names:
            columns[name] = stream.columns[name][: len(indices)]
        frames = stream.read(indices[0] if indices else 0, last)
        return Specimen(stage, FrameType(info.frame.numpy_dtype, sizes, info.columns_dtype), frames, columns)
    sizes = tuple(int(size) for size in shape.split("x")) if shape else ()
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise InvalidInput(f"--dtype {dtype}: no dtype of NumPy") from None
    nothing = np.zeros((0, *sizes), kind)
    return Specimen(stage, FrameType(kind, sizes, np.dtype([])), nothing, np.zeros(0, np.dtype([])))


def definition(buffer: Buffer | None, kernel: str) -> Any:
    """A registered kernel by name or hash, or one of a file: `FILE.py`, or `FILE.py:NAME` where it has several."""
    file, _, name = kernel.partition(":")
    if not file.endswith(".py"):
        assert buffer is not None
        return buffer.store.kernel(kernel).definition
    path = Path(file)
    if not path.is_file():
        raise InvalidInput(f"no file {file}")
    found = {one.name: one for one in definitions(path)}
    if name in found:
        return found[name]
    if name or len(found) > 1:
        raise InvalidInput(f"{file} has the kernels {', '.join(found)}; name one: {file}:{next(iter(found))}")
    return next(iter(found.values()))


def split(text: str) -> tuple[str, str]:
    """The two sides of `NAME=VALUE`."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise InvalidInput(f"--param {text}: expected NAME=VALUE")
    return name, value


def _is_stream(text: str) -> bool:
    return (
        literal(text) is None and not text.startswith("column:") and not _TYPED.fullmatch(text) and text[-4:] != ".npy"
    )


def literal(text: str) -> bool | int | float | None:
    """The number that a text is, if it is one."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return value if isinstance(value, bool | int | float) else None


def _value(buffer: Buffer | None, name: str, text: str) -> Any:
    import numpy as np

    from hiss.model import ColumnParam, ScalarParam

    number = literal(text)
    if number is not None:
        return ScalarParam(number)
    if text.startswith("column:"):
        return ColumnParam(text.removeprefix("column:"))
    if typed := _TYPED.fullmatch(text):
        sizes = tuple(int(size) for size in (typed[2] or "").split("x") if size)
        return np.ones(sizes, typed[1])
    if text.endswith(".npy"):
        try:
            return np.load(text, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"--param {name}: {error}") from None
    assert buffer is not None
    if reduced := REDUCED.fullmatch(text):
        return np.asarray(getattr(buffer[reduced[1]], reduced[2])())
    array = np.asarray(buffer[text])
    if len(array) != 1:
        raise InvalidInput(
            f"--param {name}={text}: a stream of {len(array)} blocks; name {text}.mean() or one with one block"
        )
    return array[0]

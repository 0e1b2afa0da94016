"""What an analyst writes with: the decorators `kernel`, `filter`, `scan` and `reduce`, the `Kernel` that they give,
and `column`.

A kernel is checked when it is decorated, so that its author learns at once what is not in the language. This module
runs where kernels are written (a script, a notebook); a server sees the source only, as data. Any thread.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar, overload

import numpy as np

from hiss import limits
from hiss.errors import InvalidInput, KernelRejected, ParameterMismatch
from hiss.kernels.checker import CLASSES, check, listed
from hiss.kernels.specialiser import check_parameters
from hiss.kernels.untyped import CheckedKernel
from hiss.model import (
    ArrayParam,
    BoundKernel,
    ColumnParam,
    KernelDef,
    KernelKind,
    Param,
    ScalarParam,
    StreamParam,
)

P = ParamSpec("P")
R = TypeVar("R")


class Kernel(Generic[P, R]):
    """A checked kernel.

    Attributes
    ----------
    definition : KernelDef
        Name, kind and source, as they are sent to a server.
    hash : str
        Identity: 64 hex digits, the same for kernels that differ in local names, comments and spacing only.
    warnings : tuple of str
        What is in the language but may not be meant.
    parameters : tuple of str
        What `bind` takes; those with a default may be left out.
    summary : str
        The first sentence of its docstring.
    """

    def __init__(self, function: Callable[P, R], definition: KernelDef) -> None:
        self._function = function
        self._checked: CheckedKernel = check(definition)
        self.definition = definition
        self.__doc__ = function.__doc__

    @property
    def hash(self) -> str:
        return self._checked.hash

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._checked.warnings

    @property
    def parameters(self) -> tuple[str, ...]:
        return self._checked.parameters

    @property
    def summary(self) -> str:
        paragraph = " ".join(inspect.cleandoc(self.__doc__ or "").partition("\n\n")[0].split())
        return paragraph.partition(". ")[0].rstrip(".")

    def __repr__(self) -> str:
        parameters = ", ".join(self.parameters)
        return f"<hiss {self.definition.kind.name.lower()} {self.definition.name}({parameters}) {self.hash[:12]}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call what was written, with plain NumPy, for trying out.

        A map or filter takes one frame; a scan or reduction takes frames `(n, *shape)`, which go through its `step` one
        after another, and gives all results of a scan as one array, the one of a reduction.
        """
        if self.definition.kind in CLASSES:
            return _walked(self._function, self.definition.kind, *args, **kwargs)  # type: ignore[no-any-return]
        return self._function(*args, **kwargs)

    def bind(
        self,
        *,
        budget_s: float = limits.KERNEL_BUDGET_S,
        shadow: bool = False,
        every: int = 0,
        feedback_every: int = 0,
        **params: Any,
    ) -> BoundKernel:
        """The kernel with its parameters, for a stream.

        Parameters
        ----------
        budget_s : float
            The longest that it may run on one extent; beyond that its blocks are marked `kernel-failed`.
        shadow : bool
            Run it beside the stream, and only report what it would have done.
        every : int
            Of a reduction: a result for each so many indices of the stream, 0: one for all of it.
        feedback_every : int
            Tell the stream's producer, each time that so many blocks have reached the kernel, what became of them:
            `StreamWriter.feedback` gets `{"kernel": …, "blocks": …, "vetoed": …, "failed": …, "veto_rate": …}`.
        **params
            Numbers (Python's take the dtype of their partners, NumPy's keep their own), arrays, `hiss.column(...)`,
            streams and their reductions.

        Raises
        ------
        ParameterMismatch
            A name that the kernel does not have, a missing one, or a value of another kind.
        """
        if not budget_s >= 0:
            raise InvalidInput(f"kernel {self.definition.name!r}: budget_s {budget_s!r} is not a time")
        check_parameters(self._checked, params)
        bound = {name: self._param(name, value) for name, value in params.items()}
        return BoundKernel(self.definition, bound, float(budget_s), bool(shadow), int(every), int(feedback_every))

    def _param(self, name: str, value: Any) -> Param:
        if isinstance(value, ScalarParam | ArrayParam | StreamParam | ColumnParam):
            return value
        if hasattr(value, "__hiss_param__"):
            param: Param = value.__hiss_param__()
            return param
        if isinstance(value, np.generic) and value.dtype.kind in "biuf":
            return ScalarParam(value.item(), value.dtype.str)
        if isinstance(value, bool | int | float):
            return ScalarParam(value)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return ArrayParam(value)
        raise ParameterMismatch(
            f"kernel {self.definition.name!r}: parameter {name!r} is {_kind(value)}; expected a real number, an array "
            "of them, hiss.column(...), a stream or its reduction",
            parameter=name,
        )


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray | np.generic):
        return f"of dtype {value.dtype}"
    return f"of class {type(value).__name__}"


def column(name: str) -> ColumnParam:
    """The column `name` of each block, as a kernel's parameter."""
    return ColumnParam(name)


@overload
def kernel(function: Callable[P, R], /) -> Kernel[P, R]: ...
@overload
def kernel(*, name: str | None = None) -> Callable[[Callable[P, R]], Kernel[P, R]]: ...
def kernel(function: Callable[P, R] | None = None, /, *, name: str | None = None) -> Any:
    """Make a kernel of a NumPy-style function of one block: an array goes in, an array comes out.

    Raises
    ------
    KernelRejected, LimitExceeded
        Its source is not in the language (docs/kernel-language.md).
    """
    return _decorated(function, name, KernelKind.MAP)


@overload
def filter(function: Callable[P, R], /) -> Kernel[P, R]: ...
@overload
def filter(*, name: str | None = None) -> Callable[[Callable[P, R]], Kernel[P, R]]: ...
def filter(function: Callable[P, R] | None = None, /, *, name: str | None = None) -> Any:
    """Make a filter of a function that gives one truth for a block; False vetoes the block. Raises as `kernel`."""
    return _decorated(function, name, KernelKind.FILTER)


@overload
def scan(function: Callable[P, R], /) -> Kernel[P, R]: ...
@overload
def scan(*, name: str | None = None) -> Callable[[Callable[P, R]], Kernel[P, R]]: ...
def scan(function: Callable[P, R] | None = None, /, *, name: str | None = None) -> Any:
    """Make a scan of a class with `init(frame)` and `step(state, frame)`, which returns `state, out`: a kernel with a
    memory of the blocks before. Raises as `kernel`."""
    return _decorated(function, name, KernelKind.SCAN)


@overload
def reduce(function: Callable[P, R], /) -> Kernel[P, R]: ...
@overload
def reduce(*, name: str | None = None) -> Callable[[Callable[P, R]], Kernel[P, R]]: ...
def reduce(function: Callable[P, R] | None = None, /, *, name: str | None = None) -> Any:
    """Make a reduction of a class with `init(frame)`, `step(state, frame)`, `finish(state)`. Raises as `kernel`."""
    return _decorated(function, name, KernelKind.REDUCE)


def _decorated(function: Callable[..., Any] | None, name: str | None, kind: KernelKind) -> Any:
    if function is None:
        return lambda decorated: _decorated(decorated, name, kind)
    name = str(name or getattr(function, "__name__", "kernel"))
    if inspect.isclass(function) is not (kind in CLASSES):
        wanted = f"a class with {listed(CLASSES[kind])}" if kind in CLASSES else "a function"
        raise KernelRejected(f"kernel {name!r}: a {kind.name.lower()} is {wanted}")
    return Kernel(function, KernelDef(name, kind, _source(function, name)))


def _source(function: Callable[..., Any], name: str) -> str:
    """The text of a function or class, dedented, its decorators left out."""
    inner = [part for part in vars(function).values() if inspect.isfunction(part)] if inspect.isclass(function) else []
    anchor = inner[0] if inner else function
    try:
        lines, _ = inspect.findsource(anchor)
        first = anchor.__code__.co_firstlineno
    except (OSError, TypeError, AttributeError):
        raise KernelRejected(
            f"kernel {name!r}: its source cannot be read; write it as a `def` in a file or a notebook"
        ) from None
    text = "".join(lines)
    wanted = ast.ClassDef if inspect.isclass(function) else ast.FunctionDef
    for node in ast.walk(ast.parse(text)):
        end = getattr(node, "end_lineno", 0)
        if isinstance(node, wanted) and node.name == function.__name__ and _starts(node) <= first <= end:
            return textwrap.dedent("".join(lines[node.lineno - 1 : end]))
    raise KernelRejected(f"kernel {name!r}: it is not a plain `def`; lambdas have no name and no lines of their own")


def _starts(node: ast.ClassDef | ast.FunctionDef) -> int:
    """The first line, decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _walked(steps: Any, kind: KernelKind, frames: Any, **params: Any) -> Any:
    """A scan or reduction over frames, by its functions as they were written."""
    frames = np.asarray(frames)
    if frames.ndim == 0 or not len(frames):
        raise InvalidInput(f"{kind.name.lower()} {steps.__name__!r}: expected frames (n, *shape), at least one")

    def call(name: str, *leading: Any) -> Any:
        function = getattr(steps, name)
        taken = inspect.signature(function).parameters
        return function(*leading, **{key: value for key, value in params.items() if key in taken})

    state, results = call("init", frames[0]), []
    for frame in frames:
        state = call("step", state, frame)
        if kind is KernelKind.SCAN:
            state, result = state
            results.append(result)
    return np.array(results) if kind is KernelKind.SCAN else call("finish", state)

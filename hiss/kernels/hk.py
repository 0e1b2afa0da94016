"""`hk` for plain Python: what the language has beyond NumPy, so that a kernel can be called where it is written.

`from hiss import hk`; then `hk.bin2d(frame, 2)` gives what it gives within a kernel, by the table's own lowering and
the interpreter. Any thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from hiss.errors import InvalidInput
from hiss.kernels import dtypes, functions
from hiss.kernels.builder import Builder, Misfit, Static, Value
from hiss.kernels.interpreter import evaluate
from hiss.kernels.ir import Program, verify
from hiss.kernels.lengths import Length, UnknownLength


def __getattr__(name: str) -> Callable[..., Any]:
    row = functions.find(name, "h")
    if row is None:
        close = functions.near(name, "h")
        raise AttributeError(f"hk has no {name!r}" + (f"; did you mean {' or '.join(close)}?" if close else ""))

    def call(*args: Any, **kwargs: Any) -> Any:
        return _call(row, args, kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`hk.{name}({row.signature})`: {row.note}"
    return call


def __dir__() -> list[str]:
    return sorted(row.name for row in functions.FUNCTIONS.values() if "h" in row.forms)


def _call(row: functions.TableFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    arrays = list[Any]()
    builder = Builder(array_values=arrays)

    def value(given: Any) -> Value:
        if not isinstance(given, np.ndarray | np.generic):
            return Static(given)
        dtype = dtypes.supported(given.dtype)
        empty = given.shape[:1] == (0,) and math.prod(given.shape[1:]) > 0  # a packet without items
        if dtype is None or not (given.size or empty):
            raise InvalidInput(f"hk.{row.name}: {given.dtype} {given.shape} is not in the language")
        if not given.ndim:
            slot = builder.add_scalar(dtype.type(given), frozenset())
            return builder.make("scalar", (), dtype, (), (slot,))
        arrays.append(np.ascontiguousarray(given, dtype))
        shape = (Length(), *given.shape[1:]) if empty else given.shape
        return builder.make("array", (), dtype, shape, (len(arrays) - 1,))

    places = [parameter for parameter in row.parameters if not parameter.keyword_only]
    names = {name: parameter.names[0] for parameter in row.parameters for name in parameter.names}
    bound = {parameter.names[0]: arg for parameter, arg in zip(places, args, strict=False)}
    given = bound | {names.get(key, key): arg for key, arg in kwargs.items()}
    required = {parameter.names[0] for parameter in row.parameters if parameter.required}
    if len(args) > len(places) or not required <= set(given) <= set(names.values()) or len(given) < len(bound):
        raise TypeError(f"hk.{row.name}({row.signature}): the arguments do not fit")
    try:
        values = [value(given.get(p.names[0], p.default)) for p in row.parameters]
        node = builder.node(row.lower(builder, tuple(values)))
    except Misfit as misfit:
        raise InvalidInput(f"hk.{row.name}: {misfit.reason}") from None
    except UnknownLength:
        raise InvalidInput(f"hk.{row.name}: is not made of nothing; one of the arrays is empty") from None
    program = Program(dtypes.F64, (), (node,), tuple(arrays), tuple(builder.scalars))
    (result,) = evaluate(program.at(0) if any(not array.size for array in arrays) else verify(program))
    return np.array(result, order="C")[()]

"""From the untyped to the typed form: a checked kernel meets a frame type, its parameters and the stream's columns.

What is static (sizes, dtypes, weak scalars, conditions of `a if c else b`) is computed here as Python computes it; the
rest becomes nodes. An error names the place in the source; where a bound parameter is involved it is a
`ParameterMismatch`, otherwise a `KernelRejected`. One call, one thread; the results are immutable.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.errors import HissError, KernelRejected, LimitExceeded, ParameterMismatch, SpecMismatch
from hiss.kernels import dtypes, functions, statics, untyped
from hiss.kernels.builder import SELECT, Builder, Misfit, Static, Value, describe, kind_of
from hiss.kernels.checker import FRAME, OPERATOR, STATE
from hiss.kernels.dtypes import DType
from hiss.kernels.ir import Node, Program, Shape, verify
from hiss.kernels.lengths import Length, UnknownLength, is_variable, known_size
from hiss.kernels.source import Where
from hiss.kernels.untyped import CheckedKernel, Expr
from hiss.model import ColumnParam, KernelKind, ScalarParam

BoundParam = npt.NDArray[Any] | ScalarParam | ColumnParam
_LOGIC: Final = ("and", "or", "not")
_TOP: Final = Where(1, 1)


@dataclass(frozen=True, slots=True)
class FrameType:
    """What a kernel is specialised for."""

    dtype: DType
    shape: Shape
    columns: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Specialised:
    """A program and what its author should know of it."""

    program: Program
    warnings: tuple[str, ...]


def check_parameters(checked: CheckedKernel, params: Mapping[str, object]) -> None:
    """Raise `ParameterMismatch` unless `params` and the defaults name the kernel's parameters exactly."""
    for name in params:
        if name not in checked.parameters:
            close = difflib.get_close_matches(name, checked.parameters, 1)
            known = ", ".join(checked.parameters) or "none"
            hint = f"did you mean {close[0]!r}?" if close else f"it has: {known}"
            raise ParameterMismatch(
                f"kernel {checked.definition.name!r} has no parameter {name!r}; {hint}", parameter=name
            )
    missing = [name for name in checked.parameters if name not in params and name not in checked.defaults]
    if missing:
        names = ", ".join(map(repr, missing))
        raise ParameterMismatch(
            f"kernel {checked.definition.name!r}: no value for {names}; give it in .bind(...)", parameter=missing[0]
        )


def specialise(
    checked: CheckedKernel,
    frame: FrameType,
    params: Mapping[str, BoundParam],
    function: str = "",
    states: tuple[tuple[DType, Shape], ...] = (),
) -> Specialised:
    """The typed program of one of the kernel's functions.

    Parameters
    ----------
    params : mapping
        Values for parameters; those that are missing have defaults.
    function : str
        `init`, `step` or `finish` of a scan or reduction.
    states : tuple of (dtype, shape)
        The state's parts, for `step` and `finish`.

    Raises
    ------
    ParameterMismatch, KernelRejected, LimitExceeded
        The kernel makes no sense for this frame or these parameters, or exceeds a bound.
    """
    check_parameters(checked, params)
    if is_variable(frame.shape) and checked.definition.kind in (KernelKind.SCAN, KernelKind.REDUCE):
        kind = checked.definition.kind.name.lower()
        raise SpecMismatch(
            f"kernel {checked.definition.name!r}: a {kind} takes blocks of one shape, these have a variable length; "
            "put a map before it that makes something of one shape of each, such as a histogram"
        )
    if dtypes.supported(frame.dtype) is None:
        raise ParameterMismatch(
            f"kernel {checked.definition.name!r}: frames of {frame.dtype} are not in the language; "
            f"it has {', '.join(dtypes.SUPPORTED)}"
        )
    return _Specialiser(checked, frame, params, states).run(function)


class _Specialiser:
    def __init__(
        self,
        checked: CheckedKernel,
        frame: FrameType,
        params: Mapping[str, BoundParam],
        states: tuple[tuple[DType, Shape], ...],
    ) -> None:
        self.checked, self.frame, self.params, self.states = checked, frame, params, states
        self.builder = Builder()
        self.arrays: list[npt.NDArray[Any]] = []
        self.columns: list[tuple[str, DType]] = []
        self.memo: dict[int, Value] = {}
        self.warnings: list[str] = []

    def run(self, function: str) -> Specialised:
        root = self.checked.functions[function].result
        value = self.value(root)
        with self.placed(root.where):
            outputs = self.outputs(value, function)
        selects = outputs[-1].op == SELECT
        outputs = outputs[-1].args if selects else outputs
        program = Program(
            dtype=dtypes.SUPPORTED[self.frame.dtype.name],
            shape=self.frame.shape,
            outputs=outputs,
            arrays=tuple(self.arrays),
            scalars=tuple(self.builder.scalars),
            columns=tuple(self.columns),
            states=self.states,
            selects=selects,
        )
        return Specialised(verify(program), tuple(dict.fromkeys(self.warnings)))

    def outputs(self, value: Value, function: str) -> tuple[Node, ...]:
        """The result's nodes, checked against the kind of the kernel."""
        if function == "step" and self.checked.definition.kind is KernelKind.SCAN:
            if not isinstance(value, Static) or not isinstance(value.value, tuple) or len(value.value) != 2:
                raise Misfit("the `step` of a scan returns two things: `return state, out`", value)
            state, result = (part if isinstance(part, Node | Static) else Static(part) for part in value.value)
            return (*self.state(state), self.result(result))
        return self.state(value) if function in ("init", "step") else (self.result(value),)

    def state(self, value: Value) -> tuple[Node, ...]:
        """The parts of a state."""
        parts = value.value if isinstance(value, Static) and isinstance(value.value, tuple) else (value,)
        if not parts:
            raise Misfit("the state is empty")
        return tuple(self.builder.node(p if isinstance(p, Node | Static) else Static(p)) for p in parts)

    def result(self, value: Value) -> Node:
        """What a block becomes."""
        if isinstance(value, Static) and not isinstance(value.value, bool | int | float):
            raise Misfit(f"a kernel returns one array or number, found {kind_of(value)}", value)
        if isinstance(value, Node) and value.op == SELECT and self.checked.definition.kind is not KernelKind.FILTER:
            return value
        node = self.builder.node(value)
        if self.checked.definition.kind is KernelKind.FILTER:
            if node.shape:
                raise Misfit(
                    f"a filter returns one truth, this is {describe(node)}; use np.any, np.all or np.count_nonzero",
                )
            return self.builder.truth(node)
        nbytes = known_size(node.shape) * node.dtype.itemsize
        if is_variable(node.shape) and not isinstance(node.shape[0], Length):
            raise Misfit(f"the axis of variable length is the result's first, not as in {describe(node)}", node)
        if nbytes > limits.KERNEL_OUTPUT_BYTES_MAX:
            raise Misfit("bytes of a result", limit="KERNEL_OUTPUT_BYTES_MAX", found=nbytes)
        return node

    # ------------------------------------------------------------------------------------------ evaluation

    def value(self, root: Expr) -> Value:
        """Evaluate what `root` needs, operands first; of a conditional only the branch that is taken."""
        stack = [root]
        while stack:
            expr = stack[-1]
            missing = [arg for arg in self.needed(expr) if id(arg) not in self.memo]
            if missing:
                stack.extend(reversed(missing))
                continue
            if id(expr) not in self.memo:
                with self.placed(expr.where):
                    self.memo[id(expr)] = self.evaluate(expr)
            stack.pop()
        return self.memo[id(root)]

    def needed(self, expr: Expr) -> tuple[Expr, ...]:
        if expr.op != untyped.IF:
            return expr.args
        condition, chosen, other = expr.args
        if id(condition) not in self.memo:
            return (condition,)
        with self.placed(expr.where):
            return (chosen if self.condition(self.memo[id(condition)]) else other,)

    def condition(self, value: Value) -> bool:
        if isinstance(value, Node):
            raise Misfit(f"the condition depends on data ({describe(value)}); use np.where", value)
        if isinstance(value.value, Length):
            raise Misfit("the condition depends on the length of a packet; use np.where", value)
        return bool(value.value)

    def evaluate(self, expr: Expr) -> Value:
        args = tuple(self.memo[id(arg)] for arg in self.needed(expr))
        match expr.op:
            case untyped.LITERAL:
                return Static(expr.value)
            case untyped.ARGUMENT:
                return self.argument(expr.value)
            case untyped.TUPLE:
                return Static(tuple(a.value if isinstance(a, Static) else a for a in args), _names(args))
            case untyped.SLICE:
                return Static(slice(*(self.builder.known(arg, "a slice") for arg in args)), _names(args))
            case untyped.ITEM:
                return self.item(args[0], *expr.value)
            case untyped.IF:
                return args[0]
        if expr.op in _LOGIC:
            return self.logic(expr.op, tuple(map(self.measured, args)))
        if expr.value == OPERATOR:
            known = [arg for arg in args if isinstance(arg, Static)]
            if len(known) == len(args) and not any(isinstance(arg.value, Length) for arg in known):
                return self.static(expr.op, known)
        return functions.FUNCTIONS[expr.op].lower(self.builder, args)

    def static(self, op: str, args: list[Static]) -> Static:
        if any(isinstance(arg.value, tuple) and is_variable(arg.value) for arg in args):
            raise UnknownLength
        try:
            return Static(statics.apply(op, tuple(arg.value for arg in args)), _names(args))
        except statics.StaticError as error:
            raise Misfit(str(error), *args) from None

    def measured(self, value: Value) -> Value:
        """The length of a packet as a number of the program; anything else as it is."""
        open_length = isinstance(value, Static) and isinstance(value.value, Length)
        return self.builder.node(value) if open_length else value

    def logic(self, op: str, args: tuple[Value, ...]) -> Value:
        """`and`, `or`, `not`: Python's of what is static, logical of single values."""
        first = args[0]
        if isinstance(first, Static) and op == "not":
            return Static(not first.value, first.names)
        if all(isinstance(arg, Static) for arg in args):
            taken = args[0] if bool(first.value) is (op == "or") else args[1]  # type: ignore[union-attr]
            assert isinstance(taken, Static)
            return Static(taken.value, _names(args))
        for arg in args:
            if isinstance(arg, Node) and arg.shape:
                sign = {"and": "(a) & (b), also for a chain such as 5 < x < 9", "or": "(a) | (b)"}.get(op, "~a")
                raise Misfit(f"`{op}` of {describe(arg)}; write {sign}", arg)
        return functions.FUNCTIONS[f"logical_{op}"].lower(self.builder, args)

    def item(self, value: Value, place: int, count: int) -> Value:
        """One part of an unpacked tuple, or of an array's first axis."""
        if isinstance(value, Static):
            parts = value.value
            if not isinstance(parts, tuple):
                raise Misfit(f"{kind_of(value)} does not unpack into {count} names", value)
            if len(parts) != count:
                raise Misfit(f"{len(parts)} values for {count} names", value)
            part = parts[place]
            return part if isinstance(part, Node) else Static(part, value.names)
        if not value.shape or value.shape[0] != count:
            raise Misfit(f"{describe(value)} does not unpack into {count} names", value)
        return functions.FUNCTIONS["getitem"].lower(self.builder, (value, Static(place)))

    # ------------------------------------------------------------------------------------------ arguments

    def argument(self, name: str) -> Value:
        if name == FRAME:
            return self.builder.make("frame", (), dtypes.SUPPORTED[self.frame.dtype.name], self.frame.shape)
        if name == STATE:
            nodes = [self.builder.make("state", (), *state, (place,)) for place, state in enumerate(self.states)]
            return Static(tuple(nodes)) if len(nodes) > 1 else nodes[0]
        param = self.params.get(name)
        if param is None:
            return Static(self.checked.defaults[name], frozenset({name}))
        if isinstance(param, ScalarParam):
            return self.scalar(name, param)
        if isinstance(param, ColumnParam):
            return self.column(name, param)
        array = np.asarray(param)
        dtype = self.supported(name, array.dtype)
        if not array.size or array.ndim > limits.RANK_MAX:
            raise ParameterMismatch(f"{self.title}: parameter {name!r} has the shape {array.shape}", parameter=name)
        if array.ndim == 0:
            return self.strong(name, dtype.type(array[()]))
        self.arrays.append(np.array(array, dtype, order="C"))  # a copy: what becomes of the array later is no matter
        self.builder.array_names.append(name)
        self.builder.array_values.append(self.arrays[-1])
        return self.builder.make("array", (), dtype, array.shape, (len(self.arrays) - 1,))

    def scalar(self, name: str, param: ScalarParam) -> Value:
        if param.dtype is None:
            return Static(param.value, frozenset({name}))
        dtype = self.supported(name, np.dtype(param.dtype))
        if isinstance(param.value, int) and not dtypes.holds(dtype, param.value):
            raise ParameterMismatch(
                f"{self.title}: parameter {name!r}: {param.value} does not fit {dtype}", parameter=name
            )
        return self.strong(name, dtype.type(param.value))

    def strong(self, name: str, value: np.generic) -> Node:
        slot = self.builder.add_scalar(value, frozenset({name}))
        return self.builder.make("scalar", (), np.dtype(value.dtype), (), (slot,))

    def column(self, name: str, param: ColumnParam) -> Node:
        fields: Mapping[str, Any] = self.frame.columns.fields or {}
        if param.name not in fields:
            have = ", ".join(fields) or "none"
            raise ParameterMismatch(
                f"{self.title}: parameter {name!r} is the column {param.name!r}, which the stream does not have; "
                f"it has: {have}",
                parameter=name,
            )
        dtype = self.supported(name, fields[param.name][0])
        self.columns.append((param.name, dtype))
        return self.builder.make("column", (), dtype, (), (len(self.columns) - 1,))

    def supported(self, name: str, dtype: DType) -> DType:
        found = dtypes.supported(dtype)
        if found is None:
            raise ParameterMismatch(
                f"{self.title}: parameter {name!r} is {dtype}; the language has {', '.join(dtypes.SUPPORTED)}",
                parameter=name,
            )
        return found

    # ------------------------------------------------------------------------------------------ errors

    @property
    def title(self) -> str:
        return f"kernel {self.checked.definition.name!r}"

    @contextmanager
    def placed(self, where: Where) -> Iterator[None]:
        """Give what goes wrong within, and the warnings that come up, their place in the source."""
        source = self.checked.source
        self.builder.interner.line = where.line
        try:
            yield
        except Misfit as misfit:
            raise self.error(misfit, where) from None
        except UnknownLength as unknown:
            raise self.error(Misfit(str(unknown)), where) from None
        self.warnings.extend(source.shown(where, text) for text in self.builder.warnings)
        self.builder.warnings.clear()

    def error(self, misfit: Misfit, where: Where) -> HissError:
        source = self.checked.source
        if misfit.limit:
            found: HissError = source.too_much(where, misfit.reason, misfit.limit, misfit.found)
            assert isinstance(found, LimitExceeded)
            return found
        names = sorted(set().union(*(self.builder.names_of(value) for value in misfit.values)))
        if not names:
            return source.error(where, misfit.reason, KernelRejected)
        given = "parameter" if len(names) == 1 else "parameters"
        return source.error(
            where, f"{misfit.reason} ({given} {', '.join(names)})", ParameterMismatch, parameter=names[0]
        )


def _names(values: tuple[Value, ...] | list[Static]) -> frozenset[str]:
    return frozenset().union(*(value.names for value in values if isinstance(value, Static)))

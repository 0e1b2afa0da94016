"""Expressions of the loop form in OpenCL C: each with its dtype, so that every conversion is the one that Numba makes.

The loop form is what `numba_printer` prints: Python of a few forms, read here with `ast`. Numba widens integers to 64
bits before it computes, signed ones wrap, and the printers cast each result to its dtype. C is told the same: signed
sums are taken unsigned (overflow of signed integers is undefined in C), and where the low bits are all that a cast
keeps, the sum is taken in that width. Whatever is not in here raises `Untranslatable`, which is no user's error: the
kernel then runs in Numba. One `Terms` serves one function; one thread.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from hiss.kernels.dtypes import BOOL, F32, F64, I64, SUPPORTED, U64, DType
from hiss.kernels.opencl_words import EXACT, FUNCTIONS, RESERVED, c_type, number


class Untranslatable(Exception):
    """The loop form has something that this printer does not know."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """An array: of a kernel's argument (`global`) or of the function itself (`private`)."""

    dtype: DType
    space: str
    const: bool


@dataclass(frozen=True, slots=True)
class Term:
    """An expression in C: `level` says how loosely it binds, `value` what a literal stands for."""

    text: str
    dtype: DType
    level: int = 0
    value: float | None = None

    @property
    def operand(self) -> str:
        """The text as an operand of anything."""
        return self.within(ATOM)

    def within(self, level: int) -> str:
        """The text as part of an expression that takes parts of at most this level without parentheses."""
        bare = self.level <= level and not self.text.startswith("-")
        return self.text if bare else f"({self.text})"


Variable = DType | Pointer
ATOM, PRODUCT, SUM, RELATION, LOOSE = range(5)
Call = Callable[[str, tuple[Variable, ...], list[str]], tuple[str, DType | None]]
_SIGNS: Final = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
}
_RELATIONS: Final = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_LEVELS: Final = {
    "*": (PRODUCT, PRODUCT, ATOM),
    **dict.fromkeys("+-", (SUM, SUM, PRODUCT)),
    **dict.fromkeys(_RELATIONS.values(), (RELATION, SUM, SUM)),
}
_LOW_BITS: Final = (ast.Add, ast.Sub, ast.Mult)


def name_of(name: str) -> str:
    """A name of the loop form in C."""
    return f"{name}_" if name in RESERVED else name


class Terms:
    """Makes terms.

    Parameters
    ----------
    types : mapping
        Of the variables that are known so far; an unknown one raises `KeyError`.
    call : callable
        Given the name of a function of the file, the types and the texts of its arguments: the call and its result's
        dtype.
    helpers : set of str
        The names of `opencl_words.HELPERS` that are called are added to it.
    """

    def __init__(self, types: Mapping[str, Variable], call: Call, helpers: set[str]) -> None:
        self.types, self._call_function, self.helpers = types, call, helpers

    def term(self, node: ast.expr) -> Term:
        match node:
            case ast.Constant(value=bool() as truth):
                return Term("true" if truth else "false", BOOL, value=truth)
            case ast.Constant(value=int() as whole):
                return Term(number(whole, I64), I64, value=whole)
            case ast.Constant(value=float() as real):
                return Term(number(real, F64), F64, value=real)
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=ast.Name(id="np" | "math"), attr="inf" | "nan" as which):
                value = float(which)
                return Term(number(value, F64), F64, value=value)
            case ast.UnaryOp():
                return self._unary(node)
            case ast.BinOp():
                return self._binary(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.BoolOp(op=op, values=values):
                sign = "&&" if isinstance(op, ast.And) else "||"
                return Term(f" {sign} ".join(self.truth(value).operand for value in values), BOOL, LOOSE)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self._choice(test, body, orelse)
            case ast.Subscript(value=ast.Tuple(elts=values), slice=index) if values:
                return self._one_of(values, self.term(index))
            case ast.Subscript(value=ast.Name(id=name), slice=index):
                pointer = self._pointer(name)
                text = f"{name_of(name)}[{self.term(index).text}]"
                return Term(f"{text} != 0", BOOL, RELATION) if pointer.dtype == BOOL else Term(text, pointer.dtype)
            case ast.Call():
                return self._call(node)
        raise Untranslatable(ast.unparse(node))

    def truth(self, node: ast.expr) -> Term:
        """Whether a value is not zero."""
        term = self.term(node)
        return term if term.dtype == BOOL else Term(f"{term.operand} != 0", BOOL, RELATION)

    def cast(self, term: Term, dtype: DType) -> Term:
        """A conversion between numbers, where the value fits or wraps."""
        if term.dtype == dtype:
            return term
        if term.value is not None and not (term.dtype.kind == "f" and dtype.kind in "iu"):
            return Term(number(term.value, dtype), dtype, value=term.value)
        if dtype == BOOL:
            return Term(f"{term.operand} != 0", BOOL, RELATION)
        return Term(f"({c_type(dtype)}){term.operand}", dtype)

    # ---------------------------------------------------------------------------------------------- parts

    def _name(self, name: str) -> Term:
        found = self.types[name]
        if isinstance(found, Pointer):
            raise Untranslatable(f"the array {name} as a value")
        return Term(name_of(name), found)

    def _pointer(self, name: str) -> Pointer:
        found = self.types[name]
        if not isinstance(found, Pointer):
            raise Untranslatable(f"{name}[...] of what is no array")
        return found

    def _unary(self, node: ast.UnaryOp) -> Term:
        if isinstance(node.op, ast.Not):
            return Term(f"!{self.truth(node.operand).operand}", BOOL)
        term = self.term(node.operand)
        match node.op:
            case ast.USub() if term.value is not None:
                return Term(number(-term.value, term.dtype), term.dtype, value=-term.value)
            case ast.USub() if term.dtype.kind == "f":
                return Term(f"-{term.operand}", term.dtype)
            case ast.USub():
                wide = _widened(term.dtype)
                return Term(f"({c_type(wide)})-(ulong){term.operand}", wide)
            case ast.Invert() if term.dtype.kind in "iu":
                wide = _widened(term.dtype)
                return Term(f"~{self.cast(term, wide).operand}", wide)
            case ast.UAdd():
                return term
        raise Untranslatable(ast.unparse(node))

    def _binary(self, node: ast.BinOp) -> Term:
        left, right = self.term(node.left), self.term(node.right)
        dtype = _result(left, right, node)
        match node.op:
            case ast.Pow() if dtype.kind == "f":
                return self._function("pow", [self.cast(left, dtype), self.cast(right, dtype)], dtype)
            case ast.FloorDiv() | ast.Mod() if dtype.kind == "u":
                return _joined(self.cast(left, dtype), "/" if isinstance(node.op, ast.FloorDiv) else "%", right, dtype)
            case ast.FloorDiv() | ast.Mod() if dtype.kind == "i":
                helper = "floor_quotient" if isinstance(node.op, ast.FloorDiv) else "floor_remainder"
                self.helpers.add(helper)
                return Term(f"{helper}({self.cast(left, I64).text}, {self.cast(right, I64).text})", I64)
            case ast.Div() if dtype.kind != "f":
                return _joined(self.cast(left, F64), "/", self.cast(right, F64), F64)
        sign = _SIGNS.get(type(node.op))
        if sign is None:
            raise Untranslatable(ast.unparse(node))
        if isinstance(node.op, ast.LShift | ast.RShift):
            wide = _widened(left.dtype)
            if wide.kind == "i" and sign == "<<":
                return Term(f"(long)((ulong){left.operand} << {right.operand})", wide)
            return _joined(self.cast(left, wide), sign, right, wide)
        if dtype == BOOL:
            return _joined(left, sign, right, BOOL)
        if dtype == I64 and isinstance(node.op, _LOW_BITS):
            inner = _joined(self.cast(left, U64), sign, self.cast(right, U64), U64)
            return Term(f"(long)({inner.text})", I64)
        return _joined(self.cast(left, dtype), sign, self.cast(right, dtype), dtype)

    def _comparison(self, node: ast.Compare) -> Term:
        parts: list[Term] = []
        operands = [self.term(each) for each in (node.left, *node.comparators)]
        for place, op in enumerate(node.ops):
            left, right = operands[place], operands[place + 1]
            if left.dtype != right.dtype:
                dtype = _result(left, right, node)
                left, right = self.cast(left, dtype), self.cast(right, dtype)
            if left.text == right.text and left.dtype.kind != "f":  # of which compilers warn
                parts.append(self.term(ast.Constant(isinstance(op, ast.LtE | ast.GtE | ast.Eq))))
            else:
                parts.append(_joined(left, _RELATIONS[type(op)], right, BOOL))
        return parts[0] if len(parts) == 1 else Term(" && ".join(part.operand for part in parts), BOOL, LOOSE)

    def _choice(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> Term:
        first, second = self.term(body), self.term(orelse)
        dtype = first.dtype if first.dtype == second.dtype else unified(first.dtype, second.dtype)
        first, second = self.cast(first, dtype), self.cast(second, dtype)
        return Term(f"{self.truth(test).within(RELATION)} ? {first.operand} : {second.operand}", dtype, LOOSE)

    def _one_of(self, values: list[ast.expr], index: Term) -> Term:
        """`(a, b, c)[index]`, by choices."""
        terms = [self.term(value) for value in values]
        dtype = terms[0].dtype
        for term in terms[1:]:
            dtype = unified(dtype, term.dtype)
        result = self.cast(terms[-1], dtype)
        for place in reversed(range(len(terms) - 1)):
            chosen = self.cast(terms[place], dtype)
            result = Term(f"{index.operand} == {place} ? {chosen.operand} : {result.operand}", dtype, LOOSE)
        return result

    # ---------------------------------------------------------------------------------------------- calls

    def _call(self, node: ast.Call) -> Term:
        if node.keywords:
            raise Untranslatable(ast.unparse(node))
        match node.func:
            case ast.Name(id="U"):
                return self.converted(node.args[0], U64)
            case ast.Attribute(value=ast.Name(id="np"), attr=name) if name in SUPPORTED:
                return self.converted(node.args[0], SUPPORTED[name])
            case ast.Attribute(value=value, attr="view"):
                dtype = _dtype_named(node.args[0])
                term = self.term(value)
                if dtype.itemsize != term.dtype.itemsize or dtype.itemsize < 4:
                    raise Untranslatable(ast.unparse(node))
                return Term(f"as_{c_type(dtype)}({term.text})", dtype)
            case ast.Attribute(value=ast.Name(id="np" | "math"), attr=name):
                return self._mathematics(name, [self.term(arg) for arg in node.args], node)
            case ast.Name(id="len"):
                if ast.unparse(node.args[0]) != "rows":
                    raise Untranslatable(ast.unparse(node))
                return Term("row_count", U64)
            case ast.Name(id="abs"):
                return self._absolute(self.term(node.args[0]))
            case ast.Name(id="min" | "max" as name):
                return self._extreme(name, [self.term(arg) for arg in node.args])
            case ast.Name(id="bool" | "int" | "float" as name):
                return self.converted(node.args[0], {"bool": BOOL, "int": I64, "float": F64}[name])
            case ast.Name(id=name):
                return self.called(name, node.args)
        raise Untranslatable(ast.unparse(node))

    def called(self, name: str, arguments: list[ast.expr]) -> Term:
        """The call of a function of the file, which gives a value."""
        text, dtype = self._call_of(name, arguments)
        if dtype is None:
            raise Untranslatable(f"{name} gives no value")
        return Term(text, dtype)

    def _call_of(self, name: str, arguments: list[ast.expr]) -> tuple[str, DType | None]:
        types: list[Variable] = []
        texts: list[str] = []
        for argument in arguments:
            if isinstance(argument, ast.Name) and isinstance(self.types[argument.id], Pointer):
                types.append(self.types[argument.id])
                texts.append(name_of(argument.id))
            else:
                term = self.term(argument)
                types.append(term.dtype)
                texts.append(term.text)
        return self._call_function(name, tuple(types), texts)

    def statement(self, node: ast.Call) -> str:
        """A call whose value nobody wants."""
        if not isinstance(node.func, ast.Name):
            raise Untranslatable(ast.unparse(node))
        return self._call_of(node.func.id, node.args)[0]

    def converted(self, node: ast.expr, dtype: DType) -> Term:
        """`np.uint16(...)`: of a sum only the low bits are computed, which is all that the cast keeps."""
        if dtype.kind in "iu" and isinstance(node, ast.BinOp) and isinstance(node.op, _LOW_BITS):
            left, right = self.term(node.left), self.term(node.right)
            if left.dtype.kind in "iu" and right.dtype.kind in "iu":
                _result(left, right, node)
                return self._low_bits(left, _SIGNS[type(node.op)], right, dtype)
        return self.cast(self.term(node), dtype)

    def _low_bits(self, left: Term, sign: str, right: Term, dtype: DType) -> Term:
        if dtype.itemsize < 4 and max(left.dtype.itemsize, right.dtype.itemsize) <= 2 and sign != "*":
            return Term(f"({c_type(dtype)})({left.operand} {sign} {right.operand})", dtype)  # C computes in int
        wide = np.dtype(np.uint32) if dtype.itemsize <= 4 else U64
        inner = _joined(self.cast(left, wide), sign, self.cast(right, wide), wide)
        return inner if dtype == wide else Term(f"({c_type(dtype)})({inner.text})", dtype)

    def _mathematics(self, name: str, operands: list[Term], node: ast.Call) -> Term:
        if name in ("isnan", "isinf", "isfinite") and operands[0].dtype.kind == "f":
            return Term(f"{name}({operands[0].text}) != 0", BOOL, RELATION)
        if name in ("abs", "absolute"):
            return self._absolute(operands[0])
        if name in ("minimum", "maximum") and all(term.dtype.kind in "iu" for term in operands):
            return self._extreme(name[:3], operands)
        if name not in FUNCTIONS:
            raise Untranslatable(ast.unparse(node))
        dtype = F32 if all(term.dtype == F32 for term in operands) else F64
        return self._function(FUNCTIONS[name], [self.cast(term, dtype) for term in operands], dtype)

    def _function(self, name: str, operands: list[Term], dtype: DType) -> Term:
        if name == "rint":
            name = f"round_even_f{dtype.itemsize}"
            self.helpers.add(name)
        elif dtype == F32 and name not in EXACT:
            wide = self._function(name, [self.cast(term, F64) for term in operands], F64)
            return Term(f"(float){wide.text}", F32)
        return Term(f"{name}({', '.join(term.text for term in operands)})", dtype)

    def _absolute(self, term: Term) -> Term:
        if term.dtype.kind == "f":
            return Term(f"fabs({term.text})", term.dtype)
        wide = _widened(term.dtype)
        text = self.cast(term, wide).operand
        return Term(
            f"{text} < 0 ? (long)-(ulong){text} : {text}" if wide == I64 else text, wide, LOOSE if wide == I64 else ATOM
        )

    def _extreme(self, name: str, operands: list[Term]) -> Term:
        """By a choice: a driver's `min` may be a call that does not vectorise."""
        dtype = operands[0].dtype
        for term in operands[1:]:
            dtype = unified(dtype, term.dtype)
        result = self.cast(operands[0], dtype)
        for term in operands[1:]:
            other = self.cast(term, dtype).operand
            sign = "<" if name == "min" else ">"
            result = Term(f"{other} {sign} {result.operand} ? {other} : {result.operand}", dtype, LOOSE)
        return result


def unified(first: DType, second: DType) -> DType:
    """The dtype of a variable that gets values of both, as Numba unifies them."""
    if first == second:
        return first
    if {first.kind, second.kind} == {"i", "u"} and max(first.itemsize, second.itemsize) == 8 and U64 in (first, second):
        raise Untranslatable(f"{first} and {second} meet")
    return np.promote_types(first, second)


def _widened(dtype: DType) -> DType:
    """Numba computes integers in 64 bits."""
    if dtype.kind not in "iub":
        return dtype
    return U64 if dtype.kind == "u" else I64


def _result(left: Term, right: Term, node: ast.expr) -> DType:
    """The dtype in which Numba joins two values."""
    if left.dtype == right.dtype == BOOL:
        return BOOL
    if "f" in (left.dtype.kind, right.dtype.kind):
        return F32 if left.dtype == right.dtype == F32 else F64
    first, second = _widened(left.dtype), _widened(right.dtype)
    if first == second:
        return first
    narrow = [term.dtype.itemsize < 8 for term in (left, right) if term.dtype.kind == "u"]
    if all(narrow):
        return I64
    raise Untranslatable(f"{ast.unparse(node)}: {left.dtype} and {right.dtype} meet")


def _joined(left: Term, sign: str, right: Term, dtype: DType) -> Term:
    """`left sign right`: products stand bare in sums, sums in comparisons, everything else in parentheses."""
    level, first, second = _LEVELS.get(sign, (LOOSE, ATOM, ATOM))
    return Term(f"{left.within(first)} {sign} {right.within(second)}", dtype, level)


def _dtype_named(node: ast.expr) -> DType:
    if isinstance(node, ast.Attribute) and node.attr in SUPPORTED:
        return SUPPORTED[node.attr]
    raise Untranslatable(ast.unparse(node))

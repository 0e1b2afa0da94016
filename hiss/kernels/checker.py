"""From source to the untyped form: everything that is not in the language is refused here, with its place.

`check` never executes the source, and no text of the user's gets further than error messages and the names of
parameters. The rules of the language are in docs/kernel-language.md; its functions in `functions`. Pure; any thread.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from hiss import limits
from hiss.errors import HissError
from hiss.kernels import functions, statics, untyped
from hiss.kernels.dtypes import SPELLINGS
from hiss.kernels.primitives import VERSION
from hiss.kernels.source import SourceText, Where, parse
from hiss.kernels.untyped import CheckedKernel, Expr, ExprTable, Function, Scalar
from hiss.model import KernelDef, KernelKind

FRAME, STATE = "<frame>", "<state>"  # canonical names of the leading arguments: no identifiers, so no parameter's
_LEADING: Final = {"init": (FRAME,), "step": (STATE, FRAME), "finish": (STATE,)}
CLASSES: Final = {KernelKind.SCAN: ("init", "step"), KernelKind.REDUCE: ("init", "step", "finish")}
"""The functions of the kinds that are written as a class."""
_RESERVED: Final = {"np", "numpy", "hk", "True", "False", "None"}
_MODULES: Final = {"np": "n", "hk": "h"}  # the names that functions are called by, and their form in the table
_CONSTANTS: Final[dict[str, Any]] = {
    "pi": math.pi,
    "e": math.e,
    "inf": math.inf,
    "nan": math.nan,
    "newaxis": None,
}
_BINARY: Final[dict[type[ast.AST], str]] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "remainder",
    ast.Pow: "power",
    ast.BitAnd: "bitwise_and",
    ast.BitOr: "bitwise_or",
    ast.BitXor: "bitwise_xor",
    ast.LShift: "left_shift",
    ast.RShift: "right_shift",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
_UNARY: Final[dict[type[ast.AST], str]] = {
    ast.USub: "negative",
    ast.UAdd: "positive",
    ast.Invert: "invert",
    ast.Not: "logical_not",
}
_ADVICE: Final[dict[type[ast.AST], str]] = {
    ast.For: "loops are not in the language; write it over whole arrays",
    ast.While: "loops are not in the language; write it over whole arrays",
    ast.If: "`if` is not in the language; use np.where, or `a if size > 2 else b` with what is known before",
    ast.AugAssign: "in-place operators are not in the language; write `x = x + 1`, with np.where for parts",
    ast.Expr: "a line by itself changes nothing; assign its value to a name",
    ast.Try: "exceptions are not in the language",
    ast.Raise: "exceptions are not in the language",
    ast.Pass: "a kernel ends with `return`",
    ast.AnnAssign: "annotations are not in the language; write `x = ...`",
    ast.Import: "imports are not in the language; `np` is there without",
    ast.ImportFrom: "imports are not in the language; `np` is there without",
    ast.FunctionDef: "functions within a kernel are not in the language",
    ast.Lambda: "functions within a kernel are not in the language",
    ast.ListComp: "comprehensions are not in the language; write it over whole arrays",
    ast.GeneratorExp: "comprehensions are not in the language; write it over whole arrays",
    ast.List: "lists are not in the language; use a tuple",
    ast.JoinedStr: "texts are not in the language; a kernel gives numbers only",
    ast.Yield: "`yield` is not in the language; a kernel `return`s one result for each block",
    ast.MatMult: "`@` is not in the language; use np.sum(a[:, None, :] * b.T[None, :, :], axis=2)",
    ast.NamedExpr: "`:=` is not in the language; assign in a line of its own",
    ast.Starred: "`*` arguments are not in the language",
}
_PYTHON: Final = {  # what to write for functions of Python's own
    "max": "of two values it is np.maximum(a, b), of an array np.max(a)",
    "min": "of two values it is np.minimum(a, b), of an array np.min(a)",
    "int": "of sizes write `//` instead of `/`, of arrays .astype(np.int64)",
    "float": "of arrays it is .astype(np.float64)",
    "bool": "of arrays it is `!= 0`",
    "range": "there are no loops; np.arange(n) is an array",
    "enumerate": "there are no loops; np.arange(n) is an array of positions",
    "math": "`np` has its functions, such as np.sqrt and np.pi",
}
OPERATOR: Final = "operator"  # the value of an Expr written as an operator: of Python numbers it is Python's


def check(definition: KernelDef) -> CheckedKernel:
    """Check a kernel's source and return its untyped form.

    Raises
    ------
    KernelRejected
        What stands there is not in the language; `details` has `line`, `column`, `source_line`.
    LimitExceeded
        A bound of `limits` on length, nesting, expressions or parameters.
    """
    source = SourceText(definition.name, definition.source)
    module = parse(source)
    names = CLASSES.get(definition.kind, ())
    if len(module.body) != 1 or not isinstance(module.body[0], ast.ClassDef if names else ast.FunctionDef):
        what = f"class with {listed(names)}" if names else "function"
        place = _where(module.body[len(module.body) > 1]) if module.body else Where(1, 1)
        raise source.error(place, f"a kernel's source is one {what} and nothing else")
    if isinstance(module.body[0], ast.ClassDef):
        found = _class_functions(source, module.body[0], definition.kind.name.lower(), names)
    else:
        found = {"": _Checker(source).function(module.body[0], (FRAME,))}
    parameters = tuple(dict.fromkeys(name for checked, _ in found.values() for name in checked.parameters))
    if len(parameters) > limits.KERNEL_PARAMETERS_MAX:
        raise source.too_much(_where(module.body[0]), "parameters", "KERNEL_PARAMETERS_MAX", len(parameters))
    parts = {name: checked for name, (checked, _) in found.items()}
    return CheckedKernel(
        definition=definition,
        source=source,
        functions=parts,
        parameters=parameters,
        defaults=_merged_defaults(source, _where(module.body[0]), parts),
        hash=untyped.identity(parts, definition.kind.name, VERSION),
        warnings=tuple(text for _, warnings in found.values() for text in warnings),
    )


def _where(node: ast.AST) -> Where:
    return Where(getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1)


def listed(names: Sequence[str]) -> str:
    """`init, step and finish`."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _class_functions(
    source: SourceText, node: ast.ClassDef, kind: str, names: tuple[str, ...]
) -> dict[str, tuple[Function, list[str]]]:
    """The functions of a kernel that is written as a class."""
    if node.bases or node.keywords or node.decorator_list:
        raise source.error(_where(node), f"the class of a {kind} has no bases, keywords or decorators")
    body = node.body[1:] if _is_docstring(node.body[0]) else node.body
    found: dict[str, tuple[Function, list[str]]] = {}
    for part in body:
        if not isinstance(part, ast.FunctionDef) or part.name not in names or part.name in found:
            quoted = listed([f"`{name}`" for name in names])
            raise source.error(_where(part), f"a {kind} consists of {quoted}, once each")
        if part.args.args and part.args.args[0].arg == "self":
            first = _LEADING[part.name][0].strip("<>")
            raise source.error(_where(part), f"`{part.name}` has no `self`: its first argument is the {first}")
        found[part.name] = _Checker(source).function(part, _LEADING[part.name])
    missing = [name for name in names if name not in found]
    if missing:
        raise source.error(_where(node), f"the {kind} has no {' and no '.join(missing)}")
    return found


def _merged_defaults(source: SourceText, where: Where, parts: dict[str, Function]) -> dict[str, Scalar]:
    merged: dict[str, Scalar] = {}
    for part in parts.values():
        for name, value in part.defaults.items():
            if untyped.literal_text(merged.setdefault(name, value)) != untyped.literal_text(value):
                raise source.error(where, f"parameter {name!r} has two defaults, {merged[name]!r} and {value!r}")
    return merged


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


class _Checker:
    """Checks one function. `scope` maps what can be named to its expression."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.table = ExprTable()
        self.scope: dict[str, Expr] = {}
        self.depth = 0

    # ------------------------------------------------------------------------------------------ the function

    def function(self, node: ast.FunctionDef, leading: tuple[str, ...]) -> tuple[Function, list[str]]:
        if node.decorator_list or node.returns is not None:
            at = node.decorator_list[0] if node.decorator_list else node.returns
            assert at is not None
            raise self.error(at, "decorators and annotations are not in the language")
        names, defaults = self._arguments(node, leading)
        for name, canonical in zip(names, (*leading, *names[len(leading) :]), strict=True):
            self.scope[name] = self.table.make(untyped.ARGUMENT, (), canonical, _where(node))
        result = self._body(node)
        parameters = tuple(names[len(leading) :])
        used = {expr.value for expr in untyped.in_order(result) if expr.op == untyped.ARGUMENT}
        unused = [name for name in parameters if name not in used]
        warnings = [f"line {node.lineno}: parameter {name!r} does not matter to the result" for name in unused]
        return Function(leading, parameters, defaults, result), warnings

    def _arguments(self, node: ast.FunctionDef, leading: tuple[str, ...]) -> tuple[list[str], dict[str, Scalar]]:
        given = node.args
        for other in (given.vararg, given.kwarg, *given.kwonlyargs, *given.posonlyargs):
            if other is not None:
                raise self.error(other, "parameters are plain names: no `*`, `**` or `/`")
        if len(given.args) > limits.KERNEL_PARAMETERS_MAX + len(leading):
            raise self.source.too_much(_where(node), "parameters", "KERNEL_PARAMETERS_MAX", len(given.args))
        if len(given.args) < len(leading) or len(given.args) - len(given.defaults) < len(leading):
            words = " and ".join(name.strip("<>") for name in leading)
            raise self.error(node, f"`{node.name[:40]}` starts with the {words}, without defaults")
        for argument in given.args:
            if argument.annotation is not None:
                raise self.error(argument.annotation, "annotations are not in the language")
            self._check_name(argument, argument.arg)
        names = [argument.arg for argument in given.args]
        if len(set(names)) != len(names):
            raise self.error(node, "two parameters of one name")
        first = len(names) - len(given.defaults)
        pairs = zip(names[first:], given.defaults, strict=True)
        return names, {name: self._default(default) for name, default in pairs}

    def _default(self, node: ast.expr) -> Scalar:
        literal = node
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            literal = node.operand
        if isinstance(literal, ast.Constant) and type(literal.value) in (bool, int, float):
            value: Scalar = self._number(literal).value
            return -value if literal is not node else value
        raise self.error(node, "a default is a number, True or False")

    def _check_name(self, node: ast.AST, name: str) -> None:
        if name in _RESERVED:
            raise self.error(node, f"`{name}` means NumPy or the language's own; choose another name")
        if name.startswith("__") or len(name) > limits.NAME_CHARS_MAX:
            raise self.error(node, "a name does not start with `__` and is not longer than a path's part")

    # ------------------------------------------------------------------------------------------ statements

    def _body(self, node: ast.FunctionDef) -> Expr:
        body = node.body[1:] if _is_docstring(node.body[0]) else node.body
        for place, statement in enumerate(body):
            if isinstance(statement, ast.Return):
                if place + 1 < len(body):
                    raise self.error(body[place + 1], "nothing stands after `return`")
                if statement.value is None:
                    raise self.error(statement, "a kernel returns a value")
                return self.expr(statement.value)
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                self.expr(statement.value)  # what is called may be the mistake
            if not isinstance(statement, ast.Assign):
                raise self._outside(statement)
            value = self.expr(statement.value)
            for target in statement.targets:
                self._assign(target, value)
        raise self.error(node, "a kernel ends with `return`")

    def _assign(self, target: ast.expr, value: Expr) -> None:
        if isinstance(target, ast.Name):
            self._check_name(target, target.id)
            self.scope[target.id] = value
        elif isinstance(target, ast.Tuple) and all(isinstance(part, ast.Name) for part in target.elts):
            count = len(target.elts)
            if value.op == untyped.TUPLE and len(value.args) != count:
                raise self.error(target, f"{len(value.args)} values for {count} names")
            for place, part in enumerate(target.elts):
                self._assign(part, self._item(value, place, count, target))
        elif isinstance(target, ast.Subscript):
            raise self.error(
                target, "arrays are not changed in place; write `frame = np.where(condition, value, frame)`"
            )
        else:
            raise self.error(target, "assign to a name, or to several names separated by commas")

    def _item(self, value: Expr, place: int, count: int, target: ast.expr) -> Expr:
        if value.op == untyped.TUPLE:
            return value.args[place]
        return self.table.make(untyped.ITEM, (value,), (place, count), _where(target))

    # ------------------------------------------------------------------------------------------ expressions

    def expr(self, node: ast.expr) -> Expr:
        self.depth += 1
        if self.depth > limits.KERNEL_NESTING_MAX:
            raise self.source.too_much(
                _where(node), "expressions nest too deeply; use several assignments", "KERNEL_NESTING_MAX", self.depth
            )
        handler = _HANDLERS.get(type(node))
        if handler is None:
            raise self._outside(node)
        result = handler(self, node)
        self.depth -= 1
        return result

    def make(self, op: str, args: Sequence[Expr], value: Any, node: ast.AST) -> Expr:
        """An expression; of literals its value, so that bombs are refused here."""
        where = _where(node)
        if self.table.count >= limits.KERNEL_NODES_MAX:
            raise self.source.too_much(where, "expressions", "KERNEL_NODES_MAX", self.table.count + 1)
        if value == OPERATOR and any(arg.op == untyped.TUPLE for arg in args) and op not in ("equal", "not_equal"):
            raise self.source.error(where, "tuples are not computed with; they are shapes, axes, indices and states")
        if value == OPERATOR and args and all(arg.op == untyped.LITERAL for arg in args):
            try:
                folded = statics.apply(op, tuple(arg.value for arg in args))
            except statics.StaticError as error:
                raise self.source.error(where, str(error)) from None
            return self.table.make(untyped.LITERAL, (), folded, where)
        return self.table.make(op, tuple(args), value, where)

    def literal(self, value: Any, node: ast.AST) -> Expr:
        return self.make(untyped.LITERAL, (), value, node)

    def _constant(self, node: ast.Constant) -> Expr:
        value = node.value
        if isinstance(value, str):
            if value in SPELLINGS:
                return self.literal(SPELLINGS[value], node)
            if value in functions.WORDS:
                return self.literal(value, node)
            raise self.error(node, f"texts are not in the language, but for dtypes such as 'float32'{_meant(value)}")
        if value is None or value is ... or isinstance(value, bool):
            return self.literal(value, node)
        if isinstance(value, complex):
            raise self.error(node, "complex numbers are not in the language")
        if isinstance(value, int | float):
            return self._number(node)
        raise self.error(node, f"{type(value).__name__} is not in the language")

    def _number(self, node: ast.Constant) -> Expr:
        value = node.value
        if isinstance(value, float) and math.isinf(value):
            raise self.error(node, "the number is too large for a float; infinity is np.inf")
        if isinstance(value, int) and value.bit_length() > statics.INTEGER_BITS_MAX:
            raise self.error(node, f"the integer has more than {statics.INTEGER_BITS_MAX} bits")
        return self.literal(value, node)

    def _name(self, node: ast.Name) -> Expr:
        if node.id in self.scope:
            return self.scope[node.id]
        if node.id in _RESERVED:
            hint = ": write `np.` before a function's name" if node.id == "numpy" else ""
            raise self.error(node, f"`{node.id}` by itself is no value{hint}")
        raise self._unknown(node, node.id)

    def _unknown(self, node: ast.AST, name: str) -> HissError:
        shown = name[:40]
        if name == "print":
            return self.error(
                node,
                "`print` is not in the language; to look at values, call the kernel on an array where you write it",
            )
        if name in ("scipy", "ndimage", "skimage", "cv2", "signal"):
            return self.error(
                node,
                f"`{shown}` is not in the language; `hk` has filters such as hk.median_filter, and hk.otsu, hk.iir",
            )
        if name in _PYTHON:
            return self.error(node, f"`{shown}` is not in the language; {_PYTHON[name]}")
        if functions.find(name, "h"):
            return self.error(node, f"`{shown}` is not defined; did you mean `hk.{shown}`?")
        if functions.find(name, "n") or name == "pow":
            hint = {"pow": "power"}.get(name, name)
            return self.error(node, f"`{shown}` is not in the language; use `np.{hint}`")
        close = difflib.get_close_matches(name, self.scope, 1, 0.7)
        named = f"parameters and earlier assignments can be named: make it a parameter, and bind `{shown}=`"
        meant = f"; did you mean `{close[0]}`?" if close else f"; {named}"
        return self.error(node, f"`{shown}` is not defined{meant}")

    def _attribute(self, node: ast.Attribute) -> Expr:
        if isinstance(node.value, ast.Name) and node.value.id in _MODULES and node.value.id not in self.scope:
            return self._of_module(node, node.value.id)
        value = self.expr(node.value)
        row = functions.find(node.attr, "a")
        if row is not None:
            return self.make(row.name, (value,), None, node)
        if functions.find(node.attr, "m"):
            raise self.error(node, f"`.{node.attr}` is a method: call it")
        raise self._no_method(node)

    def _no_method(self, node: ast.Attribute) -> HissError:
        shown = node.attr[:40]
        if functions.find(node.attr, "n"):
            return self.error(node, f"`.{shown}` is no method here; write `np.{shown}(...)`")
        if node.attr in functions.INSTEAD:
            return self.error(node, f"`.{shown}` is not in the language; use {functions.INSTEAD[node.attr]}")
        close = functions.near(node.attr, "m") + functions.near(node.attr, "a")
        return self.error(node, f"`.{shown}` is not in the language{_did_you_mean(close, '.')}")

    def _of_module(self, node: ast.Attribute, module: str) -> Expr:
        if module == "np" and node.attr in _CONSTANTS:
            return self.literal(_CONSTANTS[node.attr], node)
        if module == "np" and node.attr in SPELLINGS:
            return self.literal(SPELLINGS[node.attr], node)
        if functions.find(node.attr, _MODULES[module]):
            raise self.error(node, f"`{module}.{node.attr}` is a function: call it")
        raise self._not_in_module(node, module)

    def _not_in_module(self, node: ast.Attribute, module: str) -> HissError:
        for other, form in _MODULES.items():
            if other != module and functions.find(node.attr, form):
                return self.error(node, f"`{module}.{node.attr}` is not in the language; write `{other}.{node.attr}`")
        instead = functions.INSTEAD.get(node.attr)
        if instead is not None:
            return self.error(node, f"`{module}.{node.attr}` is not in the language; use {instead}")
        more = (*_CONSTANTS, *SPELLINGS) if module == "np" else ()
        close = functions.near(node.attr, _MODULES[module], more)
        return self.error(
            node, f"`{module}.{node.attr[:40]}` is not in the language{_did_you_mean(close, f'{module}.')}"
        )

    def _call(self, node: ast.Call) -> Expr:
        target = node.func
        if isinstance(target, ast.Name) and target.id not in self.scope and target.id in ("abs", "len"):
            row = functions.find(target.id, "n") or functions.FUNCTIONS[target.id]
            return self._bind(row, (), node)
        if not isinstance(target, ast.Attribute):
            if isinstance(target, ast.Name) and target.id not in self.scope and target.id not in _RESERVED:
                raise self._unknown(target, target.id)
            raise self.error(target, "only functions of `np` and `hk` and array methods are called")
        owner = target.value
        if isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name) and owner.value.id == "np":
            method = functions.find(f"{owner.attr}.{target.attr}", "n") if "np" not in self.scope else None
            if method is not None:  # np.maximum.accumulate
                return self._bind(method, (), node)
        if isinstance(owner, ast.Name) and owner.id in _MODULES and owner.id not in self.scope:
            if owner.id == "np" and target.attr in SPELLINGS:
                return self._converted(target.attr, node)
            found = functions.find(target.attr, _MODULES[owner.id])
            if found is None:
                raise self._not_in_module(target, owner.id)
            return self._bind(found, (), node)
        row_or_none = functions.find(target.attr, "m")
        if row_or_none is None:
            self._attribute(target)  # raises, unless it is an attribute
            raise self.error(target, f"`.{target.attr}` is no method: do not call it")
        return self._bind(row_or_none, (self.expr(owner),), node)

    def _converted(self, name: str, node: ast.Call) -> Expr:
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise self.error(node, f"`np.{name}` takes one value")
        return self.make("astype", (self.expr(node.args[0]), self.literal(SPELLINGS[name], node)), None, node)

    def _bind(self, row: functions.TableFunction, first: tuple[Expr, ...], node: ast.Call) -> Expr:
        """The call with its arguments in the order of the table's signature, defaults filled in."""
        positional = [*first, *(self.expr(arg) for arg in node.args)]
        if row.name in ("reshape", "transpose") and first and len(positional) > 2:  # a.reshape(2, 3)
            positional = [positional[0], self.make(untyped.TUPLE, positional[1:], None, node)]
        places = [parameter for parameter in row.parameters if not parameter.keyword_only]
        if len(positional) > len(places):
            raise self.error(node, f"`{row.name}({row.signature})`: {len(positional)} arguments by position")
        bound = {parameter.names[0]: arg for parameter, arg in zip(places, positional, strict=False)}
        for keyword in node.keywords:
            match = [parameter for parameter in row.parameters if keyword.arg in parameter.names]
            if not match:
                what = f"`{keyword.arg[:40]}=`" if keyword.arg else "`**`"
                raise self.error(keyword.value, f"`{row.name}({row.signature})` has no {what}")
            if match[0].names[0] in bound:
                raise self.error(keyword.value, f"`{keyword.arg}` is given twice")
            bound[match[0].names[0]] = self.expr(keyword.value)
        args = []
        for parameter in row.parameters:
            name = parameter.names[0]
            if name not in bound and parameter.required:
                raise self.error(node, f"`{row.name}({row.signature})`: `{name}` is missing")
            args.append(bound[name] if name in bound else self._filled(parameter.default, node))
        return self.make(row.name, args, None, node)

    def _filled(self, default: Any, node: ast.AST) -> Expr:
        if isinstance(default, tuple):
            return self.make(untyped.TUPLE, [self.literal(part, node) for part in default], None, node)
        return self.literal(default, node)

    def _binary(self, node: ast.BinOp) -> Expr:
        name = _BINARY.get(type(node.op))
        if name is None:
            raise self._outside(node.op, node)
        return self.make(name, (self.expr(node.left), self.expr(node.right)), OPERATOR, node)

    def _unary(self, node: ast.UnaryOp) -> Expr:
        name = _UNARY[type(node.op)]
        operand = self.expr(node.operand)
        if name == "logical_not":
            return self.make("not", (operand,), None, node)
        return self.make(name, (operand,), OPERATOR, node)

    def _boolean(self, node: ast.BoolOp) -> Expr:
        name = "and" if isinstance(node.op, ast.And) else "or"
        result = self.expr(node.values[0])
        for value in node.values[1:]:
            result = self.make(name, (result, self.expr(value)), None, node)
        return result

    def _compare(self, node: ast.Compare) -> Expr:
        left, result = self.expr(node.left), None
        for operator, right_node in zip(node.ops, node.comparators, strict=True):
            if type(operator) not in _BINARY:
                raise self.error(node, "`in` and `is` are not in the language")
            right = self.expr(right_node)
            one = self.make(_BINARY[type(operator)], (left, right), OPERATOR, node)
            result = one if result is None else self.make("and", (result, one), None, node)
            left = right
        assert result is not None
        return result

    def _conditional(self, node: ast.IfExp) -> Expr:
        parts = (self.expr(node.test), self.expr(node.body), self.expr(node.orelse))
        return self.make(untyped.IF, parts, None, node)

    def _tuple(self, node: ast.Tuple) -> Expr:
        if len(node.elts) > limits.KERNEL_PARAMETERS_MAX:
            raise self.source.too_much(_where(node), "entries of a tuple", "KERNEL_PARAMETERS_MAX", len(node.elts))
        return self.make(untyped.TUPLE, [self.expr(part) for part in node.elts], None, node)

    def _subscript(self, node: ast.Subscript) -> Expr:
        value, key = self.expr(node.value), self.expr(node.slice)
        return self.make("getitem", (value, key), None, node)

    def _slice(self, node: ast.Slice) -> Expr:
        parts = [self.literal(None, node) if p is None else self.expr(p) for p in (node.lower, node.upper, node.step)]
        return self.make(untyped.SLICE, parts, None, node)

    # ------------------------------------------------------------------------------------------ errors

    def error(self, node: ast.AST, reason: str) -> HissError:
        return self.source.error(_where(node), reason)

    def _outside(self, node: ast.AST, place: ast.AST | None = None) -> HissError:
        advice = _ADVICE.get(type(node))
        if advice is None:
            advice = f"{type(node).__name__} is not in the language: it has assignments, `return` and NumPy expressions"
        return self.error(place or node, advice)


def _did_you_mean(names: list[str], prefix: str) -> str:
    shown = " or ".join(f"`{prefix}{name}`" for name in dict.fromkeys(names))
    return f"; did you mean {shown}?" if shown else ""


def _meant(text: str) -> str:
    close = difflib.get_close_matches(text, [*SPELLINGS, *functions.WORDS], 1)
    return f"; did you mean '{close[0]}'?" if close else ""


_HANDLERS: Final[dict[type[ast.expr], Callable[[_Checker, Any], Expr]]] = {
    ast.Constant: _Checker._constant,
    ast.Name: _Checker._name,
    ast.Attribute: _Checker._attribute,
    ast.Call: _Checker._call,
    ast.BinOp: _Checker._binary,
    ast.UnaryOp: _Checker._unary,
    ast.BoolOp: _Checker._boolean,
    ast.Compare: _Checker._compare,
    ast.IfExp: _Checker._conditional,
    ast.Tuple: _Checker._tuple,
    ast.Subscript: _Checker._subscript,
    ast.Slice: _Checker._slice,
}

"""Functions of the loop form as functions in OpenCL C: statements, and where each variable is declared.

Python's variables belong to the function, C's to a block: each is declared in the innermost block that holds all its
uses, as `const` where it gets one value only. Types come from what is assigned, in as many rounds as loops need. One
`FunctionPrinter` serves one function of one file; one thread.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from hiss.kernels.dtypes import BOOL, I64, SUPPORTED, U64, DType
from hiss.kernels.opencl_terms import SUM, Call, Pointer, Term, Terms, Untranslatable, Variable, name_of, unified
from hiss.kernels.opencl_words import c_type, memory_type

_ROUNDS_MAX: Final = 8  # of inference
_RANGES: Final = ("range", "prange")
Path = tuple[int, ...]


@dataclass(slots=True)
class _Uses:
    """Where a variable occurs: the block that holds all of it, and how often it is assigned."""

    block: Path
    assigned: int = 0


@dataclass(slots=True)
class FunctionPrinter:
    """One function.

    Attributes
    ----------
    types : dict
        Of parameters, and of variables as they are found.
    result : dtype or None
        What it returns.
    """

    tree: ast.FunctionDef
    parameters: Mapping[str, Variable]
    call: Call
    helpers: set[str]
    comments: Mapping[int, str] = field(default_factory=dict)
    types: dict[str, Variable] = field(default_factory=dict)
    result: DType | None = None
    lines: list[str] = field(default_factory=list)
    _uses: dict[str, _Uses] = field(default_factory=dict)
    _declared: set[str] = field(default_factory=set)
    _told: set[int] = field(default_factory=set)
    _depth: int = 1

    def run(self) -> list[str]:
        """The lines of its body."""
        self.types = dict(self.parameters)
        self._infer()
        for path, statement in _walk(self.tree.body, ()):
            self._note_uses(path, statement)
        self._block(self.tree.body, ())
        return self.lines

    @property
    def terms(self) -> Terms:
        return Terms(self.types, self.call, self.helpers)

    # ---------------------------------------------------------------------------------------------- types

    def _infer(self) -> None:
        for _ in range(_ROUNDS_MAX):
            before = dict(self.types), self.result
            unknown = [statement for _, statement in _walk(self.tree.body, ()) if not self._learn(statement)]
            if before == (self.types, self.result):
                if unknown:
                    raise Untranslatable(f"of unknown type: {ast.unparse(unknown[0])}")
                return
        raise Untranslatable(f"the types in {self.tree.name} do not settle")

    def _learn(self, statement: ast.stmt) -> bool:
        """Take the types from one statement; whether they were known."""
        try:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    made = _new_array(value)
                    self._assign(name, made if made is not None else self.terms.term(value).dtype)
                case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                    for target, value in zip(targets, values, strict=True):
                        if isinstance(target, ast.Name):
                            self._assign(target.id, self.terms.term(value).dtype)
                case ast.AugAssign(target=ast.Name(id=name)):
                    self._assign(name, self.terms.term(_plain(statement)).dtype)
                case ast.For(target=ast.Name(id=name), iter=ast.Call(args=arguments)):
                    kinds = {self.terms.term(argument).dtype for argument in arguments}
                    self._assign(name, U64 if U64 in kinds else I64)
                case ast.Return(value=ast.expr() as value):
                    dtype = self.terms.term(value).dtype
                    self.result = dtype if self.result is None else unified(self.result, dtype)
        except KeyError:
            return False
        return True

    def _assign(self, name: str, found: Variable) -> None:
        known = self.types.get(name)
        if known is None or known == found:
            self.types[name] = found
        elif isinstance(known, Pointer) or isinstance(found, Pointer):
            raise Untranslatable(f"{name} is an array here and something else there")
        else:
            self.types[name] = unified(known, found)

    # ---------------------------------------------------------------------------------------------- uses

    def _note_uses(self, path: Path, statement: ast.stmt) -> None:
        for node in _own_nodes(statement):
            for child in ast.walk(node):
                if isinstance(child, ast.Name):
                    self._note(child.id, path, isinstance(child.ctx, ast.Store))
        if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            self._uses[statement.target.id].assigned += 1

    def _note(self, name: str, path: Path, stored: bool) -> None:
        uses = self._uses.setdefault(name, _Uses(path))
        common = 0
        while common < min(len(uses.block), len(path)) and uses.block[common] == path[common]:
            common += 1
        uses.block = path[:common]
        uses.assigned += stored

    # ---------------------------------------------------------------------------------------------- statements

    def line(self, text: str) -> None:
        self.lines.append(f"{'    ' * self._depth}{text}")

    def _block(self, statements: list[ast.stmt], path: Path) -> None:
        """A block's statements, the variables first that have no better place to be declared."""
        first: dict[str, ast.stmt] = {}
        for statement in statements:
            for name in _names(statement):
                first.setdefault(name, statement)
        for name, statement in first.items():
            if name in self._declared or self._is_loop_variable(name) or self._uses[name].block != path:
                continue
            if not isinstance(statement, ast.Assign) or not _starts(name, statement):
                self._declare(name)
        for place, statement in enumerate(statements):
            comment = self.comments.get(statement.lineno)
            if comment is not None and statement.lineno not in self._told:
                self._told.add(statement.lineno)
                self.line(f"/* {comment} */")
            self._statement(statement, (*path, place))

    def _is_loop_variable(self, name: str) -> bool:
        return name in self.parameters or name not in self.types or name in _loop_targets(self.tree)

    def _declare(self, name: str) -> None:
        dtype = self.types[name]
        if not isinstance(dtype, Pointer):
            self._declared.add(name)
            self.line(f"{c_type(dtype)} {name_of(name)};")

    def _statement(self, statement: ast.stmt, path: Path) -> None:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._assignment(name, value, path)
            case ast.Assign(targets=[ast.Subscript() as target], value=value):
                self._store(target, self.terms.term(value))
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
                self._together(targets, values)
            case ast.AugAssign(target=ast.Name(id=name)):
                self._assignment(name, _plain(statement), path)
            case ast.AugAssign(target=ast.Subscript() as target):
                self._store(target, self.terms.term(_plain(statement)))
            case ast.For():
                self._for(statement, path)
            case ast.While(test=test, body=body, orelse=[]):
                self.line(f"while ({self.terms.truth(test).text}) {{")
                self._inner(body, (*path, 0))
                self.line("}")
            case ast.If():
                self._if(statement, path)
            case ast.Return(value=None):
                self.line("return;")
            case ast.Return(value=ast.expr() as value):
                assert self.result is not None
                self.line(f"return {self.terms.cast(self.terms.term(value), self.result).text};")
            case ast.Expr(value=ast.Call() as call):
                self.line(f"{self.terms.statement(call)};")
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Break():
                self.line("break;")
            case ast.Continue():
                self.line("continue;")
            case _:
                raise Untranslatable(ast.unparse(statement))

    def _inner(self, body: list[ast.stmt], path: Path) -> None:
        self._depth += 1
        self._block(body, path)
        self._depth -= 1

    def _assignment(self, name: str, value: ast.expr, path: Path) -> None:
        dtype = self.types[name]
        if isinstance(dtype, Pointer):
            made = _new_array(value)
            if made is None or len(path) > 1:
                raise Untranslatable(ast.unparse(value))
            self.line(f"{memory_type(made.dtype)} {name_of(name)}[{_size(value)}]{_cleared(value)};")
            return
        text = self.terms.cast(self.terms.term(value), dtype).text
        if name in self._declared or name in self.parameters:
            self.line(f"{name_of(name)} = {text};")
            return
        self._declared.add(name)
        constant = "const " if self._uses[name].assigned == 1 else ""
        self.line(f"{constant}{c_type(dtype)} {name_of(name)} = {text};")

    def _store(self, target: ast.Subscript, term: Term) -> None:
        if not isinstance(target.value, ast.Name):
            raise Untranslatable(ast.unparse(target))
        pointer = self.types[target.value.id]
        if not isinstance(pointer, Pointer) or pointer.const:
            raise Untranslatable(f"{ast.unparse(target)} is written to")
        index = self.terms.term(target.slice).text
        value = self.terms.cast(term, pointer.dtype).text
        self.line(f"{name_of(target.value.id)}[{index}] = {value};")

    def _together(self, targets: list[ast.expr], values: list[ast.expr]) -> None:
        """`a, b = b, a`: all values before the first assignment."""
        self.line("{")
        self._depth += 1
        terms = [self.terms.term(value) for value in values]
        for place, term in enumerate(terms):
            self.line(f"const {c_type(term.dtype)} new_{place} = {term.text};")
        for place, (target, term) in enumerate(zip(targets, terms, strict=True)):
            new = Term(f"new_{place}", term.dtype)
            if isinstance(target, ast.Subscript):
                self._store(target, new)
            elif isinstance(target, ast.Name) and isinstance(dtype := self.types[target.id], np.dtype):
                self.line(f"{name_of(target.id)} = {self.terms.cast(new, dtype).text};")
            else:
                raise Untranslatable(ast.unparse(target))
        self._depth -= 1
        self.line("}")

    def _for(self, loop: ast.For, path: Path) -> None:
        target, head, counts = loop.target, loop.iter, loop.iter
        if (
            not isinstance(target, ast.Name)
            or not isinstance(head, ast.Call)
            or not isinstance(head.func, ast.Name)
            or head.func.id not in _RANGES
            or loop.orelse
        ):
            raise Untranslatable(ast.unparse(counts))
        dtype = self.types[target.id]
        assert isinstance(dtype, np.dtype)
        bounds = [self.terms.cast(self.terms.term(argument), dtype) for argument in head.args]
        start, stop = (Term("0", dtype), bounds[0]) if len(bounds) == 1 else bounds[:2]
        name = name_of(target.id)
        step, sign = f"++{name}", "<"
        if len(bounds) == 3:
            step = f"{name} += {bounds[2].text}"
            sign = ">" if bounds[2].value is not None and bounds[2].value < 0 else "<"
        self.line(f"for ({c_type(dtype)} {name} = {start.text}; {name} {sign} {stop.within(SUM)}; {step}) {{")
        self._inner(loop.body, (*path, 0))
        self.line("}")

    def _if(self, statement: ast.If, path: Path) -> None:
        self.line(f"if ({self.terms.truth(statement.test).text}) {{")
        self._inner(statement.body, (*path, 0))
        if statement.orelse:
            self.line("} else {")
            self._inner(statement.orelse, (*path, 1))
        self.line("}")


def _walk(statements: list[ast.stmt], path: Path) -> Iterator[tuple[Path, ast.stmt]]:
    """Every statement with the path of its block."""
    for place, statement in enumerate(statements):
        yield path, statement
        inner = (*path, place)
        match statement:
            case ast.For(body=body) | ast.While(body=body):
                yield from _walk(body, (*inner, 0))
            case ast.If(body=body, orelse=orelse):
                yield from _walk(body, (*inner, 0))
                yield from _walk(orelse, (*inner, 1))


def _own_nodes(statement: ast.stmt) -> list[ast.AST]:
    """A statement's expressions, without those of the blocks in it; a loop's variable is the loop's own."""
    match statement:
        case ast.For(iter=head):
            return [head]
        case ast.While(test=test) | ast.If(test=test):
            return [test]
    return [statement]


def _names(statement: ast.stmt) -> list[str]:
    """The variables of a statement and its blocks, those that are assigned."""
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _starts(name: str, statement: ast.Assign) -> bool:
    """Whether a statement is `name = ...` and does not read it."""
    (target,) = statement.targets
    reads = any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(statement.value))
    return isinstance(target, ast.Name) and target.id == name and not reads


def _loop_targets(tree: ast.FunctionDef) -> set[str]:
    return {
        node.target.id for node in ast.walk(tree) if isinstance(node, ast.For) and isinstance(node.target, ast.Name)
    }


def _plain(statement: ast.AugAssign) -> ast.BinOp:
    """`a += b` as `a + b`."""
    left = ast.parse(ast.unparse(statement.target), mode="eval").body
    return ast.copy_location(ast.BinOp(left, statement.op, statement.value), statement)


def _new_array(value: ast.expr) -> Pointer | None:
    """`np.empty(64, np.float64)`."""
    match value:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="np"), attr="empty" | "zeros"),
            args=[ast.expr(), ast.Attribute(attr=name)],
        ) if name in SUPPORTED or name == "bool_":
            return Pointer(SUPPORTED.get(name, BOOL), "private", False)
    return None


def _size(value: ast.expr) -> int:
    assert isinstance(value, ast.Call)
    size: object = ast.literal_eval(value.args[0]) if isinstance(value.args[0], ast.Constant | ast.Tuple) else None
    if isinstance(size, tuple) and len(size) == 1:
        (size,) = size
    if not isinstance(size, int):
        raise Untranslatable(ast.unparse(value))
    return size


def _cleared(value: ast.expr) -> str:
    assert isinstance(value, ast.Call)
    assert isinstance(value.func, ast.Attribute)
    return " = {0}" if value.func.attr == "zeros" else ""

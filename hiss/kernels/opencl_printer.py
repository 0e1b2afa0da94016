"""Prints a program as OpenCL C, from the loops that `numba_printer` made of it.

There is one generator of loops: the Python file for Numba, whose few forms have one meaning each. It is read here with
`ast`, typed, and said again in C, so that what is fused, stored, and in which order sums are taken is decided in one
place, and both back ends compute the same by construction. Two forms of the kernel itself:

    WORKERS   each work-item takes a run of consecutive blocks; scratch arrays hold a part for each of them
    SINGLE    one work-item and static loops: no recursion, no allocation, no pointer to a pointer; for FPGA tools

The kernel's arguments are `row_count` and what the Numba function takes, in its order. Pure; any thread.
"""

from __future__ import annotations

import ast
import enum
import io
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hiss.kernels.dtypes import SUPPORTED, DType
from hiss.kernels.ir import Program
from hiss.kernels.numba_printer import Printed, print_program
from hiss.kernels.opencl_counts import narrow
from hiss.kernels.opencl_functions import FunctionPrinter
from hiss.kernels.opencl_terms import Pointer, Untranslatable, Variable, name_of
from hiss.kernels.opencl_words import HELPERS, c_type, memory_type

VERSION: Final = 3  # of this printer
KERNEL: Final = "hiss_kernel"
_HEAD: Final = """\
/* Generated from a checked kernel by hiss.kernels.opencl_printer, version {version}. */
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#pragma OPENCL FP_CONTRACT OFF
"""


class Form(enum.Enum):
    """What a work-item does."""

    WORKERS = "workers"
    SINGLE = "single"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of the kernel: `use` is `read` or `written` of an array, `scalar` of a value."""

    name: str
    dtype: DType
    use: str


@dataclass(frozen=True, slots=True)
class PrintedOpencl:
    """The source, what it takes after `row_count`, and the Numba form that it says again.

    `parallel` says that blocks do not depend on one another; `scratch` names the arguments that are scratch, with the
    elements that each work-item needs.
    """

    text: str
    arguments: tuple[Argument, ...]
    parallel: bool
    scratch: dict[str, int]
    numba: Printed


def print_opencl(program: Program, form: Form = Form.WORKERS, source: Sequence[str] = ()) -> PrintedOpencl:
    """The OpenCL C of a program; with the lines of the kernel's `source` as comments, where it is to be read.

    Raises
    ------
    Untranslatable
        It has an operation that cannot be said in C yet.
    """
    if program.variable:
        raise Untranslatable("blocks of variable length")
    printed = print_program(program, source)
    return _File(printed, bool(program.states), form).run()


class _File:
    def __init__(self, printed: Printed, stateful: bool, form: Form) -> None:
        self.printed, self.form = printed, form
        module = _Single().visit(ast.parse(printed.text))
        self.functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
        for tree in self.functions.values() if form is Form.WORKERS else ():  # FPGA tools want loops of known lengths
            narrow(tree)
        self.comments = _comments(printed.text)
        self.helpers: set[str] = set()
        self.texts: dict[tuple[str, tuple[Variable, ...]], tuple[str, str, DType | None]] = {}
        self.kernel = self.functions["kernel"]
        self.arguments = _arguments(self.kernel)
        self.parallel = not stateful
        names = [argument.name for argument in self.arguments]
        sizes = [size for _, size in printed.temporaries]
        self.scratch = dict(zip(names[len(names) - len(sizes) :], sizes, strict=True))

    def run(self) -> PrintedOpencl:
        body = self._kernel()
        helpers = [HELPERS[name].strip() for name in sorted(self.helpers)]
        functions = [text for _, text, _ in self.texts.values()]
        parts = [_HEAD.format(version=VERSION).rstrip(), *helpers, *functions, body]
        return PrintedOpencl("\n\n".join(parts) + "\n", self.arguments, self.parallel, self.scratch, self.printed)

    # ---------------------------------------------------------------------------------------------- the kernel

    def _kernel(self) -> str:
        parameters: dict[str, Variable] = {}
        for one in self.arguments:
            array = Pointer(one.dtype, "global", one.use == "read")
            parameters[one.name] = one.dtype if one.use == "scalar" else array
        loop = self.kernel.body[-1]
        if not isinstance(loop, ast.For) or ast.unparse(loop.iter) != "range(len(rows))":
            raise Untranslatable("a kernel that is no loop over blocks")
        printer = FunctionPrinter(self.kernel, parameters, self.call, self.helpers, self.comments)
        lines = printer.run()
        if self.form is Form.WORKERS:
            lines = _shared_out(lines, name_of(ast.unparse(loop.target)), self.parallel)
        moved = [f"    {name} += get_global_id(0) * {size}UL;" for name, size in self.scratch.items()]
        if self.form is Form.SINGLE or not self.parallel:
            moved = []
        head = [f"    {_parameter(one)}" for one in self.arguments]
        title = "__kernel __attribute__((reqd_work_group_size(1, 1, 1)))\nvoid"
        signature = ",\n".join(["    const ulong row_count", *head])
        return f"{title} {KERNEL}(\n{signature})\n{{\n" + "\n".join([*moved, *lines]) + "\n}"

    # ---------------------------------------------------------------------------------------------- functions

    def call(self, name: str, types: tuple[Variable, ...], texts: list[str]) -> tuple[str, DType | None]:
        """A call of a function of the file, which is printed for the types of its arguments at the first one."""
        tree = self.functions.get(name)
        if tree is None or tree is self.kernel:
            raise Untranslatable(f"{name}(...)")
        if (name, types) not in self.texts:
            self.texts[name, types] = self._function(tree, types)
            self.texts[name, types] = self.texts.pop((name, types))  # after the functions that it calls
        label, _, result = self.texts[name, types]
        return f"{label}({', '.join(texts)})", result

    def _function(self, tree: ast.FunctionDef, types: tuple[Variable, ...]) -> tuple[str, str, DType | None]:
        number = sum(name == tree.name for name, _ in self.texts)
        label = f"{name_of(tree.name)}{f'_{number + 1}' if number else ''}"
        names = [argument.arg for argument in tree.args.args]
        if len(names) != len(types):
            raise Untranslatable(f"{tree.name} with {len(types)} arguments")
        printer = FunctionPrinter(tree, dict(zip(names, types, strict=True)), self.call, self.helpers, self.comments)
        lines = printer.run()
        result = "void" if printer.result is None else c_type(printer.result)
        assigned = {
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        parameters = ", ".join(
            _inner_parameter(name, variable, name in assigned) for name, variable in zip(names, types, strict=True)
        )
        return label, f"{result} {label}({parameters})\n{{\n" + "\n".join(lines) + "\n}", printer.result


class _Single(ast.NodeTransformer):
    """`a = b = value` as two assignments."""

    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt]:
        first, *others = node.targets
        made: list[ast.stmt] = [ast.copy_location(ast.Assign([first], node.value), node)]
        for target in others:
            value = ast.parse(ast.unparse(first), mode="eval").body
            made.append(ast.copy_location(ast.Assign([target], value), node))
        return [ast.fix_missing_locations(statement) for statement in made]


def _shared_out(lines: list[str], row: str, parallel: bool) -> list[str]:
    """The loop over blocks as the part of one worker."""
    whole = f"    for (ulong {row} = 0; {row} < row_count; ++{row}) {{"
    assert lines.count(whole) == 1, "the loop over blocks"
    place = lines.index(whole)
    if not parallel:
        return lines
    part = [
        "    const ulong worker = get_global_id(0), workers = get_global_size(0);",
        "    const ulong last = row_count * (worker + 1) / workers;",
        f"    for (ulong {row} = row_count * worker / workers; {row} < last; ++{row}) {{",
    ]
    return [*lines[:place], *part, *lines[place + 1 :]]


def _arguments(kernel: ast.FunctionDef) -> tuple[Argument, ...]:
    """From the signature of the Numba function, which its decorator holds."""
    (decorator,) = kernel.decorator_list
    assert isinstance(decorator, ast.Call)
    (listed,) = decorator.args
    assert isinstance(listed, ast.List)
    (signature,) = listed.elts
    assert isinstance(signature, ast.Call)
    names = [argument.arg for argument in kernel.args.args]
    return tuple(Argument(name, *_argument(kind)) for name, kind in zip(names, signature.args, strict=True))


def _argument(kind: ast.expr) -> tuple[DType, str]:
    match kind:
        case ast.Call(args=[ast.Attribute(attr=name), *_], keywords=[ast.keyword(value=ast.Constant(value=readonly))]):
            return _dtype(name), "read" if readonly else "written"
        case ast.Attribute(attr=name):
            return _dtype(name), "scalar"
    raise Untranslatable(ast.unparse(kind))


def _dtype(name: str) -> DType:
    return SUPPORTED["bool" if name == "boolean" else name]


def _parameter(one: Argument) -> str:
    if one.use == "scalar":
        return f"const {memory_type(one.dtype)} {one.name}"
    const = "const " if one.use == "read" else ""
    return f"__global {const}{memory_type(one.dtype)} *restrict {one.name}"


def _inner_parameter(name: str, variable: Variable, assigned: bool) -> str:
    if isinstance(variable, Pointer):
        const = "const " if variable.const else ""
        return f"__{variable.space} {const}{memory_type(variable.dtype)} *{name_of(name)}"
    return f"{'' if assigned else 'const '}{c_type(variable)} {name_of(name)}"


def _comments(text: str) -> dict[int, str]:
    """The comments of a Python file, by the line that each belongs to: its own, or the next one of code."""
    found: dict[int, str] = {}
    waiting: list[str] = []
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        comment = token.string.lstrip("# ").replace("*/", "* /")
        row = token.start[0]
        if lines[row - 1].lstrip().startswith("#"):
            waiting.append(comment)
            following = row + 1
            if following <= len(lines) and not lines[following - 1].lstrip().startswith("#"):
                found[following] = "; ".join(waiting)
                waiting = []
        else:
            found[row] = comment
    return found

"""What runs inside a job's process, and what a recipe uses there: `hiss.job()`.

The rule engine starts `python -m hiss.job` for each attempt (`meow_bridge.runner`), with the specification as JSON in
its standard input: recipe, variables, the version of the stream that triggered it. The exit status says whether it
went well; why not stands in the file that the specification names. Processes that a recipe starts (a notebook's
kernel, a script run by a command) find the same job through the variable HISS_JOB, so `hiss.job()` works there as
well. The buffer is reached through HISS_ADDRESS and HISS_TOKEN, when it is first needed; whatever is written with
that token is published when the job has ended well, all at once, and never otherwise. One thread; `CurrentJob` is as
thread-safe as the client below it.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hiss import limits
from hiss.errors import HissError, InvalidRecipe, JobNotFound
from hiss.meow_bridge.recipe_source import compiled, print_recipe_traceback

if TYPE_CHECKING:
    from hiss.client import Buffer
    from hiss.reader import Stream
    from hiss.writer import StreamWriter

_WORD_VARIABLE: Final = re.compile(r"\{([A-Za-z_]\w*)\}")


class CurrentJob:
    """The job that this process belongs to.

    Attributes
    ----------
    id : str
        The job's id.
    variables : mapping
        All that the recipe gets: the input's path, the pattern's variables and outputs, the point of the sweep.
    """

    def __init__(self, specification: Mapping[str, Any]) -> None:
        self._specification = specification
        self.id: str = specification["job"]
        self.variables: Mapping[str, Any] = types.MappingProxyType(specification["variables"])

    def __repr__(self) -> str:
        return f"<job {self.id[:12]} for {self._specification['path']} version {self._specification['version']}>"

    @cached_property
    def buffer(self) -> Buffer:
        """The buffer, connected with this attempt's token."""
        import hiss

        address = os.environ.get("HISS_ADDRESS")
        if not address:
            raise JobNotFound("this job's process was given no address of a buffer (HISS_ADDRESS)")
        return hiss.connect(address, token=os.environ.get("HISS_TOKEN"))

    @cached_property
    def input(self) -> Stream:
        """The stream that triggered the job, in that version; for `stream.progress` as far as it was then."""
        stream = self.buffer.stream(self._specification["path"], self._specification["version"])
        if self._specification.get("kind") != "stream.progress":
            return stream
        from hiss.stream_part import StreamPart

        return StreamPart(stream, self.variables["end_index"])

    @property
    def collection(self) -> str:
        """The path of the collection that the job was triggered in."""
        path: str = self._specification["path"]
        return path.rpartition("/")[0] if self._specification["version"] else path

    def output(
        self, name: str, array: Any = None, *, rows: Mapping[str, Any] | None = None, **stream: Any
    ) -> StreamWriter | None:
        """Store an array as a stream, or open a stream for writing.

        Parameters
        ----------
        name : str
            A stream in the trigger's collection, or with a '/' a path from the top.
        array : array_like of shape (n, *shape), optional
            Stored as a sealed stream of `n` blocks. Without it the writer is returned, a context manager.
        rows : mapping, optional
            With `array`: `n` values for each column, and `index` or `time_ns`.
        **stream
            For `Collection.create_stream`: `dtype`, `shape`, `columns`, `attrs`, `kernels` and so on.

        A stream that is there already gets a new version. With `array`, `dtype` converts it.
        """
        if array is None:
            return self._writer(name, **stream)
        import numpy as np

        blocks = np.atleast_1d(np.asarray(array, stream.get("dtype")))
        blocks = blocks.astype(blocks.dtype.newbyteorder("<"), copy=False)
        with self._writer(name, **{"shape": blocks.shape[1:], **stream, "dtype": blocks.dtype.str}) as writer:
            writer.extend(blocks, **(rows or {}))
        return None

    def output_bytes(self, name: str, data: bytes, media_type: str = "application/octet-stream") -> None:
        """Store a picture or file as a stream of one opaque block; its kind is the attribute `media_type`."""
        with self._writer(name, dtype=None, attrs={"media_type": media_type}) as writer:
            writer.append(bytes(data))

    def _writer(self, name: str, **stream: Any) -> StreamWriter:
        collection, _, last = name.rpartition("/")
        return self.buffer.collection(collection or self.collection).create_stream(
            last, **{"new_version": True, **stream}
        )


_current: CurrentJob | None = None


def job() -> CurrentJob:
    """The job that this process belongs to. Raises `JobNotFound` outside of one."""
    global _current
    if _current is None:
        path = os.environ.get("HISS_JOB")
        if not path:
            raise JobNotFound("hiss.job() works in a job's process only: in a recipe that a rule started")
        _current = CurrentJob(json.loads(Path(path).read_text("utf-8")))
    return _current


class _CallableModule(types.ModuleType):
    """Makes `hiss.job()` work whether the name `hiss.job` is bound to the function or, by an import, to this module."""

    def __call__(self) -> CurrentJob:
        return job()


# ---------------------------------------------------------------------------------------------------------- recipes


def run_recipe(current: CurrentJob, recipe: Mapping[str, Any], specification: Mapping[str, Any]) -> None:
    """Run a recipe of any kind in this process. What it raises is its own."""
    run = {
        "FUNCTION": _run_function,
        "SCRIPT": _run_script,
        "NOTEBOOK": _run_notebook,
        "COMMAND": _run_command,
    }[recipe["kind"]]
    run(current, recipe, specification)


def _run_function(current: CurrentJob, recipe: Mapping[str, Any], specification: Mapping[str, Any]) -> None:
    """Call the function with those variables that it names; what it returns becomes streams."""
    import numpy as np

    import hiss

    space: dict[str, Any] = {"__name__": "__recipe__", "hiss": hiss, "np": np, "numpy": np}
    exec(compiled(recipe["name"], recipe["body"]), space)
    function = space[recipe["entry"]]
    names = list(inspect.signature(function).parameters.values())
    takes_all = any(name.kind is name.VAR_KEYWORD for name in names)
    wanted = {name.name for name in names if name.kind in (name.POSITIONAL_OR_KEYWORD, name.KEYWORD_ONLY)}
    arguments = {name: value for name, value in current.variables.items() if takes_all or name in wanted}
    lacking = [name.name for name in names if name.default is name.empty and name.name in wanted - set(arguments)]
    if lacking:
        raise InvalidRecipe(
            f"recipe {recipe['name']!r}: {recipe['entry']}() wants {', '.join(lacking)}, "
            f"but the pattern gives {', '.join(current.variables)}"
        )
    if specification["input"] in arguments and specification["version"]:
        arguments[specification["input"]] = current.input
    store_result(current, function(**arguments), recipe["name"], specification["outputs"])


def store_result(current: CurrentJob, result: Any, recipe: str, outputs: Mapping[str, str]) -> None:
    """Store what a function returned.

    A dict maps names to arrays or bytes: a name is one of the pattern's `outputs`, whose stream it then is, or a
    stream's own. An array (or bytes) is the pattern's only output, or a stream of the recipe's name. None stores
    nothing.
    """
    if result is None:
        return
    if isinstance(result, tuple):
        raise InvalidRecipe(f"recipe {recipe!r} returned a tuple; return a dict that names each of its arrays")
    if not isinstance(result, Mapping):
        result = {next(iter(outputs)) if len(outputs) == 1 else recipe: result}
    for name, value in result.items():
        stream = str(current.variables[name]) if name in outputs else str(name)
        if isinstance(value, bytes | bytearray | memoryview):
            current.output_bytes(stream, bytes(value))
        else:
            current.output(stream, value)


def _run_script(current: CurrentJob, recipe: Mapping[str, Any], specification: Mapping[str, Any]) -> None:
    """Run the script as `__main__`, with the variables as its globals."""
    main = types.ModuleType("__main__")
    main.__dict__.update(current.variables)
    sys.modules["__main__"] = main  # so that what it pickles or looks up in `__main__` is found
    sys.argv = [recipe["name"]]
    exec(compiled(recipe["name"], recipe["body"]), main.__dict__)


def _run_notebook(current: CurrentJob, recipe: Mapping[str, Any], specification: Mapping[str, Any]) -> None:
    """Execute the notebook with its parameters replaced, and keep it, executed, beside the data."""
    from hiss.meow_bridge.notebook import execute
    from hiss.meow_bridge.trigger import JOBS_PART

    executed = execute(recipe["name"], recipe["body"], current.variables, Path(specification["report"]).parent)
    kept_as = f"{current.collection}/{JOBS_PART}/{current.id}.ipynb"
    current.output_bytes(kept_as, executed, "application/x-ipynb+json")


def command_words(words: Sequence[str], variables: Mapping[str, Any]) -> list[str]:
    """A command line with `{name}` replaced where there is such a variable: strings as they are, others as JSON."""

    def text(match: re.Match[str]) -> str:
        if match[1] not in variables:
            return match[0]
        value = variables[match[1]]
        return value if isinstance(value, str) else json.dumps(value)

    return [_WORD_VARIABLE.sub(text, word) for word in words]


def _run_command(current: CurrentJob, recipe: Mapping[str, Any], specification: Mapping[str, Any]) -> None:
    """Become the command. There is no shell."""
    words = command_words(json.loads(recipe["body"]), current.variables)
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise InvalidRecipe(f"recipe {recipe['name']!r}: {words[0]!r} cannot be run: {error}") from None


# ---------------------------------------------------------------------------------------------------------- process


def main() -> int:
    """Read the specification, run the recipe, report. Returns the exit status."""
    global _current
    specification = json.load(sys.stdin.buffer)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _current = CurrentJob(specification)
    try:
        run_recipe(_current, specification["recipe"], specification)
    except SystemExit as leave:
        if leave.code in (None, 0):
            return 0
        _report(specification, f"sys.exit({leave.code!r})")
        return leave.code if isinstance(leave.code, int) and 0 < leave.code < 128 else 1
    except BaseException as error:
        print_recipe_traceback(error)
        _report(specification, _sentence(error))
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _sentence(error: BaseException) -> str:
    if isinstance(error, HissError):
        return f"{type(error).__name__}: {error}"
    sentence = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, NameError):
        sentence += " (a function recipe brings its own source only: import inside of it)"
    return sentence


def _report(specification: Mapping[str, Any], sentence: str) -> None:
    Path(specification["report"]).write_text(sentence[: limits.JOB_ERROR_CHARS_MAX], "utf-8", "replace")


sys.modules[__name__].__class__ = _CallableModule

if __name__ == "__main__":
    from hiss.job import main as run  # the one module that recipes import too, so that both see the same job

    sys.exit(run())

"""How recipes run in a job's process: functions, scripts, notebooks, commands. One thread.

Called by `hiss.job_process`, which has made the job known.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hiss.errors import InvalidRecipe
from hiss.job import CurrentJob
from hiss.meow_bridge.file_paths import is_file
from hiss.meow_bridge.recipe_source import compiled

_WORD_VARIABLE: Final = re.compile(r"\{([A-Za-z_]\w*)\}")


class CommandFailed(Exception):
    """A command ended with a status other than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(f"its process ended with status {status}")
        self.status = status


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
    if (
        specification["input"] in arguments
        and specification["version"]
        and recipe["input_as"] == "stream"
        and not is_file(specification["path"])
    ):
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

    executed = execute(recipe["name"], recipe["body"], current.variables, Path(specification["directory"]))
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
    """Run the command, and end as it ended. There is no shell."""
    words = command_words(json.loads(recipe["body"]), current.variables)
    try:
        status = subprocess.run(words, check=False).returncode
    except OSError as error:
        raise InvalidRecipe(f"recipe {recipe['name']!r}: {words[0]!r} cannot be run: {error}") from None
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -status)
    if status:
        raise CommandFailed(status)

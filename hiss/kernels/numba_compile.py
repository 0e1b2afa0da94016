"""The process that compiles: imports generated files, so that Numba fills its cache beside them.

Run by path as a script: `python -P numba_compile.py FILE…`. Prints one line for each file: its path and `ok`, or the
error. It imports nothing of hiss; only files that `numba_backend` wrote are given to it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load(path: Path) -> ModuleType:
    """Import a generated file under its own name. Compiles it, unless Numba's cache has it.

    The module is registered while it is imported: Numba names functions by it in the cache.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def main(paths: list[str]) -> None:
    for path in paths:
        try:
            load(Path(path))
            result = "ok"
        except Exception as error:  # the parent decides what it means
            result = f"{type(error).__name__}: {error}".replace("\n", " ")[:2000]
        print(f"{path}\t{result}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

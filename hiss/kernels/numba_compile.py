"""The process that compiles: imports generated files, so that Numba fills its cache beside them.

Run by path as a script: `python -P numba_compile.py`. Reads paths, one a line, and prints for each its path and `ok`,
or the error, until its input ends. It imports nothing of hiss; only files that `numba_backend` wrote are given to it.
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


def _same(value: int) -> int:
    return value


def main() -> None:
    import numba

    numba.njit("int64(int64)")(_same)  # so that the compiler is loaded before a kernel waits for it
    for line in sys.stdin:
        path = line.rstrip("\n")
        try:
            load(Path(path))
            result = "ok"
        except Exception as error:  # the parent decides what it means
            result = f"{type(error).__name__}: {error}".replace("\n", " ")[:2000]
        print(f"{path}\t{result}", flush=True)


if __name__ == "__main__":
    main()

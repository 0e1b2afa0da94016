"""The primitives of whole arrays: a result whose elements depend on many elements of the operands.

One row gives an operation everywhere: the dtype and shape of the result, its meaning in NumPy, its cost. The rows come
in families, a module each; every back end has, for each family, a module that prints it (`numba_indexed` …). Operands
lie contiguously in buffers, single values come as values; `attrs` are static. How the functions of the language use
them is in the `lowering` modules, where also everything is checked that a user may get wrong. Constant after import.
"""

from __future__ import annotations

from typing import Final

from hiss.kernels import (
    arrays_groups,
    arrays_indexed,
    arrays_ordered,
    arrays_ranks,
    arrays_recursive,
    arrays_windows,
)
from hiss.kernels.arrays_rows import ArrayPrimitive
from hiss.kernels.primitives import PRIMITIVES, REDUCTIONS

_ROWS: Final = (
    *arrays_indexed.ROWS,
    *arrays_ordered.ROWS,
    *arrays_windows.ROWS,
    *arrays_ranks.ROWS,
    *arrays_groups.ROWS,
    *arrays_recursive.ROWS,
)
ARRAYS: Final[dict[str, ArrayPrimitive]] = {row.name: row for row in _ROWS}
assert len(ARRAYS) == len(_ROWS), "two rows of one name"
assert not set(ARRAYS) & (set(PRIMITIVES) | set(REDUCTIONS))

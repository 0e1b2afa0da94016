"""How Numba's Python says the keys of `sort_keys`: expressions, for one value. Constant; any thread."""

from __future__ import annotations

from hiss.kernels.dtypes import BOOL, DType
from hiss.kernels.sort_keys import key_dtype, sign_bit


def to_key(dtype: DType, name: str) -> str:
    """The key of a value, which is a name."""
    cls = f"np.{key_dtype(dtype).name}"
    top = f"{cls}({sign_bit(dtype)})"
    if dtype.kind in "bu":
        return f"{cls}({name})"
    if dtype.kind == "i":
        return f"{cls}({cls}({name}) ^ {top})"
    bits = f"np.{dtype.name}({name}).view({cls})"
    every = f"{cls}({2 * sign_bit(dtype) - 1})"
    return f"{every} if {name} != {name} else ({cls}(~{bits}) if {bits} >= {top} else {cls}({bits} | {top}))"


def from_key(dtype: DType, name: str) -> str:
    """The value of a key, which is a name."""
    cls = f"np.{key_dtype(dtype).name}"
    top = f"{cls}({sign_bit(dtype)})"
    if dtype == BOOL:
        return f"{name} != {cls}(0)"
    if dtype.kind == "u":
        return name
    if dtype.kind == "i":
        return f"np.{dtype.name}({cls}({name} ^ {top}))"
    return f"{cls}({cls}({name} ^ {top}) if {name} >= {top} else {cls}(~{name})).view(np.{dtype.name})"

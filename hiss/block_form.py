"""What a producer may give for a block and its columns: checked, and brought into the stream's form.

Called by `writer` from its user's thread; keeps nothing between calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss.errors import SpecMismatch
from hiss.model import ByteArray, Column, FrameSpec, columns_dtype


class BlockForm:
    """The form of one stream's blocks.

    Parameters
    ----------
    what : str
        Whose blocks they are, for errors.
    frame : FrameSpec
        As the producer sends them.
    columns : tuple of Column

    Raises
    ------
    SpecMismatch
        By every method: dtype, shape or columns are not the stream's.
    """

    def __init__(self, what: str, frame: FrameSpec, columns: tuple[Column, ...]) -> None:
        self._what = what
        self._frame = frame
        self._dtype = frame.numpy_dtype
        self._shape = None if frame.opaque else frame.shape  # of arrays
        self._is_bytes = self._dtype == np.uint8 and len(frame.shape) == 1  # a block is its bytes as it comes
        self._columns_dtype = columns_dtype(columns)
        self._names = tuple(column.name for column in columns)

    def view(self, block: Any) -> ByteArray:
        """One block's bytes, copied only where they do not lie in a row."""
        alike = type(block) is np.ndarray and block.dtype == self._dtype and block.shape == self._shape
        if alike and block.flags.c_contiguous:  # as most are
            flat: ByteArray = block if self._is_bytes else block.reshape(-1).view(np.uint8)
            return flat
        if self._frame.opaque:
            if isinstance(block, np.ndarray) or not isinstance(block, bytes | bytearray | memoryview):
                raise SpecMismatch(f"{self._what} takes bytes, not {type(block).__name__}")
            return np.frombuffer(block, np.uint8)
        array = np.asarray(block)
        shape = self._frame.shape
        fits = array.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != self._dtype:
            raise self._mismatch(f"a block {array.dtype} {array.shape}", str(shape))
        return np.ascontiguousarray(array, self._dtype).reshape(-1).view(np.uint8)

    def stack(self, blocks: npt.ArrayLike) -> npt.NDArray[Any]:
        """Several blocks of one length, `(n, *shape)`, as an array of the stream's dtype."""
        if self._frame.variable:
            raise SpecMismatch(f"{self._what}: blocks of a variable length are appended one by one")
        array = np.asarray(blocks)
        if array.ndim == 0 or array.shape[1:] != self._frame.shape or array.dtype != self._dtype:
            raise self._mismatch(f"an array {array.dtype} {array.shape}", f"(n, *{self._frame.shape})")
        return array

    def row(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """One block's columns, in their order."""
        if not values and not self._names:
            return ()
        self._check_columns(values)
        return tuple(values[name] for name in self._names)

    def rows(self, values: Mapping[str, Any], count: int) -> npt.NDArray[np.void]:
        """The columns of `count` blocks; a single value is that of all."""
        self._check_columns(values)
        rows = np.zeros(count, self._columns_dtype)
        for name in self._names:
            value = np.asarray(values[name])
            if value.shape not in ((), (count,)):
                raise SpecMismatch(f"{self._what}: column {name!r} has shape {value.shape}, not ({count},)")
            rows[name] = value
        return rows

    def _check_columns(self, values: Mapping[str, Any]) -> None:
        names = set(self._names)
        if values.keys() != names:
            missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
            raise SpecMismatch(
                f"{self._what}: columns missing: {missing}, unknown: {unknown}; the stream has {sorted(names)}"
            )

    def _mismatch(self, found: str, expected: str) -> SpecMismatch:
        return SpecMismatch(
            f"{self._what}: {found}, expected {expected} of {self._dtype}; convert it, or create the stream with that "
            "dtype and shape"
        )

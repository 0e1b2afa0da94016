"""Arrays that kernels take as parameters: one `.npy` file each, stored once, named by the digest of its bytes.

Any thread. A file appears whole or not at all, and is checked whenever it is read.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hiss.blocks.files import OS_FILES
from hiss.errors import CatalogDamaged, InvalidInput, NotFound

_DIGEST_BYTES = 16


class ArrayStore:
    """The arrays in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True, mode=0o700)
        OS_FILES.fsync_directory(directory.parent)
        for leftover in directory.glob("*.new"):  # of a write that a crash cut
            leftover.unlink()

    def put(self, array: npt.NDArray[Any]) -> str:
        """Store an array, durable on return; the digest that it is found by. `InvalidInput` for object arrays."""
        if array.dtype.hasobject:
            raise InvalidInput("an array of Python objects cannot be stored; give it a numeric dtype")
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(array), version=(1, 0), allow_pickle=False)
        data = buffer.getbuffer()
        digest = _digest(data)
        path = self._directory / f"{digest}.npy"
        if not path.exists():
            self._write(path, data)
        return digest

    def _write(self, path: Path, data: memoryview) -> None:
        new = path.with_name(f"{path.stem}-{secrets.token_hex(4)}.new")
        try:
            with open(new, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        OS_FILES.fsync_directory(self._directory)

    def get(self, digest: str) -> npt.NDArray[Any]:
        """The array of that digest, read-only.

        Raises
        ------
        NotFound
            There is none.
        CatalogDamaged
            Its file is not what was written.
        """
        path = self._directory / f"{digest}.npy"
        if len(digest) != 2 * _DIGEST_BYTES or not set(digest) <= set("0123456789abcdef") or not path.exists():
            raise NotFound(f"no array {digest[:64]!r} is stored", digest=digest[:64])
        data = path.read_bytes()
        if _digest(data) != digest:
            raise CatalogDamaged(
                f"{path}: its bytes do not have the digest in its name; put it back from a copy", path=str(path)
            )
        array: npt.NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        array.flags.writeable = False
        return array


def _digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()

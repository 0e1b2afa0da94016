"""Which HDF5 filters a drained dataset gets.

`auto` is bitshuffle+LZ4 where `hdf5plugin` is installed (https://github.com/kiyo-masui/bitshuffle, filter 32008), else
gzip with shuffle, which every HDF5 reader understands. Pure; called from the thread that drains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hiss.errors import InvalidInput, MissingExtra

NAMES: Final = ("auto", "none", "gzip", "bitshuffle-lz4")
_GZIP_LEVEL: Final = 1  # higher levels cost several times the time for a few percent on detector frames


def filters(name: str) -> tuple[str, Mapping[str, Any]]:
    """The name of the chosen compression and h5py's keyword arguments for it.

    Raises
    ------
    InvalidInput
        `name` is not one of `NAMES`.
    MissingExtra
        bitshuffle+LZ4 was asked for by name and `hdf5plugin` is not installed.
    """
    if name == "none":
        return name, {}
    if name in ("auto", "bitshuffle-lz4"):
        try:
            import hdf5plugin
        except ImportError:
            if name == "bitshuffle-lz4":
                raise MissingExtra(
                    "compression 'bitshuffle-lz4' needs hdf5plugin: pip install hdf5plugin", package="hdf5plugin"
                ) from None
        else:
            return "bitshuffle-lz4", dict(hdf5plugin.Bitshuffle(nelems=0, cname="lz4"))
        name = "gzip"
    if name == "gzip":
        return name, {"compression": "gzip", "compression_opts": _GZIP_LEVEL, "shuffle": True}
    raise InvalidInput(f"compression {name!r}: expected one of {', '.join(NAMES)}")

"""Which HDF5 filters a drained dataset gets.

`auto` is bitshuffle+LZ4 where `hdf5plugin` is installed (https://github.com/kiyo-masui/bitshuffle, filter 32008), else
gzip with shuffle, which every HDF5 reader understands. Pure; called from the thread that drains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hiss.errors import InvalidInput, MissingExtra

NAMES: Final = ("auto", "none", "gzip", "zstd", "bitshuffle-lz4")
_LEVEL: Final = 1  # of gzip and zstd; higher ones cost several times the time for a few percent on detector frames


def filters(name: str) -> tuple[str, Mapping[str, Any]]:
    """The name of the chosen compression and h5py's keyword arguments for it.

    Raises
    ------
    InvalidInput
        `name` is not one of `NAMES`.
    MissingExtra
        bitshuffle+LZ4 or zstd was asked for by name and `hdf5plugin` is not installed.
    """
    if name not in NAMES:
        raise InvalidInput(f"compression {name!r}: expected one of {', '.join(NAMES)}")
    if name == "none":
        return name, {}
    if name in ("auto", "bitshuffle-lz4", "zstd"):
        try:
            import hdf5plugin
        except ImportError:
            if name != "auto":
                raise MissingExtra(
                    f"compression {name!r} needs hdf5plugin: pip install 'hiss[hdf5]'", package="hdf5plugin"
                ) from None
        else:
            if name == "zstd":
                return name, {"shuffle": True, **hdf5plugin.Zstd(clevel=_LEVEL)}
            return "bitshuffle-lz4", dict(hdf5plugin.Bitshuffle(nelems=0, cname="lz4"))
    return "gzip", {"compression": "gzip", "compression_opts": _LEVEL, "shuffle": True}

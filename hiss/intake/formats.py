"""Which module reads a file: by the end of its name, else by its first bytes; what nobody knows is bytes.

Called from the thread that puts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from hiss.errors import InvalidInput
from hiss.intake.opaque import open_bytes
from hiss.intake.parts import Part, Wishes

Opener = Callable[[Path, str, Wishes], AbstractContextManager[list[Part]]]


def _hdf5(path: Path, member: str, wishes: Wishes) -> AbstractContextManager[list[Part]]:
    from hiss.intake.hdf5 import open_hdf5

    return open_hdf5(path, member, wishes)


def _npy(path: Path, member: str, wishes: Wishes) -> AbstractContextManager[list[Part]]:
    from hiss.intake.numpy_files import open_npy

    return open_npy(path, member, wishes)


def _npz(path: Path, member: str, wishes: Wishes) -> AbstractContextManager[list[Part]]:
    from hiss.intake.numpy_files import open_npz

    return open_npz(path, member, wishes)


def _tiff(path: Path, member: str, wishes: Wishes) -> AbstractContextManager[list[Part]]:
    from hiss.intake.images import open_tiff

    return open_tiff(path, member, wishes)


def _fabio(path: Path, member: str, wishes: Wishes) -> AbstractContextManager[list[Part]]:
    from hiss.intake.images import open_by_fabio

    return open_by_fabio(path, member, wishes)


def _tpx3(path: Path, member: str, wishes: Wishes) -> AbstractContextManager[list[Part]]:
    from hiss.intake.events import open_tpx3

    return open_tpx3(path, member, wishes)


_BY_SUFFIX: Final[dict[str, Opener]] = {
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".hdf": _hdf5,
    ".nxs": _hdf5,
    ".nx5": _hdf5,
    ".nexus": _hdf5,
    ".npy": _npy,
    ".npz": _npz,
    ".tif": _tiff,
    ".tiff": _tiff,
    ".cbf": _fabio,
    ".edf": _fabio,
    ".mccd": _fabio,
    ".mar3450": _fabio,
    ".tpx3": _tpx3,
}
_BY_CONTENT: Final[tuple[tuple[bytes, Opener], ...]] = (
    (b"\x89HDF\r\n\x1a\n", _hdf5),
    (b"\x93NUMPY", _npy),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"###CBF", _fabio),
)
_WITH_MEMBERS: Final = (_hdf5, _npz, _tiff)


@contextmanager
def open_source(text: str, wishes: Wishes) -> Iterator[list[Part]]:
    """Open `FILE[::MEMBER]`: its parts, for as long as the context lasts.

    Raises
    ------
    InvalidInput
        No such file or member, columns of a file that has none, or whatever the format's module says.
    MissingExtra
    """
    name, separator, member = text.partition("::")
    path = Path(name)
    if not path.is_file():
        raise InvalidInput(f"{name}: there is no such file")
    opener = open_bytes if wishes.as_bytes else _opener(path)
    if separator and opener not in _WITH_MEMBERS:
        opener = _hdf5  # whoever names a dataset means HDF5, whatever the file is called
    if wishes.columns and opener is not _hdf5:
        raise InvalidInput("--column takes datasets of an HDF5 file: name it as FILE::DATASET")
    with opener(path, member, wishes) as parts:
        yield parts


def _opener(path: Path) -> Opener:
    by_name = _BY_SUFFIX.get(path.suffix.lower())
    if by_name is not None:
        return by_name
    with path.open("rb") as file:
        head = file.read(16)
    return next((opener for magic, opener in _BY_CONTENT if head.startswith(magic)), open_bytes)

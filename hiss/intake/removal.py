"""Files are removed when, and only when, what was asked for was acknowledged.

A file is first moved into the state directory, where no new writer finds it, then looked at: only what is as it was
read, and open for writing nowhere, is removed; else it is put back. What a crash left in between is dealt with at the
next start. Called from the thread that watches.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from hiss.intake.settling import identity_of
from hiss.intake.watch_state import Taken, WatchState
from hiss.open_files import is_being_written

_BESIDE_MAX: Final = 1000  # names that are tried for a file that is put back


class Removal:
    """
    Parameters
    ----------
    directory : path
        That is watched.
    aside : path
        On the same file system; made when it is needed.
    state : WatchState
    """

    def __init__(self, directory: Path, aside: Path, state: WatchState) -> None:
        self._directory = directory
        self._aside = aside
        for left in sorted(aside.iterdir()) if aside.is_dir() else ():
            file = state.file(int(left.name)) if left.name.isdigit() else None
            if file is not None:
                self._judge(file, left)

    def remove(self, file: Taken) -> bool:
        """Remove a file that is safe; False where it stays, as it is open for writing, or not what was stored."""
        path, aside = self._directory / file.path, self._aside / str(file.id)
        found = identity_of(str(path))
        if found is None:
            return True
        if found != file.identity or is_being_written(str(path)):
            return False
        self._aside.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            path.unlink()  # on another file system than the directory: without the way round
            return True
        return self._judge(file, aside)

    def _judge(self, file: Taken, aside: Path) -> bool:
        same = file.state == "stored" and identity_of(str(aside)) == file.identity
        if same and not is_being_written(str(aside)):
            aside.unlink()
            return True
        _put_back(aside, self._directory / file.path)
        return False


def _put_back(aside: Path, path: Path) -> None:
    """Under its name, or where that is taken beside it; never over another file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in [path.name, *(f"{path.name}.{number}" for number in range(1, _BESIDE_MAX))]:
        try:
            os.link(aside, path.with_name(name))
        except FileExistsError:
            continue
        aside.unlink()
        return
    raise FileExistsError(f"{path} and {_BESIDE_MAX - 1} names beside it are taken; {aside} cannot be put back")

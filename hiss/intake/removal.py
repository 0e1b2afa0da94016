"""Files are removed when, and only when, what was asked for was acknowledged.

A file is first moved into the state directory, where no new writer finds it, then looked at: only what is as it was
read, and open for writing nowhere, is removed; else it is put back. What a crash left in between is dealt with at the
next start. Called from the thread that watches.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from hiss.intake.settling import identity_of
from hiss.intake.watch_state import Taken, WatchState
from hiss.open_files import is_being_written


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
        self._state = state
        for left in sorted(aside.iterdir()) if aside.is_dir() else ():
            file = self._state.file(int(left.name)) if left.name.isdigit() else None
            if file is not None:
                self._judge(file, left)

    def remove(self, file: Taken) -> bool:
        """Remove a file that is safe; False where it is not what was stored, and stays."""
        path, aside = self._directory / file.path, self._aside / str(file.id)
        found = identity_of(str(path))
        if found != file.identity:
            self._forget(file)
            return found is None
        if is_being_written(str(path)):
            return False
        self._aside.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return False  # it went away just now; the next look sees it
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            path.unlink()  # of another file system than the directory: without the way round
            self._forget(file)
            return True
        return self._judge(file, aside)

    def _judge(self, file: Taken, aside: Path) -> bool:
        same = file.state == "stored" and identity_of(str(aside)) == file.identity
        if same and not is_being_written(str(aside)):
            aside.unlink()
            self._forget(file)
            return True
        _put_back(aside, self._directory / file.path)
        if not same:
            self._forget(file)  # other content: it is taken as a new file
        return False

    def _forget(self, file: Taken) -> None:
        with self._state.transaction():
            self._state.forget(file)


def _put_back(aside: Path, path: Path) -> None:
    """Under its name, or where that is taken beside it; never over another file."""
    names: list[Callable[[], Path]] = [lambda: path]
    names += [lambda number=number: path.with_name(f"{path.name}.{number}") for number in range(1, 1000)]  # type: ignore[misc]
    for name in names:
        try:
            os.link(aside, name())
        except FileExistsError:
            continue
        aside.unlink()
        return
    raise FileExistsError(f"{path} and 999 names beside it are taken; {aside} cannot be put back")

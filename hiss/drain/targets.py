"""Where drained files are put: the one boundary between draining and permanent storage.

Two implementations: `LocalTarget` here, and `s3_target.S3Target`; one suite tests them. Both promise that under the
target's name there is never half of a file, and never one that was not read back from there and compared, unless a
process is killed in between: then `clean`, with the same token, removes what it left. A target is made for one drain
and used by the thread that drains.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hiss.drain.frames import Progress
from hiss.drain.publish import published, remove, sync_tree, tree_bytes
from hiss.errors import InvalidInput, NotFound
from hiss.s3_options import S3Options

Step = Callable[[Path], None]


class Target(Protocol):
    """One place with a name, for a file or a tree of files."""

    @property
    def name(self) -> str:
        """The last part of where it is."""
        ...

    @property
    def location(self) -> str:
        """Where it is, as archives are recorded."""
        ...

    @property
    def in_one_step(self) -> bool:
        """Whether what is there stays whole until the new one has its place."""
        ...

    def exists(self) -> bool: ...

    def put(self, write: Step, compare: Step, *, overwrite: bool, progress: Progress) -> int:
        """Let `write` make the file at a local path; bring it to its place; let `compare` read what came back from
        there, and raise where it is not what was written. The bytes that it takes.

        `progress` is told of bytes that travel beside those of `write` and `compare`.

        Raises
        ------
        AlreadyExists
            It is there, and `overwrite` is False.
        Unavailable
            The place cannot be reached.
        """
        ...

    @property
    def touched(self) -> bool:
        """Whether what is under the target's name now may be what `put` made."""
        ...

    def clean(self) -> None:
        """Remove what a killed drain of the same token left behind, other than what has the target's name."""
        ...


class LocalTarget:
    """A file or directory of a file system that is mounted here.

    Parameters
    ----------
    file : Path
        The directory that it is in exists.
    token : str, optional
        Of whoever drains; part of the temporary names.
    """

    def __init__(self, file: Path, token: str | None = None) -> None:
        self._file = file.absolute()
        self._token = token or secrets.token_hex(4)
        self.touched = False

    @property
    def name(self) -> str:
        return self._file.name

    @property
    def location(self) -> str:
        return str(self._file)

    @property
    def in_one_step(self) -> bool:
        return True

    def exists(self) -> bool:
        return self._file.exists()

    def put(self, write: Step, compare: Step, *, overwrite: bool, progress: Progress) -> int:
        with published(self._file, overwrite=overwrite, token=self._token) as part:
            write(part)
            sync_tree(part)
            compare(part)
            size = tree_bytes(part)
        self.touched = True
        return size

    def clean(self) -> None:
        for kind in ("part", "old"):
            remove(self._file.parent / f".{self._file.name}.{self._token}.{kind}")


def target_of(
    url: str | Path, *, s3: S3Options | None = None, scratch: Path | None = None, token: str | None = None
) -> Target:
    """The target of a path or an `s3://BUCKET/KEY`; files on their way to the latter lie in `scratch`."""
    if not is_s3(url):
        return LocalTarget(Path(url), token)
    from hiss.drain.s3_target import S3Target

    return S3Target(str(url), s3 or S3Options(), scratch, token)


def is_s3(url: str | Path) -> bool:
    return isinstance(url, str) and url.startswith("s3://")


@contextmanager
def fetched(url: str | Path, *, s3: S3Options | None = None, scratch: Path | None = None) -> Iterator[Path]:
    """A local path with what is at `url`: itself, or a copy that is removed at the end. Raises `NotFound`."""
    if not is_s3(url):
        yield Path(url)
        return
    from hiss.drain.s3_target import S3Target

    with S3Target(str(url), s3 or S3Options(), scratch).fetched() as path:
        yield path


def make_parents(template: str, url: str) -> None:
    """Make the directories of a policy's local target, below the fixed part of its template, which must be there: a
    file system that is not mounted is not written under."""
    if is_s3(url):
        return
    fixed = template.partition("{")[0]
    root = Path(fixed) if fixed.endswith("/") else Path(fixed).parent
    if not root.is_dir():
        raise NotFound(f"{root}: there is no such directory, so {url} is not drained; create it, or mount it")
    try:
        Path(url).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{Path(url).parent}: cannot be made: {error}") from None

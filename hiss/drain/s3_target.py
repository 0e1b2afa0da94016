"""A target in an S3-compatible store, by obstore: objects that are whole or not there.

A file is written and closed in a scratch directory (HDF5 needs a file that it can seek in), sent as a multipart upload,
which becomes an object only when its last part is in, fetched back and compared; one that differs is deleted. A tree is
sent object by object; its manifest, without which it is no drained tree, is sent last, when all others were fetched
back and compared. So there has to be room for the file in the scratch directory, once. The store checks a SHA-256 of
every part that it gets. An upload that a killed process left unfinished is ended by `clean` (`s3_uploads`).
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from hiss import limits
from hiss.drain.frames import Progress
from hiss.drain.publish import remove, sync_tree, tree_bytes
from hiss.drain.s3_uploads import end_unfinished_uploads
from hiss.drain.targets import Step
from hiss.drain.zarr_format import MANIFEST
from hiss.errors import AlreadyExists, Damaged, HissError, InvalidInput, MissingExtra, PermissionRefused, Unavailable
from hiss.errors import NotFound as NothingThere
from hiss.s3_options import S3Options

P = ParamSpec("P")
R = TypeVar("R")
_READ_BYTES: Final = limits.MiB


def _obstore() -> Any:
    try:
        import obstore
        import obstore.store
    except ImportError:
        raise MissingExtra("S3 needs obstore: pip install 'hiss[s3]'", package="obstore") from None
    return obstore


class S3Target:
    """
    Parameters
    ----------
    url : str
        `s3://BUCKET/KEY`.
    options : S3Options
    scratch : Path, optional
        A directory of this process's; by default one in the system's place for temporary files.
    token : str, optional
        Names what lies in `scratch`, so that it can be found again.
    """

    def __init__(self, url: str, options: S3Options, scratch: Path | None = None, token: str | None = None) -> None:
        self._bucket, _, key = url.removeprefix("s3://").partition("/")
        self._key = "/".join(part for part in key.split("/") if part)
        if not self._bucket or not self._key:
            raise InvalidInput(f"{url!r}: expected s3://BUCKET/KEY")
        self._options = options
        self._token = token or secrets.token_hex(4)
        self._scratch = scratch or Path(tempfile.gettempdir())
        self._obstore = _obstore()
        self._store = self._connect()
        self.touched = False

    def _connect(self) -> Any:
        given = self._options
        config = {
            "region": given.region,
            "checksum_algorithm": "sha256",
            "virtual_hosted_style_request": not given.endpoint,
        }
        for name in ("endpoint", "access_key_id", "secret_access_key", "session_token"):
            if getattr(given, name):
                config[name] = getattr(given, name)
        return self._obstore.store.S3Store(
            self._bucket,
            config=config,
            client_options={"allow_http": True, "timeout": timedelta(seconds=limits.S3_CALL_S)},
            retry_config={
                "max_retries": limits.S3_RETRIES_MAX,
                "retry_timeout": timedelta(seconds=limits.S3_RETRY_S),
            },
        )

    @property
    def name(self) -> str:
        return self._key.rpartition("/")[2]

    @property
    def location(self) -> str:
        return f"s3://{self._bucket}/{self._key}"

    @property
    def in_one_step(self) -> bool:
        return False

    def exists(self) -> bool:
        return self._head(self._key) is not None or bool(self._objects())

    def put(self, write: Step, compare: Step, *, overwrite: bool, progress: Progress) -> int:
        if not overwrite and self.exists():
            raise AlreadyExists(f"{self.location} is there already; choose another name, or overwrite it")
        with self._folder() as folder:
            part = folder / self.name
            write(part)
            sync_tree(part)
            self.touched = not overwrite  # nothing else was there
            try:
                send = self._send_tree if part.is_dir() else self._send_file
                return send(part, compare, progress)
            except BaseException:
                self._give_up()
                raise

    def clean(self) -> None:
        remove(self._scratch / f"hiss-{self._token}")
        end_unfinished_uploads(self._options, self._bucket, self._key)

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        """A copy in a local directory, which is removed at the end."""
        with self._folder() as folder:
            part = folder / self.name
            found = self._head(self._key)
            if found is not None:
                self._fetch(self._key, part, found["size"], lambda count: None)
            elif objects := self._objects():
                for key, size in objects.items():
                    self._fetch(key, part / key.removeprefix(f"{self._key}/"), size, lambda count: None)
            else:
                raise NothingThere(f"{self.location}: there is no such object, and nothing below it")
            yield part

    # ---- a file

    def _send_file(self, part: Path, compare: Step, progress: Progress) -> int:
        size = part.stat().st_size
        self._delete(list(self._objects()))  # of a tree that had this name
        self._upload(part, self._key, progress)
        self.touched = True
        remove(part)  # what is compared is what comes back
        self._fetch(self._key, part, size, progress)
        compare(part)
        return size

    # ---- a tree

    def _send_tree(self, part: Path, compare: Step, progress: Progress) -> int:
        total = tree_bytes(part)
        sizes = {each.relative_to(part): each.stat().st_size for each in sorted(part.rglob("*")) if each.is_file()}
        manifest = (part / MANIFEST).read_bytes()
        del sizes[Path(MANIFEST)]
        self._delete_all()
        self.touched = True
        for name in sizes:
            self._upload(part / name, f"{self._key}/{name.as_posix()}", progress)
        remove(part)
        for name, size in sizes.items():
            self._fetch(f"{self._key}/{name.as_posix()}", part / name, size, progress)
        (part / MANIFEST).write_bytes(manifest)
        compare(part)
        key = f"{self._key}/{MANIFEST}"
        self._call(self._obstore.put, self._store, key, manifest)
        if bytes(self._call(self._obstore.get, self._store, key).bytes()) != manifest:
            raise Damaged(f"s3://{self._bucket}/{key} read back is not what was sent; drain again")
        return total

    # ---- objects

    def _upload(self, file: Path, key: str, progress: Progress) -> None:
        size = file.stat().st_size
        chunk = max(limits.S3_PART_BYTES, -(-size // limits.S3_PARTS_MAX))

        def pieces() -> Iterator[bytes]:
            with file.open("rb") as opened:
                while piece := opened.read(_READ_BYTES):
                    progress(len(piece))
                    yield piece

        if size <= chunk:
            progress(size)
            self._call(self._obstore.put, self._store, key, file.read_bytes(), use_multipart=False)
        else:
            self._call(
                self._obstore.put, self._store, key, pieces(), use_multipart=True, chunk_size=chunk,
                max_concurrency=limits.S3_PARTS_AT_ONCE,
            )  # fmt: skip

    def _fetch(self, key: str, file: Path, size: int, progress: Progress) -> None:
        """Copy an object of so many bytes; every part is a request, and tried again, by itself."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            while (start := out.tell()) < size:
                length = min(limits.S3_PART_BYTES, size - start)
                piece = self._call(self._obstore.get_range, self._store, key, start=start, length=length)
                out.write(piece)
                progress(len(piece))

    def _head(self, key: str) -> Any:
        try:
            return self._call(self._obstore.head, self._store, key)
        except FileNotFoundError:
            return None

    def _objects(self) -> dict[str, int]:
        """The keys below this one, with their sizes."""
        pages = self._call(lambda: list(self._obstore.list(self._store, f"{self._key}/")))
        return {found["path"]: found["size"] for page in pages for found in page}

    def _delete_all(self) -> None:
        """A tree's manifest first, so that what is left of it is no drained tree."""
        manifest = f"{self._key}/{MANIFEST}"
        found = list(self._objects())
        self._delete([key for key in found if key == manifest])
        self._delete([key for key in found if key != manifest])
        if self._head(self._key) is not None:
            self._delete([self._key])

    def _delete(self, keys: list[str]) -> None:
        if keys:
            self._call(self._obstore.delete, self._store, keys)

    def _give_up(self) -> None:
        """Take back what was sent, as far as the store can be reached; `clean` and the next attempt do the rest."""
        try:
            end_unfinished_uploads(self._options, self._bucket, self._key)
            if self.touched:
                self._delete_all()
                self.touched = False
        except (HissError, OSError):
            return

    # ---- around

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = self._scratch / f"hiss-{self._token}"
        remove(folder)
        folder.mkdir(parents=True, mode=0o700)
        try:
            yield folder
        finally:
            remove(folder)

    def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Whatever obstore raises becomes one of ours; an object that is not there a `FileNotFoundError`."""
        kinds = self._obstore.exceptions
        try:
            return function(*args, **kwargs)
        except FileNotFoundError:
            raise
        except (kinds.UnauthenticatedError, kinds.PermissionDeniedError) as error:
            raise PermissionRefused(f"{self.location}: refused: {_short(error)}; check the keys in [s3]") from None
        except kinds.BaseError as error:
            raise Unavailable(f"{self.location}: {_short(error)}") from None


def _short(error: Exception) -> str:
    """Without the lines for obstore's makers."""
    return " ".join(str(error).partition("Debug source:")[0].split())[:300]

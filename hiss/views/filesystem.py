"""Streams as files of fsspec: `hiss://HOST[:PORT]/COLLECTION/STREAM`.

Collections are directories. A stream of bytes without a dtype is a file of its name, its blocks one after another; one
of blocks of one shape is listed as `NAME.npy`; packets of variable length are a file of their name, their items. Every
stream can also be opened by its bare name, as its blocks' bytes; `NAME@2` and `NAME@2.npy` are version 2. A name that a
stream has itself goes before these. Writing makes a sealed stream of bytes, a new version where the name is taken.
fsspec: https://filesystem-spec.readthedocs.io.

File systems may be used by any thread, a file by one at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from hiss import limits
from hiss.client import Collection
from hiss.errors import HissError, InvalidName, NotFound
from hiss.model import CollectionInfo, StreamInfo, split_stream_path
from hiss.store import Store
from hiss.views.cache import DiskCache
from hiss.views.content import Content, content_bytes, stored_bytes
from hiss.views.source import SCHEME, Source, parse_url
from hiss.writer import StreamWriter

_NPY: Final = ".npy"
_VERSION: Final = re.compile(r"(.+)@([0-9]+)")


class HissFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The streams of one buffer.

    Parameters
    ----------
    host, port : str, int, optional
        Of the server, as the URL names them.
    address : str, optional
        `HOST:PORT` or `unix:PATH`; by default `HISS_ADDRESS`, else `localhost:5001`.
    token : str, optional
        By default as for `hiss.connect`. A file system that is pickled takes it along.
    cache_dir : path, optional
        Where pieces of final streams are kept between runs, beside the memory.
    cache_bytes : int
        That those may take.
    """

    protocol = SCHEME
    root_marker = "/"

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        address: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int = limits.VIEW_DISK_CACHE_BYTES,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if address is None and host is not None:
            address, _ = parse_url(f"{SCHEME}://{host}{f':{port}' if port else ''}/")
        self.source = Source.at(address, token)
        self._disk = None if cache_dir is None else DiskCache(Path(cache_dir), cache_bytes)

    @property
    def store(self) -> Store:
        return self.source.store

    # ---- names

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = os.fspath(path)
        if text.startswith(f"{SCHEME}://"):
            _, _, text = text.removeprefix(f"{SCHEME}://").partition("/")
        return "/" + text.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        if not path.startswith(f"{SCHEME}://"):
            return {}
        address, _ = parse_url(path)
        if address is None:
            return {}
        host, _, port = address.rpartition(":")
        return {"host": host, "port": int(port)}

    def unstrip_protocol(self, name: str) -> str:
        where = "" if self.source.address.startswith("unix:") else self.source.address
        return f"{SCHEME}://{where}{self._strip_protocol(name)}"

    @property
    def fsid(self) -> str:
        return f"{SCHEME}-{self.source.address}"

    def _stream(self, path: str) -> tuple[StreamInfo, bool]:
        """The stream of a file, and whether a .npy header belongs before it. Raises `FileNotFoundError`."""
        text = self._strip_protocol(path).strip("/")
        for name, npy in ((text, False), (text.removesuffix(_NPY), True)):
            if npy and name == text:
                continue
            numbered = _VERSION.fullmatch(name)
            for stream, version in ((name, None), *([(numbered[1], int(numbered[2]))] if numbered else [])):
                try:
                    split_stream_path(stream)
                    info = self.store.stream(stream, version)
                except (NotFound, InvalidName):
                    continue
                if not (npy and info.frame.variable):
                    return info, npy
        raise FileNotFoundError(errno.ENOENT, "no such stream", path)

    def _below(self, path: str) -> tuple[CollectionInfo | None, list[str]]:
        """The collection of that path, if there is one, and the names of what is directly below it."""
        inside = path.strip("/") and path.strip("/") + "/"
        found = {each.path: each for each in self.store.collections(path.strip("/"))}
        names = {each[len(inside) :].split("/")[0] for each in found if each.startswith(inside)}
        return found.get(path.strip("/")), sorted(names - {""})

    # ---- looking

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        try:
            info, npy = self._stream(path)
        except FileNotFoundError:
            collection, below = self._below(path)
            if collection is None and not below and path != "/":
                raise
            return self._directory(path)
        return self._file(path, info, npy, exact=True)

    def _file(self, path: str, info: StreamInfo, npy: bool, *, exact: bool) -> dict[str, Any]:
        return {
            "name": path,
            "type": "file",
            "size": content_bytes(self.store, info, npy) if exact else stored_bytes(info, npy),
            "created": _time(info.created_ns),
            "mtime": _time(info.final_ns or info.created_ns),
            "stream": info.path,
            "version": info.version,
            "state": info.state.name.lower(),
            "id": info.id,
            "digest": info.digest,
        }

    def _directory(self, path: str) -> dict[str, Any]:
        return {"name": path, "type": "directory", "size": 0}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        collection, below = self._below(path)
        if collection is None and not below and path != "/":
            found = [self.info(path)]
        else:
            top = "" if path == "/" else path
            found = [self._directory(f"{top}/{name}") for name in below]
            if collection is not None:
                found += self._files(path, self.store.streams(collection.path))
        return found if detail else [each["name"] for each in found]

    def _files(self, path: str, infos: list[StreamInfo]) -> Iterator[dict[str, Any]]:
        names = {info.name for info in infos}
        for info in infos:
            npy = not info.frame.variable and info.name + _NPY not in names
            yield self._file(f"{path}/{info.name}{_NPY if npy else ''}", info, npy, exact=False)

    def created(self, path: str) -> datetime:
        return _time(self._stream(path)[0].created_ns)

    def modified(self, path: str) -> datetime:
        info, _ = self._stream(path)
        return _time(info.final_ns or info.created_ns)

    def ukey(self, path: str) -> str:
        """The same as long as the content is."""
        info, npy = self._stream(path)
        return f"{info.id}-{info.digest or info.completeness.blocks}{_NPY if npy else ''}"

    checksum = ukey

    # ---- changing

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        collection, _ = self._below(self._strip_protocol(path))
        if collection is not None:
            raise FileExistsError(errno.EEXIST, "the collection is there already", path)
        self.makedirs(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        text = self._strip_protocol(path).strip("/")
        if not exist_ok and self._below(text)[0] is not None:
            raise FileExistsError(errno.EEXIST, "the collection is there already", path)
        if text:
            self.store.create_collection(text, {}, ())

    def rmdir(self, path: str) -> None:
        collection, below = self._below(self._strip_protocol(path))
        if collection is None and not below:
            raise FileNotFoundError(errno.ENOENT, "no such collection", path)
        if below or (collection is not None and collection.streams):
            raise OSError(errno.ENOTEMPTY, "the collection has streams, or others below it", path)
        if collection is not None:
            self.store.delete_collection(collection.path)

    def rm_file(self, path: str) -> None:
        """Delete a stream, all its versions, or the one that the name says."""
        info, _ = self._stream(path)
        one = _VERSION.search(self._strip_protocol(path).rpartition("/")[2]) is not None
        for each in self.store.streams(info.collection, all_versions=True):
            if each.name == info.name and (not one or each.version == info.version):
                self.store.delete_stream(each.id)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        if maxdepth is not None:
            raise NotImplementedError("maxdepth: a collection is deleted whole")
        for each in self.expand_path(path):
            if self.info(each)["type"] == "file":
                self.rm_file(each)
            elif not recursive:
                raise IsADirectoryError(errno.EISDIR, "a collection; rm(..., recursive=True) deletes it", each)
            else:
                inside = each.strip("/")
                below = [found.path for found in self.store.collections(inside)]
                for collection in sorted(below, reverse=True):
                    if f"{collection}/".startswith(f"{inside}/"):
                        self.store.delete_collection(collection)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        with self.open(path1, "rb") as source, self.open(path2, "wb") as target:
            shutil.copyfileobj(source, target, limits.VIEW_PIECE_BYTES)

    # ---- content

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str = "none",
        **kwargs: Any,
    ) -> HissFile:
        size, content = None, None
        if mode == "rb":
            info, npy = self._stream(path)
            content = Content(self.source, info, npy, self._disk)
            size = content.size
        elif mode == "xb" and self.exists(path):
            raise FileExistsError(errno.EEXIST, "the name is taken", path)
        elif mode == "ab":
            raise NotImplementedError("a sealed stream takes nothing more; write the whole file: its new version")
        return HissFile(
            self, path, mode, block_size or limits.VIEW_PIECE_BYTES, autocommit=autocommit, cache_type=cache_type,
            cache_options=cache_options, size=size, content=content,
        )  # fmt: skip

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        info, npy = self._stream(path)
        content = Content(self.source, info, npy, self._disk)
        first, last, _ = slice(start, end).indices(content.size)
        return content.read(first, last)

    def cat_ranges(
        self, paths: Any, starts: Any, ends: Any, max_gap: Any = None, on_error: str = "return", **kwargs: Any
    ) -> list[Any]:
        """The ranges, several at once; an error stands in the place of its range, unless `on_error` is `raise`."""
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)

        def one(path: str, start: int | None, end: int | None) -> Any:
            try:
                return self.cat_file(path, start, end)
            except Exception as error:  # fsspec's contract: in the place of the range
                if on_error == "return":
                    return error
                raise

        with ThreadPoolExecutor(limits.VIEW_READS_AT_ONCE, "hiss ranges") as threads:
            return list(threads.map(one, paths, starts, ends))


class HissFile(AbstractBufferedFile):  # type: ignore[misc]
    """A stream that is read, or one that becomes sealed when the file is closed.

    A `with` block that raises leaves nothing behind, as does a file that is written and never closed.
    """

    def __init__(self, fs: HissFileSystem, path: str, mode: str, *args: Any, content: Content | None = None,
                 **options: Any) -> None:  # fmt: skip
        self._content = content
        self._writer: StreamWriter | None = None
        super().__init__(fs, path, mode, *args, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        assert self._content is not None
        return self._content.read(start, end)

    def _initiate_upload(self) -> None:
        collection, name = split_stream_path(self.path.strip("/"))
        made = Collection(self.fs.store, self.fs.store.create_collection(collection, {}, ()))
        self._writer = made.create_stream(name, new_version=True)

    def _upload_chunk(self, final: bool = False) -> bool:
        assert self._writer is not None
        data = self.buffer.getvalue()
        try:
            for first in range(0, len(data), limits.VIEW_PIECE_BYTES):
                self._writer.append(data[first : first + limits.VIEW_PIECE_BYTES])
            if final and self.autocommit:
                self.commit()
        except HissError:
            with contextlib.suppress(HissError):
                self.discard()
            raise
        return True

    def commit(self) -> None:
        """Seal it; the name is that of this file from now on."""
        if self._writer is not None:
            self._writer.seal()
            self._writer = None

    def discard(self) -> None:
        """Forget what was written."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort("the file was not finished")
            self.fs.store.delete_stream(writer.info.id)
        self.closed = True

    def __exit__(self, kind: Any, *args: Any) -> None:
        if kind is not None and self.mode != "rb":
            self.discard()
        self.close()

    def __del__(self) -> None:
        if not self.closed and self.mode != "rb":
            with contextlib.suppress(Exception):  # the buffer may be gone, too
                self.discard()


def _time(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)

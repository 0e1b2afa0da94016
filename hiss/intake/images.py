"""Image files: TIFF through tifffile, and what fabio reads: CBF, EDF, MarCCD and others. Each image is a block.

Both packages are extras and imported when such a file comes. Called from the thread that puts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hiss import limits
from hiss.errors import InvalidInput, MissingExtra
from hiss.intake.attributes import bounded
from hiss.intake.parts import Part, Run, Wishes, array_part, stream_name
from hiss.model import Attrs, FrameSpec

_TIFF_TAGS = ("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist", "HostComputer")


@contextmanager
def open_tiff(path: Path, member: str, wishes: Wishes) -> Iterator[list[Part]]:
    """A TIFF file's pages, or those of its `member`-th series. One image of two dimensions is one block.

    Raises
    ------
    InvalidInput
        Not a TIFF file, or no such series.
    MissingExtra
    """
    tifffile = _extra("tifffile", "TIFF files")
    try:
        file = tifffile.TiffFile(path)
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        raise InvalidInput(f"{path}: not a TIFF file that can be read: {error}") from None
    with file:
        series = file.series
        number = int(member) if member.isdigit() else 0 if not member else -1
        if not 0 <= number < len(series):
            raise InvalidInput(f"{path}: no series {member!r}; it has {len(series)}, counted from 0")
        chosen = series[number]
        attrs = bounded(_tiff_attributes(chosen.keyframe))
        name, origin = stream_name(path.stem), f"{path}::{number}" if member else str(path)
        if wishes.whole or wishes.rows:
            yield [array_part(name, chosen.asarray(), wishes, attrs=attrs, origin=origin)]
        else:
            yield [_pages(name, chosen, attrs, origin)]


def _pages(name: str, series: Any, attrs: Attrs, origin: str) -> Part:
    """One block for each page, read one by one where the file has them one by one."""
    shape = tuple(int(size) for size in series.keyframe.shape)
    count = math.prod(series.shape) // max(1, math.prod(shape))
    if np.dtype(series.dtype).kind not in "biufc":
        raise InvalidInput(f"{origin}: dtype {series.dtype}: expected numbers; use --bytes to store the file as it is")
    frame = FrameSpec(np.dtype(series.dtype).str, shape)

    def runs() -> Iterator[Run]:
        if len(series.pages) != count:  # stored in one piece behind its first page
            stack = series.asarray().reshape(count, *shape)
            images: Iterator[Any] = iter(stack)
        else:
            images = (page.asarray() for page in series.pages)
        yield from _in_runs(images, frame)

    return Part(name, frame, count * frame.item_bytes, runs, attrs=attrs, origin=origin)


def _in_runs(images: Iterator[Any], frame: FrameSpec) -> Iterator[Run]:
    step = max(1, limits.INTAKE_RUN_BYTES // frame.item_bytes)
    waiting: list[Any] = []
    for image in images:
        waiting.append(np.ascontiguousarray(image, frame.numpy_dtype))
        if len(waiting) == step:
            yield Run(np.stack(waiting))
            waiting = []
    if waiting:
        yield Run(np.stack(waiting))


def _tiff_attributes(page: Any) -> dict[str, Any]:
    return {name: page.tags[name].value for name in _TIFF_TAGS if name in page.tags}


@contextmanager
def open_by_fabio(path: Path, member: str, wishes: Wishes) -> Iterator[list[Part]]:
    """A file of one or more images with headers; their entries become attributes of the stream.

    Raises
    ------
    InvalidInput
        fabio cannot read it, or its images differ.
    MissingExtra
    """
    fabio = _extra("fabio", f"{path.suffix or path.name} files")
    try:
        image = fabio.open(str(path))
    except Exception as error:  # fabio has no error of its own: what a format's reader meets comes out
        raise InvalidInput(f"{path}: fabio cannot read it: {' '.join(str(error).split())[:300]}") from None
    try:
        first = np.asarray(image.data)
        frame = FrameSpec(first.dtype.str, first.shape)
        count = int(image.nframes)

        def images() -> Iterator[Any]:
            for number in range(count):
                found = image.getframe(number).data if count > 1 else image.data
                if found.shape != first.shape or found.dtype != first.dtype:
                    raise InvalidInput(
                        f"{path}: image {number} is {found.dtype} {found.shape}, the first {first.dtype} {first.shape}"
                    )
                yield found

        attrs = bounded(_header(image.header))
        name = stream_name(path.stem)
        if wishes.whole or wishes.rows:
            stack = np.stack(list(images())) if count > 1 else first
            yield [array_part(name, stack, wishes, attrs=attrs, origin=str(path))]
        else:
            yield [
                Part(
                    name,
                    frame,
                    count * frame.item_bytes,
                    lambda: _in_runs(images(), frame),
                    attrs=attrs,
                    origin=str(path),
                )
            ]
    finally:
        image.close()


def _header(header: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that a header has as text, as numbers."""
    found: dict[str, Any] = {}
    for key, value in header.items():
        text = str(value).strip()
        try:
            found[str(key)] = int(text)
        except ValueError:
            try:
                found[str(key)] = float(text)
            except ValueError:
                found[str(key)] = text
    return found


def _extra(package: str, what: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingExtra(
            f"{what} need {package}, which is absent: pip install 'hiss[files]'", package=package
        ) from None

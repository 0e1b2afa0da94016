"""A block as a PNG: frames scaled between percentiles, rows as a line.

2-D: grey, from the 1st to the 99th percentile of the finite values; large frames are made smaller, small ones larger by
whole factors. Three or four planes of bytes in the last dimension are colours; of other stacks the first frame is
shown. 1-D: minimum and maximum of the values below each column of the picture. Complex numbers by their modulus.
Pure; any thread.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from hiss.errors import InvalidInput

SIDE_MAX: Final = 1600
_SIDE_MIN: Final = 256
_SAMPLES: Final = 1 << 20  # of which the percentiles are taken
_PLOT: Final = (800, 300)
_MARGIN: Final = 24
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def png_of(data: Any) -> bytes:
    """The PNG of a block: an array, or bytes that are one already."""
    if isinstance(data, bytes):
        if data.startswith(_PNG):
            return data
        raise InvalidInput("the blocks of this stream are bytes without a dtype, and the newest is no PNG")
    array = np.asarray(data)
    if array.dtype.kind == "c":
        array = np.abs(array)
    if array.size == 0:
        raise InvalidInput("the newest block is empty")
    if array.ndim <= 1:
        return _encoded(_plot(np.atleast_1d(array)))
    if array.ndim == 3 and array.shape[-1] in (3, 4) and array.dtype == np.uint8:
        return _encoded(_sized(Image.fromarray(np.ascontiguousarray(array))))
    return _encoded(_sized(_frame(array.reshape(-1, *array.shape[-2:])[0])))


def _frame(frame: npt.NDArray[Any]) -> Image.Image:
    step = max(1, -(-max(frame.shape) // (2 * SIDE_MAX)))  # enough is left to average
    low, high = _range(frame)
    values = frame[::step, ::step].astype(np.float64)
    with np.errstate(invalid="ignore"):
        grey = np.clip((values - low) * (255.0 / (high - low)), 0, 255)
    return Image.fromarray(np.nan_to_num(grey).astype(np.uint8))


def _range(array: npt.NDArray[Any]) -> tuple[float, float]:
    """What becomes black and what white; never the same."""
    sample = array.reshape(-1)[:: max(1, array.size // _SAMPLES)].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = np.percentile(sample, (1, 99)).tolist()
    if low == high:  # most of it is one value: what differs is seen all the same
        low, high = float(sample.min()), float(sample.max())
    return (low, high) if low < high else (low - 1.0, low + 1.0)


def _sized(image: Image.Image) -> Image.Image:
    if max(image.size) > SIDE_MAX:
        image.thumbnail((SIDE_MAX, SIDE_MAX), Image.Resampling.BOX)
    factor = _SIDE_MIN // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return image


def _plot(row: npt.NDArray[Any]) -> Image.Image:
    """A line over the index, with the lowest and highest value beside it."""
    values = row.astype(np.float64)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    width, height = _PLOT[0] - 2 * _MARGIN, _PLOT[1] - 2 * _MARGIN
    image = Image.new("L", _PLOT, 255)
    draw = ImageDraw.Draw(image)
    draw.rectangle((_MARGIN, _MARGIN, _PLOT[0] - _MARGIN, _PLOT[1] - _MARGIN), outline=160)
    draw.text((_MARGIN, 6), f"{high:g}", fill=0)
    draw.text((_MARGIN, _PLOT[1] - _MARGIN + 6), f"{low:g}", fill=0)
    draw.text((_PLOT[0] - _MARGIN - 60, _PLOT[1] - _MARGIN + 6), f"{len(row)} values", fill=0)
    scale = height / (high - low) if high > low else 0.0
    lines: list[tuple[float, float]] = []
    columns = min(width, len(values))
    for column, part in enumerate(np.array_split(values, columns)):
        part = part[np.isfinite(part)]
        x = _MARGIN + (column * width / max(1, columns - 1) if columns > 1 else width / 2)
        ends = dict.fromkeys((part.min(), part.max())) if part.size else ()
        lines.extend((x, _PLOT[1] - _MARGIN - (value - low) * scale) for value in ends)
    draw.line(lines, fill=0, width=1)
    if len(lines) == 1:
        draw.ellipse((lines[0][0] - 2, lines[0][1] - 2, lines[0][0] + 2, lines[0][1] + 2), fill=0)
    return image


def _encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=3)
    return out.getvalue()

# mypy: disallow-untyped-defs=False, check-untyped-defs=False
"""Event-mode detectors: the words of a Timepix3 stream taken apart, and pictures of its hits.

A word is 64 bits, little-endian, as SPIDR and Serval send them. Kind in bits 60 to 63: 0xb for a pixel's hit. Bits of
a hit: 0-15 SPIDR time (0.4096 ms), 16-19 fine time of arrival (1.5625 ns, counts back), 20-29 time over threshold
(25 ns), 30-43 time of arrival (25 ns), 44-59 the pixel. A chunk of words of one chip starts with a word whose lower
half is "TPX3" (0x33585054) and bits 32-39 the chip. T. Poikela et al., J. Instrum. 9 (2014) C05013,
doi:10.1088/1748-0221/9/05/C05013; Amsterdam Scientific Instruments, "Serval" manual.
Constant after import; any thread.
"""

from __future__ import annotations

import numpy as np

from hiss.kernels import hk
from hiss.kernels.authoring import kernel


@kernel
def tpx3_fields(words):
    """Each word of a Timepix3 stream as if it were a hit: its kind, chip, column, row, times.

    Parameters
    ----------
    words : uint64 (n,)
        Whole chunks, so that each hit's chip is known.

    Returns
    -------
    int64 (n, 6)
        Kind (11 for a hit); chip; x and y (pixels, 0 to 255, on the chip); time of arrival in 1.5625 ns, modulo
        2**34 of them (26.8 s); time over threshold in 25 ns. All but the first mean something for hits only.
    """
    header = hk.bits(words, 0, 32) == 0x33585054
    place = np.where(header, np.arange(words.shape[0]), 0)
    chip = np.take(hk.bits(words, 32, 8), np.maximum.accumulate(place))
    column = hk.bits(words, 53, 7) * 2 + hk.bits(words, 46, 1)
    row = hk.bits(words, 47, 6) * 4 + hk.bits(words, 44, 2)
    coarse = hk.bits(words, 0, 16) * 2**18 + hk.bits(words, 30, 14) * 16
    arrival = coarse.astype(np.int64) - hk.bits(words, 16, 4).astype(np.int64)
    kind, tot = hk.bits(words, 60, 4), hk.bits(words, 20, 10)
    return np.stack((kind, chip, column, row, arrival, tot), axis=1).astype(np.int64)


@kernel
def tpx3_hits(words, least=0):
    """The hits of a packet of Timepix3 words that are at least `least` long over the threshold; the rest is left out.

    For streams of packets: blocks of variable length.

    Parameters
    ----------
    words : uint64 (n,)
        Whole chunks, so that each hit's chip is known.
    least : int, 25 ns

    Returns
    -------
    int64 (hits, 5)
        Chip; x and y (pixels, 0 to 255, on the chip); time of arrival in 1.5625 ns, modulo 2**34 of them (26.8 s);
        time over threshold in 25 ns.
    """
    header = hk.bits(words, 0, 32) == 0x33585054
    place = np.where(header, np.arange(words.shape[0]), 0)
    chip = np.take(hk.bits(words, 32, 8), np.maximum.accumulate(place))
    column = hk.bits(words, 53, 7) * 2 + hk.bits(words, 46, 1)
    row = hk.bits(words, 47, 6) * 4 + hk.bits(words, 44, 2)
    coarse = hk.bits(words, 0, 16) * 2**18 + hk.bits(words, 30, 14) * 16
    arrival = coarse.astype(np.int64) - hk.bits(words, 16, 4).astype(np.int64)
    tot = hk.bits(words, 20, 10)
    hits = np.stack((chip, column, row, arrival, tot), axis=1).astype(np.int64)
    return hits[(hk.bits(words, 60, 4) == 0xB) & (tot >= least)]


@kernel
def tpx3_veto(words, least=20):
    """A packet of Timepix3 words without the hits that are shorter over the threshold than `least`; else as it came.

    For streams of packets: blocks of variable length.

    Parameters
    ----------
    words : uint64 (n,)
    least : int, 25 ns

    Returns
    -------
    uint64 (kept,)
    """
    return words[(hk.bits(words, 60, 4) != 0xB) | (hk.bits(words, 20, 10) >= least)]


@kernel
def tpx3_image(words, chips=4, least=0):
    """How many hits each pixel of a Timepix3 has, those with a time over threshold below `least` left out.

    Parameters
    ----------
    words : uint64 (n,)
        Whole chunks.
    chips : int
        Chips beyond do not count.
    least : int, 25 ns

    Returns
    -------
    uint32 (chips, 256, 256)
    """
    header = hk.bits(words, 0, 32) == 0x33585054
    place = np.where(header, np.arange(words.shape[0]), 0)
    chip = np.take(hk.bits(words, 32, 8), np.maximum.accumulate(place))
    column = hk.bits(words, 53, 7) * 2 + hk.bits(words, 46, 1)
    row = hk.bits(words, 47, 6) * 4 + hk.bits(words, 44, 2)
    wanted = (hk.bits(words, 60, 4) == 0xB) & (hk.bits(words, 20, 10) >= least)
    pixel = np.where(wanted, (chip * 256 + row) * 256 + column, chips * 65536)
    hits = hk.group_sum(np.ones_like(pixel, np.uint32), pixel, length=chips * 65536)
    return hits.astype(np.uint32).reshape(chips, 256, 256)

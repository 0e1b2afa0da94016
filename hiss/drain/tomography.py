"""The NXtomo view of a collection: one frame stack of darks, flats and projections, without copying them.

NXtomo (https://manual.nexusformat.org/classes/applications/NXtomo.html) wants all frames in one array with an
`image_key`: 0 projection, 1 flat, 2 dark. A collection whose attribute `definition` is `NXtomo` says with the attribute
`image_key` of its streams which is which; where a pipeline changed the projections, the raw companion counts. The stack
is a virtual dataset over the streams' own datasets, in the order dark, flat, projection. Every frame is mapped by
itself: `nexusformat` takes the number of mappings for the number of frames (4,000 of them open in 5 ms). Called from
the thread that drains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import h5py
import numpy as np

from hiss.drain.entry import add_group, free_name, link
from hiss.errors import InvalidInput
from hiss.model import StreamInfo

_ORDER: Final = (2, 1, 0)  # dark, flat, projection
_ANGLES: Final = ("rotation_angle", "angle", "theta")


def tomography_members(streams: Sequence[StreamInfo]) -> list[tuple[int, StreamInfo]]:
    """The streams that form the stack, with their image keys.

    Raises
    ------
    InvalidInput
        No projections, or frames of different shape or dtype.
    """
    by_id = {info.id: info for info in streams}
    members: dict[str, tuple[int, StreamInfo]] = {}
    for info in streams:
        key = info.attrs.get("image_key")
        if key not in _ORDER or info.raw_of is not None:
            continue
        source = by_id.get(info.raw_id or "", info) if info.stages else info
        members[source.id] = (int(key), source)
    found = sorted(members.values(), key=lambda member: (_ORDER.index(member[0]), member[1].path))
    if not any(key == 0 for key, _ in found):
        raise InvalidInput(
            "definition 'NXtomo': no stream has the attribute image_key = 0 (projections); give it to the streams, or "
            "leave the definition out"
        )
    frames = {info.frame for _, info in found}
    if len(frames) > 1:
        raise InvalidInput(
            f"definition 'NXtomo': frames differ in dtype or shape: {', '.join(info.path for _, info in found)}"
        )
    return found


def add_tomography(entry: h5py.Group, members: Sequence[tuple[int, StreamInfo, h5py.Group]], sample: str) -> str:
    """Add the NXtomo groups to `entry`; returns the name of the NXdata group that shows the stack.

    `members` are the image key, the stream and the group that holds its `data` and columns.
    """
    sources = [group["data"] for _, _, group in members]
    rows = sum(source.shape[0] for source in sources)
    layout = h5py.VirtualLayout((rows, *sources[0].shape[1:]), sources[0].dtype)
    keys = np.empty(rows, np.int64)
    angles = np.full(rows, np.nan)
    first = 0
    unit = "degree"
    for (key, info, group), source in zip(members, sources, strict=True):
        stop = first + source.shape[0]
        _map_frames(layout, first, source)
        keys[first:stop] = key
        column = next((name for name in _ANGLES if name in {column.name for column in info.columns}), None)
        if column is not None:
            angles[first:stop] = group[column][()]
            unit = {"deg": "degree"}.get(str(group[column].attrs.get("units", "")), unit)
        first = stop
    angles[np.isnan(angles)] = 0.0  # NXtomo wants a number for darks and flats too; image_key tells them apart
    instrument = entry["instrument"] if "instrument" in entry else add_group(entry, "instrument", "NXinstrument")
    detector = add_group(instrument, free_name(instrument, "detector"), "NXdetector")
    detector.create_virtual_dataset("data", layout)
    detector.create_dataset("image_key", data=keys)
    samples = add_group(entry, free_name(entry, "sample"), "NXsample")
    samples.create_dataset("name", data=sample, dtype=h5py.string_dtype())
    samples.create_dataset("rotation_angle", data=angles)
    samples["rotation_angle"].attrs["units"] = unit
    data = add_group(entry, free_name(entry, "data"), "NXdata")
    link(data, "data", detector["data"])
    link(data, "image_key", detector["image_key"])
    link(data, "rotation_angle", samples["rotation_angle"])
    data.attrs["signal"] = "data"
    data.attrs["axes"] = ["rotation_angle", *(["."] * (len(sources[0].shape) - 1))]
    data.attrs["rotation_angle_indices"] = 0
    data.attrs["image_key_indices"] = 0
    entry.create_dataset("definition", data="NXtomo", dtype=h5py.string_dtype())
    return str(data.name).rsplit("/", 1)[-1]


def _map_frames(layout: h5py.VirtualLayout, first: int, source: h5py.Dataset) -> None:
    view = h5py.VirtualSource(source)
    for place in range(source.shape[0]):
        layout[first + place] = view[place]

"""Where a file's own conventions say that its data is: NeXus, NXtomo, Data Exchange, PRODML's fibres.

Each finder looks at one open file and gives the signals that it finds, none where the file is not of its kind; the
first that finds some counts. Called from the thread that puts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import h5py
import numpy as np

from hiss.intake.parts import stream_name

_KEYS: Final = {0: "proj", 1: "flat", 2: "dark"}  # of NXtomo's image_key
_NAMED: Final = 64  # signals that one file may have


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """A dataset that is data, and what else of the file belongs to it."""

    name: str  # of its stream, where the user names none
    data: h5py.Dataset
    beside: tuple[h5py.Group, ...] = ()  # groups whose datasets of one value for each block are columns
    columns: Mapping[str, h5py.Dataset] = field(default_factory=dict)  # and these
    described_by: tuple[h5py.Group, ...] = ()  # groups whose single values are attributes
    rows: Any = None  # what is read instead of all of `data`
    chosen: Any = None  # which entries of the first axis that is
    attrs: Mapping[str, Any] = field(default_factory=dict)
    collection_attrs: Mapping[str, Any] = field(default_factory=dict)
    time_of_block: h5py.Dataset | None = None  # times along the first axis, also where that counts no blocks
    drained: bool = False  # from a buffer: the first axis counts blocks, however few dimensions there are
    offsets: Any = None  # of a drained stream whose blocks differ in length: where they begin and end

    @property
    def count(self) -> int:
        """How many blocks there are where there are many."""
        return len(self.data) if self.offsets is None else len(self.offsets) - 1


def signals(file: h5py.File, *, split: bool) -> list[Signal]:
    """What the file points at: with `split` all that it has, each under a name of its own, else the main one.

    Several detectors are several signals in either case: none of them is the main one.
    """
    for find in _FINDERS:
        if found := find(file, split):
            return found[:_NAMED]
    return []


def _by_image_key(signal: Signal) -> list[Signal]:
    """A tomography's one stack as darks, flats and projections."""
    keys = signal.columns["image_key"][()]
    names = {name: dataset for name, dataset in signal.columns.items() if name != "image_key"}
    found = []
    for key, name in sorted(_KEYS.items(), reverse=True):
        chosen = np.flatnonzero(keys == key)
        if len(chosen):
            found.append(
                Signal(
                    name,
                    signal.data,
                    columns=names,
                    described_by=signal.described_by,
                    rows=Rows(signal.data, chosen),
                    chosen=chosen,
                    attrs={"image_key": key},
                    collection_attrs={"definition": "NXtomo"},
                )
            )
    return found


class Rows:
    """Some entries of a dataset's first axis, ascending, as an array that is read when it is sliced."""

    def __init__(self, data: h5py.Dataset, chosen: Any) -> None:
        self._data, self._chosen = data, chosen
        self.dtype = data.dtype
        self.shape = (len(chosen), *data.shape[1:])
        self.ndim = data.ndim

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, rows: Any) -> Any:
        chosen = self._chosen[rows] if isinstance(rows, slice) else self._chosen
        edges = np.flatnonzero(np.diff(chosen) != 1) + 1
        runs = [self._data[int(run[0]) : int(run[-1]) + 1] for run in np.split(chosen, edges) if len(run)]
        return np.concatenate(runs) if runs else np.zeros((0, *self.shape[1:]), self.dtype)


# ---------------------------------------------------------------------------------------------------------- finders


def _tomography(file: h5py.File, split: bool) -> list[Signal]:
    for entry in _of_class(file, "NXentry", "NXsubentry"):
        definition = _text(entry["definition"][()]) if isinstance(entry.get("definition"), h5py.Dataset) else ""
        if definition != "NXtomo":
            continue
        for detector in _of_class(entry, "NXdetector"):
            key = detector.get("image_key")
            if isinstance(detector.get("data"), h5py.Dataset) and isinstance(key, h5py.Dataset):
                columns = {"image_key": key}
                for sample in _of_class(entry, "NXsample"):
                    if isinstance(sample.get("rotation_angle"), h5py.Dataset):
                        columns["rotation_angle"] = sample["rotation_angle"]
                samples = tuple(_of_class(entry, "NXsample"))
                described = (detector, *samples)
                signal = Signal("tomo", detector["data"], (detector,), columns, described)
                return _by_image_key(signal) if split else [signal]
    return []


def _default(file: h5py.File, split: bool) -> list[Signal]:
    """Follow `@default` from the root to an NXdata; without it the first NXentry and the first NXdata count."""
    if split:
        every = [(group, _signal_of(group)) for group in _of_class(file, "NXdata")]
        distinct: dict[h5py.Dataset, h5py.Group] = {}
        for group, data in every:
            if data is not None:
                distinct.setdefault(data, group)
        return [_signal(data, group) for data, group in distinct.items()]
    place: h5py.Group = file
    for _ in range(8):
        following = _member(place, "default")
        if isinstance(following, h5py.Dataset):
            return [_signal(following, place)]
        if not isinstance(following, h5py.Group):
            break
        place = following
    groups = [place] if _is(place, "NXdata") else [*_of_class(place, "NXdata"), *_of_class(file, "NXdata")]
    for group in groups:
        if (data := _signal_of(group)) is not None:
            return [_signal(data, group)]
    return []


def _signal_of(group: h5py.Group) -> h5py.Dataset | None:
    named = _member(group, "signal")
    if isinstance(named, h5py.Dataset):
        return named
    for item in group.values():
        if isinstance(item, h5py.Dataset) and _text(item.attrs.get("signal", "")) == "1":
            return item
    return None


def _signal(data: h5py.Dataset, group: h5py.Group) -> Signal:
    """With the detector whose `data` this is a link to, where there is one: it has more to say."""
    name = str(group.name).rsplit("/", 1)[-1] or str(data.name).rsplit("/", 1)[-1]
    detectors = [found for found in _of_class(group.file, "NXdetector") if found.get("data") == data]
    kept = group.get("attributes")
    described = (*([kept] if isinstance(kept, h5py.Group) else []), *detectors)
    drained = "hiss_path" in group.attrs and data.ndim > 0
    offset = group.get("offset") if drained else None
    offsets = offset[()] if isinstance(offset, h5py.Dataset) and offset.dtype.kind in "iu" and offset.size else None
    return Signal(
        stream_name(name), data, (group, *detectors), described_by=described, drained=drained, offsets=offsets
    )


def _detectors(file: h5py.File, split: bool) -> list[Signal]:
    found = []
    for detector in _of_class(file, "NXdetector"):
        data = detector.get("data")
        if isinstance(data, h5py.Dataset) and data.dtype.kind in "biufc":
            name = stream_name(str(detector.name).rsplit("/", 1)[-1])
            place = detector.get("translation/distance")
            offset = {"offset": place[()].tolist()} if isinstance(place, h5py.Dataset) and place.size <= 3 else {}
            found.append(Signal(name, data, (detector,), described_by=(detector,), attrs=offset))
    return found


def _data_exchange(file: h5py.File, split: bool) -> list[Signal]:
    data = file.get("exchange/data")
    if not isinstance(data, h5py.Dataset):
        return []
    theta = file.get("exchange/theta")
    columns = {"theta": theta} if isinstance(theta, h5py.Dataset) else {}
    members = [(2, "dark", "exchange/data_dark"), (1, "flat", "exchange/data_white"), (0, "proj", "exchange/data")]
    return [
        Signal(
            name,
            file[path],
            columns=columns if key == 0 else {},
            attrs={"image_key": key},
            collection_attrs={"definition": "NXtomo"},
        )
        for key, name, path in members
        if isinstance(file.get(path), h5py.Dataset) and (split or key == 0)
    ]


def _fibre(file: h5py.File, split: bool) -> list[Signal]:
    """PRODML's distributed acoustic sensing: `Acquisition/Raw[i]/RawData`, with the times of its first axis."""
    acquisition = file.get("Acquisition")
    found = []
    for name, group in acquisition.items() if isinstance(acquisition, h5py.Group) else ():
        data = group.get("RawData") if name.startswith("Raw[") and isinstance(group, h5py.Group) else None
        if isinstance(data, h5py.Dataset):
            times = group.get("RawDataTime")
            times = times if isinstance(times, h5py.Dataset) and len(times) == len(data) else None
            label = f"raw{name[4:-1]}"
            found.append(Signal(stream_name(label), data, time_of_block=times))
    return found


_FINDERS: Final[tuple[Callable[[h5py.File, bool], list[Signal]], ...]] = (
    _tomography,
    _default,
    _detectors,
    _data_exchange,
    _fibre,
)


# ---------------------------------------------------------------------------------------------------------- groups


def _of_class(place: h5py.Group, *classes: str) -> Iterator[h5py.Group]:
    found: list[h5py.Group] = []
    place.visititems(lambda _, item: found.append(item) if _is(item, *classes) else None)
    yield from found


def _member(group: h5py.Group, attribute: str) -> Any:
    """The member that an attribute names; None where there is none."""
    name = _text(group.attrs.get(attribute, ""))
    return group.get(name) if name and "\0" not in name else None


def _is(item: Any, *classes: str) -> bool:
    return isinstance(item, h5py.Group) and _text(item.attrs.get("NX_class", "")) in classes


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

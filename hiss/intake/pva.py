"""`hiss bridge pva://PV`: the images of an EPICS channel (NTNDArray over pvAccess) as a stream.

A block is an image; its index is the image's `uniqueId`, its time the `dataTimeStamp`; the channel's own `timeStamp`
and the scalar NTAttributes are columns. pvAccess holds nothing back: a client without room misses images. What is
missing between two `uniqueId`s is declared, and stands in the stream's ledger. A stream has one form; images of another
dtype, shape or attributes, or whose `uniqueId` goes back because the source was started anew, begin the next version.
Normative types: https://docs.epics-controls.org/en/latest/pv-access/Normative-Types-Specification.html.

`run` is for one thread; pvAccess fills the queue from its own. pvapy is imported when a bridge is made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hiss import limits
from hiss.errors import Exhausted, HissError, InvalidInput, MissingExtra, SpecMismatch, StreamFinal, Unavailable
from hiss.intake.parts import column_name
from hiss.model import AckLevel, Attrs, Column, FrameSpec, StreamInfo, StreamSpec, split_stream_path
from hiss.store import Store
from hiss.writer import StreamWriter

log: Final = logging.getLogger("hiss.bridge")

SCHEME: Final = "pva://"
_DTYPES: Final = {
    "booleanValue": "?",
    "byteValue": "i1",
    "shortValue": "i2",
    "intValue": "i4",
    "longValue": "i8",
    "ubyteValue": "u1",
    "ushortValue": "u2",
    "uintValue": "u4",
    "ulongValue": "u8",
    "floatValue": "f4",
    "doubleValue": "f8",
}
_TEXT: Final = "|S64"
_TIME_STAMP: Final = Column("time_stamp", "<i8", "ns")
_WAIT_S: Final = 0.2  # for an image, between two looks whether to stop


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An NTNDArray, taken apart. `array` has its slowest dimension first."""

    unique_id: int
    time_ns: int
    array: npt.NDArray[Any]
    columns: tuple[Column, ...]
    values: dict[str, Any]

    @property
    def frame(self) -> FrameSpec:
        return FrameSpec(self.array.dtype.str, self.array.shape)


def image_of(found: Any) -> Image | None:
    """The image in an NTNDArray as pvapy gives it; None where there is none in it yet.

    Raises
    ------
    InvalidInput
        It is compressed.
    """
    codec = found["codec"]["name"] if found.hasField("codec") else ""
    if codec:
        raise InvalidInput(
            f"image {found['uniqueId']} is compressed by {codec!r}; take the channel that the codec plug-in reads, not "
            "the one that it writes"
        )
    value = found["value"]
    ((kind, data),) = (value[0] if isinstance(value, tuple) else value).items() or ((None, None),)
    shape = tuple(int(dimension["size"]) for dimension in found["dimension"])[::-1]
    if kind not in _DTYPES or not shape or 0 in shape:
        return None
    array = np.asarray(data, _DTYPES[kind]).reshape(shape)
    stamp = _ns(found["timeStamp"])
    columns: dict[str, Column] = {_TIME_STAMP.name: _TIME_STAMP}
    values: dict[str, Any] = {_TIME_STAMP.name: stamp}
    for attribute in found["attribute"] if found.hasField("attribute") else ():
        content = attribute["value"]
        content = content[0] if isinstance(content, tuple) else content
        scalar = content.get("value") if isinstance(content, dict) else content
        dtype = next((dtype for kind, dtype in _SCALARS if isinstance(scalar, kind)), None)
        if dtype is not None and len(columns) < limits.COLUMNS_MAX:
            name = column_name(str(attribute["name"]), columns)
            columns[name] = Column(name, dtype)
            values[name] = scalar.encode()[:64] if isinstance(scalar, str) else scalar
    time_ns = _ns(found["dataTimeStamp"]) or stamp
    return Image(int(found["uniqueId"]), time_ns, array, tuple(columns.values()), values)


_SCALARS: Final[tuple[tuple[type, str], ...]] = ((bool, "|b1"), (int, "<i8"), (float, "<f8"), (str, _TEXT))


def _ns(stamp: Any) -> int:
    return int(stamp["secondsPastEpoch"]) * 1_000_000_000 + int(stamp["nanoseconds"])


@dataclass(slots=True)
class BridgeReport:
    """What went through a bridge."""

    images: int = 0
    missed: int = 0  # `uniqueId`s that never came
    versions: int = 0  # of the stream, that were begun
    repeated: int = 0  # an image that came again, as after a reconnection


class Bridge:
    """
    Parameters
    ----------
    address : str
        `pva://PV`.
    target : str
        `COLLECTION/STREAM`.
    connect : callable
        Gives the buffer, anew where it went away.
    stop : threading.Event
        Ends `run`.
    count : int
        End after so many images; 0: never.
    idle_s : float
        Seal the stream after so long without an image, and begin the next version with the next; 0: never.
    queue : int
        Images that wait at most; more are dropped by pvAccess, and missing.

    Raises
    ------
    InvalidInput
        The address is none.
    MissingExtra
        pvapy is absent.
    """

    def __init__(
        self, address: str, target: str, connect: Callable[[], Store], stop: threading.Event, *,
        attrs: Attrs | None = None, ack: AckLevel = AckLevel.DURABLE, count: int = 0, idle_s: float = 0.0,
        queue: int = limits.BRIDGE_QUEUE_IMAGES,
    ) -> None:  # fmt: skip
        if not address.startswith(SCHEME) or not address.removeprefix(SCHEME):
            raise InvalidInput(f"{address!r}: expected {SCHEME}PV, such as {SCHEME}13SIM1:Pva1:Image")
        if not 1 <= queue <= limits.BRIDGE_QUEUE_IMAGES_MAX:
            raise InvalidInput(f"a queue of {queue} images; 1 to {limits.BRIDGE_QUEUE_IMAGES_MAX}")
        self._pva = _pvapy()
        self._pv = address.removeprefix(SCHEME)
        self._collection, self._name = split_stream_path(target)
        self._connect = connect
        self._stop = stop
        self._attrs = {"source": address, **(attrs or {})}
        self._ack = ack
        self._count = count
        self._idle_s = idle_s
        self._queue_images = queue
        self._store: Store | None = None
        self._writer: StreamWriter | None = None
        self._form: tuple[FrameSpec, tuple[Column, ...]] | None = None
        self._newest = -1  # `uniqueId` of the newest image of this stream
        self.report = BridgeReport()

    def run(self) -> BridgeReport:
        """Until it is stopped, or has its count; then the stream is sealed."""
        queue = self._pva.PvObjectQueue(self._queue_images)
        channel = self._pva.Channel(self._pv, self._pva.PVA)
        channel.setConnectionCallback(lambda there: log.info("%s is %s", self._pv, "there" if there else "away"))
        channel.qMonitor(queue, "field()")
        try:
            self._pump(queue)
            if self._writer is not None:
                self._seal()
        finally:
            channel.stopMonitor()
            self._let_go()
        return self.report

    def _pump(self, queue: Any) -> None:
        waited_s = 0.0
        while not self._stop.is_set() and not (self._count and self.report.images >= self._count):
            try:
                found = queue.get(_WAIT_S)
            except self._pva.QueueEmpty:
                waited_s += _WAIT_S
                if self._idle_s and waited_s >= self._idle_s and self._writer is not None:
                    self._seal()
                continue
            waited_s = 0.0
            image = image_of(found)
            if image is not None:
                self._take_until_done(image)

    def _take_until_done(self, image: Image) -> None:
        """Store an image; a buffer that is away is waited for, while pvAccess queues and drops."""
        pause_s = limits.STORE_RETRY_FIRST_S
        while not self._stop.is_set():
            try:
                self.take(image)
                return
            except (Unavailable, Exhausted) as error:
                log.warning("%s; trying again", error)
                self._let_go()
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, limits.STORE_RETRY_MOST_S)

    def take(self, image: Image) -> None:
        """Store an image, with what is missing before it."""
        form = (image.frame, image.columns)
        if self._writer is not None and (form != self._form or image.unique_id < self._newest):
            self._seal()
        if self._writer is None:
            self._writer = self._opened(image)
            self._form = form
            self._newest = max(self._writer.next_index - 1, -1)
        if image.unique_id <= self._newest:
            self.report.repeated += 1
            return
        missing = image.unique_id - 1 - self._newest if self._newest >= 0 else 0
        if 0 < missing <= limits.GAP_BLOCKS_MAX:
            self._writer.gap(self._newest + 1, image.unique_id - 1)
        self._writer.append(image.array, index=image.unique_id, time_ns=image.time_ns, **image.values)
        self.report.missed += missing
        self.report.images += 1
        self._newest = image.unique_id

    # ---- the stream

    def _opened(self, image: Image) -> StreamWriter:
        """The open stream that an earlier bridge left, where the image can be its next one; else a new version."""
        store = self._buffer()
        store.create_collection(self._collection, {}, ())
        spec = StreamSpec(image.frame, image.columns, self._ack, self._attrs)
        try:
            info = store.create_stream(self._collection, self._name, spec, resume=True)
        except StreamFinal:
            return self._new_version(store, spec)
        except SpecMismatch:
            self._end(store, store.stream(f"{self._collection}/{self._name}"))
            return self._new_version(store, spec)
        writer = StreamWriter(store, info, spec.frame)
        if image.unique_id < writer.next_index - 1:
            writer.seal()
            return self._new_version(store, spec)
        if not info.completeness.blocks:
            self.report.versions += 1
        return writer

    def _new_version(self, store: Store, spec: StreamSpec) -> StreamWriter:
        self.report.versions += 1
        info = store.create_stream(self._collection, self._name, spec, new_version=True)
        return StreamWriter(store, info, spec.frame)

    def _end(self, store: Store, info: StreamInfo) -> None:
        if not info.state.final:
            store.seal_stream(info.id)

    def _seal(self) -> None:
        writer, self._writer = self._writer, None
        assert writer is not None
        writer.seal()
        self._newest = -1

    def _let_go(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(HissError):
                writer.detach()
        store, self._store = self._store, None
        if store is not None:
            with suppress(HissError):
                store.close()

    def _buffer(self) -> Store:
        if self._store is None:
            self._store = self._connect()
        return self._store


def _pvapy() -> ModuleType:
    try:
        import pvaccess
    except ImportError:
        raise MissingExtra("pvAccess needs pvapy, which is absent: pip install 'hiss[pva]'", package="pvapy") from None
    found: ModuleType = pvaccess
    return found

"""What crosses the boundaries between the packages: frozen dataclasses of names, streams, extents, kernels and events.

Nothing here does I/O. Whatever is built from a user's, a file's or the network's word checks itself in `__post_init__`
and raises a named error; after that it can be trusted. Times are int64 nanoseconds, UTC since 1970. Digests are XXH3
64-bit with seed 0 (https://github.com/Cyan4973/xxHash, `doc/xxhash_spec.md`).
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from hiss import limits
from hiss.errors import BlockTooLarge, InvalidInput, InvalidName, LimitExceeded
from hiss.space import Archive, Eviction

Attrs = Mapping[str, Any]  # JSON values
IntArray = npt.NDArray[np.int64]
UIntArray = npt.NDArray[np.uint64]
ByteArray = npt.NDArray[np.uint8]

E = TypeVar("E", bound=enum.IntEnum)

RAW_SUFFIX: Final = ".raw"
_NO_COLUMNS: Final = {"index", "time_ns", "copy"}  # every block's own, and what `append` takes besides
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")
_GLOB = re.compile(r"[A-Za-z0-9_.\-*?\[\]!]+")
_DTYPE_KINDS = "biufc"  # bool, signed, unsigned, float, complex


# ---------------------------------------------------------------------------------------------------------- names


def check_name(name: str, what: str) -> str:
    """Return `name` if it may be one part of a path, else raise `InvalidName`."""
    if len(name) > limits.NAME_CHARS_MAX or not _PART.fullmatch(name) or name.endswith("."):
        raise InvalidName(
            f"{what} name {name[:80]!r}: expected 1 to {limits.NAME_CHARS_MAX} letters, digits, '_', '-' or '.', "
            "not starting with '-' or '.', not ending in '.'",
            name=name[:80],
        )
    return name


def check_path(path: str, what: str) -> str:
    """Return `path` if it is parts joined by '/', within the bounds, else raise `InvalidName`."""
    parts = path.split("/")
    if len(path) > limits.PATH_CHARS_MAX or len(parts) > limits.PATH_PARTS_MAX:
        raise InvalidName(
            f"{what} path {path[:80]!r}: {len(path)} characters in {len(parts)} parts; allowed are "
            f"{limits.PATH_CHARS_MAX} in {limits.PATH_PARTS_MAX}",
            name=path[:80],
        )
    for part in parts:
        check_name(part, what)
    return path


def check_glob(glob: str, what: str) -> str:
    """Return `glob` if it may match names: their letters and `*`, `?`, `[...]`, `[!...]`. Else raise `InvalidName`."""
    if len(glob) > limits.NAME_CHARS_MAX or not _GLOB.fullmatch(glob):
        raise InvalidName(
            f"{what} {glob[:80]!r}: expected a name in which * stands for any text, ? for one letter, [ab] for a or b; "
            f"1 to {limits.NAME_CHARS_MAX} letters",
            name=glob[:80],
        )
    return glob


def split_stream_path(path: str) -> tuple[str, str]:
    """Split `collection/stream` at the last '/'."""
    collection, _, name = path.rpartition("/")
    if not collection:
        raise InvalidName(f"stream path {path[:80]!r}: expected COLLECTION/STREAM", name=path[:80])
    return check_path(collection, "collection"), check_name(name, "stream")


def checked_attrs(attrs: Attrs, what: str) -> Attrs:
    """A read-only copy of `attrs`, checked to be JSON within `limits.ATTRS_BYTES_MAX`."""
    try:
        text = json.dumps(dict(attrs), allow_nan=True)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"attributes of {what}: {error}; use JSON values (text, numbers, lists, objects)") from None
    if len(text) > limits.ATTRS_BYTES_MAX:
        raise LimitExceeded(
            f"attributes of {what}: {len(text)} bytes as JSON, allowed are {limits.ATTRS_BYTES_MAX}; "
            "store large arrays as a stream",
            limit="ATTRS_BYTES_MAX",
            allowed=limits.ATTRS_BYTES_MAX,
            found=len(text),
        )
    return MappingProxyType(json.loads(text))


def digest_of(data: Any) -> int:
    """XXH3-64 of a contiguous buffer."""
    return int(xxhash.xxh3_64_intdigest(data))


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of a stream's retained raw blocks when its kernels ran over them once more."""

    blocks: int  # raw blocks that there were
    same: int  # the same result, to the bit, or the same verdict
    different: int  # stored both times, with other bits
    vetoed: int  # now, and not then
    kept: int  # now, vetoed then
    recovered: int  # results now where the kernel failed then
    failed: int  # now, and not then
    first: int | None  # index of the first block that is not the same
    largest: float  # difference of any pixel


# ---------------------------------------------------------------------------------------------------------- streams


class AckLevel(enum.IntEnum):
    """What an acknowledgement means; each level includes those before it."""

    RECEIVED = 1  # in the arena
    WRITTEN = 2  # survives a killed process
    DURABLE = 3  # survives power loss
    ARCHIVED = 4  # in permanent storage, read back and compared

    @classmethod
    def parse(cls, text: str | AckLevel) -> AckLevel:
        """From `"received"`, `"written"`, `"durable"`, `"archived"`."""
        return _member(cls, text, "ack level")


class Keep(enum.IntEnum):
    """What a stream with kernels stores."""

    RESULT = 1  # what leaves the pipeline; the raw block only where a kernel failed
    RAW = 2  # what came in; the result is computed on the way out
    BOTH = 3

    @classmethod
    def parse(cls, text: str | Keep) -> Keep:
        """From `"result"`, `"raw"`, `"both"`."""
        return _member(cls, text, "keep")


class StreamState(enum.IntEnum):
    OPEN = 1
    SEALED = 2  # complete
    ABORTED = 3  # final too: readable, drained, marked

    @property
    def final(self) -> bool:
        return self is not StreamState.OPEN


class BlockStatus(enum.IntEnum):
    """What became of a producer's index. All but STORED and RAW_ONLY are gaps, and stand in the ledger."""

    STORED = 0
    VETOED = 1  # by a filter; `cause` is the stage's place in the pipeline
    KERNEL_FAILED = 2  # a stage raised or overran its budget; the raw block is in the raw companion
    SHED = 3  # by the producer, on purpose
    DECLARED = 4  # the producer says that there is no such block
    LOST = 5  # acknowledged as `received` only, and gone with a crash
    RAW_ONLY = 6  # `keep="raw"`: handled by the pipeline, computed on the way out
    DROPPED = 7  # by the producer's overload policy `drop`
    PRESCALED = 8  # by the producer's overload policy `prescale`


def _member(kind: type[E], text: E | str, what: str) -> E:
    if isinstance(text, kind):
        return text
    try:
        return kind[str(text).upper()]
    except KeyError:
        allowed = ", ".join(member.name.lower() for member in kind)
        raise InvalidInput(f"{what} {text!r}: expected one of {allowed}") from None


_STORED, _RAW_ONLY = np.uint8(BlockStatus.STORED), np.uint8(BlockStatus.RAW_ONLY)


def is_readable(status: ByteArray) -> npt.NDArray[np.bool_]:
    """Which blocks a reader gets: those that are stored, and those that are computed from their raw block."""
    return np.asarray((status == _STORED) | (status == _RAW_ONLY))


@dataclass(frozen=True, slots=True)
class Column:
    """A small typed value for each block: `"f8 deg"` is a float64 in degrees."""

    name: str
    dtype: str  # numpy dtype string, little-endian scalar: '<f8', '<i4', '|b1', '|S16'
    unit: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "column")
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            raise InvalidInput(f"column {self.name!r}: {self.dtype!r} is no dtype; try 'f8 deg'") from None
        if dtype.kind not in _DTYPE_KINDS + "S" or dtype.subdtype is not None or not 0 < dtype.itemsize <= 256:
            raise InvalidInput(f"column {self.name!r}: dtype {dtype} is not a bool, number or short bytes")
        object.__setattr__(self, "dtype", dtype.newbyteorder("<").str)

    @classmethod
    def parse(cls, name: str, text: str) -> Self:
        """From `"DTYPE UNIT"`, the unit optional."""
        dtype, _, unit = text.partition(" ")
        return cls(name, dtype, unit.strip())


def columns_dtype(columns: tuple[Column, ...]) -> np.dtype[np.void]:
    """The packed record of one block's columns, in their order."""
    return np.dtype([(column.name, column.dtype) for column in columns])


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """The element type of a stream.

    `dtype` is a little-endian NumPy dtype string, or None for opaque bytes. `shape` is one block's shape; a None as its
    first entry stands for a length that differs from block to block. Opaque bytes have the shape `(None,)`.
    """

    dtype: str | None
    shape: tuple[int | None, ...]
    encoding: str = "none"

    def __post_init__(self) -> None:
        if self.encoding != "none":
            raise InvalidInput(f"encoding {self.encoding!r}: expected 'none'")
        if self.dtype is None:
            object.__setattr__(self, "shape", (None,))
            return
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            raise InvalidInput(f"dtype {self.dtype!r} is no NumPy dtype; try 'uint16'") from None
        if dtype.kind not in _DTYPE_KINDS or dtype.subdtype is not None:
            raise InvalidInput(f"dtype {dtype}: expected a bool, integer, float or complex type")
        object.__setattr__(self, "dtype", dtype.newbyteorder("<").str)
        shape = tuple(None if size is None else int(size) for size in self.shape)
        object.__setattr__(self, "shape", shape)
        if len(shape) > limits.RANK_MAX:
            raise LimitExceeded(f"shape {shape}: {len(shape)} dimensions, allowed are {limits.RANK_MAX}")
        if any(size is None for size in shape[1:]) or any(size is not None and size < 1 for size in shape):
            raise InvalidInput(f"shape {shape}: sizes are at least 1; only the first may be None (variable)")
        if self.item_bytes > limits.BLOCK_BYTES_MAX:
            raise BlockTooLarge(
                f"a block of shape {shape} and dtype {dtype} has {self.item_bytes} bytes, "
                f"allowed are {limits.BLOCK_BYTES_MAX}; send it in parts",
                allowed=limits.BLOCK_BYTES_MAX,
                found=self.item_bytes,
            )

    @property
    def opaque(self) -> bool:
        return self.dtype is None

    @property
    def variable(self) -> bool:
        """Whether blocks differ in length."""
        return bool(self.shape) and self.shape[0] is None

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The element's dtype; uint8 for opaque bytes."""
        return np.dtype(self.dtype if self.dtype is not None else "u1")

    @property
    def item_bytes(self) -> int:
        """Bytes of one block; of one step along the first axis where that is variable."""
        count = self.numpy_dtype.itemsize
        for size in self.shape:
            count *= 1 if size is None else size
        return count

    @property
    def block_bytes(self) -> int | None:
        """Bytes of every block, or None where they differ."""
        return None if self.variable else self.item_bytes

    def block_array(self, data: Any) -> npt.NDArray[Any]:
        """One block's bytes as an array of this type, without a copy."""
        flat = np.frombuffer(data, self.numpy_dtype)
        shape = tuple(-1 if size is None else size for size in self.shape)
        return flat.reshape(shape)


# ---------------------------------------------------------------------------------------------------------- kernels


class KernelKind(enum.IntEnum):
    MAP = 1  # array out
    FILTER = 2  # a truth out; False vetoes the block
    SCAN = 3  # array out, with a state that goes from block to block
    REDUCE = 4  # a running statistic; its result becomes a stream of its own


@dataclass(frozen=True, slots=True)
class KernelDef:
    """A kernel as it was written: data, never executed as Python by a server."""

    name: str
    kind: KernelKind
    source: str

    def __post_init__(self) -> None:
        check_name(self.name, "kernel")
        if not isinstance(self.source, str):
            raise InvalidInput(f"kernel {self.name!r}: its source is {type(self.source).__name__}, expected str")
        size = len(self.source.encode("utf-8", "surrogatepass"))
        if size > limits.KERNEL_SOURCE_BYTES_MAX:
            raise LimitExceeded(
                f"kernel {self.name!r}: source of {size} bytes, allowed are {limits.KERNEL_SOURCE_BYTES_MAX}",
                limit="KERNEL_SOURCE_BYTES_MAX",
                allowed=limits.KERNEL_SOURCE_BYTES_MAX,
                found=size,
            )


@dataclass(frozen=True, slots=True)
class ScalarParam:
    """A number. `dtype` None is a Python scalar, weak in the sense of NEP 50; otherwise a NumPy scalar, strong."""

    value: bool | int | float
    dtype: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ArrayParam:
    """An array, stored once by its digest."""

    array: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class StreamParam:
    """A stored stream: its only block, or with `reduce` the named reduction of its blocks (`mean`, `maximum`)."""

    path: str
    version: int | None = None  # None: the newest when the kernel is bound
    reduce: str | None = None


@dataclass(frozen=True, slots=True)
class ColumnParam:
    """A column of the block that the kernel is looking at."""

    name: str


Param = ScalarParam | ArrayParam | StreamParam | ColumnParam


@dataclass(frozen=True, slots=True)
class BoundKernel:
    """A kernel with its parameters: one stage of a pipeline.

    `budget_s` bounds the run on one extent; an overrun is a fault. With `shadow` it runs beside the stream, on what
    leaves the pipeline, and reports what it would have done; nothing that is stored changes. A reduction with `every`
    gives a result for each so many indices: result k for the blocks from k * every on; 0 is one for the stream. With
    `feedback_every` the stream's producer is told, each time that so many blocks have reached it, what became of them.
    """

    kernel: KernelDef
    params: Mapping[str, Param] = field(default_factory=dict)
    budget_s: float = limits.KERNEL_BUDGET_S
    shadow: bool = False
    every: int = 0
    feedback_every: int = 0

    def __post_init__(self) -> None:
        if self.every < 0 or (self.every and self.kernel.kind is not KernelKind.REDUCE):
            raise InvalidInput(
                f"kernel {self.kernel.name!r}: every={self.every}; it is a number of blocks, and of a reduction"
            )
        if self.feedback_every < 0 or (self.feedback_every and self.kernel.kind is KernelKind.REDUCE):
            raise InvalidInput(
                f"kernel {self.kernel.name!r}: feedback_every={self.feedback_every}; it is a number of blocks, and not "
                "of a reduction, which runs when the stream is sealed"
            )
        if not self.budget_s > 0:
            raise InvalidInput(f"kernel {self.kernel.name!r}: budget_s {self.budget_s}; it is above 0, in seconds")


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """A registered kernel."""

    definition: KernelDef
    hash: str  # hex, of the canonical untyped IR and the version of the op table
    registered_ns: int


@dataclass(frozen=True, slots=True)
class StageInfo:
    """One stage of a stream's pipeline, as provenance records it.

    `params` maps each name to JSON: `{"scalar": v, "dtype": …}`, `{"array": DIGEST, "dtype": …, "shape": …}`,
    `{"stream": PATH, "version": n, "reduce": …, "digest": …}`, `{"column": NAME}`. `report` is how it fared since the
    stream was opened (`kernel_report`), `since` the first index that a stage may have decided on which was promoted
    while the stream was open. `attached`: not the producer named it, but the stream's collection had it attached.
    `warnings` tell of lines that may not mean what they say, on these blocks.
    """

    name: str
    kind: KernelKind
    hash: str
    source: str
    params: Attrs
    budget_s: float
    quarantined: bool = False
    report: Attrs = field(default_factory=dict)
    since: int | None = None
    every: int = 0
    attached: bool = False
    feedback_every: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A kernel that streams of a collection get when they are created without kernels of their own."""

    streams: str  # a glob of their names, matched with regard to case
    stage: StageInfo  # its parameters were resolved when it was attached
    shadow: bool
    attached_ns: int

    def __post_init__(self) -> None:
        check_glob(self.streams, f"kernel {self.stage.name!r}: streams")

    def matches(self, name: str) -> bool:
        return fnmatchcase(name, self.streams)


# ---------------------------------------------------------------------------------------------------------- streams


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What a producer says of a stream when it creates it."""

    frame: FrameSpec
    columns: tuple[Column, ...] = ()
    ack: AckLevel = AckLevel.DURABLE
    attrs: Attrs = field(default_factory=dict)
    keep: Keep = Keep.RESULT
    kernels: tuple[BoundKernel, ...] = ()
    expendable: bool = False  # retention may evict it even where it is archived nowhere

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", checked_attrs(self.attrs, "the stream"))
        names = [column.name for column in self.columns]
        if len(names) > limits.COLUMNS_MAX:
            raise LimitExceeded(f"{len(names)} columns, allowed are {limits.COLUMNS_MAX}")
        if len(set(names)) != len(names) or _NO_COLUMNS & set(names):
            raise InvalidInput(f"columns {names}: names differ, and are not among {', '.join(sorted(_NO_COLUMNS))}")
        if len(self.kernels) > limits.PIPELINE_STAGES_MAX:
            raise LimitExceeded(f"{len(self.kernels)} kernels, allowed are {limits.PIPELINE_STAGES_MAX}")

    @property
    def columns_dtype(self) -> np.dtype[np.void]:
        return columns_dtype(self.columns)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A range of producer indices that are not stored, first and last included, and why."""

    first: int
    last: int
    stage: str  # 'producer', 'transport', 'received', 'log', 'retention', or the kernel's name
    reason: str  # 'never received', 'vetoed', 'kernel-failed', 'shed', 'shed: drop', 'declared missing', …

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Completeness:
    """How much of a stream there is. `blocks` can be read; `gaps` are the indices that cannot. `bytes` are stored."""

    blocks: int
    bytes: int
    gaps: int
    first_index: int | None
    last_index: int | None
    ledger: tuple[LedgerEntry, ...] = ()

    def __str__(self) -> str:
        blocks = f"{self.blocks} block{'' if self.blocks == 1 else 's'}"
        if not self.gaps:
            return f"complete: {blocks}"
        reasons: dict[str, int] = {}
        for entry in self.ledger:
            key = f"{entry.reason} ({entry.stage})"
            reasons[key] = reasons.get(key, 0) + entry.count
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        return f"complete with {self.gaps} gap{'' if self.gaps == 1 else 's'}: {blocks}; {why}"


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What `stat` tells of a stream."""

    id: str  # 32 hex digits, the same on any node
    collection: str
    name: str
    version: int  # 1, 2, …
    frame: FrameSpec
    columns: tuple[Column, ...]
    ack: AckLevel
    keep: Keep
    attrs: Attrs
    stages: tuple[StageInfo, ...]
    state: StreamState
    completeness: Completeness
    digest: str  # of the whole final stream, 16 hex digits; '' while it is open
    created_ns: int
    final_ns: int  # 0 while open
    raw_of: str | None = None  # for a raw companion: the id of the stream whose pipeline it feeds
    raw_id: str | None = None  # the id of this stream's raw companion
    produced_by: str | None = None  # the job that wrote it, as `JOB`
    abort_reason: str = ""
    expendable: bool = False  # its producer allows that it goes where it is archived nowhere
    archives: tuple[Archive, ...] = ()  # in permanent storage, read back and compared; the newest last
    eviction: Eviction | None = None  # it has left the log
    shadows: tuple[StageInfo, ...] = ()  # kernels that run beside it and change nothing

    @property
    def path(self) -> str:
        return f"{self.collection}/{self.name}"

    @property
    def columns_dtype(self) -> np.dtype[np.void]:
        return columns_dtype(self.columns)


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    path: str
    attrs: Attrs
    expect: tuple[str, ...]
    joins: Mapping[str, tuple[str, ...]]  # name -> module streams, in order
    sealed: bool
    created_ns: int
    streams: tuple[str, ...]  # names, newest versions
    kernels: tuple[Attachment, ...] = ()  # for streams to come, in the order in which a stream runs them


# ---------------------------------------------------------------------------------------------------------- appending


@dataclass(frozen=True, slots=True)
class Ack:
    """Watermarks of one append session: how many of its blocks, in the order they were sent, are at each level."""

    received: int
    written: int
    durable: int
    archived: int = 0

    def at(self, level: AckLevel) -> int:
        return (self.received, self.written, self.durable, self.archived)[level - 1]


@dataclass(frozen=True, slots=True)
class Feedback:
    """A message from a kernel, a rule or a person to a stream's producer."""

    data: Any  # small JSON
    time_ns: int


@dataclass(frozen=True, slots=True)
class AppendStart:
    """What a producer learns when it opens an append session: where the stream stands."""

    credit_bytes: int  # may be unacknowledged at once
    next_index: int  # one past the highest index that is handled; 0 in a new stream
    gaps: tuple[tuple[int, int], ...]  # ranges below `next_index` that are not handled, first and last included
    boot_id: str  # changes whenever the server process starts anew
    credit_level: AckLevel = AckLevel.RECEIVED  # acknowledged at this level, bytes are credit again


# ---------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class ColumnRange:
    """Values of a column from `low` to `high`, both included; None is open-ended. NaN is in no range."""

    column: str
    low: int | float | None = None
    high: int | float | None = None


Chooser = Callable[[IntArray, npt.NDArray[np.void]], npt.NDArray[np.bool_]]  # (times, columns) of blocks -> which


@dataclass(frozen=True, slots=True)
class Selection:
    """Which blocks to read. `start` and `stop` are of the producer's index, `time_ns` of its clock, `stop` excluded;
    None is open-ended. A block is read where it is in all ranges."""

    start: int | None = None
    stop: int | None = None
    step: int = 1  # every step-th index from `start` (or from the first)
    newest: bool = False  # only the stored block of the highest index, of those in the ranges of time and columns
    data: bool = True  # False: everything of the blocks but their bytes (`Extent.data` is empty, `length` as stored)
    kernels: tuple[BoundKernel, ...] = ()  # run on the way out
    time_ns: tuple[int | None, int | None] = (None, None)  # start, stop
    where: tuple[ColumnRange, ...] = ()
    from_disk: bool = False  # also what memory still has, and every digest taken again: to verify

    def chooser(self, columns: Sequence[Column], what: str) -> Chooser | None:
        """Tells from times and columns which blocks are wanted; None where all are.

        Raises
        ------
        InvalidInput
            A range is of a column that is not there, or not of numbers.
        """
        kinds = {column.name: np.dtype(column.dtype).kind for column in columns}
        for each in self.where:
            if kinds.get(each.column, "S") not in "biuf":
                there = ", ".join(name for name, kind in kinds.items() if kind in "biuf") or "none"
                raise InvalidInput(
                    f"{what}: no column {each.column[:80]!r} with values that have an order; there are: {there}"
                )
        if not self.where and self.time_ns == (None, None):
            return None
        ranges, (since, until) = self.where, self.time_ns

        def choose(time_ns: IntArray, values: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
            wanted = np.ones(len(time_ns), np.bool_)
            if since is not None:
                wanted &= time_ns >= since
            if until is not None:
                wanted &= time_ns < until
            for each in ranges:
                if each.low is not None:
                    wanted &= values[each.column] >= each.low
                if each.high is not None:
                    wanted &= values[each.column] <= each.high
            return wanted

        return choose


# ---------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, in the order of `seq` on its node. Delivered at least once, under a stable id."""

    node: str
    seq: int
    kind: str  # stream.sealed, stream.aborted, collection.sealed, kernel.quarantined, job.finished, …
    time_ns: int
    collection: str
    stream: str  # '' where the event is of a collection
    version: int
    data: Attrs

    @property
    def id(self) -> str:
        return f"{self.node}-{self.seq}"

    @property
    def path(self) -> str:
        return f"{self.collection}/{self.stream}" if self.stream else self.collection


@dataclass(frozen=True, slots=True)
class StreamWatch:
    """A wish of the rule engine's: events of open streams whose path the glob `trigger` matches."""

    trigger: str
    every: int = 0  # `stream.progress` each time that so many more blocks can be read; 0: none
    stalled_s: float = 0.0  # `stream.stalled` after so long without a block; 0: none


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What `status` tells of a running buffer."""

    node: str
    version: str
    boot_id: str
    started_ns: int
    data_directory: str
    disk_free_bytes: int
    arena_bytes: int
    arena_free_bytes: int
    segments: int
    log_bytes: int
    collections: int
    streams: int
    streams_open: int
    blocks_received: int
    bytes_received: int
    recovery: Attrs  # what the last recovery found and did
    room_bytes: int = 0  # that the log may still take, promised or not
    promised_bytes: int = 0  # by all reservations
    promised_used_bytes: int = 0  # of those
    kernel_backend: str = ""  # what runs kernels
    kernel_notice: str = ""  # why that is not what was configured
    kernels: Attrs = field(default_factory=dict)  # how they fared since the start, by hash (`kernel_report`)
    last_event: int = 0  # `seq` of the newest event


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the owner, whoever shows a token that was handed out, or the attempt of a job.

    The owner may do everything, an attempt reads everything and writes below its prefix; of a token, `rights` are those
    of `tokens.RIGHTS` that it has. `rights.Rights` says what follows from that.
    """

    attempt: str | None = None  # id of the job's attempt whose outputs are staged until it commits
    write_prefix: str = ""  # paths that it may write, '' for all
    rights: tuple[str, ...] = ()  # of an attempt, beyond that: of `workflow.RIGHTS`
    token: str | None = None  # the id of the token that was handed out
    read_prefix: str = ""  # paths that it may see, '' for all


def now_text(time_ns: int) -> str:
    """A time for people: ISO 8601 UTC to the second."""
    return str(np.datetime64(int(time_ns), "ns").astype("datetime64[s]")) + "Z"

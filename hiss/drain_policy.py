"""What is to be drained by itself: policies of collections, their targets, and entries of the queue. Frozen records.

A target's URL is a template. With `{stream}` in it every stream becomes a file of its own; without, all streams of a
collection become one file when the collection is sealed. An entry of the queue is one file that a policy wants; its id
follows from what and where it is, so that planning twice plans once. They cross boundaries like those of `model`. Each
checks itself and raises a named error. Nothing here does I/O.
"""

from __future__ import annotations

import enum
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Self

from hiss import limits
from hiss.errors import InvalidInput
from hiss.model import StreamInfo

FORMS: Final = ("auto", "nexus", "zarr", "npy", "raw")
COMPRESSIONS: Final = ("auto", "none", "gzip", "zstd", "bitshuffle-lz4")
_BARE: Final = ("npy", "raw")
_FIELDS: Final = ("collection", "stream", "version")
_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_AT: Final = re.compile(r"at ([01][0-9]|2[0-3]):([0-5][0-9])")
_EVERY: Final = re.compile(r"every ([1-9][0-9]?) ?h")
_DAY_NS: Final = 86_400 * 10**9
_HOUR_NS: Final = 3_600 * 10**9


def due_ns(when: str, final_ns: int) -> int | None:
    """When what became final at `final_ns` is to be drained, in ns since 1970; None: not by the clock.

    `seal`, `live`: at once. `at HH:MM`, `every Nh`: the first such time after, UTC, hours counted from midnight of
    1970-01-01. `pressure`: where space runs short. `manual`: when somebody asks.
    """
    if when in ("seal", "live"):
        return final_ns
    if when in ("pressure", "manual"):
        return None
    if match := _AT.fullmatch(when):
        offset, period = int(match[1]) * _HOUR_NS + int(match[2]) * 60 * 10**9, _DAY_NS
    elif match := _EVERY.fullmatch(when):
        offset, period = 0, int(match[1]) * _HOUR_NS
    else:
        raise InvalidInput(
            f"drain when {when[:40]!r}: expected seal, live, pressure, manual, 'at HH:MM' (UTC) or 'every Nh' "
            "(1 to 99 hours)"
        )
    return offset + ((final_ns - offset) // period + 1) * period


def form_of(form: str, name: str) -> str:
    """What a format is for a file of that name: `auto` goes by its ending."""
    return {".zarr": "zarr", ".npy": "npy"}.get(PurePosixPath(name).suffix, "nexus") if form == "auto" else form


@dataclass(frozen=True, slots=True)
class DrainTarget:
    """One place to which the streams of a collection, and of those below it, are drained."""

    url: str  # /DIRECTORY/… or s3://BUCKET/…, with {collection}, {stream}, {version}
    form: str = "auto"
    compression: str = "auto"
    when: str = "seal"
    priority: int = 0  # higher goes first
    bytes_per_s: int = 0  # read from the buffer, written and read back, at most; 0: as fast as it goes

    def __post_init__(self) -> None:
        if not 0 < len(self.url) <= limits.DRAIN_URL_CHARS_MAX or not self.url.isprintable():
            raise InvalidInput(
                f"drain URL {self.url[:80]!r}: expected 1 to {limits.DRAIN_URL_CHARS_MAX} printable characters"
            )
        named = _FIELD.findall(self.url)
        if set(named) - set(_FIELDS) or re.search(r"[{}]", _FIELD.sub("", self.url)):
            raise InvalidInput(f"drain URL {self.url!r}: braces hold one of {', '.join(_FIELDS)}")
        bucket, _, key = self.url.removeprefix("s3://").partition("/")
        if self.url.startswith("s3://"):
            if not bucket or "{" in bucket or not key.strip("/"):
                raise InvalidInput(f"drain URL {self.url!r}: expected s3://BUCKET/KEY; the bucket has no braces")
        elif not self.url.startswith("/"):
            raise InvalidInput(f"drain URL {self.url!r}: expected an absolute path, or s3://BUCKET/KEY")
        if ".." in PurePosixPath(self.url).parts or self.url.endswith("/"):
            raise InvalidInput(f"drain URL {self.url!r}: expected a file's name at its end, and no '..' in it")
        for name, value, known in (("form", self.form, FORMS), ("compression", self.compression, COMPRESSIONS)):
            if value not in known:
                raise InvalidInput(f"drain {name} {value[:40]!r}: expected one of {', '.join(known)}")
        if "version" in named and "stream" not in named:
            raise InvalidInput(f"drain URL {self.url!r}: {{version}} is a stream's; a collection's file has none")
        if self.bare and (not self.of_streams or self.compression not in ("auto", "none")):
            raise InvalidInput(
                f"drain URL {self.url!r}: a bare file holds one stream as it is; put {{stream}} into the URL, and "
                "choose no compression"
            )
        if abs(self.priority) > limits.DRAIN_PRIORITY_MAX or not 0 <= self.bytes_per_s < 1 << 62:
            raise InvalidInput(
                f"drain priority {self.priority}, bytes_per_s {self.bytes_per_s}: expected -{limits.DRAIN_PRIORITY_MAX}"
                f" to {limits.DRAIN_PRIORITY_MAX}, and at least 0"
            )
        if self.live and (not self.of_streams or self.url.startswith("s3://") or self.nature != "nexus"):
            raise InvalidInput(
                f"drain URL {self.url!r}: a stream that is still written is drained to a NeXus file of its own, in a "
                "file system; put {stream} into the URL, with a name that ends in .nxs"
            )
        due_ns(self.when, 0)

    @property
    def live(self) -> bool:
        """Whether streams are drained while they are written."""
        return self.when == "live"

    @property
    def nature(self) -> str:
        """The format of its files."""
        return form_of(self.form, self.url)

    @property
    def of_streams(self) -> bool:
        """Whether every stream becomes a file of its own."""
        return "{stream}" in self.url

    @property
    def bare(self) -> bool:
        """Whether the file holds blocks only, so that it is no archive of them."""
        return self.nature in _BARE

    def place(self, collection: str, stream: str = "", version: int = 0) -> str:
        """The URL for a stream or, without one, a collection. Versions after the first are named, `NAME.v2`, where the
        template has no `{version}`."""
        plain = "{version}" in self.url or version <= 1
        values = {
            "collection": collection,
            "stream": stream if plain else f"{stream}.v{version}",
            "version": str(version),
        }
        found = _FIELD.sub(lambda match: values[match[1]], self.url)
        if found.startswith("s3://"):
            return "s3://" + "/".join(part for part in found[5:].split("/") if part)
        return str(PurePosixPath(found))

    def has(self, info: StreamInfo) -> bool:
        """Whether the stream's archives say that it is there, whole and compared."""
        where = self.place(info.collection, info.name, info.version) + "::"
        return any(each.location.startswith(where) for each in info.archives)


@dataclass(frozen=True, slots=True)
class DrainPolicy:
    """To where the streams of a collection, and of those below it, are drained. Without targets: nowhere by itself."""

    targets: tuple[DrainTarget, ...] = ()

    def __post_init__(self) -> None:
        if len(self.targets) > limits.DRAIN_TARGETS_MAX or len({each.url for each in self.targets}) < len(self.targets):
            raise InvalidInput(
                f"drain policy of {len(self.targets)} targets: at most {limits.DRAIN_TARGETS_MAX}, each URL once"
            )

    def to_json(self) -> str:
        return json.dumps([asdict(each) for each in self.targets], ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(tuple(DrainTarget(**each) for each in json.loads(text)))

    def lacks(self, info: StreamInfo, entry_state: Callable[[str], DrainState | None]) -> tuple[DrainTarget, ...]:
        """The targets that a stream has not reached; `entry_state` tells of an entry's id where it stands.

        What is recorded as archived counts only when its entry is done: a file holds all of its streams, or none.
        """

        def there(target: DrainTarget) -> bool:
            if target.of_streams:
                made = entry(target, info.collection, info.name, info.version, 0)
            else:
                made = entry(target, info.collection, "", 0, 0)
            if target.bare:
                return entry_state(made.id) is DrainState.DONE
            return target.has(info) and entry_state(made.id) in (None, DrainState.DONE, DrainState.DROPPED)

        return tuple(target for target in self.targets if not there(target))


def policy_of(collection: str, own: Mapping[str, DrainPolicy]) -> DrainPolicy:
    """What holds for a collection: its own policy, that of the nearest above it, or one without targets."""
    above = [path for path in own if f"{collection}/".startswith(f"{path}/")]
    return own[max(above, key=len)] if above else DrainPolicy()


class DrainState(enum.Enum):
    """Where an entry of the queue stands."""

    WANTED = "wanted"
    RUNNING = "running"
    DONE = "done"  # every block was read back from there and compared
    FAILED = "failed"  # is tried again
    DROPPED = "dropped"  # its policy does not name it any more, or its owner gave it up before


@dataclass(frozen=True, slots=True)
class Drain:
    """One file that a policy wants."""

    id: str  # 16 hex digits
    source: str  # COLLECTION/STREAM, or the path of a collection
    version: int  # of the stream; 0: a collection
    url: str
    target: DrainTarget
    state: DrainState = DrainState.WANTED
    attempts: int = 0
    reason: str = ""  # of the last failure
    due_ns: int | None = None  # None: not by the clock
    next_ns: int = 0  # not tried before
    changed_ns: int = 0
    began: bool = False  # an attempt was killed, or could not clean up: what lies at `url` may be its own

    @property
    def collection(self) -> str:
        return self.source.rpartition("/")[0] if self.version else self.source

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self) | {"state": self.state.value}


def entry_id(url: str, source: str, version: int) -> str:
    """Of the entry of the queue that brings a stream, or with version 0 a collection, to `url`."""
    return hashlib.blake2b(f"{url}\0{source}\0{version}".encode(), digest_size=8).hexdigest()


def entry(target: DrainTarget, collection: str, stream: str, version: int, final_ns: int) -> Drain:
    """The entry of a stream that became final then, or without one of a whole collection."""
    url = target.place(collection, stream, version)
    source = f"{collection}/{stream}" if stream else collection
    return Drain(entry_id(url, source, version), source, version, url, target, due_ns=due_ns(target.when, final_ns))

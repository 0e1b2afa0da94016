"""Who may have how much of the disk, and for how long: frozen records of reservations, retention, archives, evictions.

They cross boundaries like those of `model`. Each checks itself and raises a named error. Nothing here does I/O.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from hiss import limits
from hiss.errors import InvalidInput

_UNITS: Final = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40, "pib": 1 << 50,
}  # fmt: skip
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)")


def parse_size(text: str | int) -> int:
    """Bytes from `"200 GB"` (powers of 1000), `"1.5GiB"` (powers of 1024) or a number; at least 1."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or match[2].lower() not in _UNITS:
        raise InvalidInput(f"size {str(text)[:40]!r}: expected a number and a unit, such as 200GB or 64 MiB")
    found = (
        int(float(match[1]) * _UNITS[match[2].lower()]) if "." in match[1] else int(match[1]) * _UNITS[match[2].lower()]
    )
    if not 0 < found < 1 << 62:
        raise InvalidInput(f"size {str(text)[:40]!r}: expected at least one byte, and less than 4 EiB")
    return found


def check_hours(hours: float) -> float:
    """Return `hours` if something can be promised for so long."""
    if not 0 < hours <= limits.RESERVATION_HOURS_MAX or not math.isfinite(hours):
        raise InvalidInput(f"{hours} hours: expected more than 0, and at most {limits.RESERVATION_HOURS_MAX}")
    return hours


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room in the log that is kept for one collection and those below it.

    `bytes` is what they may have in the log beyond what stood there when it was promised. They count records: blocks
    with their headers and columns. What they free by draining and evicting, they may fill again.
    """

    id: str  # 16 hex digits
    collection: str
    bytes: int
    used_bytes: int
    created_ns: int
    expires_ns: int

    @property
    def left_bytes(self) -> int:
        return max(0, self.bytes - self.used_bytes)


@dataclass(frozen=True, slots=True)
class Retention:
    """When the streams of a collection, and of those below it, leave the log.

    Only final streams do, and of those only the ones that are archived, unless `undrained`.
    """

    age_s: float | None = None  # so long after they were made final; None: not for their age
    drained_s: float | None = None  # so long after they were archived; None: not for that
    pressure: bool = True  # where space runs short, oldest archive first
    undrained: bool = False  # the owner allows that streams go that are archived nowhere

    def __post_init__(self) -> None:
        for name in ("age_s", "drained_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise InvalidInput(f"retention: {name} {value}; it is at least 0 seconds")


@dataclass(frozen=True, slots=True)
class Archive:
    """A place in permanent storage that has the whole stream; every block was read back from there and compared."""

    location: str
    verified_ns: int

    def __post_init__(self) -> None:
        if not 0 < len(self.location) <= limits.LOCATION_CHARS_MAX or not self.location.isprintable():
            raise InvalidInput(
                f"archive location {self.location[:80]!r}: expected 1 to {limits.LOCATION_CHARS_MAX} "
                "printable characters"
            )


@dataclass(frozen=True, slots=True)
class Eviction:
    """When and by which policy a stream left the log: `age`, `drained`, `pressure` or `request`."""

    time_ns: int
    policy: str


@dataclass(frozen=True, slots=True)
class Evicted:
    """One stream that an eviction took, or with a dry run would take."""

    path: str
    version: int
    bytes: int
    policy: str
    location: str  # of its archive; '' where it has none

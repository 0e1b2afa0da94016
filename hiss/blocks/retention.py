"""Retention: which streams are to leave the log, why, and in which order. Pure functions over what the catalog says.

A stream that is archived nowhere, or that has not reached every target of its drain policy, stays, whatever its age and
whatever the pressure, unless its producer (`expendable`) or its collection's policy (`undrained`) allows that it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from hiss.blocks.space_records import covers
from hiss.model import StreamInfo
from hiss.space import Evicted, Retention

AGE, DRAINED, PRESSURE, REQUEST = "age", "drained", "pressure", "request"


def policy_of(collection: str, own: Mapping[str, Retention], default: Retention) -> Retention:
    """What holds for a collection: its own policy, that of the nearest above it, or the default."""
    above = [path for path in own if covers(path, collection)]
    return own[max(above, key=len)] if above else default


Archived = Callable[[StreamInfo], bool]
"""Whether a stream is archived, in all the places where it is to be."""


def may_go(info: StreamInfo, policy: Retention, archived: Archived) -> bool:
    """Whether nothing is lost with it, or its owner allowed that."""
    if not info.state.final or info.eviction is not None:
        return False
    return policy.undrained or info.expendable or archived(info)


def due(info: StreamInfo, policy: Retention, now_ns: int, archived: Archived) -> str | None:
    """The policy by which a stream goes now, space or not."""
    if not may_go(info, policy, archived):
        return None
    if policy.age_s is not None and now_ns - info.final_ns >= policy.age_s * 1e9:
        return AGE
    if policy.drained_s is None or not archived(info):
        return None
    if now_ns - info.archives[0].verified_ns >= policy.drained_s * 1e9:
        return DRAINED
    return None


def planned(
    streams: Iterable[StreamInfo],
    own: Mapping[str, Retention],
    default: Retention,
    now_ns: int,
    short_bytes: int,
    archived: Archived,
) -> Iterator[tuple[StreamInfo, str]]:
    """Streams to evict, each with its policy, in the order in which they go.

    First those that are due; then, while those before them do not make up for `short_bytes`, those that may go under
    pressure: archived ones by the time of their first archive, after them the others by the time they became final.
    """
    freed = 0
    rest: list[StreamInfo] = []
    for info in streams:
        policy = policy_of(info.collection, own, default)
        why = due(info, policy, now_ns, archived)
        if why is not None:
            freed += info.completeness.bytes
            yield info, why
        elif policy.pressure and may_go(info, policy, archived):
            rest.append(info)
    for info in sorted(rest, key=_under_pressure):
        if freed >= short_bytes:
            return
        freed += info.completeness.bytes
        yield info, PRESSURE


def _under_pressure(info: StreamInfo) -> tuple[bool, int, str]:
    return not info.archives, info.archives[0].verified_ns if info.archives else info.final_ns, info.id


def evicted(info: StreamInfo, policy: str) -> Evicted:
    """What is told of it."""
    location = info.archives[-1].location if info.archives else ""
    return Evicted(info.path, info.version, info.completeness.bytes, policy, location)

"""Consumer groups on the wire and back. Pure functions, as in `wire`; any thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hiss.sharing import GroupInfo, IndexRange, Member
from hiss.transport.wire import checked
from hiss.v1 import consumers_pb2, streams_pb2


def encode_member(member: Member) -> dict[str, Any]:
    """The fields of a request."""
    return {"group": member.group, "member": member.name}


@checked
def encode_ranges(ranges: Sequence[IndexRange]) -> list[streams_pb2.IndexRange]:
    return [streams_pb2.IndexRange(first=first, last=last) for first, last in ranges]


@checked
def decode_ranges(messages: Iterable[streams_pb2.IndexRange]) -> tuple[IndexRange, ...]:
    return tuple((message.first, message.last) for message in messages)


@checked
def encode_group(group: GroupInfo) -> consumers_pb2.ConsumerGroup:
    return consumers_pb2.ConsumerGroup(
        name=group.name,
        acknowledged=group.acknowledged,
        held=group.held,
        left=group.left,
        members=group.members,
    )


@checked
def decode_group(message: consumers_pb2.ConsumerGroup) -> GroupInfo:
    return GroupInfo(message.name, message.acknowledged, message.held, message.left, message.members)

"""The short calls of the Consumers service; as `store_calls`. `take_blocks` may wait a moment in the pool's thread: the
pool has `limits.SHARE_WAITS_MAX` threads for that, and the store lets no more of them wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hiss.sharing import Member, Wish
from hiss.store import Store
from hiss.transport import consumers_wire
from hiss.v1 import consumers_pb2


def take_blocks(store: Store, request: consumers_pb2.TakeBlocksRequest) -> Any:
    wish = Wish(request.blocks, request.timeout_s, request.wait_s)
    taken = store.take_blocks(request.stream_id, Member(request.group, request.member), wish)
    ranges = consumers_wire.encode_ranges(taken.ranges)
    return consumers_pb2.TakeBlocksResponse(ranges=ranges, complete=taken.complete)


def settle_blocks(store: Store, request: consumers_pb2.SettleBlocksRequest) -> Any:
    done, back = map(consumers_wire.decode_ranges, (request.done, request.back))
    refused = store.settle_blocks(request.stream_id, Member(request.group, request.member), done, back)
    return consumers_pb2.SettleBlocksResponse(refused=consumers_wire.encode_ranges(refused))


def list_groups(store: Store, request: consumers_pb2.ListGroupsRequest) -> Any:
    groups = map(consumers_wire.encode_group, store.consumer_groups(request.stream_id))
    return consumers_pb2.ListGroupsResponse(groups=groups)


def delete_group(store: Store, request: consumers_pb2.DeleteGroupRequest) -> Any:
    store.delete_consumer_group(request.stream_id, request.group)
    return consumers_pb2.DeleteGroupResponse()


CALLS: Final[dict[str, Callable[[Store, Any], Any]]] = {
    "Consumers.TakeBlocks": take_blocks,
    "Consumers.SettleBlocks": settle_blocks,
    "Consumers.ListGroups": list_groups,
    "Consumers.DeleteGroup": delete_group,
}

"""The short calls of the Drains service; as `store_calls`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hiss.store import Store
from hiss.transport import drain_wire
from hiss.v1 import drains_pb2


def get_drain_policy(store: Store, request: drains_pb2.GetDrainPolicyRequest) -> Any:
    policy = store.drain_policy(request.collection)
    return drains_pb2.GetDrainPolicyResponse(policy=drain_wire.encode_policy(policy))


def set_drain_policy(store: Store, request: drains_pb2.SetDrainPolicyRequest) -> Any:
    wanted = drain_wire.decode_policy(request.policy) if request.HasField("policy") else None
    policy = store.set_drain_policy(request.collection, wanted)
    return drains_pb2.SetDrainPolicyResponse(policy=drain_wire.encode_policy(policy))


def plan_drains(store: Store, request: drains_pb2.PlanDrainsRequest) -> Any:
    cursor = request.cursor if request.HasField("cursor") else None
    found = store.plan_drains(list(request.paths), cursor=cursor, ask=request.ask, dry_run=request.dry_run)
    return drains_pb2.PlanDrainsResponse(drains=map(drain_wire.encode_drain, found))


def list_drains(store: Store, request: drains_pb2.ListDrainsRequest) -> Any:
    found = store.drains(request.path, unfinished=request.unfinished)
    return drains_pb2.ListDrainsResponse(drains=map(drain_wire.encode_drain, found))


def get_next_drain(store: Store, request: drains_pb2.GetNextDrainRequest) -> Any:
    found, cursor = store.next_drain()
    drain = None if found is None else drain_wire.encode_drain(found)
    return drains_pb2.GetNextDrainResponse(drain=drain, cursor=cursor)


def mark_drain(store: Store, request: drains_pb2.MarkDrainRequest) -> Any:
    state = drain_wire.decode_state(request.state)
    store.mark_drain(request.id, state, reason=request.reason, began=request.began)
    return drains_pb2.MarkDrainResponse()


def is_archived(store: Store, request: drains_pb2.IsArchivedRequest) -> Any:
    return drains_pb2.IsArchivedResponse(archived=store.archived(request.stream_id))


def record_archives(store: Store, request: drains_pb2.RecordArchivesRequest) -> Any:
    store.record_archives([(each.stream_id, each.location, each.digest) for each in request.archives])
    return drains_pb2.RecordArchivesResponse()


CALLS: Final[dict[str, Callable[[Store, Any], Any]]] = {
    "Drains.GetDrainPolicy": get_drain_policy,
    "Drains.SetDrainPolicy": set_drain_policy,
    "Drains.PlanDrains": plan_drains,
    "Drains.ListDrains": list_drains,
    "Drains.GetNextDrain": get_next_drain,
    "Drains.MarkDrain": mark_drain,
    "Drains.IsArchived": is_archived,
    "Drains.RecordArchives": record_archives,
}

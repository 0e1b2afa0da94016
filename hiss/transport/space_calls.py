"""The short calls of the Space service; as `store_calls`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hiss.store import Store
from hiss.transport import space_wire, wire
from hiss.v1 import space_pb2


def reserve(store: Store, request: space_pb2.ReserveRequest) -> Any:
    kept = store.reserve(request.collection, request.bytes, request.hours)
    return space_pb2.ReserveResponse(reservation=space_wire.encode_reservation(kept))


def list_reservations(store: Store, request: space_pb2.ListReservationsRequest) -> Any:
    kept = map(space_wire.encode_reservation, store.reservations())
    return space_pb2.ListReservationsResponse(reservations=kept)


def release_reservation(store: Store, request: space_pb2.ReleaseReservationRequest) -> Any:
    store.release(request.reservation_id)
    return space_pb2.ReleaseReservationResponse()


def record_archive(store: Store, request: space_pb2.RecordArchiveRequest) -> Any:
    info = store.record_archive(request.stream_id, request.location, request.digest)
    return space_pb2.RecordArchiveResponse(stream=wire.encode_stream_info(info))


def get_retention(store: Store, request: space_pb2.GetRetentionRequest) -> Any:
    policy = store.retention(request.collection)
    return space_pb2.GetRetentionResponse(retention=space_wire.encode_retention(policy))


def set_retention(store: Store, request: space_pb2.SetRetentionRequest) -> Any:
    wanted = space_wire.decode_retention(request.retention) if request.HasField("retention") else None
    policy = store.set_retention(request.collection, wanted)
    return space_pb2.SetRetentionResponse(retention=space_wire.encode_retention(policy))


def evict(store: Store, request: space_pb2.EvictRequest) -> Any:
    version = request.version if request.HasField("version") else None
    found = store.evict(request.path, version, dry_run=request.dry_run)
    return space_pb2.EvictResponse(streams=map(space_wire.encode_evicted, found))


CALLS: Final[dict[str, Callable[[Store, Any], Any]]] = {
    "Space.Reserve": reserve,
    "Space.ListReservations": list_reservations,
    "Space.ReleaseReservation": release_reservation,
    "Space.RecordArchive": record_archive,
    "Space.GetRetention": get_retention,
    "Space.SetRetention": set_retention,
    "Space.Evict": evict,
}

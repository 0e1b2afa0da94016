"""Reservations, retention and evictions on the wire and back. Pure functions, as in `wire`; any thread."""

from __future__ import annotations

from hiss.space import Evicted, Reservation, Retention
from hiss.transport.wire import checked
from hiss.v1 import space_pb2


@checked
def encode_reservation(kept: Reservation) -> space_pb2.Reservation:
    return space_pb2.Reservation(
        id=kept.id,
        collection=kept.collection,
        bytes=kept.bytes,
        used_bytes=kept.used_bytes,
        created_ns=kept.created_ns,
        expires_ns=kept.expires_ns,
    )


@checked
def decode_reservation(message: space_pb2.Reservation) -> Reservation:
    return Reservation(
        message.id,
        message.collection,
        message.bytes,
        message.used_bytes,
        message.created_ns,
        message.expires_ns,
    )


@checked
def encode_retention(policy: Retention) -> space_pb2.Retention:
    return space_pb2.Retention(
        age_s=policy.age_s, drained_s=policy.drained_s, pressure=policy.pressure, undrained=policy.undrained
    )


@checked
def decode_retention(message: space_pb2.Retention) -> Retention:
    return Retention(
        age_s=message.age_s if message.HasField("age_s") else None,
        drained_s=message.drained_s if message.HasField("drained_s") else None,
        pressure=message.pressure,
        undrained=message.undrained,
    )


@checked
def encode_evicted(stream: Evicted) -> space_pb2.EvictedStream:
    return space_pb2.EvictedStream(
        path=stream.path,
        version=stream.version,
        bytes=stream.bytes,
        policy=stream.policy,
        location=stream.location,
    )


@checked
def decode_evicted(message: space_pb2.EvictedStream) -> Evicted:
    return Evicted(message.path, message.version, message.bytes, message.policy, message.location)

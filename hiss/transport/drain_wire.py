"""Drain policies and the queue on the wire and back. Pure functions, as in `wire`; any thread."""

from __future__ import annotations

from hiss.drain_policy import Drain, DrainPolicy, DrainState, DrainTarget
from hiss.transport.wire import checked
from hiss.v1 import drains_pb2


@checked
def encode_target(target: DrainTarget) -> drains_pb2.DrainTarget:
    return drains_pb2.DrainTarget(
        url=target.url,
        form=target.form,
        compression=target.compression,
        when=target.when,
        priority=target.priority,
        bytes_per_s=target.bytes_per_s,
    )


@checked
def decode_target(message: drains_pb2.DrainTarget) -> DrainTarget:
    return DrainTarget(
        message.url,
        message.form or "auto",
        message.compression or "auto",
        message.when or "seal",
        message.priority,
        message.bytes_per_s,
    )


@checked
def encode_policy(policy: DrainPolicy) -> drains_pb2.DrainPolicy:
    return drains_pb2.DrainPolicy(targets=map(encode_target, policy.targets))


@checked
def decode_policy(message: drains_pb2.DrainPolicy) -> DrainPolicy:
    return DrainPolicy(tuple(map(decode_target, message.targets)))


@checked
def encode_drain(drain: Drain) -> drains_pb2.Drain:
    return drains_pb2.Drain(
        id=drain.id,
        source=drain.source,
        version=drain.version,
        url=drain.url,
        target=encode_target(drain.target),
        state=drain.state.value,
        attempts=drain.attempts,
        reason=drain.reason,
        due_ns=drain.due_ns,
        next_ns=drain.next_ns,
        changed_ns=drain.changed_ns,
        began=drain.began,
    )


@checked
def decode_drain(message: drains_pb2.Drain) -> Drain:
    return Drain(
        id=message.id,
        source=message.source,
        version=message.version,
        url=message.url,
        target=decode_target(message.target),
        state=decode_state(message.state),
        attempts=message.attempts,
        reason=message.reason,
        due_ns=message.due_ns if message.HasField("due_ns") else None,
        next_ns=message.next_ns,
        changed_ns=message.changed_ns,
        began=message.began,
    )


@checked
def decode_state(text: str) -> DrainState:
    return DrainState(text)

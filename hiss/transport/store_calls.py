"""The short calls of a Store: each turns a request into the model, calls the store, and turns the answer back.

Called from a server's pool threads, many at once; keeps nothing. Errors are raised and become status codes in `calls`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hiss import limits
from hiss.store import Store
from hiss.transport import consumers_calls, drain_calls, space_calls, token_wire, wire
from hiss.transport.workflow_wire import encode_refs
from hiss.v1 import admin_pb2, attempts_pb2, collections_pb2, events_pb2, kernels_pb2, streams_pb2


def create_collection(store: Store, request: collections_pb2.CreateCollectionRequest) -> Any:
    attrs = wire.decode_attrs(request.attrs_json, "the collection")
    expect = wire.bounded_names(request.expect, f"collection {request.path[:80]!r} expects")
    info = store.create_collection(request.path, attrs, expect)
    return collections_pb2.CreateCollectionResponse(collection=wire.encode_collection(info))


def get_collection(store: Store, request: collections_pb2.GetCollectionRequest) -> Any:
    return collections_pb2.GetCollectionResponse(collection=wire.encode_collection(store.collection(request.path)))


def list_collections(store: Store, request: collections_pb2.ListCollectionsRequest) -> Any:
    found = store.collections(request.prefix)
    return collections_pb2.ListCollectionsResponse(collections=map(wire.encode_collection, found))


def delete_collection(store: Store, request: collections_pb2.DeleteCollectionRequest) -> Any:
    store.delete_collection(request.path)
    return collections_pb2.DeleteCollectionResponse()


def seal_collection(store: Store, request: collections_pb2.SealCollectionRequest) -> Any:
    info = store.seal_collection(request.path)
    return collections_pb2.SealCollectionResponse(collection=wire.encode_collection(info))


def join_streams(store: Store, request: collections_pb2.JoinStreamsRequest) -> Any:
    streams = wire.bounded_names(request.streams, f"join {request.name[:80]!r}")
    info = store.join(request.collection, request.name, streams)
    return collections_pb2.JoinStreamsResponse(collection=wire.encode_collection(info))


def attach_kernel(store: Store, request: collections_pb2.AttachKernelRequest) -> Any:
    info = store.attach(request.collection, wire.decode_bound_kernel(request.kernel), request.streams)
    return collections_pb2.AttachKernelResponse(collection=wire.encode_collection(info))


def detach_kernel(store: Store, request: collections_pb2.DetachKernelRequest) -> Any:
    streams = request.streams if request.HasField("streams") else None
    info = store.detach(request.collection, request.kernel, streams)
    return collections_pb2.DetachKernelResponse(collection=wire.encode_collection(info))


def create_stream(store: Store, request: streams_pb2.CreateStreamRequest) -> Any:
    info = store.create_stream(
        request.collection,
        request.name,
        wire.decode_stream_spec(request.spec),
        resume=request.resume,
        new_version=request.new_version,
    )
    return streams_pb2.CreateStreamResponse(stream=wire.encode_stream_info(info))


def get_stream(store: Store, request: streams_pb2.GetStreamRequest) -> Any:
    info = store.stream(request.path, request.version if request.HasField("version") else None)
    return streams_pb2.GetStreamResponse(stream=wire.encode_stream_info(info))


def list_streams(store: Store, request: streams_pb2.ListStreamsRequest) -> Any:
    found = store.streams(request.collection, all_versions=request.all_versions)
    return streams_pb2.ListStreamsResponse(streams=map(wire.encode_stream_info, found))


def amend_stream(store: Store, request: streams_pb2.AmendStreamRequest) -> Any:
    info = store.amend_stream(request.stream_id, wire.decode_attrs(request.attrs_json, "the stream"))
    return streams_pb2.AmendStreamResponse(stream=wire.encode_stream_info(info))


def seal_stream(store: Store, request: streams_pb2.SealStreamRequest) -> Any:
    info = store.seal_stream(request.stream_id, request.end_index if request.HasField("end_index") else None)
    return streams_pb2.SealStreamResponse(stream=wire.encode_stream_info(info))


def abort_stream(store: Store, request: streams_pb2.AbortStreamRequest) -> Any:
    info = store.abort_stream(request.stream_id, request.reason)
    return streams_pb2.AbortStreamResponse(stream=wire.encode_stream_info(info))


def delete_stream(store: Store, request: streams_pb2.DeleteStreamRequest) -> Any:
    store.delete_stream(request.stream_id)
    return streams_pb2.DeleteStreamResponse()


def get_output_frame(store: Store, request: streams_pb2.GetOutputFrameRequest) -> Any:
    frame = store.out_frame(request.stream_id, wire.decode_pipeline(request.kernels))
    return streams_pb2.GetOutputFrameResponse(frame=wire.encode_frame(frame))


def reduce_stream(store: Store, request: streams_pb2.ReduceRequest) -> Any:
    version = request.version if request.HasField("version") else None
    array = store.reduce(request.path, version, request.reduction)
    return streams_pb2.ReduceResponse(array=wire.encode_array(array))


def send_feedback(store: Store, request: streams_pb2.SendFeedbackRequest) -> Any:
    data = wire.decode_json(request.data_json, limits.FEEDBACK_BYTES_MAX)
    return streams_pb2.SendFeedbackResponse(delivered=store.send_feedback(request.stream_id, data))


def promote_kernel(store: Store, request: streams_pb2.PromoteKernelRequest) -> Any:
    info = store.promote(request.stream_id, request.kernel)
    return streams_pb2.PromoteKernelResponse(stream=wire.encode_stream_info(info))


def replay_kernel(store: Store, request: streams_pb2.ReplayKernelRequest) -> Any:
    kernel = wire.decode_kernel_def(request.kernel) if request.HasField("kernel") else None
    return wire.encode_replay(store.replay(request.stream_id, kernel))


def register_kernel(store: Store, request: kernels_pb2.RegisterKernelRequest) -> Any:
    info = store.register_kernel(wire.decode_kernel_def(request.definition))
    return kernels_pb2.RegisterKernelResponse(kernel=wire.encode_kernel_info(info))


def list_kernels(store: Store, request: kernels_pb2.ListKernelsRequest) -> Any:
    return kernels_pb2.ListKernelsResponse(kernels=map(wire.encode_kernel_info, store.kernels()))


def get_kernel(store: Store, request: kernels_pb2.GetKernelRequest) -> Any:
    return kernels_pb2.GetKernelResponse(kernel=wire.encode_kernel_info(store.kernel(request.name)))


def set_stream_watches(store: Store, request: events_pb2.SetStreamWatchesRequest) -> Any:
    store.watch_streams([wire.decode_stream_watch(watch) for watch in request.watches])
    return events_pb2.SetStreamWatchesResponse()


def publish_event(store: Store, request: events_pb2.PublishEventRequest) -> Any:
    data = wire.decode_object(request.data_json, limits.EVENT_DATA_BYTES_MAX)
    event = store.publish_event(request.kind, request.path, request.version, data)
    return events_pb2.PublishEventResponse(event=wire.encode_event(event))


def get_status(store: Store, request: admin_pb2.GetStatusRequest) -> Any:
    return wire.encode_status(store.status())


def commit_attempt(store: Store, request: attempts_pb2.CommitAttemptRequest) -> Any:
    event = wire.decode_object(request.event_json, limits.EVENT_DATA_BYTES_MAX)
    refs = store.commit_attempt(request.attempt, request.event_kind, event)
    return attempts_pb2.CommitAttemptResponse(streams=encode_refs(refs))


def discard_attempt(store: Store, request: attempts_pb2.DiscardAttemptRequest) -> Any:
    store.discard_attempt(request.attempt)
    return attempts_pb2.DiscardAttemptResponse()


def get_attempt_reads(store: Store, request: attempts_pb2.GetAttemptReadsRequest) -> Any:
    return attempts_pb2.GetAttemptReadsResponse(streams=encode_refs(store.attempt_reads(request.attempt)))


def get_attempt_writes(store: Store, request: attempts_pb2.GetAttemptWritesRequest) -> Any:
    return attempts_pb2.GetAttemptWritesResponse(streams=encode_refs(store.attempt_writes(request.attempt)))


SHORT: Final[dict[str, Callable[[Any, Any], Any]]] = {
    **consumers_calls.CALLS,
    **space_calls.CALLS,
    **token_wire.CALLS,
    **drain_calls.CALLS,
    "Collections.CreateCollection": create_collection,
    "Collections.GetCollection": get_collection,
    "Collections.ListCollections": list_collections,
    "Collections.DeleteCollection": delete_collection,
    "Collections.SealCollection": seal_collection,
    "Collections.JoinStreams": join_streams,
    "Collections.AttachKernel": attach_kernel,
    "Collections.DetachKernel": detach_kernel,
    "Streams.CreateStream": create_stream,
    "Streams.GetStream": get_stream,
    "Streams.ListStreams": list_streams,
    "Streams.AmendStream": amend_stream,
    "Streams.SealStream": seal_stream,
    "Streams.AbortStream": abort_stream,
    "Streams.DeleteStream": delete_stream,
    "Streams.GetOutputFrame": get_output_frame,
    "Streams.Reduce": reduce_stream,
    "Streams.SendFeedback": send_feedback,
    "Streams.PromoteKernel": promote_kernel,
    "Streams.ReplayKernel": replay_kernel,
    "Kernels.RegisterKernel": register_kernel,
    "Kernels.ListKernels": list_kernels,
    "Kernels.GetKernel": get_kernel,
    "Attempts.CommitAttempt": commit_attempt,
    "Attempts.DiscardAttempt": discard_attempt,
    "Attempts.GetAttemptReads": get_attempt_reads,
    "Attempts.GetAttemptWrites": get_attempt_writes,
    "Events.SetStreamWatches": set_stream_watches,
    "Events.PublishEvent": publish_event,
    "Admin.GetStatus": get_status,
}

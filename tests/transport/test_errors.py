"""Every error that a store raises is raised by the client: same class, same message, same details."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from hiss import errors, limits
from hiss.errors import HissError
from hiss.transport import GrpcServer, RemoteStore
from hiss.transport.error_wire import DETAIL_KEY, code_of, detail_of, error_of, text_of
from hiss.transport.methods import STORE
from hiss.v1 import errors_pb2
from transport.conftest import TOKEN
from transport.memory_store import MemoryStore


def _tree(kind: type[HissError]) -> Iterator[type[HissError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


CLASSES = [kind for kind in dict.fromkeys(_tree(HissError)) if kind.__module__ == "hiss.errors"]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_client_raises_what_the_store_raised(
    kind: type[HissError], store: MemoryStore, remote: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def status(*_: Any) -> None:
        raise kind("what, wo, erwartet ≠ gefunden", where="beam/scan", found=3)

    monkeypatch.setattr(MemoryStore, "status", status)
    with pytest.raises(kind) as caught:
        remote.status()
    assert type(caught.value) is kind
    assert str(caught.value) == "what, wo, erwartet ≠ gefunden"
    assert caught.value.details == {"where": "beam/scan", "found": "3"}


CODES = {
    errors.HissError: grpc.StatusCode.UNKNOWN,
    errors.SpecMismatch: grpc.StatusCode.INVALID_ARGUMENT,
    errors.KernelRejected: grpc.StatusCode.INVALID_ARGUMENT,
    errors.BlockMissing: grpc.StatusCode.NOT_FOUND,
    errors.StreamNotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.StreamFinal: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ProducerFenced: grpc.StatusCode.ABORTED,
    errors.Stopping: grpc.StatusCode.UNAVAILABLE,
    errors.SpaceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.BlockDamaged: grpc.StatusCode.DATA_LOSS,
    errors.PermissionRefused: grpc.StatusCode.PERMISSION_DENIED,
    errors.MissingExtra: grpc.StatusCode.UNIMPLEMENTED,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_any_grpc_client_sees_a_canonical_code(
    kind: type[HissError],
    code: grpc.StatusCode,
    server: GrpcServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def status(*_: Any) -> None:
        raise kind("the text")

    monkeypatch.setattr(MemoryStore, "status", status)
    with grpc.insecure_channel(server.addresses[0]) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(STORE["Admin.GetStatus"].path)(b"", metadata=(("authorization", f"Bearer {TOKEN}"),))
    failure: Any = caught.value
    assert failure.code() is code
    assert failure.details() == "the text"
    detail = errors_pb2.ErrorDetail.FromString(dict(failure.trailing_metadata())[DETAIL_KEY])
    assert detail.name == kind.__name__


def test_a_bug_in_the_store_is_logged_and_the_server_lives(
    remote: RemoteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def status(*_: Any) -> None:
        raise ZeroDivisionError("the secret of the store")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "status", status)
        with pytest.raises(HissError, match="error of its own") as caught:
            remote.status()
    assert type(caught.value) is HissError
    assert "secret" not in str(caught.value)
    assert "the secret of the store" in caplog.text
    assert remote.status().node == "memory"


def test_long_errors_are_cut_and_still_arrive(remote: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def status(*_: Any) -> None:
        raise errors.KernelRejected("ü" * 100_000, line=3, source_line="x" * 100_000, column=4)

    monkeypatch.setattr(MemoryStore, "status", status)
    with pytest.raises(errors.KernelRejected) as caught:
        remote.status()
    assert str(caught.value) == "ü" * (limits.ERROR_TEXT_BYTES_MAX // 2)
    assert caught.value.details["line"] == "3"
    assert 1000 < len(caught.value.details["source_line"]) <= limits.ERROR_TEXT_BYTES_MAX


def test_details_stay_within_their_bound() -> None:
    error = HissError("m", **{f"key{i}": "v" * 100 for i in range(1000)})
    assert len(detail_of(error)) < 2 * limits.ERROR_TEXT_BYTES_MAX
    assert len(text_of(HissError("x" * 10_000))) == limits.STATUS_TEXT_BYTES_MAX


class Failure:
    """How a call of gRPC ends, as `error_of` sees it."""

    def __init__(self, code: grpc.StatusCode, text: str = "", metadata: Any = ()) -> None:
        self.code: Callable[[], grpc.StatusCode] = lambda: code
        self.details: Callable[[], str] = lambda: text
        self.trailing_metadata: Callable[[], Any] = lambda: metadata


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_a_status_without_detail_is_an_error_too(code: grpc.StatusCode) -> None:
    error = error_of(Failure(code, "said a proxy"), "there:1")
    assert isinstance(error, HissError)
    assert error.details["address"] == "there:1"
    if type(error) is not HissError:
        assert code_of(error) in (code, *_SAME_AS.get(code, ()))


_SAME_AS = {
    grpc.StatusCode.CANCELLED: (grpc.StatusCode.UNAVAILABLE,),
    grpc.StatusCode.UNAUTHENTICATED: (grpc.StatusCode.PERMISSION_DENIED,),
    grpc.StatusCode.OUT_OF_RANGE: (grpc.StatusCode.INVALID_ARGUMENT,),
    grpc.StatusCode.ABORTED: (grpc.StatusCode.FAILED_PRECONDITION,),
}


def test_garbage_in_the_detail_falls_back_on_the_code() -> None:
    error = error_of(Failure(grpc.StatusCode.NOT_FOUND, "x", ((DETAIL_KEY, b"\xff\xff"),)), "there:1")
    assert type(error) is errors.NotFound


def test_a_class_that_is_not_known_here_is_a_plain_error() -> None:
    detail = errors_pb2.ErrorDetail(name="FromTheFuture", message="m").SerializeToString()
    error = error_of(Failure(grpc.StatusCode.NOT_FOUND, "x", ((DETAIL_KEY, detail),)), "there:1")
    assert type(error) is HissError
    assert str(error) == "m"

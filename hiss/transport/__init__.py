"""gRPC: the wire schema in `proto/`, a server for any Store, and a Store at the other end."""

from hiss.transport.remote import RemoteStore
from hiss.transport.server import GrpcServer

__all__ = ["GrpcServer", "RemoteStore"]

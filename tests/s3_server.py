"""A real S3 endpoint for tests: moto's server over HTTP, which can go away and come back, and be looked into."""

from __future__ import annotations

import logging
from typing import Any, Self

from hiss.s3_options import S3Options

BUCKET = "archive"


class S3Server:
    """A context manager. What is stored outlives `stop`, as a store's disk does; it is all in this process's memory, so
    two servers show the same."""

    def __init__(self) -> None:
        self._port = 0
        self._server: Any = None

    def __enter__(self) -> Self:
        self.start()
        self.client.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is None:
            self.start()
        self.clear()
        self.stop()

    def start(self) -> None:
        from moto.s3 import models
        from moto.server import ThreadedMotoServer

        models.S3_UPLOAD_PART_MIN_SIZE = 1  # so that small files travel in many parts
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """Nobody listens any more."""
        self._server.stop()
        self._server = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def options(self) -> S3Options:
        return S3Options(self.endpoint, "us-east-1", "key", "secret")

    @property
    def client(self) -> Any:
        import boto3

        options = self.options
        return boto3.client(
            "s3",
            endpoint_url=options.endpoint,
            region_name=options.region,
            aws_access_key_id=options.access_key_id,
            aws_secret_access_key=options.secret_access_key,
        )

    def listed(self, prefix: str = "") -> list[str]:
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]

    def uploads(self) -> list[str]:
        """Keys of multipart uploads that nobody finished."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    def clear(self) -> None:
        client = self.client
        for key in self.listed():
            client.delete_object(Bucket=BUCKET, Key=key)
        for each in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
            client.abort_multipart_upload(Bucket=BUCKET, Key=each["Key"], UploadId=each["UploadId"])

    def read(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def write(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)


def flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 4
    return bytes(changed)

"""Unfinished multipart uploads: found and ended. The two calls of S3 that obstore does not have.

An upload whose sender was killed keeps its parts, which cost and which no listing of objects shows. The calls are
signed as "Signature Version 4" says (https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html),
with the keys of `S3Options`; a machine that has its rights from elsewhere has no keys to sign with, and leaves it to
the bucket's life-cycle rule. Called from the thread that drains.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from hiss import limits
from hiss.errors import Unavailable
from hiss.s3_options import S3Options

_EMPTY: Final = hashlib.sha256(b"").hexdigest()


def end_unfinished_uploads(options: S3Options, bucket: str, key: str) -> int:
    """End the uploads of an object, and of those of a tree of that name; how many there were.

    Raises
    ------
    Unavailable
        The store cannot be reached, or does not do that.
    """
    if not options.access_key_id:
        return 0
    found = _unfinished(options, bucket, key)
    for each, upload in found:
        _call(options, "DELETE", bucket, each, {"uploadId": upload})
    return len(found)


def _unfinished(options: S3Options, bucket: str, key: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    after: dict[str, str] = {}
    while True:
        root = ElementTree.fromstring(_call(options, "GET", bucket, "", {"uploads": "", "prefix": key, **after}))
        space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
        for upload in root.iter(f"{space}Upload"):
            name = upload.findtext(f"{space}Key") or ""
            if name == key or name.startswith(f"{key}/"):
                found.append((name, upload.findtext(f"{space}UploadId") or ""))
        if root.findtext(f"{space}IsTruncated") != "true":
            return found
        after = {
            "key-marker": root.findtext(f"{space}NextKeyMarker") or "",
            "upload-id-marker": root.findtext(f"{space}NextUploadIdMarker") or "",
        }


def _call(options: S3Options, method: str, bucket: str, key: str, query: Mapping[str, str]) -> bytes:
    base = urlsplit(options.endpoint or f"https://{bucket}.s3.{options.region}.amazonaws.com")
    path = quote((f"/{bucket}/{key}" if options.endpoint else f"/{key}"), safe="/~")
    text = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query.items()))
    headers = signed(options, method, base.netloc, path, text, datetime.datetime.now(datetime.UTC))
    request = urllib.request.Request(f"{base.scheme}://{base.netloc}{path}?{text}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=limits.S3_CALL_S) as reply:
            body: bytes = reply.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            if method == "DELETE" and error.code == 404:  # it is over already
                return b""
            raise Unavailable(f"s3://{bucket}/{key}: {method} ?{text}: {error.code} {error.reason}") from None
    except OSError as error:
        raise Unavailable(f"s3://{bucket}/{key}: {error}") from None


def signed(options: S3Options, method: str, host: str, path: str, query: str, now: datetime.datetime) -> dict[str, str]:
    """The headers of a request without a body. `path` and `query` are quoted, the query's names in order."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    if options.session_token:
        headers["x-amz-security-token"] = options.session_token
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    asked = "\n".join((method, path, query, lines, names, _EMPTY))
    scope = f"{stamp[:8]}/{options.region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(asked.encode()).hexdigest()))
    key = f"AWS4{options.secret_access_key}".encode()
    for part in (stamp[:8], options.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={options.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers

"""An object store in an S3 bucket.

What a key holds is decided by S3 alone: every write is conditional (``If-None-Match: *``), and each object carries a
label that tells whose it is: the nonce of the call that put it, or its source's digest.

A large object goes up in parts, and nothing is remembered here of an upload that was begun. S3 does not tell of an
upload under way what label it will give its object, so the digest is put into it as a part of its own, one that its
completion does not list: a later run finds the upload of this key and digest by it, and the parts that are there by
their SHA-256.

Sources: Amazon S3 API reference (PutObject, the multipart operations, ListMultipartUploads, ListParts, HeadBucket and
their errors), Amazon S3 user guide ("Add preconditions to S3 operations with conditional requests", "Amazon S3
multipart upload limits", "Checking object integrity").
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from itertools import chain
from typing import Any

from osvdeploy.cloud.aws.bucket import Bucket
from osvdeploy.cloud.aws.multipart import DIGEST, Upload, abort, base64_of, date_of, part_size
from osvdeploy.cloud.aws.session import ATTEMPTS, Aws
from osvdeploy.cloud.interfaces import ObjectSource, StoredObject, UnfinishedObject
from osvdeploy.cloud.parallel import beside
from osvdeploy.cloud.parts import Ahead, agreed, cut, is_refusal
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import NotFound, OsvDeployError, Refused, Unavailable, UploadGone
from osvdeploy.events import Progress
from osvdeploy.retry import retrying

NONCE = "osvdeploy-nonce"
"""Name of an object's metadata: whose call put it."""

MOST_UPLOADS = 5
"""Uploads of one object that one run sees taken away under its hands before it gives up."""

CONFLICTS = 10
"""Attempts of a write that meets others of the same key: S3 answers those it cannot order with a conflict."""

PAGE = 1000
"""Keys in one answer: as many as S3 gives."""


class S3Store:
    """:class:`~osvdeploy.cloud.interfaces.ObjectStore` in a bucket, at ``s3://bucket/prefix``. Nothing is asked before
    it is used.

    Raises :class:`~osvdeploy.errors.UsageError` for an address that cannot be one.
    """

    def __init__(self, address: str, asked: Aws | None = None) -> None:
        """``asked`` is who is asked where the bucket is, an account's clients in any region; without one the SDK's
        usual chain of settings decides. The bucket's own region is found by asking."""
        self.bucket = Bucket(address, asked)

    @property
    def address(self) -> str:
        return self.bucket.address

    # ------------------------------------------------------------------------------------------------ small objects

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        name, nonce = self.bucket.of_key(key), ctx.nonce()
        try:
            with self.bucket.calling(ctx, key, attempts=CONFLICTS) as s3:
                s3.put_object(
                    Bucket=self.bucket.name,
                    Key=name,
                    Body=content,
                    IfNoneMatch="*",
                    ChecksumSHA256=base64_of(hashlib.sha256(content).digest()),
                    Metadata={NONCE: nonce},
                )
        except Refused as error:
            if error.code != "PreconditionFailed":
                raise
            # What is there may be ours: the answer to an earlier attempt of this very call was lost.
            return self._metadata(ctx, key).get(NONCE) == nonce
        return True

    def get(self, ctx: Context, key: str) -> bytes | None:
        name = self.bucket.of_key(key)

        def read() -> bytes:
            with self.bucket.calling(ctx, key) as s3:
                # The body, too, may break off; what has been answered is not repeated by the session.
                return s3.get_object(Bucket=self.bucket.name, Key=name)["Body"].read()

        try:
            return retrying(ctx, read, when=lambda error: isinstance(error, Unavailable), attempts=ATTEMPTS)
        except NotFound as error:
            if error.code != "NoSuchKey":
                raise
            return None

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        left, page = limit, dict[str, Any]()
        while left is None or left > 0:
            with self.bucket.calling(ctx, prefix) as s3:
                listed = s3.list_objects_v2(
                    Bucket=self.bucket.name,
                    Prefix=self.bucket.under(prefix),
                    MaxKeys=PAGE if left is None else min(left, PAGE),
                    **page,
                )
            found = [each["Key"] for each in listed.get("Contents", [])]
            for name in found:
                yield self.bucket.key_of(name)
            if not listed["IsTruncated"]:
                return
            left = None if left is None else left - len(found)
            page = {"ContinuationToken": listed["NextContinuationToken"]}

    def folders(self, ctx: Context, prefix: str) -> Iterator[str]:
        page = dict[str, Any]()
        while True:
            with self.bucket.calling(ctx, prefix) as s3:
                listed = s3.list_objects_v2(
                    Bucket=self.bucket.name, Prefix=self.bucket.beneath(prefix), Delimiter="/", MaxKeys=PAGE, **page
                )
            for each in listed.get("CommonPrefixes", []):
                yield self.bucket.key_of(each["Prefix"])[len(prefix) :].rstrip("/")
            if not listed["IsTruncated"]:
                return
            page = {"ContinuationToken": listed["NextContinuationToken"]}

    def delete(self, ctx: Context, key: str) -> None:
        name = self.bucket.of_key(key)
        with self.bucket.calling(ctx, key, brief=True) as s3:
            s3.delete_object(Bucket=self.bucket.name, Key=name)

    def find(self, ctx: Context, key: str) -> StoredObject | None:
        name = self.bucket.of_key(key)
        try:
            with self.bucket.calling(ctx, key) as s3:
                head = s3.head_object(Bucket=self.bucket.name, Key=name)
        except NotFound:
            return None
        digest = head["Metadata"].get(DIGEST)
        return StoredObject(key, head["ContentLength"], Digest(digest) if digest else None, head["LastModified"])

    def refuse_unwritable(self, ctx: Context, prefix: str) -> None:
        try:
            with self.bucket.calling(ctx, prefix) as s3:
                # A condition that nothing meets: it is looked at after the permission.
                s3.put_object(
                    Bucket=self.bucket.name, Key=self.bucket.under(f"{prefix}.none"), Body=b"", IfMatch='"none"'
                )
        except (NotFound, Refused) as error:
            if error.code not in ("NoSuchKey", "PreconditionFailed"):
                raise

    def _metadata(self, ctx: Context, key: str) -> dict[str, str]:
        try:
            with self.bucket.calling(ctx, key) as s3:
                return s3.head_object(Bucket=self.bucket.name, Key=self.bucket.of_key(key))["Metadata"]
        except NotFound:
            return {}

    # ------------------------------------------------------------------------------------------------ large objects

    def put_file(self, ctx: Context, key: str, source: ObjectSource) -> StoredObject:
        parts = Ahead(cut(source.pieces(), part_size))
        there, uploads = self._look(ctx, key, parts)
        if there is not None:
            return agreed(self.address, there, source)
        first, second = next(parts, b""), next(parts, None)
        if second is None:
            made = self._put_whole(ctx, key, source, first)
        else:
            made = self._put_parts(ctx, key, source, uploads, chain((first, second), parts))
        if made is not None:
            return made
        stored = self.find(ctx, key)
        if stored is None:
            raise Unavailable(f"{self.address}/{key}: was deleted while it was put", hint="run the same command again")
        return agreed(self.address, stored, source)

    def _look(self, ctx: Context, key: str, parts: Ahead) -> tuple[StoredObject | None, list[UnfinishedObject]]:
        """The object, and what uploads of it are under way or were left: both questions at once, and parts are made
        meanwhile."""
        name = self.bucket.of_key(key)

        def ask(ctx: Context, what: str, stop: threading.Event) -> Any:
            if what == "object":
                return self.find(ctx, key)
            return [each for each in self.unfinished(ctx, key) if self.bucket.under(each.key) == name]

        with beside(ctx, ("object", "uploads"), ask, name="s3-look") as looks:
            parts.make(until=lambda: looks.over)
        there, uploads = looks.answers
        return there, uploads

    def _put_whole(self, ctx: Context, key: str, source: ObjectSource, content: bytes) -> StoredObject | None:
        """The object, None where one was there before."""
        try:
            with self.bucket.calling(ctx, key, attempts=CONFLICTS) as s3:
                put = s3.put_object(
                    Bucket=self.bucket.name,
                    Key=self.bucket.of_key(key),
                    Body=content,
                    IfNoneMatch="*",
                    ChecksumSHA256=base64_of(hashlib.sha256(content).digest()),
                    Metadata={DIGEST: source.digest},
                )
        except Refused as error:
            if error.code != "PreconditionFailed":
                raise
            return None
        ctx.report(Progress(f"upload {key}", len(content), len(content), "bytes"))
        return StoredObject(key, len(content), source.digest, date_of(ctx, put))

    def _put_parts(
        self, ctx: Context, key: str, source: ObjectSource, uploads: list[UnfinishedObject], parts: Iterator[bytes]
    ) -> StoredObject | None:
        """One upload, or another when it was taken away meanwhile, until there is an object; None for one that was not
        made here. ``uploads`` are there already, ``parts`` are the source's, begun."""
        for number in range(1, MOST_UPLOADS + 1):
            upload = Upload(self.bucket, key, source.digest)
            try:
                upload.open(ctx, uploads)
                upload.send(ctx, parts, source.size)
                return upload.complete(ctx)
            except UploadGone:
                # Completed by another process, then the object is there; or aborted.
                parts = Ahead(cut(source.pieces(), part_size))
                there, uploads = self._look(ctx, key, parts)
                if there is not None:
                    return None
                if number == MOST_UPLOADS:
                    raise
            except OsvDeployError as error:
                if upload.id and is_refusal(error):
                    upload.abort(ctx)
                raise
        raise AssertionError("the last one has raised")

    def unfinished(self, ctx: Context, prefix: str) -> list[UnfinishedObject]:
        found, page = list[UnfinishedObject](), dict[str, Any]()
        while True:
            with self.bucket.calling(ctx, prefix) as s3:
                listed = s3.list_multipart_uploads(Bucket=self.bucket.name, Prefix=self.bucket.under(prefix), **page)
            for each in listed.get("Uploads", []):
                found.append(UnfinishedObject(self.bucket.key_of(each["Key"]), each["UploadId"], each["Initiated"]))
            if not listed["IsTruncated"]:
                return found
            page = {"KeyMarker": listed["NextKeyMarker"], "UploadIdMarker": listed["NextUploadIdMarker"]}

    def abort(self, ctx: Context, upload: UnfinishedObject) -> None:
        abort(ctx, self.bucket, upload.key, upload.id)

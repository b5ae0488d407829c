"""One multipart upload of one object to S3: taken up where it was left, sent, completed or aborted.

Sources: Amazon S3 API reference (the multipart operations, ListParts), Amazon S3 user guide ("Amazon S3 multipart
upload limits", "Checking object integrity").
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from osvdeploy.cloud.aws.bucket import Bucket
from osvdeploy.cloud.aws.session import ATTEMPTS
from osvdeploy.cloud.interfaces import StoredObject, UnfinishedObject
from osvdeploy.cloud.parallel import in_flight
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import NotFound, OsvDeployError, Refused, Unavailable, UploadGone
from osvdeploy.events import Progress
from osvdeploy.retry import retrying
from osvdeploy.sizes import MIB

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, PartTypeDef

DIGEST = "osvdeploy-digest"
"""Name of an object's metadata: its source's digest."""

WIDTH = 16
"""Parts in flight, of 5 MiB for most disks: as many bytes as boto3's transfers have, in 10 parts of 8 MiB."""

LABEL_PART = 10_000
"""The last part number there is. Parts that a completion does not list go with the upload."""

PUT_PATIENCE = 60.0
"""Seconds for which one part is tried again: S3 slows down who is new to a bucket's prefix."""


def part_size(number: int) -> int:
    """Bytes of a part, from 1 on: the least there may be for the first thousand, twice as many for each that follow.

    So 10,000 parts hold 4.9 TiB, and one that is known by its number and content belongs to every upload of its source.
    """
    return 5 * MIB << (number - 1) // 1000


@dataclass(slots=True)
class Part:
    """A part as it stands in the upload."""

    number: int
    size: int
    etag: str
    sha256: str


class Upload:
    """One multipart upload of one object."""

    def __init__(self, bucket: Bucket, key: str, digest: Digest) -> None:
        self.id = ""
        self._bucket = bucket
        self._key = key
        self._digest = digest
        self._label = base64_of(hashlib.sha256(digest.encode()).digest())
        self._labelled = False
        self._stored: dict[int, Part] = {}
        self._parts: dict[int, Part] = {}

    @property
    def _about(self) -> dict[str, Any]:
        return {"Bucket": self._bucket.name, "Key": self._bucket.of_key(self._key), "UploadId": self.id}

    def open(self, ctx: Context, uploads: list[UnfinishedObject]) -> None:
        """Take up the one of ``uploads`` that is of our digest, with what is in it, or begin one."""
        for each in uploads:
            self.id = each.id
            try:
                if self._is_ours(ctx):
                    self._labelled = True
                    self._stored = {part.number: part for part in self._list(ctx)}
                    return
            except UploadGone:
                continue
        self.id = ""
        with self._bucket.calling(ctx, self._key) as s3:
            begun = s3.create_multipart_upload(
                Bucket=self._bucket.name,
                Key=self._bucket.of_key(self._key),
                ChecksumAlgorithm="SHA256",
                Metadata={DIGEST: self._digest},
            )
        self.id = begun["UploadId"]

    def _is_ours(self, ctx: Context) -> bool:
        with self._calling(ctx) as s3:
            listed = s3.list_parts(**self._about, PartNumberMarker=LABEL_PART - 1)
        return any(part.get("ChecksumSHA256") == self._label for part in listed.get("Parts", []))

    def _list(self, ctx: Context) -> Iterator[Part]:
        marker = 0
        while True:
            with self._calling(ctx) as s3:
                listed = s3.list_parts(**self._about, PartNumberMarker=marker)
            yield from (_stored(part) for part in listed.get("Parts", []))
            if not listed["IsTruncated"]:
                return
            marker = listed["NextPartNumberMarker"]

    def send(self, ctx: Context, parts: Iterator[bytes], size: int | None) -> None:
        """Send the label, and each of the object's parts that is not in the upload already. ``size`` is for the
        report."""
        done = 0
        self._parts.clear()

        def keep(part: Part) -> None:
            nonlocal done
            if part.number == LABEL_PART:
                self._labelled = True
                return
            self._parts[part.number] = part
            done += part.size
            ctx.report(Progress(f"upload {self._key}", done, size, "bytes"))

        label = [] if self._labelled else [(LABEL_PART, self._digest.encode())]
        numbered = ((self._checked(number), content) for number, content in enumerate(parts, 1))
        in_flight(ctx, chain(label, numbered), self._send_part, keep, width=WIDTH, name="s3-put")

    def _checked(self, number: int) -> int:
        if number >= LABEL_PART:
            raise Refused(f"{self._bucket.address}/{self._key}: more than S3 takes in {LABEL_PART - 1} parts")
        return number

    def _send_part(self, ctx: Context, item: tuple[int, bytes], stop: threading.Event) -> Part:
        number, content = item
        sha256 = base64_of(hashlib.sha256(content).digest())
        there = self._stored.get(number)
        if there is not None and (there.size, there.sha256) == (len(content), sha256):
            return there

        def put() -> Part:
            with self._calling(ctx, attempts=1) as s3:
                answer = s3.upload_part(**self._about, PartNumber=number, Body=content, ChecksumSHA256=sha256)
            return Part(number, len(content), answer["ETag"], sha256)

        def passing(error: BaseException) -> bool:
            return isinstance(error, Unavailable) and not stop.is_set()

        return retrying(ctx, put, when=passing, seconds=PUT_PATIENCE)

    def complete(self, ctx: Context) -> StoredObject | None:
        """Make the object of the parts; None where one was there before. Raises UploadGone where there is no such
        upload (any more), or S3 wants another one."""
        parts = [self._parts[number] for number in sorted(self._parts)]
        size = sum(part.size for part in parts)
        listed: list[CompletedPartTypeDef] = [
            {"PartNumber": part.number, "ETag": part.etag, "ChecksumSHA256": part.sha256} for part in parts
        ]
        try:
            with self._calling(ctx) as s3:
                made = s3.complete_multipart_upload(
                    **self._about, MultipartUpload={"Parts": listed}, MpuObjectSize=size, IfNoneMatch="*"
                )
        except Refused as error:
            if error.code != "PreconditionFailed":
                raise
            self.abort(ctx)
            return None
        except Unavailable as error:
            if error.code != "ConditionalRequestConflict":
                raise
            # S3 asks for a new upload then.
            self.abort(ctx)
            raise UploadGone(f"{self._bucket.address}/{self._key}: another was completed at the same time") from error
        expected = _composite([part.sha256 for part in parts])
        if made.get("ChecksumSHA256", expected) != expected:
            raise Refused(
                f"{self._bucket.address}/{self._key}: S3 holds {made.get('ChecksumSHA256')}, but {expected} was sent",
                hint="delete this object, and run the same command again",
            )
        return StoredObject(self._key, size, self._digest, date_of(ctx, made))

    def abort(self, ctx: Context) -> None:
        """Take it away, as far as that can be done: what hinders it is not what has to be told."""
        try:
            abort(ctx, self._bucket, self._key, self.id)
        except OsvDeployError:
            pass  # gc finds it

    @contextmanager
    def _calling(self, ctx: Context, attempts: int = ATTEMPTS) -> Iterator[S3Client]:
        try:
            with self._bucket.calling(ctx, self._key, attempts) as s3:
                yield s3
        except NotFound as error:
            if error.code != "NoSuchUpload":
                raise
            raise UploadGone(f"{self._bucket.address}/{self._key}: the upload was aborted or completed") from error


def abort(ctx: Context, bucket: Bucket, key: str, upload: str) -> None:
    """Take away what an upload left. Succeeds when it is gone."""
    try:
        with bucket.calling(ctx, key, brief=True) as s3:
            s3.abort_multipart_upload(Bucket=bucket.name, Key=bucket.under(key), UploadId=upload)
    except NotFound as error:
        if error.code != "NoSuchUpload":
            raise


def date_of(ctx: Context, answer: Mapping[str, Any]) -> datetime:
    """When S3 answered, by its own clock where it says so."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(said) if said else ctx.now()


def _stored(part: PartTypeDef) -> Part:
    return Part(part["PartNumber"], part["Size"], part["ETag"], part.get("ChecksumSHA256", ""))


def _composite(sums: list[str]) -> str:
    """S3's checksum of an object in parts: over those of the parts, and how many there are."""
    joined = b"".join(base64.b64decode(each) for each in sums)
    return f"{base64_of(hashlib.sha256(joined).digest())}-{len(sums)}"


def base64_of(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

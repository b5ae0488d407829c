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

from osvdeploy.cloud.aws.errors import PERMISSION
from osvdeploy.cloud.aws.session import ATTEMPTS, Aws, default_session
from osvdeploy.cloud.interfaces import ObjectSource, StoredObject, UnfinishedObject
from osvdeploy.cloud.keys import check_key
from osvdeploy.cloud.parallel import in_flight
from osvdeploy.cloud.parts import agreed, cut, is_refusal
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import (
    LedgerError,
    NotFound,
    OsvDeployError,
    Refused,
    Unavailable,
    UploadGone,
    UsageError,
)
from osvdeploy.events import Progress
from osvdeploy.retry import retrying
from osvdeploy.sizes import MIB

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, PartTypeDef

DIGEST = "osvdeploy-digest"
NONCE = "osvdeploy-nonce"
"""Names of objects' metadata."""

WIDTH = 16
"""Parts in flight, of 5 MiB for most disks: as many bytes as boto3's transfers have, in 10 parts of 8 MiB."""

LABEL_PART = 10_000
"""The last part number there is. Parts that a completion does not list go with the upload."""

MOST_UPLOADS = 5
"""Uploads of one object that one run sees taken away under its hands before it gives up."""

CONFLICTS = 10
"""Attempts of a write that meets others of the same key: S3 answers those it cannot order with a conflict."""

PAGE = 1000
"""Keys in one answer: as many as S3 gives."""

PUT_PATIENCE = 60.0
"""Seconds for which one part is tried again: S3 slows down who is new to a bucket's prefix."""

FIRST_REGION = "us-east-1"

_ACTIONS = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "GetObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListObjectsV2": "s3:ListBucket",
    "ListParts": "s3:ListMultipartUploadParts",
    "PutObject": "s3:PutObject",
    "UploadPart": "s3:PutObject",
}


def part_size(number: int) -> int:
    """Bytes of a part, from 1 on: the least there may be for the first thousand, twice as many for each that follow.

    So 10,000 parts hold 4.9 TiB, and one that is known by its number and content belongs to every upload of its source.
    """
    return 5 * MIB << (number - 1) // 1000


class S3Store:
    """:class:`~osvdeploy.cloud.interfaces.ObjectStore` in a bucket, at ``s3://bucket/prefix``. Nothing is asked before
    it is used.

    Raises :class:`~osvdeploy.errors.UsageError` for an address that cannot be one.
    """

    def __init__(self, address: str, session: boto3.Session | None = None) -> None:
        """``session`` is a prepared boto3 session; without one the SDK's usual chain of settings decides. The bucket's
        own region is found by asking."""
        self._address = address.rstrip("/")
        self.bucket, self.prefix = _parsed(address)
        self._session = session
        self._aws: Aws | None = None
        self._finding = threading.Lock()

    @property
    def address(self) -> str:
        return self._address

    # ------------------------------------------------------------------------------------------------ small objects

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        name, nonce = self._name(key), ctx.nonce()
        try:
            with self._calling(ctx, key, attempts=CONFLICTS) as s3:
                s3.put_object(
                    Bucket=self.bucket,
                    Key=name,
                    Body=content,
                    IfNoneMatch="*",
                    ChecksumSHA256=_base64(hashlib.sha256(content).digest()),
                    Metadata={NONCE: nonce},
                )
        except Refused as error:
            if error.code != "PreconditionFailed":
                raise
            # What is there may be ours: the answer to an earlier attempt of this very call was lost.
            return self._metadata(ctx, key).get(NONCE) == nonce
        return True

    def get(self, ctx: Context, key: str) -> bytes | None:
        name = self._name(key)

        def read() -> bytes:
            with self._calling(ctx, key) as s3:
                # The body, too, may break off; what has been answered is not repeated by the session.
                return s3.get_object(Bucket=self.bucket, Key=name)["Body"].read()

        try:
            return retrying(ctx, read, when=lambda error: isinstance(error, Unavailable), attempts=ATTEMPTS)
        except NotFound as error:
            if error.code != "NoSuchKey":
                raise
            return None

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        left, page = limit, dict[str, Any]()
        while left is None or left > 0:
            with self._calling(ctx, prefix) as s3:
                listed = s3.list_objects_v2(
                    Bucket=self.bucket,
                    Prefix=self._under(prefix),
                    MaxKeys=PAGE if left is None else min(left, PAGE),
                    **page,
                )
            found = [each["Key"] for each in listed.get("Contents", [])]
            for name in found:
                yield self._key(name)
            if not listed["IsTruncated"]:
                return
            left = None if left is None else left - len(found)
            page = {"ContinuationToken": listed["NextContinuationToken"]}

    def delete(self, ctx: Context, key: str) -> None:
        name = self._name(key)
        with self._calling(ctx, key) as s3:
            s3.delete_object(Bucket=self.bucket, Key=name)

    def find(self, ctx: Context, key: str) -> StoredObject | None:
        name = self._name(key)
        try:
            with self._calling(ctx, key) as s3:
                head = s3.head_object(Bucket=self.bucket, Key=name)
        except NotFound:
            return None
        digest = head["Metadata"].get(DIGEST)
        return StoredObject(key, head["ContentLength"], Digest(digest) if digest else None, head["LastModified"])

    def refuse_unwritable(self, ctx: Context, prefix: str) -> None:
        try:
            with self._calling(ctx, prefix) as s3:
                # A condition that nothing meets: it is looked at after the permission.
                s3.put_object(Bucket=self.bucket, Key=self._under(f"{prefix}.none"), Body=b"", IfMatch='"none"')
        except (NotFound, Refused) as error:
            if error.code not in ("NoSuchKey", "PreconditionFailed"):
                raise

    def _metadata(self, ctx: Context, key: str) -> dict[str, str]:
        try:
            with self._calling(ctx, key) as s3:
                return s3.head_object(Bucket=self.bucket, Key=self._name(key))["Metadata"]
        except NotFound:
            return {}

    # ------------------------------------------------------------------------------------------------ large objects

    def put_file(self, ctx: Context, key: str, source: ObjectSource) -> StoredObject:
        there, uploads = self._look(ctx, key)
        if there is not None:
            return agreed(self._address, there, source)
        parts = cut(source.pieces(), part_size)
        first, second = next(parts, b""), next(parts, None)
        if second is None:
            made = self._put_whole(ctx, key, source, first)
        else:
            made = self._put_parts(ctx, key, source, uploads, chain((first, second), parts))
        if made is not None:
            return made
        stored = self.find(ctx, key)
        if stored is None:
            raise Unavailable(f"{self._address}/{key}: was deleted while it was put", hint="run the same command again")
        return agreed(self._address, stored, source)

    def _look(self, ctx: Context, key: str) -> tuple[StoredObject | None, list[UnfinishedObject]]:
        """The object, and what uploads of it are under way or were left: both questions at once."""
        name, found = self._name(key), dict[str, Any]()

        def ask(ctx: Context, what: str, stop: threading.Event) -> tuple[str, Any]:
            if what == "object":
                return what, self.find(ctx, key)
            return what, [each for each in self.unfinished(ctx, key) if self._under(each.key) == name]

        in_flight(ctx, ("object", "uploads"), ask, lambda answer: found.update([answer]), width=2, name="s3-look")
        return found["object"], found["uploads"]

    def _put_whole(self, ctx: Context, key: str, source: ObjectSource, content: bytes) -> StoredObject | None:
        """The object, None where one was there before."""
        try:
            with self._calling(ctx, key, attempts=CONFLICTS) as s3:
                put = s3.put_object(
                    Bucket=self.bucket,
                    Key=self._name(key),
                    Body=content,
                    IfNoneMatch="*",
                    ChecksumSHA256=_base64(hashlib.sha256(content).digest()),
                    Metadata={DIGEST: source.digest},
                )
        except Refused as error:
            if error.code != "PreconditionFailed":
                raise
            return None
        ctx.report(Progress(f"upload {key}", len(content), len(content), "bytes"))
        return StoredObject(key, len(content), source.digest, _date(ctx, put))

    def _put_parts(
        self, ctx: Context, key: str, source: ObjectSource, uploads: list[UnfinishedObject], parts: Iterator[bytes]
    ) -> StoredObject | None:
        """One upload, or another when it was taken away meanwhile, until there is an object; None for one that was not
        made here. ``uploads`` are there already, ``parts`` are the source's, begun."""
        for number in range(1, MOST_UPLOADS + 1):
            upload = _Upload(self, key, source.digest)
            try:
                upload.open(ctx, uploads)
                upload.send(ctx, parts, source.size)
                return upload.complete(ctx)
            except UploadGone:
                # Completed by another process, then the object is there; or aborted.
                there, uploads = self._look(ctx, key)
                if there is not None:
                    return None
                if number == MOST_UPLOADS:
                    raise
                parts = cut(source.pieces(), part_size)
            except OsvDeployError as error:
                if upload.id and is_refusal(error):
                    upload.abort(ctx)
                raise
        raise AssertionError("the last one has raised")

    def unfinished(self, ctx: Context, prefix: str) -> list[UnfinishedObject]:
        found, page = list[UnfinishedObject](), dict[str, Any]()
        while True:
            with self._calling(ctx, prefix) as s3:
                listed = s3.list_multipart_uploads(Bucket=self.bucket, Prefix=self._under(prefix), **page)
            for each in listed.get("Uploads", []):
                found.append(UnfinishedObject(self._key(each["Key"]), each["UploadId"], each["Initiated"]))
            if not listed["IsTruncated"]:
                return found
            page = {"KeyMarker": listed["NextKeyMarker"], "UploadIdMarker": listed["NextUploadIdMarker"]}

    def abort(self, ctx: Context, upload: UnfinishedObject) -> None:
        try:
            with self._calling(ctx, upload.key) as s3:
                name = self._under(upload.key)
                s3.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=upload.id)
        except NotFound as error:
            if error.code != "NoSuchUpload":
                raise

    # -------------------------------------------------------------------------------------------------- the bucket

    def _name(self, key: str) -> str:
        """A key's name in the bucket."""
        return self._under(check_key(key))

    def _under(self, prefix: str) -> str:
        return f"{self.prefix}/{prefix}" if self.prefix else prefix

    def _key(self, name: str) -> str:
        return name[len(self.prefix) + 1 :] if self.prefix else name

    @contextmanager
    def _calling(self, ctx: Context, key: str, attempts: int = ATTEMPTS) -> Iterator[S3Client]:
        """The bucket's client, for calls about a key; a refusal names the action that has to be allowed."""
        where = f"{self._address}/{key}" if key else self._address
        aws = self._in_its_region(ctx)
        try:
            with aws.calling(ctx, where, attempts):
                yield aws.s3
        except Refused as error:
            if error.code not in PERMISSION:
                raise
            raise self._forbidden(error) from error

    def _forbidden(self, error: Refused) -> Refused:
        action = _ACTIONS.get(error.operation or "", f"s3:{error.operation}")
        on = f"arn:aws:s3:::{self.bucket}" + ("" if "Bucket" in action else f"/{self._under('*')}")
        hint = f"allow {action} on {on}"
        if error.operation in ("GetObject", "HeadObject"):
            hint += (
                f", and s3:ListBucket on arn:aws:s3:::{self.bucket}: without it S3 also says this of what is not there"
            )
        return Refused(error.message, operation=error.operation, code=error.code, hint=hint)

    def _in_its_region(self, ctx: Context) -> Aws:
        with self._finding:
            if self._aws is None:
                self._aws = self._found(ctx)
            return self._aws

    def _found(self, ctx: Context) -> Aws:
        """Clients of the region that the bucket is in."""
        session = self._session or default_session()
        asked = Aws(session.region_name or FIRST_REGION, session)
        region = region_of(ctx, asked, self.bucket, self._address)
        return asked if region == asked.region else asked.elsewhere(region)


def region_of(ctx: Context, aws: Aws, bucket: str, what: str) -> str:
    """The region that a bucket is in: S3 tells it to everybody, permission or not. ``what`` is what errors name.

    Raises :class:`~osvdeploy.errors.Refused` where there is no such bucket.
    """
    try:
        with aws.calling(ctx, what):
            return aws.s3.head_bucket(Bucket=bucket).get("BucketRegion", aws.region)
    except NotFound as error:
        raise Refused(
            f"{what}: there is no bucket {bucket}",
            operation=error.operation,
            code="NoSuchBucket",
            hint=f"make it (aws s3 mb s3://{bucket}), or name another",
        ) from error
    except Refused as error:
        region = _region_told(error)
        if region is not None:
            return region
    # A refused HEAD says nothing; ask in a way that has an answer.
    with aws.calling(ctx, what):
        return aws.s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or FIRST_REGION


@dataclass(slots=True)
class _Part:
    """A part as it stands in the upload."""

    number: int
    size: int
    etag: str
    sha256: str


class _Upload:
    """One multipart upload of one object."""

    def __init__(self, store: S3Store, key: str, digest: Digest) -> None:
        self.id = ""
        self._store = store
        self._key = key
        self._digest = digest
        self._label = _base64(hashlib.sha256(digest.encode()).digest())
        self._labelled = False
        self._stored: dict[int, _Part] = {}
        self._parts: dict[int, _Part] = {}

    @property
    def _about(self) -> dict[str, Any]:
        return {"Bucket": self._store.bucket, "Key": self._store._name(self._key), "UploadId": self.id}

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
        with self._store._calling(ctx, self._key) as s3:
            begun = s3.create_multipart_upload(
                Bucket=self._store.bucket,
                Key=self._store._name(self._key),
                ChecksumAlgorithm="SHA256",
                Metadata={DIGEST: self._digest},
            )
        self.id = begun["UploadId"]

    def _is_ours(self, ctx: Context) -> bool:
        with self._calling(ctx) as s3:
            listed = s3.list_parts(**self._about, PartNumberMarker=LABEL_PART - 1)
        return any(part.get("ChecksumSHA256") == self._label for part in listed.get("Parts", []))

    def _list(self, ctx: Context) -> Iterator[_Part]:
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

        def keep(part: _Part) -> None:
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
            raise Refused(f"{self._store.address}/{self._key}: more than S3 takes in {LABEL_PART - 1} parts")
        return number

    def _send_part(self, ctx: Context, item: tuple[int, bytes], stop: threading.Event) -> _Part:
        number, content = item
        sha256 = _base64(hashlib.sha256(content).digest())
        there = self._stored.get(number)
        if there is not None and (there.size, there.sha256) == (len(content), sha256):
            return there

        def put() -> _Part:
            with self._calling(ctx, attempts=1) as s3:
                answer = s3.upload_part(**self._about, PartNumber=number, Body=content, ChecksumSHA256=sha256)
            return _Part(number, len(content), answer["ETag"], sha256)

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
            raise UploadGone(f"{self._store.address}/{self._key}: another was completed at the same time") from error
        expected = _composite([part.sha256 for part in parts])
        if made.get("ChecksumSHA256", expected) != expected:
            raise Refused(
                f"{self._store.address}/{self._key}: S3 holds {made.get('ChecksumSHA256')}, but {expected} was sent",
                hint="delete this object, and run the same command again",
            )
        return StoredObject(self._key, size, self._digest, _date(ctx, made))

    def abort(self, ctx: Context) -> None:
        """Take it away, as far as that can be done: what hinders it is not what has to be told."""
        try:
            self._store.abort(ctx, UnfinishedObject(self._key, self.id, ctx.now()))
        except OsvDeployError:
            pass  # gc finds it

    @contextmanager
    def _calling(self, ctx: Context, attempts: int = ATTEMPTS) -> Iterator[S3Client]:
        try:
            with self._store._calling(ctx, self._key, attempts) as s3:
                yield s3
        except NotFound as error:
            if error.code != "NoSuchUpload":
                raise
            raise UploadGone(f"{self._store.address}/{self._key}: the upload was aborted or completed") from error


def _date(ctx: Context, answer: Mapping[str, Any]) -> datetime:
    """When S3 answered, by its own clock where it says so."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(said) if said else ctx.now()


def _stored(part: PartTypeDef) -> _Part:
    return _Part(part["PartNumber"], part["Size"], part["ETag"], part.get("ChecksumSHA256", ""))


def _composite(sums: list[str]) -> str:
    """S3's checksum of an object in parts: over those of the parts, and how many there are."""
    joined = b"".join(base64.b64decode(each) for each in sums)
    return f"{_base64(hashlib.sha256(joined).digest())}-{len(sums)}"


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _region_told(error: Refused) -> str | None:
    """The bucket's region, from the headers of a refusal."""
    response = getattr(error.__cause__, "response", {})
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region")
    return str(region) if region else None


def _parsed(address: str) -> tuple[str, str]:
    """Bucket and prefix."""
    scheme, _, rest = address.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if scheme != "s3" or not bucket:
        raise UsageError(f"{address!r} is no address of an S3 bucket", hint="write s3://BUCKET or s3://BUCKET/PREFIX")
    if bucket.endswith("--x-s3"):
        raise UsageError(
            f"{address!r}: a directory bucket does not list its keys in order", hint="use a general purpose bucket"
        )
    if prefix:
        try:
            check_key(prefix)
        except LedgerError as error:
            raise UsageError(f"{address!r}: {error}", hint=error.hint) from error
    return bucket, prefix

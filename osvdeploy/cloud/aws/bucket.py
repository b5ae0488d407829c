"""A bucket of S3, and a place in it: where it is, whose client answers for it, and what its refusals mean.

Sources: Amazon S3 API reference (HeadBucket, GetBucketLocation, "Error responses"), Service Authorization Reference
("Actions, resources, and condition keys for Amazon S3").
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from osvdeploy.cloud.aws.errors import PERMISSION
from osvdeploy.cloud.aws.session import ATTEMPTS, Aws, default_session
from osvdeploy.cloud.keys import BucketPlace
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, Refused, Unready, UsageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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


class Bucket(BucketPlace):
    """A prefix of a bucket, at ``s3://bucket/prefix``. Nothing is asked before it is used.

    Raises :class:`~osvdeploy.errors.UsageError` for an address that cannot be one.
    """

    def __init__(self, address: str, asked: Aws | None = None) -> None:
        """``asked`` is who is asked where the bucket is, an account's clients in any region; without one the SDK's
        usual chain of settings decides."""
        super().__init__(address, "s3", "an S3 bucket")
        if self.name.endswith("--x-s3"):
            raise UsageError(
                f"{address!r}: a directory bucket does not list its keys in order", hint="use a general purpose bucket"
            )
        self._asked = asked
        self._aws: Aws | None = None
        self._finding = threading.Lock()

    @contextmanager
    def calling(self, ctx: Context, key: str, attempts: int = ATTEMPTS, *, brief: bool = False) -> Iterator[S3Client]:
        """The bucket's client, for calls about a key; a refusal names the action that has to be allowed. ``brief``:
        what is asked moves no bytes, and is answered within the time that other services have."""
        aws = self._in_its_region(ctx)
        try:
            with aws.calling(ctx, self.about(key), attempts):
                yield aws.s3_brief if brief else aws.s3
        except Refused as error:
            if error.code not in PERMISSION:
                raise
            raise self._forbidden(error) from error

    def _forbidden(self, error: Refused) -> Refused:
        action = _ACTIONS.get(error.operation or "", f"s3:{error.operation}")
        on = f"arn:aws:s3:::{self.name}" + ("" if "Bucket" in action else f"/{self.under('*')}")
        hint = f"allow {action} on {on}"
        if error.operation in ("GetObject", "HeadObject"):
            hint += (
                f", and s3:ListBucket on arn:aws:s3:::{self.name}: without it S3 also says this of what is not there"
            )
        return Refused(error.message, operation=error.operation, code=error.code, hint=hint)

    def _in_its_region(self, ctx: Context) -> Aws:
        with self._finding:
            if self._aws is None:
                self._aws = self._found(ctx)
            return self._aws

    def _found(self, ctx: Context) -> Aws:
        """Clients of the region that the bucket is in."""
        asked = self._asked
        if asked is None:
            session = default_session()
            asked = Aws(session.region_name or FIRST_REGION, session)
        region = region_of(ctx, asked, self.name, self.address)
        return asked if region == asked.region else asked.elsewhere(region)


def region_of(ctx: Context, aws: Aws, bucket: str, what: str) -> str:
    """The region that a bucket is in: S3 tells it to everybody, permission or not. ``what`` is what errors name.

    Raises :class:`~osvdeploy.errors.Unready` where there is no such bucket.
    """
    try:
        with aws.calling(ctx, what):
            return aws.s3.head_bucket(Bucket=bucket).get("BucketRegion", aws.region)
    except NotFound as error:
        raise Unready(
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


def _region_told(error: Refused) -> str | None:
    """The bucket's region, from the headers of a refusal."""
    response = getattr(error.__cause__, "response", {})
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region")
    return str(region) if region else None

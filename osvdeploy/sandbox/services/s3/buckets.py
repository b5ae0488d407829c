"""S3's buckets, and what every operation finds out first: that its bucket is there, and here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services.scope import Doc, Scope

Wire = Mapping[str, Any]

BUCKET: Final = "s3.bucket"
FIRST: Final = "us-east-1"
"""The region that is no LocationConstraint."""

OWNER: Final = {"DisplayName": "sandbox", "ID": "5a" * 32}

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3", "-an")


def objects_of(bucket: str) -> str:
    """The kind of a bucket's objects."""
    return f"s3.object/{bucket}"


def uploads_of(bucket: str) -> str:
    return f"s3.upload/{bucket}"


def found(scope: Scope, params: Wire) -> Doc:
    """The operation's bucket. Raises ApiError where there is none, or it is in another region or another's."""
    name = params["Bucket"]
    bucket = scope.everywhere.get(BUCKET, name)
    if bucket is None:
        fields = {"BucketName": name}
        raise ApiError("NoSuchBucket", "The specified bucket does not exist", 404, fields)
    if params.get("ExpectedBucketOwner") not in (None, scope.account):
        raise ApiError("AccessDenied", "Access Denied", 403)
    if bucket["Region"] != scope.region:
        raise ApiError(
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all "
            "future requests to this endpoint.",
            301,
            {"Endpoint": f"{name}.s3.{bucket['Region']}.amazonaws.com", "Bucket": name},
            {"x-amz-bucket-region": bucket["Region"]},
        )
    return bucket


def create(scope: Scope, params: Wire) -> Doc:
    name = params["Bucket"]
    if (
        _NAME.fullmatch(name) is None
        or ".." in name
        or _ADDRESS.fullmatch(name)
        or name.startswith(_PREFIXES)
        or name.endswith(_SUFFIXES)
    ):
        raise ApiError("InvalidBucketName", "The specified bucket is not valid.", 400, {"BucketName": name})
    asked = (params.get("CreateBucketConfiguration") or {}).get("LocationConstraint")
    if asked is None and scope.region != FIRST:
        raise ApiError(
            "IllegalLocationConstraintException",
            "The unspecified location constraint is incompatible for the region specific endpoint this request was "
            "sent to.",
        )
    if asked == FIRST:
        raise ApiError("InvalidLocationConstraint", "The specified location-constraint is not valid")
    if asked is not None and asked != scope.region:
        raise ApiError(
            "IllegalLocationConstraintException",
            f"The {asked} location constraint is incompatible for the region specific endpoint this request was sent "
            "to.",
        )
    if scope.everywhere.get(BUCKET, name) is not None:
        raise ApiError(
            "BucketAlreadyOwnedByYou",
            "Your previous request to create the named bucket succeeded and you already own it.",
            409,
            {"BucketName": name},
        )
    document = {"Name": name, "Region": scope.region, "CreationDate": scope.now.isoformat()}
    scope.everywhere.put(BUCKET, name, document)
    return {"Location": f"/{name}" if scope.region == FIRST else f"http://{name}.s3.amazonaws.com/"}


def delete(scope: Scope, params: Wire) -> Doc:
    name = found(scope, params)["Name"]
    if scope.everywhere.all(objects_of(name)):
        raise ApiError("BucketNotEmpty", "The bucket you tried to delete is not empty", 409, {"BucketName": name})
    scope.everywhere.delete(BUCKET, name)
    return {}


def head(scope: Scope, params: Wire) -> Doc:
    return {"BucketRegion": found(scope, params)["Region"]}


def location(scope: Scope, params: Wire) -> Doc:
    region = found(scope, params)["Region"]
    return {"LocationConstraint": "" if region == FIRST else region}


def list_all(scope: Scope, params: Wire) -> Doc:
    shown = [
        {
            "Name": bucket["Name"],
            "CreationDate": datetime.fromisoformat(bucket["CreationDate"]),
            "BucketRegion": bucket["Region"],
        }
        for bucket in sorted(scope.everywhere.all(BUCKET), key=lambda each: str(each["Name"]))
        if bucket["Name"].startswith(params.get("Prefix") or "")
        and params.get("BucketRegion") in (None, bucket["Region"])
    ]
    return {"Buckets": shown, "Owner": OWNER}

"""Disks that EC2 makes of objects in S3: ImportSnapshot.

What runs is found by the tags of its task, so nothing is remembered here. A task's result carries no tags: it is
labelled when it is done, and until then it is found by its task.

Sources: EC2 API reference (ImportSnapshot, DescribeImportSnapshotTasks), VM Import/Export user guide ("Required
permissions for VM Import/Export", "Importing a disk as a snapshot").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osvdeploy.cloud.aws.bucket import region_of
from osvdeploy.cloud.aws.errors import PERMISSION
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.aws.snapshots import NOT_YET, disk_of, tag_dict, tag_list
from osvdeploy.cloud.interfaces import ImportRequest, UploadedDisk
from osvdeploy.cloud.tags import DIGEST, NAME, SCHEMA
from osvdeploy.context import Context
from osvdeploy.digests import digest_of
from osvdeploy.errors import NotFound, Refused, Unavailable, Unready, UploadGone
from osvdeploy.events import Waiting
from osvdeploy.retry import until_next_look

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImportSnapshotTaskTypeDef, SnapshotTypeDef

ROLE = "vmimport"
"""The role that VM Import takes on where none is named."""

SERVICE = "vmie.amazonaws.com"
LONGEST_WAIT = 7200.0
"""Seconds. Imports take from two minutes to an hour, and the next run waits on."""

MOST_ATTEMPTS = 20
"""Tokens of dead imports that one run walks past."""


@dataclass(frozen=True, slots=True)
class _Task:
    """An import as EC2 tells of it. ``state`` is its own word: active, completed, deleting, deleted."""

    id: str
    state: str
    message: str
    progress: str
    snapshot: str
    tags: dict[str, str]
    bucket: str
    key: str

    @property
    def dead(self) -> bool:
        return self.state not in ("active", "completed", "")


class SnapshotImports:
    """:class:`~osvdeploy.cloud.interfaces.DiskImports` by EC2's ImportSnapshot."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def refuse_unready(self, ctx: Context, location: str) -> None:
        bucket, _ = _parsed(location)
        region = region_of(ctx, self._aws, bucket, location)
        if region != self._aws.region:
            raise Unready(
                f"bucket {bucket} is in {region}, but the image goes to {self._aws.region}, and EC2 imports from its "
                "own region alone",
                hint=f'name a bucket in {self._aws.region}, or leave out via = "s3"',
            )
        try:
            with self._aws.calling(ctx, f"role {ROLE}"):
                role = self._aws.iam.get_role(RoleName=ROLE)["Role"]
        except NotFound as error:
            raise Unready(
                f"the role {ROLE}, by which EC2 reads the disk, does not exist", hint=_how_to_make_it(bucket)
            ) from error
        except Refused as error:
            if error.code not in PERMISSION:
                raise
            return  # who may not look learns it from the import itself
        # botocore has decoded the document.
        if SERVICE not in json.dumps(role.get("AssumeRolePolicyDocument", {})):
            raise Unready(f"the role {ROLE} does not trust {SERVICE}", hint=_how_to_make_it(bucket))

    def find(self, ctx: Context, request: ImportRequest) -> str | None:
        return next((task.id for task in self._tasks(ctx, request) if self._is_alive(ctx, task)), None)

    def start(self, ctx: Context, request: ImportRequest) -> str:
        bucket, key = _parsed(request.location)
        tags = tag_list({**request.tags, NAME: request.name, DIGEST: request.digest})
        # One that lives has the token of as many dead ones before it: then this is its answer.
        first = sum(not self._is_alive(ctx, task) for task in self._tasks(ctx, request))
        for attempt in range(first, first + MOST_ATTEMPTS):
            try:
                with self._aws.calling(ctx, f"disk {request.name}"):
                    begun = self._aws.ec2.import_snapshot(
                        ClientToken=_token(request, attempt),
                        Description=f"{request.name}, OSv unikernel, {request.digest[:12]}",
                        DiskContainer={"Format": "VMDK", "UserBucket": {"S3Bucket": bucket, "S3Key": key}},
                        TagSpecifications=[{"ResourceType": "import-snapshot-task", "Tags": tags}],
                    )
            except Refused as error:
                if ROLE not in error.message:
                    raise
                raise Refused(error.message, operation="ImportSnapshot", hint=_how_to_make_it(bucket)) from error
            # A token repeats its first answer, whatever has become of the import since.
            task = self._look(ctx, begun["ImportTaskId"])
            if self._is_alive(ctx, task):
                return task.id
        raise UploadGone(f"disk {request.name}: {MOST_ATTEMPTS} imports of it are dead")

    def finish(self, ctx: Context, request: ImportRequest, running: str) -> UploadedDisk:
        began = ctx.monotonic()
        while True:
            task = self._look(ctx, running, missing=ctx.monotonic() - began < NOT_YET)
            if task.dead:
                told = f"disk {request.name}: EC2 did not import {request.location}: {task.message or task.state}"
                if task.message.startswith("ClientError"):
                    raise Refused(told, operation="ImportSnapshot", code="ClientError")
                raise UploadGone(told)
            if task.state == "completed":
                snapshot = self._snapshot(ctx, task.snapshot)
                if snapshot is None:
                    raise UploadGone(f"disk {request.name}: the imported {task.snapshot} was deleted")
                if snapshot["State"] == "completed":
                    return self._label(ctx, request, snapshot)
            if ctx.monotonic() - began > LONGEST_WAIT:
                raise Unavailable(
                    f"disk {request.name}: the import {running} is still under way",
                    hint="run the same command again: it goes on",
                )
            seen = " ".join(filter(None, (task.state or "not visible yet", task.message, task.progress)))
            ctx.report(Waiting(f"disk {request.name}", f"{running} is {seen}"))
            ctx.sleep(until_next_look(ctx.monotonic() - began))

    def reading(self, ctx: Context) -> set[str]:
        return {f"s3://{task.bucket}/{task.key}" for task in self._all(ctx) if task.state == "active"}

    # ---------------------------------------------------------------------------------------------------------------

    def _is_alive(self, ctx: Context, task: _Task) -> bool:
        """Whether it is under way, or done and its snapshot still there."""
        if task.state == "completed":
            return self._snapshot(ctx, task.snapshot) is not None
        return not task.dead

    def _label(self, ctx: Context, request: ImportRequest, snapshot: SnapshotTypeDef) -> UploadedDisk:
        tags = {**request.tags, NAME: request.name, DIGEST: request.digest}
        with self._aws.calling(ctx, f"disk {request.name}, imported as {snapshot['SnapshotId']}"):
            self._aws.ec2.create_tags(Resources=[snapshot["SnapshotId"]], Tags=tag_list(tags))
        return disk_of({**snapshot, "Tags": tag_list(tags)})

    def _look(self, ctx: Context, task: str, *, missing: bool = True) -> _Task:
        """One task; ``missing``: it may not be visible yet."""
        try:
            with self._aws.calling(ctx, f"import {task}"):
                [found] = self._aws.ec2.describe_import_snapshot_tasks(ImportTaskIds=[task])["ImportSnapshotTasks"]
        except (ValueError, NotFound, Refused) as error:
            if isinstance(error, Refused) and error.code != "InvalidConversionTaskId":
                raise
            if not missing:
                raise UploadGone(f"the import {task} is not there") from error
            return _Task(task, "", "", "", "", {}, "", "")
        return _task(found)

    def _all(self, ctx: Context) -> list[_Task]:
        with self._aws.calling(ctx, "imports"):
            pages = self._aws.ec2.get_paginator("describe_import_snapshot_tasks").paginate()
            return [
                task for page in pages for each in page["ImportSnapshotTasks"] if SCHEMA in (task := _task(each)).tags
            ]

    def _tasks(self, ctx: Context, request: ImportRequest) -> list[_Task]:
        """Those of this very disk, dead or alive."""
        wanted = {NAME: request.name, DIGEST: request.digest}
        return [task for task in self._all(ctx) if wanted.items() <= task.tags.items()]

    def _snapshot(self, ctx: Context, snapshot: str) -> SnapshotTypeDef | None:
        try:
            with self._aws.calling(ctx, f"disk {snapshot}"):
                return self._aws.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
        except (NotFound, IndexError):
            return None


def _task(found: ImportSnapshotTaskTypeDef) -> _Task:
    detail: dict[str, Any] = dict(found.get("SnapshotTaskDetail", {}))
    bucket = detail.get("UserBucket", {})
    return _Task(
        id=found["ImportTaskId"],
        state=detail.get("Status", ""),
        message=detail.get("StatusMessage", ""),
        progress=f"{detail['Progress']} %" if detail.get("Progress") else "",
        snapshot=detail.get("SnapshotId", ""),
        tags=tag_dict(found.get("Tags", [])),
        bucket=bucket.get("S3Bucket", ""),
        key=bucket.get("S3Key", ""),
    )


def _token(request: ImportRequest, attempt: int) -> str:
    """The same for the same request and attempt, from whichever process. Every parameter is in it."""
    return digest_of(
        {
            "name": request.name,
            "digest": request.digest,
            "location": request.location,
            "tags": dict(request.tags),
            "attempt": attempt,
        }
    )


def _parsed(location: str) -> tuple[str, str]:
    bucket, _, key = location.removeprefix("s3://").partition("/")
    return bucket, key


def _how_to_make_it(bucket: str) -> str:
    """The role, for a hint."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": SERVICE},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": ROLE}},
            }
        ],
    }
    reads = ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"]
    makes = ["ec2:ModifySnapshotAttribute", "ec2:CopySnapshot", "ec2:RegisterImage", "ec2:Describe*"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": reads, "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]},
            {"Effect": "Allow", "Action": makes, "Resource": "*"},
        ],
    }
    return (
        "somebody who may do so makes it once:\n"
        f"aws iam create-role --role-name {ROLE} --assume-role-policy-document '{json.dumps(trust)}'\n"
        f"aws iam put-role-policy --role-name {ROLE} --policy-name {ROLE}-{bucket} --policy-document "
        f"'{json.dumps(policy)}'\n"
        'or leave out via = "s3": blocks go up directly, without a role'
    )

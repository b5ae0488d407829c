"""Disks that are imported from S3: ImportSnapshot and its tasks.

Sources: EC2 API reference (ImportSnapshot, DescribeImportSnapshotTasks, "Error codes": VM Import/Export), VM
Import/Export user guide ("Required permissions for VM Import/Export", "Importing a disk as a snapshot": formats RAW,
VMDK and VHD, the role ``vmimport``, a bucket in the region of the import). Nothing documents how long a task takes, or
in which words one fails; those it fails with here begin as the guide's, with ``ClientError``.

Not simulated: encryption, VHD, addresses in place of a bucket. Documents ``import-snapshot-task`` by id, as they are
shown; ``token`` as for all of EC2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.image import Extent
from osvdeploy.osv.vmdk import read_vmdk
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services import ebs, iam, s3
from osvdeploy.sandbox.services.ec2.resources import (
    IMPORT,
    Query,
    Wire,
    chosen,
    only,
    remember,
    repeated,
    required,
    shown,
    specified_tags,
)
from osvdeploy.sandbox.services.scope import Doc, Scope
from osvdeploy.sizes import GIB

VALIDATION: Final = 15.0
"""Seconds until a task has looked at what it is to import."""

CONVERSION: Final = 105.0
"""Seconds from there to the snapshot: imports of small disks take from two or three minutes to a quarter of an hour."""

ROLE: Final = "vmimport"
SERVICE: Final = "vmie.amazonaws.com"
LARGEST: Final = 16384
"""GiB that a snapshot of an import may have."""

_READS = ("s3:GetBucketLocation", "s3:ListBucket")
_SNAPSHOTS = ("ec2:ModifySnapshotAttribute", "ec2:CopySnapshot", "ec2:RegisterImage", "ec2:DescribeSnapshots")


class _Unfit(Exception):
    """What a task fails with."""


def import_snapshot(scope: Scope, params: Wire) -> Doc:
    earlier = repeated(scope, "ImportSnapshot", params)
    if earlier is not None:
        return earlier
    container = required(params, "DiskContainer")
    only(container, "Description Format UserBucket", "DiskContainer")
    form = required(container, "Format").upper()
    if form not in ("RAW", "VMDK", "VHD"):
        raise ApiError("InvalidParameter", f"The format '{container['Format']}' is not one of RAW, VMDK and VHD")
    if form == "VHD":
        raise NotSimulated("imports of VHD")
    bucket = required(container, "UserBucket")
    name, key = required(bucket, "S3Bucket"), required(bucket, "S3Key")
    _check_role(scope, params.get("RoleName") or ROLE, name, key)
    document = s3.find(scope, name, key)
    if document is None:
        raise ApiError("InvalidParameter", f"The object s3://{name}/{key} does not exist or cannot be accessed")
    tags = specified_tags(params.get("TagSpecifications"), IMPORT.name)[IMPORT.name]
    task: Doc = {
        "ImportTaskId": IMPORT.new_id(scope),
        "Description": params.get("Description") or "",
        "SnapshotTaskDetail": {
            "Description": container.get("Description") or "",
            "DiskImageSize": 0.0,
            "Format": form,
            "Progress": "0",
            "Status": "active",
            "StatusMessage": "pending",
            "UserBucket": {"S3Bucket": name, "S3Key": key},
        },
        "tags": tags,
        "role": params.get("RoleName") or ROLE,
    }
    IMPORT.keep(scope, task)
    scope.later(VALIDATION, "ec2.import-validated", {"task": task["ImportTaskId"]})
    answer = shown(task)
    remember(scope, "ImportSnapshot", params, answer)
    return answer


def _check_role(scope: Scope, role: str, bucket: str, key: str) -> None:
    """Raise ApiError unless the service may take the role on, and do with it what an import does."""
    found = scope.everywhere.get(iam.ROLE, role)
    told = f"The service role {role} provided does not exist or does not have sufficient permissions"
    if found is None or not _trusts(json.loads(found["AssumeRolePolicyDocument"])):
        raise ApiError("InvalidParameter", told)
    policies = [json.loads(policy) for policy in found["policies"].values()]
    resource = f"arn:aws:s3:::{bucket}"
    wanted = [(action, resource) for action in _READS]
    wanted += [("s3:GetObject", f"{resource}/{key}"), *((action, "*") for action in _SNAPSHOTS)]
    if not all(_allows(policies, action, on) for action, on in wanted):
        raise ApiError("InvalidParameter", told)


def _statements(policy: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    said = policy["Statement"]
    yield from said if isinstance(said, list) else [said]


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _trusts(policy: Mapping[str, Any]) -> bool:
    for statement in _statements(policy):
        principal = statement.get("Principal") or {}
        external = (statement.get("Condition") or {}).get("StringEquals") or {}
        condition = {name.lower(): value for name, value in external.items()}.get("sts:externalid", ROLE)
        if (
            statement.get("Effect") == "Allow"
            and "sts:AssumeRole" in _listed(statement.get("Action"))
            and isinstance(principal, dict)
            and SERVICE in _listed(principal.get("Service"))
            and ROLE in _listed(condition)
        ):
            return True
    return False


def _allows(policies: Iterable[Mapping[str, Any]], action: str, resource: str) -> bool:
    """Whether one statement allows it. Denials are not simulated."""
    return any(
        statement.get("Effect") == "Allow"
        and any(fnmatchcase(action.lower(), each.lower()) for each in _listed(statement.get("Action")))
        and any(fnmatchcase(resource, each) for each in _listed(statement.get("Resource")))
        for policy in policies
        for statement in _statements(policy)
    )


# -------------------------------------------------------------------------------------------------- what is imported


@dataclass(frozen=True, slots=True)
class _Object:
    """An object in S3, as :class:`~osvdeploy.osv.disk.RandomAccess`."""

    size: int
    read: Callable[[int, int], bytes]

    def pread(self, offset: int, length: int) -> bytes:
        return self.read(offset, length) if offset >= 0 else b""

    def data(self, start: int, end: int) -> Iterator[Extent]:
        yield Extent(start, min(end, self.size))


def _opened(scope: Scope, task: Doc) -> tuple[Any, int]:
    """The task's disk, and the object's size. Raises _Unfit in the words that the task fails with."""
    detail = task["SnapshotTaskDetail"]
    bucket = detail["UserBucket"]
    document = s3.find(scope, bucket["S3Bucket"], bucket["S3Key"])
    if document is None:
        raise _Unfit("ClientError: Unable to download the disk from S3: the object does not exist")
    try:
        _check_role(scope, task["role"], bucket["S3Bucket"], bucket["S3Key"])
    except ApiError as refused:
        raise _Unfit(f"ClientError: {refused.message}") from None
    source = _Object(document["Size"], s3.reader(scope, document))
    if not source.size:
        raise _Unfit("ClientError: Disk validation failed [The disk is empty]")
    if detail["Format"] == "RAW":
        disk: Any = source
    else:
        try:
            disk = read_vmdk(source)
        except DiskInvalid as error:
            raise _Unfit(f"ClientError: Disk validation failed [Unsupported VMDK File: {error}]") from None
    if -(-disk.size // GIB) > LARGEST:
        raise _Unfit("ClientError: Disk validation failed [The disk is larger than a snapshot may be]")
    return disk, source.size


def validated(scope: Scope, payload: Wire) -> None:
    """The task has looked at the object."""
    task = _active(scope, payload)
    if task is None:
        return
    try:
        _, size = _opened(scope, task)
    except _Unfit as unfit:
        _fail(scope, task, str(unfit))
        return
    detail = task["SnapshotTaskDetail"]
    detail |= {"DiskImageSize": float(size), "Progress": "19", "StatusMessage": "converting"}
    IMPORT.keep(scope, task)
    scope.later(CONVERSION, "ec2.import-converted", dict(payload))


def converted(scope: Scope, payload: Wire) -> None:
    """The task has read all of the object: only now is it not needed any more."""
    task = _active(scope, payload)
    if task is None:
        return
    try:
        disk, _ = _opened(scope, task)
        snapshot = ebs.imported(
            scope,
            -(-disk.size // GIB),
            f"Created by AWS-VMImport service for {task['ImportTaskId']}",
            _blocks(disk),
        )
    except _Unfit as unfit:
        _fail(scope, task, str(unfit))
        return
    except DiskInvalid as error:
        _fail(scope, task, f"ClientError: Disk validation failed [Unsupported VMDK File: {error}]")
        return
    detail = task["SnapshotTaskDetail"]
    del detail["Progress"], detail["StatusMessage"]
    detail |= {"Status": "completed", "SnapshotId": snapshot}
    IMPORT.keep(scope, task)


def _blocks(disk: Any) -> Iterator[tuple[int, bytes]]:
    """Every block of a disk that its file has a byte of."""
    indexes: set[int] = set()
    for extent in disk.data(0, disk.size):
        indexes.update(range(extent.start // ebs.BLOCK, -(-extent.end // ebs.BLOCK)))
    for index in sorted(indexes):
        content = disk.pread(index * ebs.BLOCK, ebs.BLOCK).ljust(ebs.BLOCK, b"\0")
        if content.count(0) != ebs.BLOCK:
            yield index, content


def _active(scope: Scope, payload: Wire) -> Doc | None:
    task = scope.get(IMPORT.name, payload["task"])
    return task if task is not None and task["SnapshotTaskDetail"]["Status"] == "active" else None


def _fail(scope: Scope, task: Doc, message: str) -> None:
    detail = task["SnapshotTaskDetail"]
    detail.pop("Progress", None)
    detail |= {"Status": "deleted", "StatusMessage": message}
    IMPORT.keep(scope, task)


_DESCRIBE = Query("DescribeImportSnapshotTasks", {"task-state": "SnapshotTaskDetail.Status"}, "ImportTaskId")


def describe_import_snapshot_tasks(scope: Scope, params: Wire) -> Doc:
    found = [shown(task) for task in chosen(scope, IMPORT, params.get("ImportTaskIds"))]
    return _DESCRIBE.page(params, "ImportSnapshotTasks", _DESCRIBE.select(params, found))

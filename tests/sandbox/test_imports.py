"""ImportSnapshot in the sandbox: what it reads, what it refuses, how long it takes and how it fails half-way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from osvdeploy.publish.vmdk import VmdkSource
from osvdeploy.sandbox.services.ec2.imports import CONVERSION, VALIDATION
from osvdeploy.sizes import KIB, MIB
from tests.contract.aws_place import REGION, TRUST, AwsSandbox, permissions
from tests.publish.disk import raw_disk

BUCKET = "acme-images"


class Account:
    """A sandbox that is ready for imports."""

    def __init__(self) -> None:
        self.aws = AwsSandbox()
        self.aws.set_up_imports(BUCKET)
        self.s3, self.ec2, self.iam = map(self.aws.client, ("s3", "ec2", "iam"))

    def put(self, key: str, content: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=content)

    def begin(self, key: str, form: str = "RAW", **more: Any) -> str:
        container = {"Format": form, "UserBucket": {"S3Bucket": BUCKET, "S3Key": key}}
        task: str = self.ec2.import_snapshot(DiskContainer=container, **more)["ImportTaskId"]
        return task

    def wait(self, seconds: float) -> None:
        self.aws.clock.advance(seconds)  # type: ignore[attr-defined]  # a VirtualClock

    def detail(self, task: str) -> dict[str, Any]:
        found = self.ec2.describe_import_snapshot_tasks(ImportTaskIds=[task])["ImportSnapshotTasks"]
        detail: dict[str, Any] = found[0]["SnapshotTaskDetail"]
        return detail


@pytest.fixture
def account() -> Account:
    return Account()


def test_a_raw_disk_becomes_a_snapshot(account: Account) -> None:
    """In its time; whole GiB, rounded up; blocks of zeros are not in it."""
    content = hashlib.shake_128(b"a").digest(700 * KIB) + bytes(MIB) + b"end"
    account.put("disk", content)
    task = account.begin("disk", Description="a disk")
    assert (account.detail(task)["Status"], account.detail(task)["StatusMessage"]) == ("active", "pending")
    account.wait(VALIDATION)
    assert account.detail(task)["StatusMessage"] == "converting"
    assert account.detail(task)["DiskImageSize"] == len(content)
    account.wait(CONVERSION)
    detail = account.detail(task)
    assert (detail["Status"], detail["Format"]) == ("completed", "RAW")
    [snapshot] = account.ec2.describe_snapshots(SnapshotIds=[detail["SnapshotId"]])["Snapshots"]
    assert (snapshot["State"], snapshot["VolumeSize"]) == ("completed", 1)
    assert snapshot["Description"] == f"Created by AWS-VMImport service for {task}"
    blocks = account.aws.read(detail["SnapshotId"])
    assert sorted(blocks) == [0, 1, 3]
    size = 512 * KIB
    whole = b"".join(blocks.get(index, bytes(size)) for index in range(4))
    assert whole == content.ljust(4 * size, b"\0")


def test_a_vmdk_becomes_its_disk(account: Account, tmp_path: Path) -> None:
    """As large as it says it is."""
    raw = raw_disk(tmp_path / "disk.raw", blocks=3, block=512 * KIB)
    account.put("disk.vmdk", b"".join(VmdkSource(raw).pieces()))
    task = account.begin("disk.vmdk", "vmdk")
    account.wait(VALIDATION + CONVERSION)
    snapshot = account.detail(task)["SnapshotId"]
    assert account.ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["VolumeSize"] == 1
    extent = raw.read[0]
    with raw.path.open("rb") as file:
        assert account.aws.read(snapshot)[0][: extent.end] == file.read(extent.end)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Format": "QCOW2"}, "InvalidParameter"),
        ({"Format": "VHD"}, "NotSimulated"),
        ({"UserBucket": {"S3Bucket": BUCKET, "S3Key": "other"}}, "InvalidParameter"),
        ({"UserBucket": {"S3Bucket": "nowhere", "S3Key": "disk"}}, "InvalidParameter"),
        ({"UserBucket": {"S3Bucket": BUCKET}}, "MissingParameter"),
        ({"Url": "s3://acme-images/disk"}, "NotSimulated"),
    ],
)
def test_what_cannot_be_imported_is_refused(account: Account, change: dict[str, Any], code: str) -> None:
    """Before a task is made."""
    account.put("disk", b"disk")
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "disk"}, **change}
    with pytest.raises(ClientError, match=code):
        account.ec2.import_snapshot(DiskContainer=container)
    assert account.ec2.describe_import_snapshot_tasks()["ImportSnapshotTasks"] == []


@pytest.mark.parametrize("missing", ["role", "trust", "reads", "bucket", "snapshots"])
def test_the_role_is_asked_for(account: Account, missing: str) -> None:
    """It must be there, trust the service, and may read the object and make a snapshot."""
    account.put("disk", b"disk")
    account.iam.delete_role_policy(RoleName="vmimport", PolicyName="vmimport")
    account.iam.delete_role(RoleName="vmimport")
    policy = permissions(BUCKET)
    if missing != "role":
        trust = TRUST if missing != "trust" else {**TRUST, "Statement": [{"Effect": "Allow", "Action": "*"}]}
        account.iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=json.dumps(trust))
        match missing:
            case "reads":
                policy["Statement"] = policy["Statement"][1:]
            case "bucket":
                policy = permissions("another")
            case "snapshots":
                policy["Statement"] = policy["Statement"][:1]
        account.iam.put_role_policy(RoleName="vmimport", PolicyName="vmimport", PolicyDocument=json.dumps(policy))
    with pytest.raises(ClientError, match=r"InvalidParameter.*service role vmimport"):
        account.begin("disk")


def test_a_task_fails_half_way(account: Account) -> None:
    """When its object is no disk, or is taken away before all of it was read, or the role is."""
    account.put("noise", b"noise" * 1000)
    account.put("disk", b"disk")
    noise, gone = account.begin("noise", "VMDK"), account.begin("disk")
    account.wait(VALIDATION)
    assert account.detail(noise)["Status"] == "deleted"
    assert account.detail(noise)["StatusMessage"].startswith("ClientError: Disk validation failed")
    account.s3.delete_object(Bucket=BUCKET, Key="disk")
    account.wait(CONVERSION)
    assert account.detail(gone)["Status"] == "deleted"
    assert "Unable to download" in account.detail(gone)["StatusMessage"]
    account.put("disk", b"disk")
    forbidden = account.begin("disk")
    account.iam.delete_role_policy(RoleName="vmimport", PolicyName="vmimport")
    account.wait(VALIDATION)
    assert "service role" in account.detail(forbidden)["StatusMessage"]
    assert account.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_a_token_is_one_import(account: Account) -> None:
    """Its first answer is repeated for the same parameters, and refused for others."""
    account.put("disk", b"disk")
    tags = [{"ResourceType": "import-snapshot-task", "Tags": [{"Key": "app", "Value": "orders"}]}]
    first = account.begin("disk", ClientToken="token", TagSpecifications=tags)
    assert account.begin("disk", ClientToken="token", TagSpecifications=tags) == first
    with pytest.raises(ClientError, match="IdempotentParameterMismatch"):
        account.begin("disk", ClientToken="token")
    [shown] = account.ec2.describe_import_snapshot_tasks()["ImportSnapshotTasks"]
    assert (shown["ImportTaskId"], shown["Tags"]) == (first, tags[0]["Tags"])


def test_tasks_that_are_not_there_are_named(account: Account) -> None:
    """By their id; a malformed one is told so."""
    with pytest.raises(ClientError, match="InvalidConversionTaskId"):
        account.ec2.describe_import_snapshot_tasks(ImportTaskIds=["import-snap-0123456789abcdef0"])


def test_a_bucket_of_another_region_is_none(account: Account) -> None:
    """EC2 imports from its own region alone."""
    account.put("disk", b"disk")
    elsewhere = account.aws.client("ec2", "us-west-2")
    assert elsewhere.meta.region_name != REGION
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": BUCKET, "S3Key": "disk"}}
    with pytest.raises(ClientError, match="InvalidParameter"):
        elsewhere.import_snapshot(DiskContainer=container)

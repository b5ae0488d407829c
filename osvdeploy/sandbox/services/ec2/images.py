"""Images and the snapshots under them.

Sources: EC2 API reference (RegisterImage, DescribeImages, DeregisterImage, DescribeSnapshots, DeleteSnapshot), user
guide "Instance boot modes". How long an image stays ``pending`` is documented nowhere.

The sandbox's own limits, each refused as not simulated: images of other accounts, hardware virtualization (HVM) alone,
no TPM, no volumes but those of the mapping's snapshots.
"""

from __future__ import annotations

import re

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services import ebs
from osvdeploy.sandbox.services.ec2.resources import (
    IMAGE,
    SNAPSHOT,
    Query,
    Wire,
    chosen,
    invalid,
    only,
    required,
    shown,
    specified_tags,
)
from osvdeploy.sandbox.services.scope import Doc, Scope

REGISTRATION = 3.0
"""Seconds until a registered image is available."""

ARCHITECTURES = ("i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac")
BOOT_MODES = ("legacy-bios", "uefi", "uefi-preferred")
VOLUME_TYPES = ("gp2", "gp3", "io1", "io2", "st1", "sc1", "standard")

_NAME = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}")


def register_image(scope: Scope, params: Wire) -> Doc:
    name = required(params, "Name")
    if _NAME.fullmatch(name) is None:
        raise ApiError(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, '(', ')', '.', "
            "'-', '/' and '_'",
        )
    _check_kind(params)
    root = params.get("RootDeviceName") or "/dev/sda1"
    mappings = [_mapping(scope, each) for each in params.get("BlockDeviceMappings") or []]
    devices = [mapping["DeviceName"] for mapping in mappings]
    if len(set(devices)) < len(devices):
        raise ApiError(
            "InvalidBlockDeviceMapping", "The device name is used more than once in the block device mapping."
        )
    if root not in devices:
        raise ApiError(
            "InvalidBlockDeviceMapping", f"The block device mapping has no snapshot for the root device '{root}'"
        )
    tags = specified_tags(params.get("TagSpecifications"), "image", "snapshot")
    if tags["snapshot"]:
        raise invalid("'snapshot' is not a valid taggable resource type for this operation.")
    for other in scope.all(IMAGE.name):
        if other["Name"] == name:
            raise ApiError("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {other['ImageId']}")
    image: Doc = {
        "ImageId": IMAGE.new_id(scope),
        "Name": name,
        "ImageLocation": f"{scope.account}/{name}",
        "ImageType": "machine",
        "OwnerId": scope.account,
        "Public": False,
        "CreationDate": scope.now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{scope.now.microsecond // 1000:03d}Z",
        "State": "pending",
        "Architecture": params["Architecture"],
        "VirtualizationType": "hvm",
        "Hypervisor": "xen",
        "RootDeviceName": root,
        "RootDeviceType": "ebs",
        "BlockDeviceMappings": mappings,
        "EnaSupport": bool(params.get("EnaSupport")),
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "tags": tags["image"],
    }
    for given in ("Description", "BootMode", "ImdsSupport"):
        if params.get(given):
            image[given] = params[given]
    IMAGE.keep(scope, image)
    scope.later(REGISTRATION, "ec2.registered", {"image": image["ImageId"]})
    return {"ImageId": image["ImageId"]}


def _check_kind(params: Wire) -> None:
    architecture = params.get("Architecture") or "i386"
    if architecture not in ARCHITECTURES:
        raise invalid(f"Value ({architecture}) for parameter architecture is invalid.")
    if architecture not in ("x86_64", "arm64"):
        raise NotSimulated(f"images of architecture {architecture}")
    if (virtualization := params.get("VirtualizationType") or "paravirtual") != "hvm":
        if virtualization != "paravirtual":
            raise invalid(f"Value ({virtualization}) for parameter virtualizationType is invalid.")
        raise NotSimulated("paravirtual images")
    mode = params.get("BootMode")
    if mode is not None and mode not in BOOT_MODES:
        raise invalid(f"Value ({mode}) for parameter bootMode is invalid.")
    if architecture == "arm64" and mode not in (None, "uefi"):
        raise invalid(f"The boot mode '{mode}' is not supported by the architecture 'arm64'.")
    if params.get("ImdsSupport") not in (None, "v2.0"):
        raise invalid(f"Value ({params['ImdsSupport']}) for parameter imdsSupport is invalid.")
    if len(params.get("Description") or "") > 255:
        raise invalid("Character sets beyond 255 characters are not supported for parameter description.")


def _mapping(scope: Scope, given: Wire) -> Doc:
    """One device of an image, with what AWS fills in."""
    only(given, "DeviceName Ebs", "BlockDeviceMappings")
    device, volume = required(given, "DeviceName"), given.get("Ebs") or {}
    only(
        volume,
        "SnapshotId VolumeSize VolumeType DeleteOnTermination Encrypted Iops Throughput",
        "BlockDeviceMappings.Ebs",
    )
    if not volume.get("SnapshotId"):
        raise NotSimulated("volumes of images without a snapshot")
    if volume.get("Encrypted") is not None:
        raise ApiError(
            "InvalidBlockDeviceMapping",
            f"the encrypted flag cannot be specified since device {device} has a snapshot specified.",
        )
    snapshot = SNAPSHOT.find(scope, volume["SnapshotId"])
    if snapshot["State"] != "completed":
        raise ApiError("IncorrectState", f"Snapshot is in invalid state - {snapshot['State']}")
    size = volume.get("VolumeSize") or snapshot["VolumeSize"]
    if size < snapshot["VolumeSize"]:
        raise ApiError(
            "InvalidBlockDeviceMapping",
            f"Volume of size {size}GB is smaller than snapshot '{snapshot['SnapshotId']}', expect size>= "
            f"{snapshot['VolumeSize']}GB",
        )
    volume_type = volume.get("VolumeType") or "gp2"
    check_volume_type(volume_type)
    figures = {name: volume[name] for name in ("Iops", "Throughput") if volume.get(name) is not None}
    return {
        "DeviceName": device,
        "Ebs": {
            "SnapshotId": snapshot["SnapshotId"],
            "VolumeSize": size,
            "VolumeType": volume_type,
            "DeleteOnTermination": volume.get("DeleteOnTermination", True) is not False,
            "Encrypted": bool(snapshot.get("Encrypted")),
            **figures,
        },
    }


def check_volume_type(given: str) -> None:
    if given not in VOLUME_TYPES:
        raise invalid(f"Value ({given}) for parameter volumeType is invalid. Unknown volume type.")


def registered(scope: Scope, payload: Wire) -> None:
    image = scope.get(IMAGE.name, payload["image"])
    if image is not None:
        image["State"] = "available"
        IMAGE.keep(scope, image)


_DESCRIBE_IMAGES = Query(
    "DescribeImages",
    {
        "architecture": "Architecture",
        "block-device-mapping.device-name": "BlockDeviceMappings.DeviceName",
        "block-device-mapping.snapshot-id": "BlockDeviceMappings.Ebs.SnapshotId",
        "block-device-mapping.volume-size": "BlockDeviceMappings.Ebs.VolumeSize",
        "block-device-mapping.volume-type": "BlockDeviceMappings.Ebs.VolumeType",
        "block-device-mapping.delete-on-termination": "BlockDeviceMappings.Ebs.DeleteOnTermination",
        "block-device-mapping.encrypted": "BlockDeviceMappings.Ebs.Encrypted",
        "creation-date": "CreationDate",
        "description": "Description",
        "ena-support": "EnaSupport",
        "hypervisor": "Hypervisor",
        "image-id": "ImageId",
        "image-type": "ImageType",
        "is-public": "Public",
        "name": "Name",
        "owner-id": "OwnerId",
        "root-device-name": "RootDeviceName",
        "root-device-type": "RootDeviceType",
        "state": "State",
        "virtualization-type": "VirtualizationType",
    },
    "ImageId",
    (1, 1000),
)


def describe_images(scope: Scope, params: Wire) -> Doc:
    found = [shown(image) for image in chosen(scope, IMAGE, params.get("ImageIds"))]
    if not _ours(scope, params.get("Owners")):
        found = []
    return _DESCRIBE_IMAGES.page(params, "Images", _DESCRIBE_IMAGES.select(params, found), ids="ImageIds")


def _ours(scope: Scope, owners: list[str] | None) -> bool:
    """Whether these owners take in the account: nobody else has anything here."""
    for owner in owners or []:
        if owner not in ("self", "amazon", "aws-marketplace", "aws-backup-vault") and not re.fullmatch(
            r"\d{12}", owner
        ):
            raise ApiError("InvalidUserID.Malformed", f'Invalid user id: "{owner}"')
    return not owners or "self" in owners or scope.account in owners


def deregister_image(scope: Scope, params: Wire) -> Doc:
    """Instances of it run on, its snapshots stay."""
    IMAGE.drop(scope, IMAGE.find(scope, required(params, "ImageId")))
    return {"Return": True}


# ------------------------------------------------------------------------------------------------------ snapshots

_DESCRIBE_SNAPSHOTS = Query(
    "DescribeSnapshots",
    {
        "description": "Description",
        "encrypted": "Encrypted",
        "owner-id": "OwnerId",
        "progress": "Progress",
        "snapshot-id": "SnapshotId",
        "start-time": "StartTime",
        "status": "State",
        "storage-tier": "StorageTier",
        "volume-id": "VolumeId",
        "volume-size": "VolumeSize",
    },
    "SnapshotId",
)


def describe_snapshots(scope: Scope, params: Wire) -> Doc:
    found = [shown(snapshot) for snapshot in chosen(scope, SNAPSHOT, params.get("SnapshotIds"))]
    if not _ours(scope, params.get("OwnerIds")):
        found = []
    found = _DESCRIBE_SNAPSHOTS.select(params, found)
    return _DESCRIBE_SNAPSHOTS.page(params, "Snapshots", found, ids="SnapshotIds")


def delete_snapshot(scope: Scope, params: Wire) -> Doc:
    """Refused while an image is registered on it. Its children keep what they inherit."""
    snapshot = SNAPSHOT.find(scope, required(params, "SnapshotId"))
    name = snapshot["SnapshotId"]
    for image in scope.all(IMAGE.name):
        if any(mapping["Ebs"]["SnapshotId"] == name for mapping in image["BlockDeviceMappings"]):
            raise ApiError("InvalidSnapshot.InUse", f"The snapshot {name} is currently in use by {image['ImageId']}")
    ebs.forget(scope, name)
    SNAPSHOT.drop(scope, snapshot)
    return {}

"""verify as a user meets it: equal, other bytes, nothing there."""

from __future__ import annotations

import base64
import hashlib

import pytest

from tests.cli.test_bad_input import Account, User, account, customer, guest, refused, user  # noqa: F401 (fixtures, found by their names)
from tests.cli.test_buckets import bucket_of, via_s3

pytestmark = pytest.mark.slow

BLOCK = 512 * 1024


def replace_image(where: Account, name: str, index: int) -> None:
    """Let the image of that name stand on a disk that has other bytes in a block."""
    ec2, ebs = where.client("ec2"), where.client("ebs")
    [image] = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])["Images"]
    parent = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    snapshot = ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=parent)["SnapshotId"]
    data = b"other bytes".ljust(BLOCK, b"\0")
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
    ebs.put_snapshot_block(
        SnapshotId=snapshot,
        BlockIndex=index,
        BlockData=data,
        DataLength=BLOCK,
        Checksum=checksum,
        ChecksumAlgorithm="SHA256",
    )
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})
    ec2.deregister_image(ImageId=image["ImageId"])
    ec2.register_image(
        Name=name,
        Architecture="x86_64",
        VirtualizationType="hvm",
        RootDeviceName="xvda",
        BlockDeviceMappings=[{"DeviceName": "xvda", "Ebs": {"SnapshotId": snapshot}}],
        TagSpecifications=[{"ResourceType": "image", "Tags": image["Tags"]}],
    )


def test_what_is_published_is_read_back(account: Account, guest: User) -> None:  # noqa: F811 (a fixture)
    """Nothing to compare is refused; an image is equal, a release beside it too; another's bytes are told by place."""
    refused(guest.run("verify"), 2, f"hello-{guest.version}: no image of it", hint="osvdeploy publish")
    assert guest.run("publish").code == 0
    ran = guest.run("verify")
    assert ran.code == 0 and ": equal, " in ran.stdout, ran.stdout
    assert guest.run("deploy").code == 0
    both = guest.run("verify", "--json").document
    assert both["equal"] and [each["differences"] for each in both["images"]] == [[], []]
    assert [each["name"].startswith(f"hello-{guest.version}") for each in both["images"]] == [True, True]

    # Block 32: where the root file system begins.
    replace_image(account, f"hello-{guest.version}", 32)
    ran = guest.run("verify")
    assert ran.code == 1, ran.stderr
    assert "differs in" in ran.stdout and "bytes 16777216 to" in ran.stdout
    document = guest.run("verify", "--json").document
    assert [bool(each["differences"]) for each in document["images"]] == [True, False]

    guest.write("hello", account.programs["1.1.0"])
    refused(guest.run("verify"), 2, "was made of image", "this spec builds", hint="sources of that version")


def test_a_disk_that_was_imported_is_read_back(account: Account, guest: User) -> None:  # noqa: F811 (a fixture)
    """By whichever road it came, what is read of it is the same."""
    via_s3(guest)
    with bucket_of(account, role=True):
        assert guest.run("publish").code == 0
        ran = guest.run("verify", "--json")
        assert ran.code == 0 and ran.document["images"][0]["blocks"] == 3

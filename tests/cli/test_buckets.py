"""Buckets as a user meets them: the ledger in one, disks through one, and what is said when they are not ready."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.test_bad_input import Account, User, account, customer, guest, refused, user  # noqa: F401 (fixtures, found by their names)
from tests.contract.aws_place import TRUST, permissions

pytestmark = pytest.mark.slow

BUCKET = "acme-osv"


@contextmanager
def bucket_of(where: Account, *, role: bool) -> Iterator[None]:
    """A bucket, and the role by which EC2 imports from it; both and all in them gone at the end."""
    s3, iam = where.client("s3"), where.client("iam")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    if role:
        iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=json.dumps(TRUST))
        policy = json.dumps(permissions(BUCKET))
        iam.put_role_policy(RoleName="vmimport", PolicyName="vmimport", PolicyDocument=policy)
    try:
        yield
    finally:
        for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            s3.delete_object(Bucket=BUCKET, Key=each["Key"])
        for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
            s3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
        s3.delete_bucket(Bucket=BUCKET)
        if role:
            iam.delete_role_policy(RoleName="vmimport", PolicyName="vmimport")
            iam.delete_role(RoleName="vmimport")
        s3.close()
        iam.close()


def keys(where: Account) -> list[str]:
    s3 = where.client("s3")
    found = [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    s3.close()
    return found


def via_s3(who: User) -> None:
    spec = who.project / "osv.toml"
    spec.write_text(f'{spec.read_text()}\n[publish.aws]\nvia = "s3"\nbucket = "{BUCKET}"\n')


def test_a_service_lives_by_a_bucket_alone(account: Account, guest: User) -> None:  # noqa: F811 (a fixture)
    """Published through it, deployed by a ledger in it, told of and taken away by that ledger's address."""
    via_s3(guest)
    guest.edit('"../ledger"', f'"s3://{BUCKET}/releases"')
    with bucket_of(account, role=True):
        ran = guest.run("deploy")
        assert ran.code == 0, ran.stderr
        assert "is imported by import-snap-" in ran.stderr
        assert keys(account) and all(key.startswith("releases/hello/test/") for key in keys(account))
        status = guest.run("status", "hello/test", "--ledger", f"s3://{BUCKET}/releases", "--json")
        assert status.document["serving"].startswith(f"hello-{guest.version}-")
        again = guest.run("publish", "--json")
        assert (again.code, again.document["reused"]) == (0, True)
        s3 = account.client("s3")
        s3.put_object(Bucket=BUCKET, Key="osvdeploy/disks/hello/of-old.vmdk", Body=b"")
        s3.close()
        found = guest.run("gc", "--dry-run", "--json").document
        # It was put a moment ago, and may be somebody's on its way.
        assert found["objects"] == found["uploads"] == []
        assert guest.run("destroy", "--yes").code == 0
        assert guest.run("gc", "--keep", "1").code == 0


def test_a_role_that_is_missing_is_told_with_what_makes_it(account: Account, guest: User) -> None:  # noqa: F811 (a fixture)
    """Before a byte is sent: both policies, ready to be used."""
    via_s3(guest)
    with bucket_of(account, role=False):
        before = account.inventory()
        ran = guest.run("publish")
        refused(ran, 2, "the role vmimport", "does not exist", hint="somebody who may do so makes it once")
        assert "aws iam create-role --role-name vmimport" in ran.stderr
        assert '"Service": "vmie.amazonaws.com"' in ran.stderr and f"arn:aws:s3:::{BUCKET}/*" in ran.stderr
        assert account.inventory() == before


def test_a_bucket_that_is_missing_is_told_before_anything_is_made(account: Account, guest: User) -> None:  # noqa: F811 (a fixture)
    """Of the ledger as of the disk."""
    before = account.inventory()
    guest.edit('"../ledger"', '"s3://acme-nowhere/releases"')
    refused(guest.run("deploy"), 2, "there is no bucket acme-nowhere", hint="aws s3 mb s3://acme-nowhere")
    via_s3(guest)
    refused(guest.run("publish"), 2, f"there is no bucket {BUCKET}", hint=f"aws s3 mb s3://{BUCKET}")
    assert account.inventory() == before

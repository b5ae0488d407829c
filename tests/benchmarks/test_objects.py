"""A large object to S3 against boto3's own transfer, in one run, at the latency from a desk to a region."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from botocore.exceptions import ClientError

from osvdeploy.cloud.aws import Aws
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.context import Context, SystemClock
from osvdeploy.digests import sha256
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.sizes import MIB
from tests.contract.aws_place import REGION, AwsSandbox
from tests.sources import Made

ROUNDS = 5
LATENCY = 0.06
"""Seconds for each answer."""


@pytest.mark.parametrize("size", [4 * MIB, 64 * MIB, 256 * MIB])
def test_put_file_against_boto3(tmp_path: Path, size: int) -> None:
    """The same bytes, the same simulator in process, the same latency; both send checksums of every part."""
    content = hashlib.shake_128(b"disk").digest(size)
    path = tmp_path / "disk"
    path.write_bytes(content)
    account = AwsSandbox(SystemClock())
    session = connect(account.sandbox, account.clock, REGION)

    def wait(**_: object) -> None:
        time.sleep(LATENCY)  # the network that is measured over

    session.events.register_first("before-send", wait)
    s3 = session.client("s3")
    s3.create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": REGION})
    store = S3Store("s3://acme", Aws(REGION, session))
    store.find(Context(), "warm")

    def ours(key: str) -> None:
        made = store.put_file(Context(), key, Made("disk", size, piece=MIB))
        assert made.size == size

    def theirs(key: str) -> None:
        # What boto3 leaves to its user: to look before sending.
        with pytest.raises(ClientError):
            s3.head_object(Bucket="acme", Key=key)
        s3.upload_file(str(path), "acme", key)

    def blindly(key: str) -> None:
        s3.upload_file(str(path), "acme", key)

    def again(key: str) -> None:
        store.put_file(Context(), "put-ours-0", Made("disk", size, piece=MIB))

    assert sha256(Made("disk", size).content) == sha256(content)
    theirs("warm")
    took: dict[str, list[float]] = {}
    ways: list[tuple[str, Callable[[str], None]]] = [
        ("ours", ours),
        ("boto3, looking", theirs),
        ("boto3, blindly", blindly),
        ("there already", again),
    ]
    for number in range(ROUNDS):
        for way, put in ways:
            began = time.perf_counter()
            put(f"put-{way.replace(' ', '-')}-{number}")
            took.setdefault(way, []).append(time.perf_counter() - began)
    print()
    for way, all_of_it in took.items():
        seconds = min(all_of_it)
        print(f"{size // MIB:4} MiB  {way:14} {seconds * 1000:7.0f} ms  {size / MIB / seconds:7.0f} MiB/s")
    # Of each round for itself: what else the machine does then slows down both.
    pairs = [ours / theirs for ours, theirs in zip(took["ours"], took["boto3, looking"], strict=True)]
    print(f"          {median(pairs):.2f} x boto3's head_object and upload_file ({min(pairs):.2f} to {max(pairs):.2f})")

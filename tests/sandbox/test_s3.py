"""S3 in the sandbox: what S3 does and refuses, asked by AWS's own client in process."""

from __future__ import annotations

import base64
import hashlib
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox import s3wire
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.runners.inline import InlineRunner
from osvdeploy.sandbox.wire import ApiRequest, ApiResponse
from osvdeploy.sizes import MIB
from tests.aws_clients import ONCE, client, point_at

BUCKET = "acme-releases"


class Account:
    """A sandbox with one bucket."""

    def __init__(self, path: Path | None = None, **settings: Any) -> None:
        self.clock = VirtualClock()
        self.sandbox = Sandbox(path, runner=InlineRunner(), **settings)
        self.s3 = self.client()
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def client(self, region: str = "eu-west-1") -> Any:
        """It reaches the account that was asked last."""
        point_at(self.sandbox, self.clock)
        return client("s3", ONCE, region)

    def put(self, key: str, content: bytes = b"", **more: Any) -> Any:
        return self.s3.put_object(Bucket=BUCKET, Key=key, Body=content, **more)

    def read(self, key: str, **more: Any) -> bytes:
        content: bytes = self.s3.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read()
        return content

    def begin(self, key: str, **more: Any) -> str:
        upload: str = self.s3.create_multipart_upload(Bucket=BUCKET, Key=key, **more)["UploadId"]
        return upload

    def part(self, key: str, upload: str, number: int, content: bytes, **more: Any) -> dict[str, Any]:
        """A part put; what a completion lists of it."""
        put = self.s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=content, **more)
        return {"PartNumber": number, "ETag": put["ETag"]}

    def complete(self, key: str, upload: str, parts: list[dict[str, Any]], **more: Any) -> Any:
        return self.s3.complete_multipart_upload(
            Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **more
        )

    def keys(self, **more: Any) -> list[str]:
        return [each["Key"] for each in self.s3.list_objects_v2(Bucket=BUCKET, **more).get("Contents", [])]


@pytest.fixture
def account() -> Account:
    return Account()


class refused:  # noqa: N801 - reads as pytest.raises does
    """Expects a refusal with this code."""

    def __init__(self, code: str, status: int | None = None) -> None:
        self.code, self.status = code, status
        self.response: dict[str, Any] = {}

    def __enter__(self) -> refused:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        assert isinstance(error, ClientError), error
        self.response = dict(error.response)
        assert error.response["Error"]["Code"] == self.code, error
        assert self.status in (None, error.response["ResponseMetadata"]["HTTPStatusCode"])
        return True


def sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


# --------------------------------------------------------------------------------------------------------- buckets


def test_buckets_are_known_in_every_region(account: Account) -> None:
    """Made once, listed everywhere, used in their own region alone, which everybody is told."""
    elsewhere = account.client("us-east-1")
    assert [each["Name"] for each in elsewhere.list_buckets()["Buckets"]] == [BUCKET]
    assert account.s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] == "eu-west-1"
    assert account.s3.head_bucket(Bucket=BUCKET)["BucketRegion"] == "eu-west-1"
    elsewhere.create_bucket(Bucket="acme-2")
    assert elsewhere.get_bucket_location(Bucket="acme-2").get("LocationConstraint") is None
    with refused("BucketAlreadyOwnedByYou", 409):
        account.s3.create_bucket(Bucket="acme-2", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})


def test_another_region_is_told_by_a_redirect(account: Account) -> None:
    """301, with the region in a header: also to a HEAD, which has no document."""
    for method in ("GET", "HEAD"):
        scope = "AKIA/20300101/us-east-1/s3/aws4_request"
        headers = {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, Signature=0", "host": "127.0.0.1"}
        answer = account.sandbox.handle(ApiRequest(method, f"/{BUCKET}?location", headers), account.clock.now())
        if method == "HEAD":
            answer = account.sandbox.handle(ApiRequest(method, f"/{BUCKET}", headers), account.clock.now())
        assert isinstance(answer, ApiResponse)
        assert (answer.status, answer.headers["x-amz-bucket-region"]) == (301, "eu-west-1")
        assert (b"PermanentRedirect" in answer.body) is (method == "GET")


@pytest.mark.parametrize(
    "name",
    ["Acme", "ab", "a" * 64, "-acme", "acme-", "ac..me", "192.168.5.4", "xn--acme", "acme--x-s3", "acme_1", "sthree-a"],
)
def test_names_of_buckets_are_held_to_the_rules(account: Account, name: str) -> None:
    """Length, alphabet, first and last, no address, no reserved prefix or suffix."""
    config = {"LocationConstraint": "eu-west-1"}
    headers = {"authorization": "AWS4-HMAC-SHA256 Credential=A/20300101/eu-west-1/s3/aws4_request, Signature=0"}
    body = f"<CreateBucketConfiguration><LocationConstraint>{config['LocationConstraint']}</LocationConstraint>"
    request = ApiRequest(
        "PUT", f"/{name}", {**headers, "host": "127.0.0.1"}, f"{body}</CreateBucketConfiguration>".encode()
    )
    answer = account.sandbox.handle(request, account.clock.now())
    assert isinstance(answer, ApiResponse)
    assert (answer.status, b"InvalidBucketName" in answer.body) == (400, True)


def test_a_location_is_the_endpoint_s(account: Account) -> None:
    """A bucket is made in the region that is asked, and only by its name."""
    with refused("IllegalLocationConstraintException"):
        account.s3.create_bucket(Bucket="acme-2")
    with refused("IllegalLocationConstraintException"):
        account.s3.create_bucket(Bucket="acme-2", CreateBucketConfiguration={"LocationConstraint": "eu-west-2"})


def test_a_bucket_with_objects_stays(account: Account) -> None:
    """BucketNotEmpty until they are gone."""
    account.put("a")
    with refused("BucketNotEmpty", 409):
        account.s3.delete_bucket(Bucket=BUCKET)
    account.s3.delete_object(Bucket=BUCKET, Key="a")
    account.s3.delete_bucket(Bucket=BUCKET)
    with refused("404", 404):
        account.s3.head_bucket(Bucket=BUCKET)
    with refused("NoSuchBucket", 404):
        account.put("a")


# --------------------------------------------------------------------------------------------------------- objects


def test_an_object_reads_back_whole_and_in_ranges(account: Account) -> None:
    """From, to, the last bytes; what is beyond the end is no range."""
    account.put("a", b"0123456789", Metadata={"release": "1"}, ContentType="text/plain")
    got = account.s3.get_object(Bucket=BUCKET, Key="a")
    assert (got["Body"].read(), got["ContentType"], got["Metadata"]) == (b"0123456789", "text/plain", {"release": "1"})
    for asked, content, told in (
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=8-", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=5-99", b"56789", "bytes 5-9/10"),
    ):
        got = account.s3.get_object(Bucket=BUCKET, Key="a", Range=asked)
        assert (got["Body"].read(), got["ContentRange"], got["ResponseMetadata"]["HTTPStatusCode"]) == (
            content,
            told,
            206,
        )
    with refused("InvalidRange", 416):
        account.read("a", Range="bytes=10-")
    head = account.s3.head_object(Bucket=BUCKET, Key="a")
    assert (head["ContentLength"], head["ETag"]) == (10, f'"{hashlib.md5(b"0123456789").hexdigest()}"')


def test_what_is_not_there_is_said_so(account: Account) -> None:
    """NoSuchKey for a GET; a HEAD has the status alone; deleting it succeeds."""
    with refused("NoSuchKey", 404):
        account.read("a")
    with refused("404", 404):
        account.s3.head_object(Bucket=BUCKET, Key="a")
    account.s3.delete_object(Bucket=BUCKET, Key="a")


def test_conditions_of_reads(account: Account) -> None:
    """If-Match and If-None-Match by the entity tag."""
    etag = account.put("a", b"1")["ETag"]
    assert account.read("a", IfMatch=etag) == b"1"
    with refused("PreconditionFailed", 412):
        account.read("a", IfMatch='"other"')
    with refused("304", 304):
        account.read("a", IfNoneMatch=etag)


def test_conditional_writes(account: Account) -> None:
    """If-None-Match: * makes only what is not there, If-Match changes only what is."""
    etag = account.put("a", b"1", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412):
        account.put("a", b"2", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        account.put("a", b"2", IfMatch='"other"')
    account.put("a", b"2", IfMatch=etag)
    assert account.read("a") == b"2"
    with refused("NoSuchKey", 404):
        account.put("b", b"", IfMatch=etag)
    with refused("NotImplemented", 501):
        account.put("b", b"", IfNoneMatch=etag)
    with refused("PreconditionFailed", 412):
        account.s3.delete_object(Bucket=BUCKET, Key="a", IfMatch=etag)


def test_of_forty_conditional_writers_one_wins(account: Account) -> None:
    """Puts and completions of one key at once: one is answered well, all others with 412."""
    uploads = {number: account.begin("a") for number in range(20)}
    parts = {number: [account.part("a", uploads[number], 1, b"part")] for number in uploads}
    ended: list[str] = []
    barrier = threading.Barrier(40)

    def write(number: int) -> None:
        barrier.wait()
        try:
            if number in uploads:
                account.complete("a", uploads[number], parts[number], IfNoneMatch="*")
            else:
                account.put("a", b"whole", IfNoneMatch="*")
            ended.append("won")
        except ClientError as error:
            ended.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["PreconditionFailed"] * 39 + ["won"]


def test_lists_are_in_order_paged_and_folded(account: Account) -> None:
    """By the bytes of the keys; a page goes on behind the last; a delimiter folds what it is common to."""
    names = ["a/1", "a/2", "a0", "b/x/1", "b/x/2", "c d&<ü", "z"]
    for name in reversed(names):
        account.put(name)
    assert account.keys() == sorted(names, key=str.encode)
    assert account.keys(Prefix="a") == ["a/1", "a/2", "a0"]
    assert account.keys(StartAfter="a/2", MaxKeys=1) == ["a0"]
    pages = account.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 2})
    assert [each["Key"] for page in pages for each in page["Contents"]] == sorted(names, key=str.encode)
    folded = account.s3.list_objects_v2(Bucket=BUCKET, Delimiter="/")
    assert [each["Prefix"] for each in folded["CommonPrefixes"]] == ["a/", "b/"]
    assert [each["Key"] for each in folded["Contents"]] == ["a0", "c d&<ü", "z"]
    deeper = account.s3.list_objects_v2(Bucket=BUCKET, Delimiter="/", Prefix="b/", MaxKeys=1)
    assert [each["Prefix"] for each in deeper["CommonPrefixes"]] == ["b/x/"]
    assert not deeper["IsTruncated"]
    assert account.s3.list_objects_v2(Bucket=BUCKET, MaxKeys=0)["KeyCount"] == 0
    with refused("InvalidArgument"):
        account.keys(ContinuationToken="nonsense")


def test_several_are_deleted_at_once(account: Account) -> None:
    """Those that are not there count as deleted."""
    account.put("a")
    answer = account.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]})
    assert [each["Key"] for each in answer["Deleted"]] == ["a", "b"]
    assert account.keys() == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"ChecksumSHA256": sha256(b"other")}, "BadDigest"),
        ({"ChecksumCRC32": base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big")).decode()}, "BadDigest"),
        ({"ChecksumSHA256": "bm8="}, "InvalidRequest"),
        ({"ContentMD5": base64.b64encode(hashlib.md5(b"other").digest()).decode()}, "BadDigest"),
        ({"ContentMD5": "bm8="}, "InvalidDigest"),
        ({"ChecksumCRC64NVME": "AAAAAAAAAAA="}, "NotSimulated"),
        ({"StorageClass": "GLACIER"}, "NotSimulated"),
        ({"Metadata": {"a": "x" * 2100}}, "MetadataTooLarge"),
    ],
)
def test_what_does_not_match_its_checksum_is_refused(account: Account, given: dict[str, Any], code: str) -> None:
    """Whatever an upload says of its bytes is held against them; what is not simulated says so."""
    with refused(code):
        account.put("a", b"content", **given)
    assert account.keys() == []


def test_checksums_are_kept_and_told(account: Account) -> None:
    """To who asks for them; of the whole object alone."""
    account.put("a", b"content", ChecksumSHA256=sha256(b"content"))
    head = account.s3.head_object(Bucket=BUCKET, Key="a", ChecksumMode="ENABLED")
    assert (head["ChecksumSHA256"], head["ChecksumType"]) == (sha256(b"content"), "FULL_OBJECT")
    assert "ChecksumSHA256" not in account.s3.head_object(Bucket=BUCKET, Key="a")
    part = account.s3.get_object(Bucket=BUCKET, Key="a", Range="bytes=0-1", ChecksumMode="ENABLED")
    assert "ChecksumSHA256" not in part


def test_a_key_has_a_longest_length(account: Account) -> None:
    """1,024 bytes of UTF-8."""
    account.put("ü" * 512)
    with refused("KeyTooLongError"):
        account.put("ü" * 512 + "x")


# --------------------------------------------------------------------------------------------------------- uploads


def test_an_object_of_parts_reads_back(account: Account) -> None:
    """Parts in any order, put again, left out: the object is what the completion lists."""
    upload = account.begin("a", Metadata={"release": "1"}, ChecksumAlgorithm="SHA256")
    one, two, stray = b"1" * (5 * MIB), b"2" * 100, b"label"
    account.part("a", upload, 10000, stray, ChecksumSHA256=sha256(stray))
    second = account.part("a", upload, 2, two, ChecksumSHA256=sha256(two))
    account.part("a", upload, 1, b"wrong", ChecksumSHA256=sha256(b"wrong"))
    first = account.part("a", upload, 1, one, ChecksumSHA256=sha256(one))
    listed = account.s3.list_parts(Bucket=BUCKET, Key="a", UploadId=upload)
    assert [(each["PartNumber"], each["Size"], each["ChecksumSHA256"]) for each in listed["Parts"]] == [
        (1, 5 * MIB, sha256(one)),
        (2, 100, sha256(two)),
        (10000, 5, sha256(stray)),
    ]
    parts = [{**first, "ChecksumSHA256": sha256(one)}, {**second, "ChecksumSHA256": sha256(two)}]
    with refused("InvalidRequest"):
        account.complete("a", upload, [first, second])
    with refused("InvalidRequest"):
        account.complete("a", upload, parts, MpuObjectSize=100)
    done = account.complete("a", upload, parts, MpuObjectSize=5 * MIB + 100)
    over = hashlib.sha256(hashlib.sha256(one).digest() + hashlib.sha256(two).digest()).digest()
    assert done["ChecksumSHA256"] == f"{base64.b64encode(over).decode()}-2"
    assert account.read("a") == one + two
    assert account.read("a", Range=f"bytes={5 * MIB - 2}-{5 * MIB + 1}") == b"1122"
    head = account.s3.head_object(Bucket=BUCKET, Key="a")
    assert head["Metadata"] == {"release": "1"}
    assert head["ETag"].endswith('-2"')
    assert "Uploads" not in account.s3.list_multipart_uploads(Bucket=BUCKET)
    with refused("NoSuchUpload", 404):
        account.complete("a", upload, parts)


def test_parts_are_held_to_the_rules(account: Account) -> None:
    """Their least size, their order, their tags, their numbers, their checksums."""
    upload = account.begin("a")
    small, large = account.part("a", upload, 1, b"small"), account.part("a", upload, 2, bytes(5 * MIB))
    with refused("EntityTooSmall"):
        account.complete("a", upload, [small, large])
    with refused("InvalidPartOrder"):
        account.complete("a", upload, [large, small])
    with refused("InvalidPart"):
        account.complete("a", upload, [{**large, "ETag": '"other"'}])
    with refused("InvalidPart"):
        account.complete("a", upload, [large, {**small, "PartNumber": 3}])
    with refused("InvalidArgument"):
        account.part("a", upload, 10001, b"")
    with refused("BadDigest"):
        account.part("a", upload, 3, b"a", ChecksumSHA256=sha256(b"b"))
    with refused("NoSuchUpload", 404):
        account.part("b", upload, 1, b"")
    summed = account.begin("a", ChecksumAlgorithm="SHA256")
    with refused("InvalidRequest"):
        account.part("a", summed, 1, b"")
    assert account.complete("a", upload, [large])["ETag"].endswith('-1"')


def test_an_aborted_upload_is_gone(account: Account) -> None:
    """With its parts, for every operation."""
    upload = account.begin("a")
    account.part("a", upload, 1, b"part")
    account.s3.abort_multipart_upload(Bucket=BUCKET, Key="a", UploadId=upload)
    for ask in (
        lambda: account.part("a", upload, 1, b"part"),
        lambda: account.s3.list_parts(Bucket=BUCKET, Key="a", UploadId=upload),
        lambda: account.s3.abort_multipart_upload(Bucket=BUCKET, Key="a", UploadId=upload),
    ):
        with refused("NoSuchUpload", 404):
            ask()


def test_uploads_are_listed_by_key_and_age(account: Account) -> None:
    """In pages, below a prefix, with what tells them apart."""
    made = []
    for key in ("b", "a/2", "a/1", "a/1"):
        made.append((key, account.begin(key)))
        account.clock.advance(1)
    b, two, first, second = made
    assert [
        (each["Key"], each["UploadId"]) for each in account.s3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    ] == [
        first,
        second,
        two,
        b,
    ]
    pages = account.s3.get_paginator("list_multipart_uploads").paginate(
        Bucket=BUCKET, Prefix="a/", PaginationConfig={"PageSize": 1}
    )
    assert [(each["Key"], each["UploadId"]) for page in pages for each in page["Uploads"]] == [first, second, two]


def test_parts_are_listed_in_pages(account: Account) -> None:
    """A page goes on behind a number."""
    upload = account.begin("a")
    for number in range(1, 8):
        account.part("a", upload, number, b"part")
    pages = account.s3.get_paginator("list_parts").paginate(
        Bucket=BUCKET, Key="a", UploadId=upload, PaginationConfig={"PageSize": 3}
    )
    assert [each["PartNumber"] for page in pages for each in page["Parts"]] == list(range(1, 8))
    listed = account.s3.list_parts(Bucket=BUCKET, Key="a", UploadId=upload, PartNumberMarker=6)
    assert [each["PartNumber"] for each in listed["Parts"]] == [7]


def test_boto3_s_own_transfer_works(account: Account, tmp_path: Path) -> None:
    """upload_file in parts, download_file in ranges, with the checksums they send by themselves."""
    content = hashlib.shake_128(b"disk").digest(17 * MIB)
    (tmp_path / "disk").write_bytes(content)
    account.s3.upload_file(str(tmp_path / "disk"), BUCKET, "disk")
    account.s3.download_file(BUCKET, "disk", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content


# ------------------------------------------------------------------------------------------------- the account itself


def test_what_is_not_simulated_says_so(account: Account) -> None:
    """Operations and parameters alike."""
    with refused("NotSimulated"):
        account.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    with refused("NotSimulated"):
        account.s3.copy_object(Bucket=BUCKET, Key="b", CopySource=f"{BUCKET}/a")
    with refused("NotSimulated"):
        account.put("a", ServerSideEncryption="aws:kms")


def test_reads_see_every_write_whatever_the_lag() -> None:
    """S3 is strongly consistent where EC2 is not."""
    account = Account(lag=30.0)
    account.put("a", b"1")
    assert account.read("a") == b"1"
    assert account.keys() == ["a"]


def test_objects_outlive_the_process(tmp_path: Path) -> None:
    """Contents are files of the store; an upload goes on in the next process."""
    account = Account(tmp_path)
    account.put("a", b"content")
    upload = account.begin("b")
    part = account.part("b", upload, 1, b"part")
    account.sandbox.close()
    again = account.sandbox = Sandbox(tmp_path, runner=InlineRunner())
    account.client()
    assert account.read("a") == b"content"
    account.complete("b", upload, [part])
    assert account.read("b") == b"part"
    assert again.inventory() == {"s3.bucket": [BUCKET], f"s3.object/{BUCKET}": ["a", "b"]}
    again.close()


@pytest.mark.parametrize(
    ("kind", "code"),
    [(FaultKind.THROTTLED, "SlowDown"), (FaultKind.DENIED, "AccessDenied"), (FaultKind.BROKEN, "InternalError")],
)
def test_faults_have_s3_s_own_words(account: Account, kind: FaultKind, code: str) -> None:
    """As S3's list of error responses has them."""
    account.sandbox.faults.add(Fault("s3:GetObject", kind, times=None))
    with refused(code):
        account.read("a")


def test_credentials_are_asked_for() -> None:
    """Nobody is anonymous, and an unknown key is told as S3 tells it."""
    account = Account()
    account.sandbox.access_key = "AKIAOTHER"
    with refused("InvalidAccessKeyId", 403):
        account.read("a")
    request = ApiRequest("GET", "/", {"host": f"{BUCKET}.s3.eu-west-1.amazonaws.com"})
    answer = account.sandbox.handle(request, account.clock.now())
    assert isinstance(answer, ApiResponse)
    assert answer.status == 403


# --------------------------------------------------------------------------------------------------------- the wire


def chunked(*chunks: bytes, trailer: str = "") -> bytes:
    body = b"".join(b"%x;chunk-signature=0\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return body + b"0\r\n" + trailer.encode() + b"\r\n\r\n"


STREAMING = {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "content-encoding": "aws-chunked"}


def test_chunks_are_joined_and_trailers_read() -> None:
    """What SDKs send when they do not know a checksum before the body."""
    headers = {**STREAMING, "x-amz-decoded-content-length": "7", "x-amz-trailer": "x-amz-checksum-crc32"}
    body = chunked(b"cont", b"ent", trailer="x-amz-checksum-crc32:AAAAAA==")
    found, content = s3wire.unwrapped(headers, body)
    assert content == b"content"
    assert found["x-amz-checksum-crc32"] == "AAAAAA=="
    assert "content-encoding" not in found
    both = {**headers, "content-encoding": "aws-chunked,gzip"}
    assert s3wire.unwrapped(both, body)[0]["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("more", "body", "code"),
    [
        ({"x-amz-decoded-content-length": "8"}, chunked(b"content"), "IncompleteBody"),
        ({}, chunked(b"content"), "MissingContentLength"),
        ({"x-amz-decoded-content-length": "7"}, b"no chunk", "IncompleteBody"),
        ({"x-amz-decoded-content-length": "7"}, b"7\r\nconte", "IncompleteBody"),
        (
            {"x-amz-decoded-content-length": "7", "x-amz-trailer": "x-amz-checksum-crc32"},
            chunked(b"content"),
            "MalformedTrailerError",
        ),
    ],
)
def test_chunks_that_are_none_are_refused(more: dict[str, str], body: bytes, code: str) -> None:
    """Cut short, of another length than said, or without the trailer that was announced."""
    with pytest.raises(ApiError) as raised:
        s3wire.unwrapped({**STREAMING, **more}, body)
    assert raised.value.code == code


def test_a_body_that_was_altered_is_refused() -> None:
    """The digest that the signature covers is held against it."""
    said = {"x-amz-content-sha256": hashlib.sha256(b"content").hexdigest()}
    assert s3wire.unwrapped(said, b"content") == (said, b"content")
    with pytest.raises(ApiError) as raised:
        s3wire.unwrapped(said, b"other")
    assert raised.value.code == "XAmzContentSHA256Mismatch"


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("acme.s3.eu-west-1.amazonaws.com", "/a/b%20c"),
        ("acme.s3.amazonaws.com", "/a/b%20c"),
        ("acme.s3-eu-west-1.amazonaws.com", "/a/b%20c"),
        ("acme.localhost:4566", "/a/b%20c"),
        ("s3.eu-west-1.amazonaws.com", "/acme/a/b%20c"),
        ("127.0.0.1:4566", "/acme/a/b%20c"),
        ("localhost:4566", "/acme/a/b%20c"),
    ],
)
def test_a_bucket_is_named_by_host_or_path(account: Account, host: str, path: str) -> None:
    """Virtual-hosted and path style mean the same."""
    from osvdeploy.sandbox.wire import model

    assert s3wire.route(model("s3"), "GET", path, {"host": host}, {}) == (
        "GetObject",
        {"Bucket": "acme", "Key": "a/b c"},
    )


def test_what_xml_is_not_is_refused(account: Account) -> None:
    """MalformedXML for a completion without a list of parts."""
    headers = {"authorization": "AWS4-HMAC-SHA256 Credential=A/20300101/eu-west-1/s3/aws4_request, Signature=0"}
    request = ApiRequest("POST", f"/{BUCKET}/a?uploadId=1", {**headers, "host": "127.0.0.1"}, b"<Complete")
    answer = account.sandbox.handle(request, account.clock.now())
    assert isinstance(answer, ApiResponse)
    assert (answer.status, b"MalformedXML" in answer.body) == (400, True)

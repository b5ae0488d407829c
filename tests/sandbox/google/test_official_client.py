"""google-cloud-storage against the sandbox, on a socket, pointed there by its own variable."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.api_core import exceptions
from google.cloud import storage

from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.http import Shell
from osvdeploy.sandbox.runners.inline import InlineRunner
from osvdeploy.sizes import KIB, MIB
from tests.sources import Made

pytestmark = pytest.mark.slow


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[storage.Client]:
    shell = Shell(Sandbox(runner=InlineRunner()))
    shell.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", shell.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    client = storage.Client(project="sandbox")
    client.create_bucket("acme", location="EUROPE-WEST1")
    yield client
    client.close()
    shell.stop()


def test_it_uploads_downloads_lists_and_deletes(client: storage.Client) -> None:
    """Small objects, with their checksums held by the client itself."""
    bucket = client.get_bucket("acme")
    assert (bucket.location, bucket.storage_class) == ("EUROPE-WEST1", "STANDARD")
    assert [each.name for each in client.list_buckets()] == ["acme"]
    blob = bucket.blob("a/1.json")
    blob.metadata = {"k": "v"}
    blob.upload_from_string(b"{}", content_type="application/json", checksum="crc32c")
    found = bucket.get_blob("a/1.json")
    assert found is not None
    assert (found.size, found.metadata, found.content_type) == (2, {"k": "v"}, "application/json")
    assert found.download_as_bytes() == b"{}"
    assert bucket.blob("a/1.json").download_as_bytes(checksum="crc32c") == b"{}"
    bucket.blob("a/2/3").upload_from_string("x" * 1000)
    assert bucket.blob("a/2/3").download_as_bytes(start=10, end=19) == b"x" * 10
    assert [each.name for each in client.list_blobs("acme", prefix="a/", page_size=1)] == ["a/1.json", "a/2/3"]
    listed = client.list_blobs("acme", prefix="a/", delimiter="/")
    assert [each.name for each in listed] == ["a/1.json"]
    assert listed.prefixes == {"a/2/"}
    found.metadata = {"k": "w"}
    found.patch()
    assert bucket.get_blob("a/1.json").metadata == {"k": "w"}
    found.delete()
    assert bucket.get_blob("a/1.json") is None
    assert bucket.test_iam_permissions(["storage.objects.create"]) == ["storage.objects.create"]


def test_its_resumable_uploads_work(client: storage.Client) -> None:
    """In chunks, and as one stream."""
    content = Made("a", 2 * MIB + 5).content
    blob = client.bucket("acme").blob("a", chunk_size=512 * KIB)
    blob.upload_from_string(content, checksum="md5")
    assert client.bucket("acme").blob("a").download_as_bytes() == content
    large = Made("b", 9 * MIB).content
    client.bucket("acme").blob("b").upload_from_string(large, checksum="crc32c")
    assert client.bucket("acme").blob("b").download_as_bytes(raw_download=True) == large


def test_its_conditions_and_errors_are_understood(client: storage.Client) -> None:
    """As its own exceptions."""
    bucket = client.bucket("acme")
    blob = bucket.blob("a")
    blob.upload_from_string(b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("a").upload_from_string(b"2", if_generation_match=0)
    generation = bucket.get_blob("a").generation
    with pytest.raises(exceptions.PreconditionFailed):
        blob.delete(if_generation_match=generation + 1)
    blob.upload_from_string(b"3", if_generation_match=generation)
    with pytest.raises(exceptions.NotFound, match="No such object: acme/none"):
        bucket.blob("none").download_as_bytes()
    with pytest.raises(exceptions.NotFound, match="The specified bucket does not exist"):
        client.get_bucket("none")
    with pytest.raises(exceptions.Conflict):
        client.create_bucket("acme")


def test_it_composes(client: storage.Client) -> None:
    """With generations of the sources."""
    bucket = client.bucket("acme")
    parts = []
    for number in range(3):
        part = bucket.blob(f"part-{number}")
        part.upload_from_string(f"{number}" * 3)
        parts.append(part)
    whole = bucket.blob("whole")
    whole.content_type = "text/plain"
    whole.compose(parts, if_generation_match=0, if_source_generation_match=[part.generation for part in parts])
    assert whole.download_as_bytes() == b"000111222"
    assert whole.component_count == 3

"""Compute Engine's images in the sandbox: what it does and refuses, asked over its API in process."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.osv.disk import FileAccess
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.archive import Archive, trailer
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.google.compute.archive import Unfit, opened
from osvdeploy.sandbox.google.discovery import api
from osvdeploy.sizes import GIB, KIB
from tests.publish.disk import raw_disk
from tests.sandbox.google.place import Answer, Project, refused

V1 = "https://compute.googleapis.com/compute/v1"
IMAGES = f"{V1}/projects/p/global/images"
OPERATIONS = f"{V1}/projects/p/global/operations"
SOURCE = "https://storage.googleapis.com/acme/a.tar.gz"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> RawImage:
    return raw_disk(tmp_path_factory.mktemp("disk") / "disk.raw", blocks=3, block=512 * KIB)


@pytest.fixture(scope="module")
def archive(disk: RawImage) -> bytes:
    made = Archive(FileAccess(disk.path), disk.read)
    head, total = made.head()
    body = made.body()
    rest = b"".join(body)
    assert body.sum is not None
    return head + rest + trailer(total + body.sum)


@pytest.fixture
def project(archive: bytes) -> Project:
    """With an archive in its bucket."""
    made = Project()
    made.made("a.tar.gz", archive)
    return made


def token() -> str:
    return str(uuid.uuid4())


def insert(project: Project, name: str = "a", request_id: str = "", **fields: Any) -> Answer:
    document = {"name": name, "rawDisk": {"source": SOURCE}, **fields}
    return project.ask("POST", IMAGES + (f"?requestId={request_id}" if request_id else ""), document)


def done(project: Project, answer: Answer) -> dict[str, Any]:
    """The operation, when it has ended."""
    assert answer.status_code == 200, answer.text
    operation: dict[str, Any] = answer.json()
    while operation["status"] != "DONE":
        project.clock.advance(1.0)
        operation = project.ask("POST", f"{operation['selfLink']}/wait").json()
    return operation


def made(project: Project, name: str = "a", **fields: Any) -> dict[str, Any]:
    assert "error" not in done(project, insert(project, name, **fields))
    found: dict[str, Any] = project.ask("GET", f"{IMAGES}/{name}").json()
    return found


def failed(project: Project, answer: Answer) -> str:
    [error] = done(project, answer)["error"]["errors"]
    return str(error["message"])


def test_an_archive_becomes_an_image(project: Project, disk: RawImage, archive: bytes) -> None:
    """In time: pending first, then ready, with every byte that is read where it was."""
    answer = insert(project, family="f", labels={"team": "payments"}, architecture="X86_64", description="d")
    operation = answer.json()
    assert (operation["status"], operation["operationType"]) == ("RUNNING", "insert")
    assert project.ask("GET", f"{IMAGES}/a").json()["status"] == "PENDING"
    ended = done(project, answer)
    assert (ended["progress"], ended["id"], "error" in ended) == (100, operation["id"], False)
    image = project.ask("GET", f"{IMAGES}/a").json()
    assert (image["status"], image["diskSizeGb"], image["archiveSizeBytes"]) == ("READY", "1", str(len(archive)))
    assert (image["family"], image["labels"], image["architecture"]) == ("f", {"team": "payments"}, "X86_64")
    assert (image["storageLocations"], image["id"]) == (["us"], ended["targetId"])
    assert project.ask("GET", f"{IMAGES}/{image['id']}").json() == image
    blocks = project.image("p/a")
    content = FileAccess(disk.path).pread(0, 3 * 512 * KIB)
    for extent in disk.read:
        assert blocks[extent.start : extent.end] == content[extent.start : extent.end]


def test_what_gnu_tar_writes_is_taken(project: Project, disk: RawImage) -> None:
    """As the documentation has it be made."""
    words = ["tar", "--format=oldgnu", "-Sczf", "-", "-C", str(disk.path.parent), "disk.raw"]
    project.made("gnu.tar.gz", subprocess.run(words, capture_output=True, check=True).stdout)
    source = "https://storage.googleapis.com/acme/gnu.tar.gz"
    assert "error" not in done(project, insert(project, rawDisk={"source": source, "containerType": "TAR"}))
    assert project.image("p/a") == FileAccess(disk.path).pread(0, 3 * 512 * KIB)


def tarred(name: str = "disk.raw", size: int = 1024, form: int = tarfile.GNU_FORMAT, more: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=form) as tar:
        for each in [name, "other"] if more else [name]:
            info = tarfile.TarInfo(each)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    return out.getvalue()


UNFIT = {
    "no gzip": (b"not an archive", "not a valid image"),
    "no tar": (gzip.compress(bytes(100_000)), "not a valid image"),
    "cut short": (tarred()[:-20], "not a valid image"),
    "two members": (gzip.compress(b"") + tarred(), "not a valid image"),
    "pax": (tarred(form=tarfile.PAX_FORMAT), "Supported formats are: GNU and OLDGNU"),
    "another name": (tarred("disk.img"), "was named ''disk.img''"),
    "two files": (tarred(more=True), "not a valid image"),
    "no whole GiB": (tarred(size=1024), "not a multiple of 1 GB"),
    "empty": (tarred(size=0), "not a multiple of 1 GB"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_is_no_archive_of_a_disk_makes_no_image(project: Project, kind: str) -> None:
    """The operation ends with why, and leaves no image."""
    content, why = UNFIT[kind]
    project.made("bad.tar.gz", content)
    source = "https://storage.googleapis.com/acme/bad.tar.gz"
    assert why in failed(project, insert(project, rawDisk={"source": source}))
    refused(project.ask("GET", f"{IMAGES}/a"), 404, "notFound")


def test_an_archive_that_is_taken_away_too_early_makes_no_image(project: Project) -> None:
    """It is read to the end, not when it is asked for."""
    answer = insert(project)
    assert project.ask("DELETE", project.url("a.tar.gz")).ok
    assert "was not found" in failed(project, answer)
    refused(project.ask("GET", f"{IMAGES}/a"), 404, "notFound")


def test_what_cannot_be_an_image_is_refused_at_once(project: Project) -> None:
    """Names, labels, features, sources: nothing is made of it."""
    for field, value in (
        ("name", "A"),
        ("name", "a."),
        ("name", "a" * 64),
        ("name", "a-"),
        ("family", "F"),
        ("labels", {"Team": "a"}),
        ("labels", {"team": "a.b"}),
        ("labels", {"team": "a" * 64}),
        ("labels", {f"l{number}": "" for number in range(65)}),
        ("guestOsFeatures", [{"type": "GVNIC"}, {"type": "GVNIC"}]),
        ("guestOsFeatures", [{"type": "NONE"}]),
        ("architecture", "x86_64"),
        ("storageLocations", ["nowhere at all"]),
        ("rawDisk", {"source": "https://storage.googleapis.com/acme/a.vmdk"}),
        ("rawDisk", {"source": "acme/a.tar.gz"}),
    ):
        wrong: dict[str, Any] = {field: value}
        refused(insert(project, **wrong), 400, "invalid")
    refused(insert(project, rawDisk={}), 400, "required", "rawDisk.source")
    gone = {"source": "https://storage.googleapis.com/acme/none.tar.gz"}
    refused(insert(project, rawDisk=gone), 403, "forbidden", "Required 'read' permission for 'rawDisk.source'")
    assert "items" not in project.ask("GET", IMAGES).json()
    assert "items" not in project.ask("GET", OPERATIONS).json()


def test_a_name_is_taken_once(project: Project) -> None:
    """Also while the image is made."""
    insert(project)
    refused(insert(project), 409, "alreadyExists", "projects/p/global/images/a")
    project.clock.advance(60)
    refused(insert(project), 409, "alreadyExists")


def test_the_same_request_id_is_the_same_operation(project: Project) -> None:
    """While it runs, when it has ended, when it failed, when what it made is gone; for an hour. Another request with
    it is refused, and so is what is no UUID."""
    mine = token()
    first = insert(project, request_id=mine).json()
    assert first["clientOperationId"] == mine
    assert insert(project, request_id=mine).json()["name"] == first["name"]
    done(project, insert(project, request_id=mine))
    refused(insert(project, "b", request_id=mine), 400, "invalid", "requestId")
    gone = token()
    done(project, project.ask("DELETE", f"{IMAGES}/a?requestId={gone}"))
    assert project.ask("DELETE", f"{IMAGES}/a?requestId={gone}").json()["status"] == "DONE"
    again = insert(project, request_id=mine).json()
    assert (again["name"], again["status"]) == (first["name"], "DONE")
    refused(project.ask("GET", f"{IMAGES}/a"), 404, "notFound")
    project.clock.advance(3601)
    assert insert(project, request_id=mine).json()["name"] != first["name"]
    for wrong in ("1", str(uuid.UUID(int=0))):
        refused(insert(project, "c", request_id=wrong), 400, "invalid", "requestId")
    assert len(project.ask("GET", OPERATIONS).json()["items"]) == 3


def test_a_lost_answer_is_asked_for_again(project: Project) -> None:
    """It took effect once."""
    project.sandbox.faults.add(Fault("images.insert", FaultKind.AFTER))
    mine = token()
    with pytest.raises(Exception, match="connection"):
        insert(project, request_id=mine)
    done(project, insert(project, request_id=mine))
    assert len(project.ask("GET", OPERATIONS).json()["items"]) == 1


def test_a_family_is_its_newest_image_that_is_not_deprecated(project: Project) -> None:
    """Whatever its state: who wants the family to serve puts in what is ready."""
    family = f"{IMAGES}/family/f"
    refused(project.ask("GET", family), 404, "notFound")
    made(project, "a", family="f")
    made(project, "b", family="f")
    made(project, "c")
    assert project.ask("GET", family).json()["name"] == "b"
    link = project.ask("GET", f"{IMAGES}/a").json()["selfLink"]
    done(project, project.ask("POST", f"{IMAGES}/b/deprecate", {"state": "DEPRECATED", "replacement": link}))
    deprecated = project.ask("GET", f"{IMAGES}/b").json()["deprecated"]
    assert deprecated == {"state": "DEPRECATED", "replacement": link}
    assert project.ask("GET", family).json()["name"] == "a"
    done(project, project.ask("POST", f"{IMAGES}/a/deprecate", {"state": "OBSOLETE"}))
    refused(project.ask("GET", family), 404, "notFound")
    done(project, project.ask("POST", f"{IMAGES}/b/deprecate", {}))
    assert "deprecated" not in project.ask("GET", f"{IMAGES}/b").json()
    assert project.ask("GET", family).json()["name"] == "b"
    done(project, project.ask("PATCH", f"{IMAGES}/c", {"family": "f"}))
    assert project.ask("GET", family).json()["name"] == "c"
    done(project, project.ask("PATCH", f"{IMAGES}/c", {"family": None}))
    assert project.ask("GET", family).json()["name"] == "b"
    insert(project, "d", family="f")
    assert project.ask("GET", family).json()["status"] == "PENDING"
    nobody = {"state": "DEPRECATED", "replacement": f"{IMAGES}/none"}
    refused(project.ask("POST", f"{IMAGES}/b/deprecate", nobody), 400, "invalid", "replacement")


def test_labels_change_for_who_has_seen_them(project: Project) -> None:
    """The fingerprint is another with each change."""
    before = made(project, labels={"a": "1"})
    change = {"labels": {"a": "2"}, "labelFingerprint": before["labelFingerprint"]}
    done(project, project.ask("POST", f"{IMAGES}/a/setLabels", change))
    after = project.ask("GET", f"{IMAGES}/a").json()
    assert after["labels"] == {"a": "2"}
    assert after["labelFingerprint"] != before["labelFingerprint"]
    refused(project.ask("POST", f"{IMAGES}/a/setLabels", change), 412, "conditionNotMet")


def test_what_is_not_ready_is_not_changed(project: Project) -> None:
    """Nor deleted."""
    insert(project)
    for answer in (
        project.ask("DELETE", f"{IMAGES}/a"),
        project.ask("POST", f"{IMAGES}/a/deprecate", {}),
        project.ask("PATCH", f"{IMAGES}/a", {"family": "f"}),
    ):
        refused(answer, 400, "resourceNotReady")
    project.clock.advance(60)
    deleting = project.ask("DELETE", f"{IMAGES}/a")
    assert project.ask("GET", f"{IMAGES}/a").json()["status"] == "DELETING"
    done(project, deleting)
    refused(project.ask("GET", f"{IMAGES}/a"), 404, "notFound")
    refused(project.ask("DELETE", f"{IMAGES}/a"), 404, "notFound")


def test_lists_are_filtered_and_in_pages(project: Project) -> None:
    """By name, or the newest first; each project its own."""
    for name in ("b", "a", "c"):
        made(project, name, labels={"app": "x" if name != "c" else "y"}, family="f" if name == "a" else "g")

    def names(query: str) -> list[str]:
        answer = project.ask("GET", f"{IMAGES}?{query}")
        assert answer.ok, answer.text
        return [each["name"] for each in answer.json().get("items", [])]

    assert names("") == ["a", "b", "c"]
    assert names("filter=labels.app=x") == ["a", "b"]
    assert names('filter=(labels.app = "x") (family != f)') == ["b"]
    assert names("filter=labels.app=x AND name=a") == ["a"]
    assert names("filter=labels.team:*") == []
    assert names("orderBy=creationTimestamp desc") == ["c", "a", "b"]
    page = project.ask("GET", f"{IMAGES}?maxResults=2").json()
    assert [each["name"] for each in page["items"]] == ["a", "b"]
    assert names(f"maxResults=2&pageToken={page['nextPageToken']}") == ["c"]
    assert "items" not in project.ask("GET", f"{V1}/projects/other/global/images").json()
    assert len(project.ask("GET", f"{OPERATIONS}?filter=operationType=insert").json()["items"]) == 3
    for unknown in ("name eq a.*", "name=a OR name=b", "(name=a", "labels.app:x"):
        refused(project.ask("GET", f"{IMAGES}?filter={unknown}"), 400, "notSimulated")


def test_an_operation_that_is_not_there_is_not_found(project: Project) -> None:
    """Neither by getting nor by waiting."""
    refused(project.ask("GET", f"{OPERATIONS}/operation-1"), 404, "notFound")
    refused(project.ask("POST", f"{OPERATIONS}/operation-1/wait"), 404, "notFound")


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        (FaultKind.THROTTLED, 403, "rateLimitExceeded"),
        (FaultKind.DENIED, 403, "forbidden"),
        (FaultKind.BROKEN, 503, "backendError"),
    ],
)
def test_faults_are_told_as_google_does(project: Project, kind: FaultKind, status: int, reason: str) -> None:
    """And nothing is made."""
    project.sandbox.faults.add(Fault("compute:images.insert", kind))
    refused(insert(project), status, reason)
    assert "items" not in project.ask("GET", IMAGES).json()


def test_what_is_not_simulated_says_so(project: Project) -> None:
    """Rather than to be ignored."""
    refused(insert(project, licenses=["projects/l"]), 400, "notSimulated", "licenses")
    refused(project.ask("GET", f"{V1}/projects/p/zones/europe-west1-b/disks"), 400, "notSimulated")


def test_machine_types_are_those_of_a_zone(project: Project) -> None:
    """With processors and memory."""
    zone = f"{V1}/projects/p/zones/europe-west1-b/machineTypes"
    small = project.ask("GET", f"{zone}/e2-small").json()
    assert (small["guestCpus"], small["memoryMb"], small["architecture"]) == (2, 2048, "X86_64")
    assert "e2-small" in [each["name"] for each in project.ask("GET", zone).json()["items"]]
    refused(project.ask("GET", f"{zone}/e2-smal"), 404, "notFound")
    refused(project.ask("GET", f"{V1}/projects/p/zones/nowhere/machineTypes"), 400, "invalid", "zone")


def test_images_outlive_the_sandbox(tmp_path: Path, archive: bytes) -> None:
    """What a store on disk holds is there when it is opened again; what was under way goes on."""
    first = Project(tmp_path)
    first.made("a.tar.gz", archive)
    insert(first)
    first.sandbox.close()
    second = Project(tmp_path, empty=False)
    second.clock.advance(60)
    assert second.ask("GET", f"{IMAGES}/a").json()["status"] == "READY"
    second.sandbox.close()


# ------------------------------------------------------------------------------------------------------ any request


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
FIELD = st.sampled_from(sorted(api("compute").document["schemas"]["Image"]["properties"])) | st.text(max_size=5)
PATHS = [
    "images",
    "images/a",
    "images/a/deprecate",
    "images/a/setLabels",
    "images/family/f",
    "operations",
    "operations/o",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    verb=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
    path=st.sampled_from(PATHS) | st.text(max_size=8),
    query=st.lists(
        st.tuples(
            st.sampled_from(["requestId", "filter", "maxResults", "pageToken", "orderBy", "alt", "x"]),
            st.text(max_size=9),
        ),
        max_size=3,
    ),
    body=st.dictionaries(FIELD, VALUE, max_size=3).map(lambda found: json.dumps(found).encode())
    | st.binary(max_size=30),
)
def test_any_request_is_answered(
    project: Project, verb: str, path: str, query: list[tuple[str, str]], body: bytes
) -> None:
    """With what it asked for or a refusal in Google's form, never with a fault of ours."""
    url = f"{V1}/projects/p/global/{quote(path)}?{urlencode(query)}"
    told = project.session.request(verb, url, data=body, headers={"content-type": "application/json"})
    assert told.status_code < 500, told.text
    project.clock.advance(5)


CHANGED = st.builds(
    lambda at, byte: gzip.compress(_changed(gzip.decompress(tarred()), at, byte)),
    st.integers(0, 1100),
    st.integers(0, 255),
)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000) | CHANGED)
def test_any_bytes_are_an_archive_or_refused(content: bytes) -> None:
    """Damaged ones too: in Google's words, never with a fault of ours."""
    try:
        disk = opened([content])
        assert not disk.size % GIB
        list(disk.blocks)
    except Unfit:
        pass


def _changed(content: bytes, at: int, byte: int) -> bytes:
    at %= len(content)
    return content[:at] + bytes([byte]) + content[at + 1 :]


def test_googles_own_client_speaks_to_it(project: Project) -> None:
    """The one that is made of the discovery document: inserts, waits, lists in pages, finds by family."""
    from googleapiclient.discovery import build_from_document

    client = build_from_document(api("compute").document, http=OverSession(project))
    for name in ("a", "b", "c"):
        asked = client.images().insert(
            project="p", requestId=token(), body={"name": name, "family": "f", "rawDisk": {"source": SOURCE}}
        )
        operation = asked.execute()
        while operation["status"] != "DONE":
            project.clock.advance(10)
            operation = client.globalOperations().wait(project="p", operation=operation["name"]).execute()
    names, listing = [], client.images().list(project="p", maxResults=2)
    while listing is not None:
        page = listing.execute()
        names += [each["name"] for each in page["items"]]
        listing = client.images().list_next(listing, page)
    assert names == ["a", "b", "c"]
    assert client.images().getFromFamily(project="p", family="f").execute()["name"] == "c"


class OverSession:
    """What that client takes for httplib2."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def request(self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any) -> Any:
        from httplib2 import Response

        answer = self._project.session.request(method, uri, data=body, headers=headers)
        return Response({"status": str(answer.status_code), **answer.headers}), answer.content

    def close(self) -> None:
        pass

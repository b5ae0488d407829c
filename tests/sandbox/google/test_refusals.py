"""What simulated Google refuses beyond its discovery document: each refusal a row, with where it is written.

The rows are walked, each asked of a sandbox that is otherwise in order; and no refusal in the source of simulated Cloud
Storage, or of what reads requests for both services, is without one. Compute Engine's are in test_compute_refusals.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.sandbox.google.place import ACME, BUCKETS, HOST, OBJECTS, UPLOADS, Answer, Project, crc32c, refused
from tests.sandbox.refusal_sites import HOME, met, missed

REFERENCE = "JSON API reference"
NAMES = "About Cloud Storage objects, Object names"
RESUMABLE = "Resumable uploads"
CONDITIONS = "Request preconditions"
STATUS = "JSON API, HTTP status and error codes"
COMPOSITE = "Composite objects"
SUMS = "Data validation and change detection"
ERRORS = "google.rpc.Status for HTTP: JSON transcoding of a request that does not bind"
MULTIPART = "Upload objects from a file system, multipart uploads; RFC 2387"


@dataclass(frozen=True)
class Row:
    """A request that is refused: how Google answers, and where that is written."""

    source: str
    ask: Callable[[Project], Answer]
    status: int
    reason: str
    words: str = ""


def post(url: str, body: bytes, **headers: str) -> Callable[[Project], Answer]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda project: project.session.post(url, data=body, headers=named)


def asked(verb: str, url: str, document: object = None, **headers: str) -> Callable[[Project], Answer]:
    return lambda project: project.ask(verb, url, document, **headers)


def sent(said: str | None, content: bytes = b"12345", **begun: str) -> Callable[[Project], Answer]:
    return lambda project: project.send(project.begin("r", **begun), content, said)


A = f"{OBJECTS}/a"
RELATED = "multipart/related; boundary=x"
MULTI = f"{UPLOADS}?uploadType=multipart"

STORAGE = [
    # ------------------------------------------------------------------------------------------------------- buckets
    Row(f"{REFERENCE}, Buckets: insert", asked("POST", f"{BUCKETS}?project=p", {}), 400, "required", "name"),
    Row("About buckets, Bucket names", asked("POST", f"{BUCKETS}?project=p", {"name": "A"}), 400, "invalid", "'A'"),
    Row(STATUS, asked("POST", f"{BUCKETS}?project=p", {"name": "acme"}), 409, "conflict", "you already own it"),
    Row(
        "Soft delete overview, Retention duration",
        asked(
            "POST", f"{BUCKETS}?project=p", {"name": "bucket", "softDeletePolicy": {"retentionDurationSeconds": "60"}}
        ),
        400,
        "invalid",
        "must be 0, or from 604800 to 7776000",
    ),
    Row(STATUS, asked("GET", f"{BUCKETS}/none"), 404, "notFound", "The specified bucket does not exist."),
    Row(f"{REFERENCE}, Buckets: delete", asked("DELETE", ACME), 409, "conflict", "not empty"),
    Row(CONDITIONS, asked("DELETE", f"{ACME}?ifMetagenerationMatch=9"), 412, "conditionNotMet", "pre-conditions"),
    # ------------------------------------------------------------------------------------------------------- objects
    Row(STATUS, asked("GET", f"{OBJECTS}/none"), 404, "notFound", "No such object: acme/none"),
    Row(NAMES, post(f"{UPLOADS}?uploadType=media", b"1"), 400, "required", "name"),
    Row(NAMES, lambda project: project.put(".."), 400, "invalid", "object name"),
    Row(NAMES, lambda project: project.put("x" * 1025), 400, "invalid", "object name"),
    Row(CONDITIONS, lambda project: project.put("a", ifGenerationMatch=0), 412, "conditionNotMet"),
    Row(CONDITIONS, asked("DELETE", f"{A}?ifGenerationNotMatch=0&ifMetagenerationNotMatch=1"), 412, "conditionNotMet"),
    Row(f"{CONDITIONS}, ETags", asked("GET", A, if_match='"other"'), 412, "conditionNotMet"),
    Row(f"{CONDITIONS}, ETags", lambda p: p.ask("GET", A, if_none_match=p.ask("GET", A).json()["etag"]), 304, ""),
    Row(CONDITIONS, lambda p: p.ask("GET", f"{A}?ifMetagenerationNotMatch=1"), 304, ""),
    Row(f"{REFERENCE}, Objects: get; RFC 9110, 15.5.17", asked("GET", f"{A}?alt=media", range="bytes=9-"), 416, ""),
    Row(f"{REFERENCE}, Objects: patch", asked("PATCH", A, {"name": "b"}), 400, "invalid", "name cannot be changed"),
    Row(f"{REFERENCE}, Objects: list", asked("GET", f"{OBJECTS}?pageToken=$$"), 400, "invalid", "pageToken"),
    Row(SUMS, lambda project: project.put("b", b"1", {"crc32c": crc32c(b"2")}), 400, "invalid", "doesn't match"),
    Row(SUMS, post(f"{UPLOADS}?uploadType=media&name=b", b"1", x_goog_hash="sha=1"), 400, "invalid", "x-goog-hash"),
    # ------------------------------------------------------------------------------------------------------- uploads
    Row(f"{REFERENCE}, Objects: insert", lambda p: p.put("b", b"1", {"bucket": "b"}), 400, "invalid", "not agree"),
    Row(f"{REFERENCE}, Objects: insert", asked("POST", OBJECTS, {"name": "b"}), 400, "badRequest", "the upload URL"),
    Row(f"{REFERENCE}, Objects: insert", asked("POST", f"{OBJECTS}?uploadType=media", {}), 400, "badRequest", "URL"),
    Row(f"{REFERENCE}, Objects: insert", post(f"{UPLOADS}?uploadType=x&name=b", b""), 400, "badRequest", "uploadType"),
    Row(
        f"{REFERENCE}, supportsMediaUpload",
        post(f"{HOST}/upload/storage/v1/b?project=p&uploadType=media", b""),
        400,
        "badRequest",
        "not supported",
    ),
    Row(MULTIPART, post(MULTI, b"", content_type="text/plain"), 400, "badRequest", "Malformed multipart body"),
    Row(MULTIPART, post(MULTI, b"--x\r\n\r\n{}\r\n--x--", content_type=RELATED), 400, "badRequest", "Malformed"),
    Row(MULTIPART, post(MULTI, b"--x\r\n{}\r\n--x\r\n\r\n1\r\n--x--", content_type=RELATED), 400, "badRequest", "Malf"),
    Row(
        RESUMABLE,
        asked("POST", f"{UPLOADS}?uploadType=resumable&name=r", x_upload_content_length="x"),
        400,
        "invalid",
        "X-Upload-Content-Length",
    ),
    Row(RESUMABLE, asked("PUT", f"{UPLOADS}?uploadType=resumable&upload_id=none"), 404, "notFound"),
    Row(RESUMABLE, lambda p: p.ask("GET", p.begin("r")), 405, "methodNotAllowed"),
    Row(RESUMABLE, asked("PUT", f"{UPLOADS}?uploadType=resumable&name=r"), 404, "notFound"),
    Row(RESUMABLE, sent("bytes 0-4/5", x_upload_content_length="6"), 400, "badRequest", "6 bytes"),
    Row(RESUMABLE, sent("bytes 0-9/10"), 400, "badRequest", "does not agree"),
    Row(RESUMABLE, sent("bytes 5-9/10"), 400, "badRequest", "exceeds already uploaded size"),
    Row(RESUMABLE, sent("byte 0-4/5"), 400, "badRequest", "Failed to parse Content-Range"),
    # ------------------------------------------------------------------------------------------------------- compose
    Row(f"{REFERENCE}, Objects: compose", lambda p: p.compose("b", []), 400, "required", "at least one source"),
    Row(f"{COMPOSITE}, Restrictions", lambda p: p.compose("b", [{"name": "a"}] * 33), 400, "invalid", "(32)"),
    Row(f"{REFERENCE}, Objects: compose", lambda p: p.compose("b", [{}]), 400, "required", "sourceObjects.name"),
    Row(f"{REFERENCE}, Objects: compose", lambda p: p.compose("b", [{"name": "none"}]), 404, "notFound", "none"),
]

WIRE = [
    Row(STATUS, asked("GET", f"{HOST}/storage/v1/none"), 404, "notFound"),
    Row(ERRORS, asked("GET", f"{OBJECTS}?prefx=a"), 400, "badRequest", 'Unknown name "prefx"'),
    Row(ERRORS, asked("POST", f"{BUCKETS}?project=p", {"nme": "b"}), 400, "badRequest", 'Unknown name "nme"'),
    Row(ERRORS, asked("POST", f"{BUCKETS}?project=p", {"name": 1}), 400, "invalid", "name"),
    Row(ERRORS, asked("GET", f"{OBJECTS}?maxResults=x"), 400, "invalidParameter", "maxResults"),
    Row(f"{REFERENCE}, Buckets: insert", asked("POST", BUCKETS, {"name": "b"}), 400, "required", "project"),
    Row(ERRORS, asked("GET", OBJECTS, {}), 400, "badRequest", "takes no body"),
    Row(STATUS, post(f"{BUCKETS}?project=p", b"{"), 400, "parseError"),
    Row(STATUS, post(f"{BUCKETS}?project=p", b"[]"), 400, "parseError"),
]


@pytest.fixture
def project() -> Project:
    made = Project()
    made.made("a", b"content")
    return made


@pytest.mark.parametrize("row", [*STORAGE, *WIRE], ids=lambda row: f"{row.status} {row.reason} {row.words}")
def test_what_a_row_says_is_refused(project: Project, row: Row) -> None:
    """With its status, its reason and its words; and nothing is changed."""
    before = project.sandbox.inventory()
    answer = row.ask(project)
    if row.reason:
        refused(answer, row.status, row.reason, row.words)
    assert (answer.status_code, bool(row.source)) == (row.status, True), answer.text
    left = project.sandbox.inventory()
    assert {kind: left[kind] for kind in before} == before


@pytest.mark.parametrize("folder", ["storage", "."])
def test_no_refusal_is_without_a_row(folder: str) -> None:
    """Whatever the simulator refuses by itself, a row has asked for."""
    with met() as found:
        for row in (*STORAGE, *WIRE):
            project = Project()
            project.made("a", b"content")
            row.ask(project)
    assert missed(found, *(path.relative_to(HOME).as_posix() for path in (HOME / "google" / folder).glob("*.py"))) == []

"""Google's wire: requests and answers held to the discovery documents, refusals in Google's form."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox.google import wire
from osvdeploy.sandbox.google.discovery import Mismatch, api
from osvdeploy.sandbox.wire import ApiRequest, Call, Unreadable
from osvdeploy.sandbox.wires import wire_of
from tests.sandbox.google.place import ACME, BUCKETS, HOST, OBJECTS, UPLOADS, Project, refused


@pytest.fixture(scope="module")
def project() -> Project:
    return Project()


@pytest.mark.parametrize("service", ["storage", "compute"])
def test_every_method_is_found_by_its_path(service: str) -> None:
    """No other method's pattern takes it, in the largest document as in ours."""
    its = api(service)
    for method in its.methods.values():
        path = str(method.document.get("flatPath") or method.document["path"])
        found = its.route(method.verb, re.sub(r"\{(\w+)\}", r"v-\1", path))
        assert found is not None, method.name
        assert (found[0].verb, found[0].document.get("path")) == (method.verb, method.document["path"])
        assert found[1] == {name: f"v-{name}" for name in re.findall(r"\{(\w+)\}", path)}


@pytest.mark.parametrize(
    ("url", "reason", "said"),
    [
        (f"{OBJECTS}?prefx=a", "badRequest", 'Unknown name "prefx"'),
        (f"{OBJECTS}?bucket=a", "badRequest", 'Unknown name "bucket"'),
        (f"{OBJECTS}?maxResults=many", "invalidParameter", "maxResults: many"),
        (f"{OBJECTS}?maxResults=-1", "invalidParameter", "maxResults: -1"),
        (f"{OBJECTS}?versions=perhaps", "invalidParameter", "versions: perhaps"),
        (f"{OBJECTS}?projection=some", "invalidParameter", "projection: some"),
        (f"{OBJECTS}/a?ifGenerationMatch=now", "invalidParameter", "ifGenerationMatch: now"),
        (f"{OBJECTS}/a?ifGenerationMatch=9223372036854775808", "invalidParameter", "ifGenerationMatch"),
        (f"{OBJECTS}/a?alt=proto", "invalidParameter", "alt: proto"),
        (BUCKETS, "required", "Required parameter: project"),
        (f"{OBJECTS}?versions=true", "notSimulated", "the parameter versions of storage objects.list"),
        (f"{OBJECTS}?fields=items(name)", "notSimulated", "the parameter fields"),
        (f"{ACME}/iam", "notSimulated", "buckets.getIamPolicy"),
    ],
)
def test_a_query_is_held_to_the_document(project: Project, url: str, reason: str, said: str) -> None:
    """Names, types, ranges, enums; and what is right but not simulated is told as that."""
    refused(project.ask("GET", url), 400, reason, said)


@pytest.mark.parametrize(
    ("body", "reason", "said"),
    [
        ({"nmae": "a"}, "badRequest", 'Unknown name "nmae": Cannot find field.'),
        ({"contexts": {"costum": {}}}, "badRequest", "Unknown name \"costum\" at 'contexts'"),
        ({"contentType": 1}, "invalid", "Invalid value for field 'contentType'"),
        ({"metadata": {"a": 1}}, "invalid", "'metadata.a'"),
        ({"metadata": "a"}, "invalid", "'metadata': not an object"),
        ({"acl": {}}, "invalid", "'acl': not a list"),
        ({"temporaryHold": "yes"}, "invalid", "'temporaryHold'"),
        ({"customTime": "yesterday"}, "invalid", "'customTime'"),
        ({"generation": "x"}, "invalid", "'generation'"),
        ({"componentCount": 1 << 40}, "invalid", "'componentCount'"),
        ({"contentEncoding": "gzip"}, "notSimulated", "the parameter body.contentEncoding"),
        ({"storageClass": "COLDLINE"}, "notSimulated", "COLDLINE"),
        ([], "parseError", "Parse Error"),
    ],
)
def test_a_body_is_held_to_the_document(project: Project, body: Any, reason: str, said: str) -> None:
    """Every field, as deep as it lies, in each way to send it."""
    refused(project.ask("POST", f"{UPLOADS}?uploadType=resumable&name=a", body), 400, reason, said)
    if isinstance(body, dict):
        refused(project.put("a", b"", body), 400, reason, said)


@pytest.mark.parametrize(
    ("url", "kind", "body", "said"),
    [
        (f"{UPLOADS}?name=a", "", b"1", "uploadType"),
        (f"{UPLOADS}?uploadType=carrier&name=a", "", b"1", "carrier"),
        (f"{UPLOADS}?uploadType=multipart", "multipart/related", b"1", "Malformed multipart"),
        (f"{UPLOADS}?uploadType=multipart", "multipart/related; boundary=x", b"--x\r\n\r\n{}\r\n--x--", "Malformed"),
        (f"{UPLOADS}?uploadType=multipart", "multipart/related; boundary=x", b"", "Malformed"),
        (f"{OBJECTS}?uploadType=media&name=a", "", b"1", "upload URL"),
        (f"{OBJECTS}?name=a", "", b"{}", "upload URL"),
        (f"{OBJECTS}?name=a", "", b"{", "Parse Error"),
        (f"{UPLOADS}?uploadType=media", "", b"1", "Required parameter: name"),
    ],
)
def test_uploads_are_read_strictly(project: Project, url: str, kind: str, body: bytes, said: str) -> None:
    """By address, type and form."""
    answer = project.session.post(url, data=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_multipart_upload_holds_any_bytes(project: Project) -> None:
    """Quoted boundaries, lines and dashes in what is sent."""
    content = b"\r\n--\r\n\r\n--xy--\r\n"
    body = b"".join(
        (
            b'--==x==\r\ncontent-type: application/json\r\n\r\n{"name": "a"}\r\n',
            b"--==x==\r\ncontent-type: a/b\r\n\r\n",
            content,
            b"\r\n--==x==--",
        )
    )
    kind = 'multipart/related; boundary="==x=="'
    answer = project.session.post(f"{UPLOADS}?uploadType=multipart", data=body, headers={"content-type": kind})
    assert answer.ok, answer.text
    assert project.read("a").content == content


def test_headers_that_would_change_what_is_done_are_not_passed_over(project: Project) -> None:
    """Encryption by a customer's key above all."""
    refused(project.ask("GET", OBJECTS, x_goog_encryption_key="k"), 400, "notSimulated", "x-goog-encryption-key")
    assert project.ask("GET", OBJECTS, x_goog_api_client="gl-python/3").ok


def test_requests_go_to_the_cloud_they_are_meant_for() -> None:
    """By address; a signed request is AWS's, whatever its path."""
    path = "/storage/v1/b/acme/o"
    assert wire_of(ApiRequest("GET", path, {})) is wire
    assert wire_of(ApiRequest("GET", f"{HOST}{path}", {})) is wire
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=AKIA/20300101/eu-west-1/s3/aws4_request"}
    assert wire_of(ApiRequest("GET", path, signed)) is not wire
    assert wire_of(ApiRequest("GET", f"{path}?X-Amz-Credential=A", {})) is not wire
    assert wire_of(ApiRequest("GET", "/", {})) is not wire


@pytest.mark.parametrize(
    "result",
    [{"name": 1}, {"nmae": "a"}, {"size": 5}, {"componentCount": "5"}, {"metadata": {"a": 1}}, {"updated": "now"}],
)
def test_an_answer_that_google_would_not_give_is_a_fault_of_ours(result: dict[str, Any]) -> None:
    """Names, types and how numbers are written."""
    with pytest.raises(Mismatch):
        wire.answer(Call("storage", "", "objects.get", {}), result, "id-1")


def test_an_answer_is_held_to_the_document_each_time() -> None:
    """Also one of which an equal one was let pass or not before."""
    for _ in range(2):
        with pytest.raises(Mismatch):
            wire.answer(Call("storage", "", "objects.get", {}), {"name": 1}, "id-1")
        assert wire.answer(Call("storage", "", "objects.get", {}), {"name": "1"}, "id-1").status == 200
        with pytest.raises(Mismatch):
            wire.answer(Call("storage", "", "buckets.list", {}), {"name": "1"}, "id-1")


def test_each_call_has_its_own_parameters() -> None:
    """An operation may change what it was given; who asks the same later is not told of it."""
    request = ApiRequest("POST", f"{HOST}/storage/v1/b?project=p", {"host": "h"}, b'{"labels": {"a": "b"}}')
    wire.parse(request).params["body"]["labels"].clear()
    assert wire.parse(request).params["body"] == {"labels": {"a": "b"}}


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"params": {"a": "b c", "d": ["e", "f"]}},
        {"data": b"bytes", "headers": {"Content-Type": "text/plain", "User-Agent": "other"}},
        {"json": {"a": 1}, "headers": {"accept": None}},
        {"cookies": {"a": "b"}},
        {"auth": ("somebody", "secret")},
    ],
    ids=str,
)
def test_a_request_is_prepared_as_any_session_does(project: Project, told: dict[str, Any]) -> None:
    """Only quicker: address, headers and body are those that requests makes."""
    plain = requests.Session()
    plain.trust_env = False
    prepared = [
        session.prepare_request(requests.Request("post", f"{HOST}/x?y=z", **told))
        for session in (project.session, plain)
    ]
    first, second = ((each.method, each.url, each.body, dict(each.headers), each.hooks) for each in prepared)
    assert first == second


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
FIELD = st.sampled_from(sorted(api("storage").document["schemas"]["Object"]["properties"])) | st.text(max_size=5)
QUERY = st.lists(
    st.tuples(
        st.sampled_from(["uploadType", "name", "alt", "upload_id", "ifGenerationMatch", "x"]), st.text(max_size=9)
    ),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(
    verb=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]),
    before=st.sampled_from(["", "/upload", "/download", "/resumable/upload"]),
    path=st.sampled_from(["b", "b/acme", "b/acme/o", "b/acme/o/a", "b/acme/o/a/compose"]) | st.text(max_size=8),
    query=QUERY,
    body=st.dictionaries(FIELD, VALUE, max_size=3).map(lambda found: json.dumps(found).encode())
    | st.binary(max_size=30),
    kind=st.sampled_from(["", "application/json", "multipart/related; boundary=x"]),
)
def test_any_request_is_answered(
    project: Project, verb: str, before: str, path: str, query: list[tuple[str, str]], body: bytes, kind: str
) -> None:
    """With what it asked for or a refusal in Google's form, never with a fault of ours."""
    url = f"{HOST}{before}/storage/v1/{quote(path)}?{urlencode(query)}"
    request = ApiRequest(verb, url, {"content-type": kind, "host": "h"}, body)
    try:
        wire.parse(request)
    except Unreadable as unreadable:
        answer = wire.refusal(unreadable.call, unreadable.refusal, "id-1")
        assert 400 <= answer.status < 500
    told = project.session.request(verb, url, data=body, headers={"content-type": kind})
    assert told.status_code < 500, told.text

"""Google's client: what is repeated, reported and translated, and what it needs to be there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import google.auth.exceptions
import pytest
import requests
from google.auth._cloud_sdk import CLOUD_SDK_CLIENT_ID
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials

from osvdeploy import errors
from osvdeploy.cloud.gcp.errors import AlreadyThere, Stale
from osvdeploy.cloud.gcp.session import Gcp, named
from osvdeploy.context import CancelToken, Context, VirtualClock
from osvdeploy.events import CloudCall, Recorder
from tests.cloud.gcp.script import Script, Scripted

OK = (200, b'{"name": "a"}')
URL = "https://storage.test/storage/v1/b/acme/o/a"


def said(status: int, reason: str, message: str = "no") -> Scripted:
    return status, json.dumps(
        {"error": {"code": status, "message": message, "errors": [{"reason": reason, "domain": "global"}]}}
    ).encode()


def refresh_failed() -> Exception:
    return google.auth.exceptions.RefreshError("expired")  # type: ignore[no-untyped-call]  # google-auth has no annotations


@pytest.fixture
def ctx() -> Context:
    return Context(clock=VirtualClock(), reporter=Recorder())


PASSING: list[Scripted] = [
    said(429, "rateLimitExceeded"),
    said(403, "rateLimitExceeded"),
    said(500, "backendError"),
    said(503, "backendError"),
    said(408, "uploadBrokenConnection"),
    (502, b"<html>Bad Gateway</html>"),
    (429, b""),
    requests.ConnectionError("reset"),
    requests.ReadTimeout("slow"),
    requests.exceptions.ChunkedEncodingError("broke off"),
    google.auth.exceptions.TransportError("no sign-in"),  # type: ignore[no-untyped-call]  # google-auth has no annotations
]


@pytest.mark.parametrize("passing", PASSING, ids=str)
def test_what_may_pass_is_tried_again(ctx: Context, passing: Scripted) -> None:
    """On the context's clock, each attempt told; and at the end it is no lasting refusal."""
    script = Script([passing, OK])
    assert script.gcp().get(ctx, URL, "x") == {"name": "a"}
    told = [event for event in ctx.reporter.events if isinstance(event, CloudCall)]  # type: ignore[attr-defined]  # a Recorder
    assert [(call.service, call.operation, call.mutating) for call in told] == [("storage", "objects.get", False)] * 2
    assert (told[0].error is None, told[1].error) == (False, None)
    assert ctx.monotonic() > 0
    with pytest.raises(errors.Unavailable):
        Script([passing]).gcp().get(ctx, URL, "x")


@pytest.mark.parametrize(
    ("final", "kind", "words"),
    [
        (said(400, "invalid", "bad name"), errors.Refused, "bad name (invalid)"),
        (said(400, "notSimulated"), errors.NotSimulated, "does not simulate"),
        (said(401, "authError"), errors.CredentialsMissing, "credentials"),
        (said(403, "forbidden", "Permission 'x.y' denied"), errors.Refused, "Permission 'x.y' denied"),
        (said(403, "quotaExceeded"), errors.Refused, "quotaExceeded"),
        (said(404, "notFound"), errors.NotFound, "thing: no"),
        ((404, b"No such object: acme/a"), errors.NotFound, "No such object: acme/a"),
        (said(409, "conflict"), AlreadyThere, "conflict"),
        (said(412, "conditionNotMet"), Stale, "changed by somebody else"),
        ((302, b""), errors.Refused, "302"),
        ((400, b'{"error": "invalid_grant"}'), errors.CredentialsMissing, "invalid_grant"),
        (refresh_failed(), errors.CredentialsMissing, "expired"),
        (requests.exceptions.SSLError("certificate"), errors.Refused, "TLS failed"),
        (requests.exceptions.InvalidURL("x"), errors.UsageError, "address"),
    ],
    ids=str,
)
def test_what_is_final_is_told_at_once(ctx: Context, final: Scripted, kind: type[Exception], words: str) -> None:
    """As one of our errors, in Google's words, and is not tried again."""
    script = Script([final])
    with pytest.raises(kind) as raised:
        script.gcp().get(ctx, URL, "thing")
    assert words in str(raised.value)
    assert len(script.asked) == 1


def test_the_caller_s_own_mistakes_are_not_google_s(ctx: Context) -> None:
    """An exception that is no client's goes through as it is."""
    with pytest.raises(ZeroDivisionError):
        Script([ZeroDivisionError()]).gcp().get(ctx, URL, "x")


def test_a_cancel_ends_the_repeating(ctx: Context) -> None:
    """So does the deadline, before another attempt."""
    ctx = Context(clock=VirtualClock(), deadline=0.6)
    script = Script([said(503, "backendError")])
    with pytest.raises(errors.DeadlineExceeded):
        while True:
            try:
                script.gcp().get(ctx, URL, "x")
            except errors.Unavailable:
                continue
    assert len(script.asked) < 20


@pytest.mark.parametrize(
    ("verb", "path", "name"),
    [
        ("POST", "upload/storage/v1/b/acme/o", "objects.insert"),
        ("GET", "storage/v1/b/acme/o", "objects.list"),
        ("GET", "storage/v1/b/acme/o/compose", "objects.get"),
        ("DELETE", "storage/v1/b/acme/o/a", "objects.delete"),
        ("PATCH", "storage/v1/b/acme/o/o", "objects.patch"),
        ("POST", "storage/v1/b/acme/o/a/compose", "objects.compose"),
        ("GET", "storage/v1/b/acme", "buckets.get"),
        ("GET", "storage/v1/b/o/iam/testPermissions", "buckets.testIamPermissions"),
        ("POST", "compute/v1/projects/p/global/images", "images.insert"),
        ("GET", "compute/v1/projects/p/zones/z/instances/i", "instances.get"),
    ],
)
def test_requests_are_named_as_google_names_them(verb: str, path: str, name: str) -> None:
    """In events, and in refusals."""
    service, operation = named(verb, f"https://h/{path}?x=/y")
    assert (service, operation) == ("compute" if path.startswith("compute") else "storage", name)


@pytest.mark.parametrize("address", ["localhost:80", "ftp://x", "http://", "x"])
def test_an_endpoint_that_is_no_address_is_told(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Before anything is asked."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    with pytest.raises(errors.UsageError, match="no address of an API"):
        Gcp()


def test_another_endpoint_is_shown_no_credentials(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not even looked for."""
    monkeypatch.setattr("google.auth.default", lambda **_: pytest.fail("looked for credentials"))
    for url in ("http://127.0.0.1:1/a", "https://googleapis.com.example/a", "http://compute.googleapis.com/a"):
        assert type(Gcp()._http(url)) is requests.Session
    with pytest.raises(errors.Unavailable, match="no answer from Google"):
        Gcp(storage="http://127.0.0.1:1").get(ctx, "http://127.0.0.1:1/storage/v1/b/acme/o/a", "x")


def test_nothing_is_sent_after_a_sign_in_that_took_too_long() -> None:
    """Credentials are renewed within the request: the time is looked at once more behind that, and no call is told."""
    script, recorder = Script([OK]), Recorder()
    clock = VirtualClock()
    ctx = Context(clock=clock, reporter=recorder).within(30.0)

    class SigningIn(requests.Session):
        def request(self, *args: Any, **settings: Any) -> requests.Response:
            clock.advance(60.0)
            return super().request(*args, **settings)

    session = SigningIn()
    script.serve(session)
    gcp = Gcp("p", compute="https://compute.test", storage="https://storage.test", session=session)
    with pytest.raises(errors.DeadlineExceeded):
        gcp.send(ctx, "DELETE", URL, "x")
    assert script.asked == [] and recorder.events == []


def test_each_address_is_shown_what_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator of one service leaves the other its credentials, and Google's other addresses are Google's too."""
    monkeypatch.setattr("google.auth.default", lambda **_: (Credentials("secret"), None))  # type: ignore[no-untyped-call]  # google-auth has no annotations
    gcp = Gcp(compute="http://127.0.0.1:1")
    assert type(gcp._http(f"{gcp.compute}/compute/v1/a")) is requests.Session
    assert isinstance(gcp._http(f"{gcp.storage}/storage/v1/b"), AuthorizedSession)
    for name in ("compute.europe-west1.rep", "compute-mine.p"):
        assert isinstance(gcp._http(f"https://{name}.googleapis.com/compute/v1/a"), AuthorizedSession)


def test_the_environments_endpoint_comes_before_the_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And Google's own behind both."""
    monkeypatch.delenv("OSVDEPLOY_GCP_COMPUTE_ENDPOINT", raising=False)
    assert Gcp().compute == "https://compute.googleapis.com"
    assert Gcp(declared="http://a:1/").compute == "http://a:1"
    monkeypatch.setenv("OSVDEPLOY_GCP_COMPUTE_ENDPOINT", "http://b:2")
    assert Gcp(declared="http://a:1").compute == Gcp().compute == "http://b:2"


def test_missing_credentials_are_told_with_a_cure(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what gives them."""

    def none(**_: object) -> None:
        raise google.auth.exceptions.DefaultCredentialsError("were not found")  # type: ignore[no-untyped-call]  # google-auth has no annotations

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("google.auth.default", none)
    gcp = Gcp()
    with pytest.raises(errors.CredentialsMissing, match="were not found") as raised:
        gcp.get(ctx, f"{gcp.storage}/storage/v1/b/acme/o/a", "x")
    assert "gcloud auth application-default login" in str(raised.value.hint)


def test_google_itself_is_shown_a_token(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the credentials that were found, on each request, with our name."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("google.auth.default", lambda **_: (Credentials("secret"), None))  # type: ignore[no-untyped-call]  # google-auth has no annotations
    script, gcp = Script([OK]), Gcp()
    script.serve(gcp._http(gcp.storage))
    assert gcp.get(ctx, f"{gcp.storage}/storage/v1/b/acme/o/a", "x") == {"name": "a"}
    headers = script.asked[0].headers
    assert headers["authorization"] == "Bearer secret"
    assert str(headers["user-agent"]).startswith("osvdeploy/")


@pytest.mark.slow
def test_looking_for_credentials_says_nothing(tmp_path: Path) -> None:
    """Of a gcloud user's own ones, google-auth would complain on standard error."""
    found = tmp_path / "credentials.json"
    kept = {"type": "authorized_user", "client_id": CLOUD_SDK_CLIENT_ID, "client_secret": "s", "refresh_token": "r"}
    found.write_text(json.dumps(kept))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "STORAGE_"))}
    environ |= {"GOOGLE_APPLICATION_CREDENTIALS": str(found), "HOME": str(tmp_path), "PATH": ""}
    program = "from osvdeploy.cloud.gcp.session import Gcp; Gcp()._make(credentials=True)"
    ran = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert ran.stderr == ""


def test_without_the_client(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where google-auth is not installed, the error says what to install."""
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(errors.UsageError, match=r"google\.auth") as raised:
        Gcp().get(ctx, URL, "x")
    assert "osvdeploy[gcp]" in str(raised.value.hint)


@pytest.mark.slow
def test_nothing_of_google_is_imported_before_it_is_used() -> None:
    """Neither by commands that need no cloud, nor by a ledger's address."""
    program = (
        "import sys, osvdeploy.api, osvdeploy.cli\n"
        "osvdeploy.api.open_store('gs://acme/x'); osvdeploy.api.open_store('s3://acme/x')\n"
        "print([name for name in sys.modules if name.partition('.')[0] in "
        "('google', 'google_crc32c', 'googleapiclient', 'requests', 'urllib3', 'boto3', 'botocore')])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


UNDER_WAY = {"name": "o", "operationType": "insert", "status": "RUNNING", "selfLink": "https://x/compute/v1/o"}
DONE = (200, json.dumps({**UNDER_WAY, "status": "DONE"}).encode())


def test_an_operation_is_waited_for_in_requests_that_a_cancel_can_follow(ctx: Context) -> None:
    """None is held for long; that one is not answered meanwhile is no failure, however often."""
    script = Script([*[requests.ReadTimeout("held")] * 12, DONE])
    assert script.gcp().finish(ctx, UNDER_WAY, "image a")["status"] == "DONE"
    cancel = CancelToken()

    def stop(event: object) -> None:
        if len(script.asked) == 3:
            cancel.cancel()

    script = Script([requests.ReadTimeout("held")])
    with pytest.raises(errors.Interrupted):
        script.gcp().finish(Context(clock=VirtualClock(), cancel=cancel, reporter=stop), UNDER_WAY, "image a")
    assert len(script.asked) == 3


def test_what_does_not_answer_at_all_is_told(ctx: Context) -> None:
    """After as many attempts as any other call has."""
    script = Script([requests.ConnectionError("refused")])
    with pytest.raises(errors.Unavailable, match="no answer from Google"):
        script.gcp().finish(ctx, UNDER_WAY, "image a")
    assert len(script.asked) == 4


def test_a_wait_ends_when_its_time_is_over(ctx: Context) -> None:
    """With what goes on by itself."""
    script = Script([(200, json.dumps(UNDER_WAY).encode())])
    with pytest.raises(errors.Unavailable, match="insert o is still under way") as raised:
        script.gcp().finish(ctx, UNDER_WAY, "image a", 60.0)
    assert raised.value.hint is not None and "goes on by itself" in raised.value.hint

"""Clients report every attempt, repeat what passes on the Context's clock, and speak our errors."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ReadTimeoutError

from osvdeploy import errors
from osvdeploy.cloud.aws import connect
from osvdeploy.cloud.aws.session import ROLE_VARIABLE, Aws
from osvdeploy.context import Context, VirtualClock
from osvdeploy.events import CloudCall, Recorder
from osvdeploy.sandbox.wire import LOADER
from tests.cloud.aws.script import Script

Answer = tuple[int, dict[str, object]] | Exception


class Raw:
    """The body of an answer, as urllib3 would hand it over."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: object, **__: object) -> list[bytes]:
        return [self._body]


class Wire:
    """Answers requests in order; the last answer repeats."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[AWSPreparedRequest] = []

    def __call__(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        headers = {"content-type": "application/json", "x-amzn-errortype": str(body.get("__type", ""))}
        return AWSResponse(request.url, status, headers, Raw(json.dumps(body).encode()))  # type: ignore[arg-type]  # a stand-in for urllib3's body


STARTED: Answer = (201, {"SnapshotId": "snap-1", "Status": "pending"})
THROTTLED: Answer = (
    400,
    {"__type": "RequestThrottledException", "Message": "slow down", "Reason": "ACCOUNT_THROTTLED"},
)
DENIED: Answer = (403, {"__type": "AccessDeniedException", "Message": "not you", "Reason": "UNAUTHORIZED_ACCOUNT"})


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def ctx(clock: VirtualClock, recorder: Recorder) -> Context:
    return Context(clock=clock, reporter=recorder)


Connect = Callable[..., Aws]


@pytest.fixture
def prepared() -> Connect:
    def make(wire: Wire) -> Aws:
        session = boto3.Session(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret")
        session._session.register_component("data_loader", LOADER)
        session.events.register_first("before-send", wire)  # type: ignore[arg-type]  # the stubs know no hook that answers
        return Aws("eu-west-1", session)

    return make


def start(aws: Aws, ctx: Context, attempts: int = 3) -> str:
    with aws.calling(ctx, "disk api-1.0.0", attempts):
        return aws.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]


def calls(recorder: Recorder) -> list[tuple[str, bool, str | None]]:
    return [(event.operation, event.mutating, event.error) for event in recorder.events if isinstance(event, CloudCall)]


def test_a_throttled_call_is_repeated_and_each_attempt_reported(
    ctx: Context, recorder: Recorder, prepared: Connect, clock: VirtualClock
) -> None:
    """Throttles are waited out in the Context's time, never the machine's."""
    aws = prepared(Wire(THROTTLED, THROTTLED, STARTED))

    assert start(aws, ctx) == "snap-1"

    throttled = ("StartSnapshot", True, "RequestThrottledException")
    assert calls(recorder) == [throttled, throttled, ("StartSnapshot", True, None)]
    assert clock.monotonic() > 0


def test_attempts_end(ctx: Context, recorder: Recorder, prepared: Connect) -> None:
    """After the last attempt the error says which thing and which call it was about."""
    with pytest.raises(errors.Unavailable, match=r"disk api-1.0.0: .*StartSnapshot.*slow down") as caught:
        start(prepared(Wire(THROTTLED)), ctx)
    assert caught.value.code == "RequestThrottledException"
    assert len(calls(recorder)) == 3


def test_a_refusal_is_not_repeated(ctx: Context, recorder: Recorder, prepared: Connect) -> None:
    """A final no is asked for once."""
    with pytest.raises(errors.Refused, match="not you"):
        start(prepared(Wire(DENIED)), ctx)
    assert calls(recorder) == [("StartSnapshot", True, "AccessDeniedException")]


def test_a_lost_answer_is_repeated_with_the_same_token(ctx: Context, recorder: Recorder, prepared: Connect) -> None:
    """A timeout is repeated; the SDK's own token stays, so the place does it once."""
    wire = Wire(ReadTimeoutError(endpoint_url="https://ebs"), STARTED)
    assert start(prepared(wire), ctx) == "snap-1"
    assert [error for _, _, error in calls(recorder)] == ["ReadTimeoutError", None]
    bodies = {request.body for request in wire.requests}
    assert len(bodies) == 1


def test_no_answer_at_all(ctx: Context, prepared: Connect) -> None:
    """A place that stays silent is Unavailable, not an SDK's traceback."""
    with pytest.raises(errors.Unavailable, match="no answer from AWS while calling StartSnapshot"):
        start(prepared(Wire(ReadTimeoutError(endpoint_url="https://ebs"))), ctx)


def test_the_deadline_ends_repeating(ctx: Context, prepared: Connect) -> None:
    """A repetition that would start after the deadline is not made."""
    with pytest.raises(errors.DeadlineExceeded):
        start(prepared(Wire(THROTTLED)), ctx.within(0.01), attempts=100)


def test_a_cancel_ends_repeating(ctx: Context, prepared: Connect) -> None:
    """Ctrl-C does not wait for retries."""
    ctx.cancel.cancel()
    with pytest.raises(errors.Interrupted):
        start(prepared(Wire(THROTTLED)), ctx, attempts=100)


def test_a_setting_that_is_no_url(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A malformed endpoint setting is the user's to mend, and is said to be."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not a url")
    with pytest.raises(errors.UsageError, match="not a url"):
        Aws("eu-west-1").account(ctx)


def test_no_credentials(ctx: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Without credentials the error says how to give some, and nothing is sent."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    with pytest.raises(errors.CredentialsMissing) as caught:
        Aws("eu-west-1").account(ctx)
    assert "AWS_PROFILE" in str(caught.value.hint)


def test_connecting_asks_who_we_are_and_no_more(ctx: Context) -> None:
    """A connection knows kind, account and region after one call, and has made no other client."""
    script = Script({"GetCallerIdentity": [{"Account": "111122223333"}]})
    cloud = connect(ctx, "eu-west-1", script.session())
    assert (cloud.kind, cloud.account, cloud.region) == ("aws", "111122223333", "eu-west-1")
    assert script.asked == ["GetCallerIdentity"]
    assert cloud.snapshots.block_size == 524_288


@pytest.mark.slow
def test_the_sdk_is_imported_when_first_used() -> None:
    """Importing the adapters does not import boto3, which takes longer than the whole command line."""
    program = "import sys, osvdeploy.cloud.aws; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_the_sdk(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where boto3 is not installed, the error says what to install."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(errors.UsageError, match="boto3") as caught:
        Aws("eu-west-1").account(ctx)
    assert "osvdeploy[aws]" in str(caught.value.hint)


def test_the_callers_own_mistakes_are_not_the_clouds(ctx: Context, prepared: Connect) -> None:
    """An exception that is not the SDK's goes through as it is."""
    aws = prepared(Wire(STARTED))
    with pytest.raises(ZeroDivisionError), aws.calling(ctx):
        _ = 1 / 0


class _Sts(BaseHTTPRequestHandler):
    """Gives a role's credentials to whoever asks, and tells anybody who they are; keeps who asked what."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        action = dict(parse_qsl(body))["Action"]
        key = self.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        self.asked.append((action, key))
        end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        told = {
            "AssumeRole": "<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t</SessionToken><Expiration>{end}</Expiration></Credentials>",
            "GetCallerIdentity": "<Account>123456789012</Account>",
        }[action]
        answer = f"<{action}Response><{action}Result>{told}</{action}Result></{action}Response>".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_role_is_taken_on(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a role, every call is made in it, by credentials that the usual chain's identity asked for once."""
    _Sts.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sts) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOWN")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv(ROLE_VARIABLE, "arn:aws:iam::123456789012:role/deployer")
        aws = Aws("eu-west-1")
        assert [aws.account(ctx), aws.account(ctx)] == ["123456789012"] * 2
        server.shutdown()
    assert _Sts.asked == [
        ("AssumeRole", "AKIDOWN"),
        ("GetCallerIdentity", "ASIAROLE"),
        ("GetCallerIdentity", "ASIAROLE"),
    ]


def test_a_role_without_an_identity(ctx: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A role that nobody is there to take on is told as missing credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv(ROLE_VARIABLE, "arn:aws:iam::123456789012:role/deployer")
    with pytest.raises(errors.CredentialsMissing, match="no usable AWS credentials"):
        Aws("eu-west-1").account(ctx)

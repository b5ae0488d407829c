"""The last call of who holds a lease: whatever it takes away, it is over before another may have the lease."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from urllib3.connection import HTTPSConnection

from osvdeploy.cloud.aws.groups import AutoScalingGroups
from osvdeploy.cloud.aws.images import AmiRegistry
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.aws.session import CONNECT_TIMEOUT, Aws
from osvdeploy.cloud.aws.snapshots import EbsSnapshots
from osvdeploy.cloud.gcp import session as google
from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.gcp.templates import Templates
from osvdeploy.cloud.interfaces import ObjectStore, UnfinishedObject
from osvdeploy.cloud.memory import MemoryStore
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import CloudError, DeadlineExceeded
from osvdeploy.events import Recorder
from osvdeploy.rollout import lease
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.sandbox.faults import Fault, FaultKind
from tests.contract.aws_place import REGION, AwsSandbox
from tests.contract.gcp_place import GcpSandbox

pytestmark = pytest.mark.sandbox

Change = Callable[[Context], None]

LEFT = UnfinishedObject("a", "id", datetime(2030, 1, 1, tzinfo=UTC), 0)
"""An upload that somebody left."""

MARGIN = 0.01
"""Seconds before the end of the time for changes at which the call is sent."""


def bucket(account: AwsSandbox) -> ObjectStore:
    account.client("s3").create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": REGION})
    store = S3Store("s3://acme/osvdeploy", account.aws())
    assert store.put_if_absent(account.ctx, "a", b"left")
    return store


AWS: dict[str, Callable[[AwsSandbox], Change]] = {
    "DeregisterImage": lambda here: lambda ctx: AmiRegistry(here.aws()).deregister(ctx, "ami-0123456789abcdef0"),
    "DeleteSnapshot": lambda here: lambda ctx: EbsSnapshots(here.aws()).delete(ctx, "snap-0123456789abcdef0"),
    "DescribeLaunchTemplates": lambda here: lambda ctx: AutoScalingGroups(here.aws()).delete_template(ctx, "osvd-a"),
    "DescribeAutoScalingGroups": lambda here: lambda ctx: AutoScalingGroups(here.aws()).delete(ctx, "osvd-a"),
    "DeleteObject": lambda here: partial(bucket(here).delete, key="a"),
    "AbortMultipartUpload": lambda here: partial(bucket(here).abort, upload=LEFT),
}
"""What `gc` does on AWS, by the call that hangs; where it looks before it deletes, the look is as slow as the rest."""

GOOGLE: dict[str, Callable[[GcpSandbox], Change]] = {
    "images.get": lambda here: lambda ctx: GceImages(here.gcp()).deregister(ctx, "projects/p/global/images/a"),
    "instanceTemplates.get": lambda here: lambda ctx: Templates(here.gcp()).delete(ctx, "osvd-a"),
    "objects.delete": lambda here: lambda ctx: here.store().delete(ctx, "a"),
}


def overrun(account: AwsSandbox | GcpSandbox, operation: str, change: Change) -> float:
    """Seconds from the end of the lease until a change is over whose call goes out at the last moment, and hangs."""
    ctx = account.ctx
    holder = lease.acquire(ctx, Ledger(MemoryStore(), "hello", "production"), "gc")
    ends = ctx.monotonic() + lease.LENGTH
    account.sandbox.faults.add(Fault(operation, FaultKind.HANG, times=None))
    before = len(account.sandbox.calls())
    with suppress(CloudError), holder.acting(ctx) as acting:
        acting.sleep((acting.remaining() or 0.0) - MARGIN)
        change(acting)
    asked = [call.operation for call in account.sandbox.calls(before)]
    assert operation in asked, "it was to be sent just in time"
    return ctx.monotonic() - ends


@pytest.mark.parametrize("operation", AWS)
def test_what_is_taken_away_on_aws_is_over_with_the_lease(operation: str) -> None:
    """Sent at the last moment, connected to at the last moment, and never answered."""
    account = AwsSandbox()
    assert overrun(account, operation, AWS[operation](account)) + CONNECT_TIMEOUT < 0


@pytest.mark.parametrize("operation", GOOGLE)
def test_what_is_taken_away_on_google_is_over_with_the_lease(operation: str) -> None:
    account = GcpSandbox()
    assert overrun(account, operation, GOOGLE[operation](account)) + google.CONNECT_TIMEOUT < 0


@dataclass
class Distant:
    """A server on this host whose name takes ``seconds`` to be resolved; ``came`` are the requests that it was sent."""

    clock: VirtualClock
    came: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def resolved(self, host: str, *asked: Any, **also: Any) -> Any:
        self.clock.advance(self.seconds)
        return _RESOLVE("127.0.0.1", *asked, **also)


_RESOLVE = socket.getaddrinfo


@pytest.fixture
def distant(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Distant, str]]:
    made = Distant(VirtualClock())

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            made.came.append(self.path)
            self.send_response(200)
            body = b"<DeleteRuleResponse><DeleteRuleResult/></DeleteRuleResponse>" if self.path == "/" else b"{}"
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """To nobody."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(socket, "getaddrinfo", made.resolved)
    yield made, f"http://api.example:{server.server_port}"
    server.shutdown()
    server.server_close()


def change_at_aws(ctx: Context, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    aws = Aws("eu-west-1", boto3.Session("AKIDEXAMPLE", "secret"))
    with aws.calling(ctx, "rule"):
        aws.elbv2.delete_rule(RuleArn="arn")


def change_at_google(ctx: Context, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Gcp("p", compute=address).change(ctx, "POST", f"{address}/compute/v1/a", "rule", {}, request_id="1")


CHANGES = {"aws": change_at_aws, "google": change_at_google}


@pytest.mark.parametrize("cloud", CHANGES)
def test_a_connection_that_took_too_long_carries_no_change(
    cloud: str, distant: tuple[Distant, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are resolved without a limit, and each of many addresses has its own: whatever that took, nothing is sent
    when the time is over, nor told to have been."""
    server, address = distant
    recorder = Recorder()
    ctx = Context(clock=server.clock, reporter=recorder).within(15.0)
    server.seconds = 14.0
    CHANGES[cloud](ctx, address, monkeypatch)
    assert len(server.came) == 1 and len(recorder.events) == 1
    server.seconds = 21.0
    with pytest.raises(DeadlineExceeded):
        CHANGES[cloud](Context(clock=server.clock, reporter=recorder).within(15.0), address, monkeypatch)
    assert len(server.came) == 1 and len(recorder.events) == 1


@pytest.mark.parametrize("cloud", CHANGES)
def test_a_connection_over_tls_is_looked_at_behind_its_handshake(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long may be the handshake alone."""
    clock, sent = VirtualClock(), list[str]()

    def connect(self: HTTPSConnection) -> None:
        self.sock, self.is_verified = socket.socket(), True
        clock.advance(21.0)

    monkeypatch.setattr(HTTPSConnection, "connect", connect)
    monkeypatch.setattr(HTTPSConnection, "request", lambda self, method, *rest, **more: sent.append(method))
    with pytest.raises(DeadlineExceeded):
        CHANGES[cloud](Context(clock=clock).within(15.0), "https://api.example", monkeypatch)
    assert sent == []

"""The shell on real sockets: AWS's clients, faults as connections show them, balancers' listeners, and who may ask."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from osvdeploy.sandbox.control import ACCESS_KEY, ADMIN_HEADER, ADMIN_PATH, SECRET_KEY
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.http import LARGEST_BODY, Shell
from osvdeploy.sandbox.runners.inline import InlineRunner

pytestmark = pytest.mark.slow


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell(Sandbox(runner=InlineRunner(), speed=1000.0))
    shell.start()
    yield shell
    shell.stop()


def client(shell: Shell, service: str, read_timeout: float = 0.3) -> Any:
    config = Config(read_timeout=read_timeout, retries={"mode": "standard", "total_max_attempts": 1}, proxies={})
    return boto3.client(
        service,
        region_name="eu-west-1",
        endpoint_url=shell.url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=config,
    )


def ask(shell: Shell, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", shell.port, timeout=5)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def admin(shell: Shell, method: str, path: str, document: object = None) -> tuple[int, Any]:
    body = b"" if document is None else json.dumps(document).encode()
    status, content = ask(shell, method, ADMIN_PATH + path, body, **{ADMIN_HEADER: "1"})
    return status, json.loads(content)


def test_aws_clients_are_answered(shell: Shell) -> None:
    """Query, EC2 and REST protocols, bodies and headers both ways, over connections that are kept."""
    assert client(shell, "sts").get_caller_identity()["Account"] == shell.sandbox.account
    ebs = client(shell, "ebs")
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    found = client(shell, "ec2").describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]
    assert found[0]["State"] == "pending"


@pytest.mark.parametrize(
    ("kind", "seen", "made"),
    [
        (FaultKind.BEFORE, ConnectionClosedError, 0),
        (FaultKind.AFTER, ConnectionClosedError, 1),
        (FaultKind.HANG, ReadTimeoutError, 0),
        (FaultKind.HANG_AFTER, ReadTimeoutError, 1),
        # The endpoint itself answers, so a host that cannot be reached is a connection that is reset.
        (FaultKind.UNREACHABLE, ConnectionClosedError, 0),
    ],
)
def test_a_lost_answer_is_a_lost_connection(shell: Shell, kind: FaultKind, seen: type[Exception], made: int) -> None:
    """The client sees what a real network shows it."""
    shell.sandbox.faults.add(Fault("StartSnapshot", kind))
    with pytest.raises(seen):
        client(shell, "ebs").start_snapshot(VolumeSize=1)
    assert len(shell.sandbox.inventory().get("snapshot", [])) == made


def test_what_is_no_request_of_aws_is_refused(shell: Shell) -> None:
    """Without credentials, of unknown length, or far too long: an answer, and the shell goes on."""
    status, body = ask(shell, "GET", "/")
    assert (status, b"MissingAuthenticationToken" in body) == (403, True)
    assert ask(shell, "POST", "/", b"", **{"Transfer-Encoding": "gzip"})[0] == 411
    assert ask(shell, "POST", "/", b"no length\r\n", **{"Transfer-Encoding": "chunked"})[0] == 411
    with socket.create_connection(("127.0.0.1", shell.port), timeout=5) as raw:
        raw.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGEST_BODY + 1}\r\n\r\n".encode())
        assert raw.recv(64).startswith(b"HTTP/1.1 411")
    assert client(shell, "sts").get_caller_identity()["Account"] == shell.sandbox.account


def test_objects_go_over_sockets(shell: Shell) -> None:
    """Bodies that wait for a go-ahead, in chunks, and a HEAD that tells a length without a body."""
    s3 = client(shell, "s3", read_timeout=30.0)
    s3.create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    content = bytes(range(256)) * 8192
    s3.put_object(Bucket="acme", Key="a", Body=content)
    assert s3.head_object(Bucket="acme", Key="a")["ContentLength"] == len(content)
    assert s3.get_object(Bucket="acme", Key="a")["Body"].read() == content
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="acme", Key="b")
    s3.delete_object(Bucket="acme", Key="a")
    scope = "AKIA/20300101/eu-west-1/s3/aws4_request"
    connection = http.client.HTTPConnection("127.0.0.1", shell.port, timeout=5)
    headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, Signature=0", "Transfer-Encoding": "chunked"}
    connection.request("PUT", "/acme/b", iter([content, content]), headers, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert s3.head_object(Bucket="acme", Key="b")["ContentLength"] == 2 * len(content)


def test_the_shells_own_requests_need_a_header(shell: Shell) -> None:
    """So that no page in a browser can stop the sandbox or plant faults."""
    assert ask(shell, "POST", ADMIN_PATH + "stop", b"{}")[0] == 403
    assert not shell.ended.is_set()
    assert admin(shell, "POST", "stop", {}) == (200, {})
    assert shell.ended.is_set()


def test_faults_and_calls_are_there_for_other_processes(shell: Shell) -> None:
    """Planted, listed, struck, logged, taken away; nonsense is refused."""
    fault = {"operation": "sts:*", "kind": "denied", "skip": 0, "times": None}
    assert admin(shell, "POST", "faults", fault) == (200, {})
    assert admin(shell, "GET", "status")[1]["faults"] == [fault]
    with pytest.raises(Exception, match="AccessDenied"):
        client(shell, "sts").get_caller_identity()
    (call,) = admin(shell, "GET", "calls")[1]["calls"]
    assert (call["service"], call["operation"], call["mutating"], call["error"]) == (
        "sts",
        "GetCallerIdentity",
        False,
        "AccessDenied",
    )
    assert admin(shell, "GET", f"calls?after={call['number']}")[1]["calls"] == []
    assert admin(shell, "DELETE", "faults") == (200, {})
    assert admin(shell, "GET", "status")[1]["faults"] == []
    assert admin(shell, "POST", "faults", {"operation": "x", "kind": "bad", "skip": 0, "times": 1})[0] == 400
    assert admin(shell, "GET", "nothing")[0] == 404


def test_a_fault_of_the_sandbox_itself_is_an_answer_too(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """500, with the traceback in its log; the next call is answered."""

    def broken(*_: object) -> None:
        raise RuntimeError("out of paper")

    with monkeypatch.context() as patch:
        patch.setattr(shell.sandbox, "handle", broken)
        with pytest.raises(Exception, match="InternalFailure"):
            client(shell, "sts").get_caller_identity()
    assert "out of paper" in capsys.readouterr().err
    client(shell, "sts").get_caller_identity()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.7.1", 0))
        return int(probe.getsockname()[1])


def test_a_balancers_listener_is_opened(shell: Shell) -> None:
    """On the balancer's own loopback address, as soon as its rules are in force; closed again with it."""
    ec2, elb = client(shell, "ec2"), client(shell, "elbv2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, AvailabilityZone=f"eu-west-1{zone}", CidrBlock=f"10.0.{number}.0/24")["Subnet"][
            "SubnetId"
        ]
        for number, zone in enumerate("ab")
    ]
    balancer = elb.create_load_balancer(Name="main", Subnets=subnets)["LoadBalancers"][0]
    fixed = {"StatusCode": "418", "ContentType": "text/plain", "MessageBody": "short and stout"}
    port = free_port()
    actions = [{"Type": "fixed-response", "FixedResponseConfig": fixed}]
    listener = elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=port, DefaultActions=actions
    )["Listeners"][0]["ListenerArn"]
    assert _until(balancer["DNSName"], port, opened=True) == (418, b"short and stout")
    assert admin(shell, "GET", "status")[1]["listeners"] == [f"{balancer['DNSName']}:{port}"]
    elb.delete_listener(ListenerArn=listener)
    assert _until(balancer["DNSName"], port, opened=False) is None


def _until(address: str, port: int, *, opened: bool) -> tuple[int, bytes] | None:
    """What a listener answers once it is open, or None once it is not."""
    for _ in range(500):
        connection = http.client.HTTPConnection(address, port, timeout=5)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            answer = response.status, response.read()
            if opened:
                return answer
        except OSError:
            if not opened:
                return None
        finally:
            connection.close()
        # Real sockets, so real time; a tick of the shell is the most that is waited for.
        _pause()
    raise AssertionError("the listener did not change")


def _pause() -> None:
    import threading

    threading.Event().wait(0.01)


def test_a_request_that_breaks_off_never_happened(shell: Shell) -> None:
    """What a client did not send whole is not done in part."""
    before = len(shell.sandbox.calls())
    head = b"POST /upload/storage/v1/b/acme/o?uploadType=media&name=a HTTP/1.1\r\nHost: h\r\n"
    with socket.create_connection(("127.0.0.1", shell.port)) as connection:
        connection.sendall(head + b"Content-Length: 9\r\n\r\nhalf")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert len(shell.sandbox.calls()) == before

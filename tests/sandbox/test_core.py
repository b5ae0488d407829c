"""The core, by an unmodified boto3 client without a socket: calls, faults, the log, and what happens by itself."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError, ReadTimeoutError

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox.core import Moment, Sandbox
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.inprocess import REGION, Client
from osvdeploy.sandbox.loopback import Claim
from osvdeploy.sandbox.runners import Guest, GuestAnswer, GuestRequest, GuestStatus, NoAnswer, Power
from osvdeploy.sandbox.runners.inline import InlineRunner
from osvdeploy.sandbox.store import CallRecord
from osvdeploy.sandbox.wire import ApiRequest, ApiResponse, Call
from tests.aws_clients import ONCE, client, point_at

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Account:
    """A sandbox in memory (or on disk), its clock, and clients of it until another one's are asked for."""

    def __init__(self, path: Path | None = None, **options: Any) -> None:
        self.clock = VirtualClock()
        self.sandbox = Sandbox(path, runner=options.pop("runner", None) or InlineRunner(), **options)

    def client(self, service: str, config: Config | None = None, region: str = REGION) -> Any:
        point_at(self.sandbox, self.clock)
        return client(service, config, region)

    @property
    def ebs(self) -> Any:
        return self.client("ebs", ONCE)

    @property
    def sts(self) -> Any:
        return self.client("sts", ONCE)

    def snapshots(self) -> list[str]:
        return self.sandbox.inventory().get("snapshot", [])

    def last(self) -> CallRecord:
        return self.sandbox.calls(limit=1)[0]


@pytest.fixture
def account() -> Account:
    return Account()


def test_an_unmodified_client_is_answered(account: Account) -> None:
    """Parsed, carried out, logged with who asked; nothing leaves the process."""
    assert account.sts.get_caller_identity()["Account"] == "123456789012"
    logged = account.last()
    assert (logged.service, logged.operation, logged.mutating, logged.error) == ("sts", "GetCallerIdentity", False, "")
    assert (logged.region, logged.client) == ("eu-west-1", "AKIASANDBOXINPROCESS")
    assert logged.at == account.clock.now()


@pytest.mark.parametrize(
    ("service", "call", "says"),
    [
        ("ec2", lambda client: client.describe_fleets(), "ec2 DescribeFleets"),
        ("sts", lambda client: client.get_session_token(), "sts GetSessionToken"),
        ("cloudformation", lambda client: client.list_stacks(), "service 'cloudformation'"),
    ],
)
def test_what_is_not_simulated_says_so(
    account: Account, service: str, call: Callable[[Any], object], says: str
) -> None:
    """By a code of its own and a status that no client tries again."""
    with pytest.raises(ClientError, match=says) as refused:
        call(account.client(service))
    assert refused.value.response["Error"]["Code"] == "NotSimulated"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert refused.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    assert account.last().error == "NotSimulated"


def test_a_parameter_that_is_not_simulated_says_so(account: Account) -> None:
    """Instead of being ignored; nothing was made."""
    with pytest.raises(ClientError, match="the parameter CustomerOwnedIpv4Pool of elbv2") as refused:
        account.client("elbv2").create_load_balancer(Name="x", CustomerOwnedIpv4Pool="pool")
    assert refused.value.response["Error"]["Code"] == "NotSimulated"
    assert account.sandbox.inventory() == {}


def test_a_pinned_access_key_is_the_only_one() -> None:
    """Each service has a code of its own for a key that nobody has."""
    account = Account(access_key="AKIAOTHER")
    codes = {"sts": "InvalidClientTokenId", "ec2": "AuthFailure", "ebs": "UnrecognizedClientException"}
    calls: dict[str, Callable[[Any], object]] = {
        "sts": lambda client: client.get_caller_identity(),
        "ec2": lambda client: client.describe_vpcs(),
        "ebs": lambda client: client.start_snapshot(VolumeSize=1),
    }
    for service, code in codes.items():
        with pytest.raises(ClientError) as refused:
            calls[service](account.client(service))
        assert refused.value.response["Error"]["Code"] == code


def test_a_request_without_credentials_is_refused(account: Account) -> None:
    """As AWS does: MissingAuthenticationToken, 403."""
    request = ApiRequest("GET", "/?Action=GetCallerIdentity&Version=2011-06-15", {"host": "127.0.0.1"})
    answer = account.sandbox.handle(request, NOW)
    assert isinstance(answer, ApiResponse)
    assert answer.status == 403
    assert b"<Code>MissingAuthenticationToken</Code>" in answer.body


# --------------------------------------------------------------------------------------------------- faults, crashes

LOSSES = [
    (FaultKind.BEFORE, ConnectionClosedError, 0),
    (FaultKind.AFTER, ConnectionClosedError, 1),
    (FaultKind.HANG, ReadTimeoutError, 0),
    (FaultKind.HANG_AFTER, ReadTimeoutError, 1),
    (FaultKind.UNREACHABLE, BotoCoreError, 0),
]


@pytest.mark.parametrize(("kind", "seen", "made"), LOSSES)
def test_a_lost_answer_took_effect_or_not(account: Account, kind: FaultKind, seen: type[Exception], made: int) -> None:
    """Before: nothing happened. After: all of it did. The client sees the exception of a real connection."""
    account.sandbox.faults.add(Fault("ebs:StartSnapshot", kind))
    with pytest.raises(seen):
        account.ebs.start_snapshot(VolumeSize=1)
    assert len(account.snapshots()) == made
    assert account.last().error == "lost"
    account.ebs.start_snapshot(VolumeSize=1)
    assert len(account.snapshots()) == made + 1


def test_a_client_that_is_left_waiting_loses_its_time(account: Account) -> None:
    """Its read timeout passes on the virtual clock, and what was due meanwhile happens."""
    patient = account.client("sts", ONCE.merge(Config(read_timeout=42)))
    account.sandbox.faults.add(Fault("sts:*", FaultKind.HANG))
    began = account.clock.now()
    with pytest.raises(ReadTimeoutError):
        patient.get_caller_identity()
    assert account.clock.now() - began == timedelta(seconds=42)


def test_a_clients_own_retry_meets_the_next_call(account: Account) -> None:
    """A fault that strikes once is survived by the SDK's retries, and the log has both calls."""
    account.sandbox.faults.add(Fault("GetCallerIdentity", FaultKind.BROKEN))
    retrying = account.client("sts", Config(retries={"mode": "standard", "max_attempts": 2}))
    retrying.meta.events.register("needs-retry", lambda **_: 0.0 if len(account.sandbox.calls()) < 2 else None)
    retrying.get_caller_identity()
    assert [call.error for call in account.sandbox.calls()] == ["InternalFailure", ""]


class Crash(BaseException):
    """The process that was calling died."""


@pytest.mark.parametrize(("moment", "made"), [(Moment.BEFORE, 0), (Moment.AFTER, 1)])
def test_a_caller_can_die_before_or_after_any_call(account: Account, moment: Moment, made: int) -> None:
    """The hook's exception comes out of the client's call; what was committed stays."""

    def die(when: Moment, call: Call) -> None:
        if (when, call.operation) == (moment, "StartSnapshot"):
            raise Crash

    account.sandbox.hook = die
    with pytest.raises(Crash):
        account.ebs.start_snapshot(VolumeSize=1)
    assert len(account.snapshots()) == made
    account.sandbox.hook = None
    account.sts.get_caller_identity()


def test_a_dry_run_changes_nothing(account: Account) -> None:
    """Would it succeed? DryRunOperation, 412."""
    with pytest.raises(ClientError) as refused:
        account.client("ec2").create_vpc(CidrBlock="10.0.0.0/16", DryRun=True)
    assert refused.value.response["Error"]["Code"] == "DryRunOperation"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert account.sandbox.inventory() == {}


# ------------------------------------------------------------------------------------------------------ time, places


def test_speed_divides_what_takes_time() -> None:
    """At ten times the speed a snapshot completes in a tenth of the time; timestamps stay real."""

    def took(speed: float) -> timedelta:
        account = Account(speed=speed)
        account.ebs.start_snapshot(VolumeSize=1)
        due = account.sandbox.next_due()
        assert due is not None
        return due - account.clock.now()

    assert took(1.0) == 10 * took(10.0)


def test_what_is_due_happens_before_the_next_call(account: Account) -> None:
    """An upload that nobody goes on with fails by itself, in its order and at its time."""
    snapshot = account.ebs.start_snapshot(VolumeSize=1, Timeout=10)["SnapshotId"]
    account.clock.advance(599)
    account.sts.get_caller_identity()
    assert account.sandbox.next_due() is not None
    account.clock.advance(2)
    account.sts.get_caller_identity()
    assert account.sandbox.next_due() is None
    with pytest.raises(ClientError):
        account.ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=0)


def test_a_read_that_is_struck_is_answered_as_things_were_some_seconds_ago() -> None:
    """One read, and no other; what changes something sees what is now."""
    account = Account(stale=5.0)
    ec2 = account.client("ec2", ONCE)
    ec2.create_vpc(CidrBlock="10.0.0.0/16")
    account.sandbox.faults.add(Fault("ec2:*", FaultKind.STALE, times=2))
    ec2.create_vpc(CidrBlock="10.1.0.0/16")
    assert ec2.describe_vpcs()["Vpcs"] == []
    assert len(ec2.describe_vpcs()["Vpcs"]) == 2
    account.clock.advance(6.0)
    account.sandbox.faults.add(Fault("DescribeVpcs", FaultKind.STALE))
    assert len(ec2.describe_vpcs()["Vpcs"]) == 2


def test_reads_lag_behind_writes_where_that_is_asked_for() -> None:
    """What was made is not found for that long, what was changed is read as it was, and then all is seen."""
    account = Account(lag=5.0)
    ec2 = account.client("ec2")
    made = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    assert ec2.describe_vpcs()["Vpcs"] == []
    account.clock.advance(4)
    ec2.create_tags(Resources=[made], Tags=[{"Key": "a", "Value": "b"}])
    account.clock.advance(1)
    (seen,) = ec2.describe_vpcs(VpcIds=[made])["Vpcs"]
    assert "Tags" not in seen
    account.clock.advance(4)
    (seen,) = ec2.describe_vpcs(VpcIds=[made])["Vpcs"]
    assert seen["Tags"] == [{"Key": "a", "Value": "b"}]
    ec2.delete_vpc(VpcId=made)
    assert len(ec2.describe_vpcs()["Vpcs"]) == 1
    account.clock.advance(5)
    assert ec2.describe_vpcs()["Vpcs"] == []


def test_regions_hold_their_own(account: Account) -> None:
    """What is made in one is not found in another, and the inventory has all of them."""
    elsewhere = account.client("ec2", region="us-east-2")
    made = elsewhere.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    here = account.client("ec2")
    assert made not in [vpc["VpcId"] for vpc in here.describe_vpcs()["Vpcs"]]
    assert made in [vpc["VpcId"] for vpc in elsewhere.describe_vpcs()["Vpcs"]]


def test_an_account_outlives_its_process(tmp_path: Path) -> None:
    """Everything is there after a restart; ids go on where they were; other accounts have other ids."""
    account = Account(tmp_path / "one")
    first = account.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    account.sandbox.close()
    again = Account(tmp_path / "one")
    again.sandbox.resume(again.clock.now())
    second = again.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    assert sorted(again.snapshots()) == sorted([first, second])
    assert [call.number for call in again.sandbox.calls()] == [1, 2]
    other = Account(tmp_path / "two")
    assert other.ebs.start_snapshot(VolumeSize=1)["SnapshotId"] not in (first, second)
    for each in (again, other):
        each.sandbox.close()


class SlowRunner:
    """A runner whose guests answer in real time only: nothing of it may happen under the sandbox's lock."""

    instant = False

    def start(self, guest: Guest, now: datetime) -> GuestStatus:
        return GuestStatus(Power.ON, b"")

    def status(self, guest_id: str, now: datetime) -> GuestStatus | None:
        return GuestStatus(Power.ON, b"")

    def ask(
        self, guest_id: str, address: str, port: int, request: GuestRequest, timeout: float, now: datetime
    ) -> GuestAnswer | NoAnswer:
        return GuestAnswer(200)

    def stop(self, guest_id: str, now: datetime) -> bytes:
        return b""

    def close(self) -> None:
        pass


def test_work_outside_is_taken_in_later_or_due_again(tmp_path: Path) -> None:
    """A turn's outside work runs after its commit; an event whose work never came back is due after a restart."""
    account = Account(tmp_path, runner=SlowRunner())
    jobs: list[Callable[[], None]] = []
    account.sandbox.work_outside = jobs.append
    done: list[str] = []
    turn, transaction = account.sandbox._begin("eu-west-1")
    turn.outside(lambda: "result", lambda scope, result: done.append(result))
    transaction.commit()
    account.sandbox._send_out(turn, None)
    assert done == []
    jobs.pop()()
    assert done == ["result"]
    account.sandbox.close()


def test_a_view_is_worked_out_once_for_what_did_not_change(account: Account) -> None:
    """Reading and time change nothing of it; what is written does."""
    first = account.sandbox.view()
    account.sts.get_caller_identity()
    account.clock.advance(60)
    account.sandbox.settle(account.clock.now())
    assert account.sandbox.view() is first
    account.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")
    assert account.sandbox.view() is not first


def test_nobody_listens_where_no_listener_is(account: Account) -> None:
    """A client in process is refused as by a host."""
    assert Client(account.sandbox, account.clock).get("127.0.7.1", 8000, "/") is NoAnswer.REFUSED


@pytest.mark.slow
def test_a_client_in_process_puts_hundreds_of_blocks_a_second(account: Account) -> None:
    """The same block a hundred times: what is measured is the wire. A gross loss of speed alone fails."""
    import base64
    import hashlib
    import time

    snapshot = account.ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    block = bytes(range(256)) * 2048
    checksum = base64.b64encode(hashlib.sha256(block).digest()).decode()
    began = time.process_time()
    for index in range(100):
        account.ebs.put_snapshot_block(
            SnapshotId=snapshot,
            BlockIndex=index,
            BlockData=block,
            DataLength=len(block),
            Checksum=checksum,
            ChecksumAlgorithm="SHA256",
        )
    assert 100 / (time.process_time() - began) > 50


def test_two_sandboxes_of_one_host_open_other_addresses(tmp_path: Path) -> None:
    """Each on a directory of its own, their balancers never meet; in memory they begin where tests expect them."""
    seeds = ("one", "two")
    made = [Sandbox(tmp_path / seed, runner=InlineRunner(), seed=seed) for seed in seeds]
    try:
        assert len({sandbox.balancers for sandbox in made}) == 2
    finally:
        for sandbox in made:
            sandbox.close()
    again = Sandbox(tmp_path / "one", runner=InlineRunner())
    assert again.balancers == made[0].balancers
    again.close()
    assert Sandbox(runner=InlineRunner()).balancers == "127.0.7"


def test_no_running_sandbox_has_the_addresses_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn at first may be another's: then it is drawn again. What was stopped gives its addresses back."""
    drawn = iter(["a", "a", "b", "b", "a"])
    monkeypatch.setattr(secrets, "token_hex", lambda count: next(drawn))
    claims = [Claim(), Claim(), Claim()]

    def made(number: int) -> Sandbox:
        sandbox = Sandbox(tmp_path / str(number), runner=InlineRunner(), free=claims[number].take)
        sandbox.close()
        return sandbox

    assert [made(number).seed for number in (0, 1)] == ["a", "b"]
    claims[0].close()
    assert made(2).seed == "a"
    assert claims[2].take(made(2).balancers) and not claims[0].take(made(2).balancers)
    claims[1].close()
    claims[2].close()

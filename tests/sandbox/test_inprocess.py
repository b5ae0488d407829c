"""A session whose requests go to a sandbox in this process: what it spares, and that nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserFactory

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox import inprocess
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner

pytestmark = pytest.mark.slow


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(runner=InlineRunner())


def test_an_answer_parsed_before_is_as_one_parsed_now(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it but who asked: values, their types, the request's id."""
    quick = connect(sandbox, VirtualClock())
    with monkeypatch.context() as patched:
        patched.setattr(inprocess, "_Parsers", ResponseParserFactory)
        plain = connect(sandbox, VirtualClock())
    asked: list[Callable[[Any], Any]] = [
        lambda session: session.client("ec2").create_vpc(CidrBlock="10.0.0.0/16"),
        lambda session: session.client("ec2").describe_vpcs(),
        lambda session: session.client("ec2").describe_snapshots(OwnerIds=["self"]),
        lambda session: session.client("ec2").describe_availability_zones(),
        lambda session: session.client("elbv2").describe_load_balancers(),
        lambda session: session.client("autoscaling").describe_auto_scaling_groups(),
        lambda session: session.client("autoscaling").describe_policies(),
        lambda session: session.client("sts").get_caller_identity(),
    ]
    identifiers = set()
    for ask in asked[1:]:
        asked[0](plain)
        answers = [ask(session) for session in (quick, plain, quick)]
        for answer in answers:
            told = answer["ResponseMetadata"]
            assert told["RequestId"] == told["HTTPHeaders"].pop("x-amzn-requestid")
            identifiers.add(told.pop("RequestId"))
        assert repr(answers[0]) == repr(answers[1]) == repr(answers[2])
    assert len(identifiers) == 3 * len(asked[1:])


def test_an_answer_is_its_caller_s_own(sandbox: Sandbox) -> None:
    """To change what one was given changes nobody else's."""
    ec2 = connect(sandbox, VirtualClock()).client("ec2")
    first = ec2.describe_availability_zones()
    known = len(first["AvailabilityZones"])
    first["AvailabilityZones"].clear()
    assert len(ec2.describe_availability_zones()["AvailabilityZones"]) == known > 0


@pytest.mark.parametrize("service", ["autoscaling", "ec2", "elbv2", "s3", "sts"])
def test_every_call_names_its_caller(sandbox: Sandbox, service: str) -> None:
    """Region and access key, signed or not."""
    session = connect(sandbox, VirtualClock(), "us-east-2")
    calls: dict[str, Callable[[Any], object]] = {
        "autoscaling": lambda client: client.describe_auto_scaling_groups(),
        "ec2": lambda client: client.describe_vpcs(),
        "elbv2": lambda client: client.describe_load_balancers(),
        "s3": lambda client: client.list_buckets(),
        "sts": lambda client: client.get_caller_identity(),
    }
    calls[service](session.client(service))
    calls[service](session.client(service, aws_access_key_id="AKIAOTHER", aws_secret_access_key="secret"))
    assert [(call.region, call.client) for call in sandbox.calls()] == [
        ("us-east-2", "AKIASANDBOXINPROCESS"),
        ("us-east-2", "AKIAOTHER"),
    ]


def test_a_refusal_is_read_as_ever(sandbox: Sandbox) -> None:
    """Its code, and each time the id of its own request."""
    elb = connect(sandbox, VirtualClock()).client("elbv2")
    refused = []
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            elb.describe_target_groups(Names=["nobody-s"])
        refused.append(caught.value.response)
    assert {each["Error"]["Code"] for each in refused} == {"TargetGroupNotFound"}
    assert len({each["ResponseMetadata"]["RequestId"] for each in refused}) == 2

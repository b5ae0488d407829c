"""What stands in for the providers of the clouds' own resources: as a process, and in a program that runs whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import grpc
import pytest

from osvdeploy.provider.values import UNKNOWN, Properties
from osvdeploy.sandbox import control
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.http import Shell
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.alive import until
from tests.pulumi.engine import MODULES, MiniStack
from tests.pulumi.process import Failed, ProviderProcess, running
from tests.pulumi.standins import command

pytestmark = pytest.mark.slow

NETWORK = """
import pulumi
import pulumi_aws as aws

config = pulumi.Config()
zones = aws.get_availability_zones(state="available").names
vpc = aws.ec2.Vpc("vpc", cidr_block="10.20.0.0/16", tags={"Name": config.get("called") or "web"})
for number in (0, 1):
    aws.ec2.Subnet(
        f"subnet-{number}",
        vpc_id=vpc.id,
        availability_zone=zones[number],
        cidr_block=f"10.20.{config.get_int('first') or number}.0/24" if number == 0 else "10.20.1.0/24",
    )
pulumi.export("vpc", vpc.id)
pulumi.export("table", vpc.main_route_table_id)
"""
VPC, SUBNET, BALANCER = "aws:ec2/vpc:Vpc", "aws:ec2/subnet:Subnet", "aws:lb/loadBalancer:LoadBalancer"


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    """At the clouds' own speed: a balancer takes ten seconds."""
    shell = Shell(Sandbox(runner=InlineRunner(), speed=1))
    shell.start()
    yield shell
    shell.stop()


@pytest.fixture(scope="module")
def environ(shell: Shell) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": shell.url,
        "AWS_ACCESS_KEY_ID": control.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": control.SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.0/8",
        "no_proxy": "127.0.0.0/8",
        "PYTHONPATH": MODULES,
    }


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]) -> Iterator[ProviderProcess]:
    with running(tmp_path_factory.mktemp("aws"), environ, command=command("aws")) as provider:
        provider.configure(region=control.REGION)
        yield provider


def client(shell: Shell, service: Any) -> Any:
    session = boto3.Session(control.ACCESS_KEY, control.SECRET_KEY)
    return session.client(service, region_name=control.REGION, endpoint_url=shell.url)


def test_in_a_program(shell: Shell, environ: dict[str, str], tmp_path: Path) -> None:
    """What a program of pulumi_aws says is made, changed, replaced, found gone and taken away."""
    before = shell.sandbox.inventory()
    aws = MiniStack(tmp_path, {"aws": command("aws")}, environ=environ, config={"aws:region": control.REGION})
    (tmp_path / "__main__.py").write_text(NETWORK)
    done = aws.up("__main__.py")
    assert (done.errors, done.changes) == ([], {"create": 3})
    ec2 = client(shell, "ec2")
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    assert (vpc["VpcId"], vpc["Tags"]) == (done.outputs["vpc"], [{"Key": "Name", "Value": "web"}])
    assert str(done.outputs["table"]).startswith("rtb-")

    aws.config |= {"called": "shop", "first": "7"}
    changed = aws.up("__main__.py")
    assert (changed.errors, changed.changes) == ([], {"update": 1, "replace": 1, "delete": 1})
    assert changed.step("vpc").paths == {"tags": "UPDATE"}
    assert ec2.describe_vpcs()["Vpcs"][0]["Tags"] == [{"Key": "Name", "Value": "shop"}]
    subnets = {each["CidrBlock"]: each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]}
    assert set(subnets) == {"10.20.7.0/24", "10.20.1.0/24"}

    ec2.delete_subnet(SubnetId=subnets["10.20.1.0/24"])
    ec2.create_tags(Resources=[vpc["VpcId"]], Tags=[{"Key": "by", "Value": "hand"}])
    seen = aws.refresh()
    assert (seen.errors, seen.changes) == ([], {"refresh": 1, "delete": 1})
    assert aws.up("__main__.py").changes == {"update": 1, "create": 1}
    assert ec2.describe_vpcs()["Vpcs"][0]["Tags"] == [{"Key": "Name", "Value": "shop"}]

    gone = aws.destroy()
    assert (gone.errors, gone.changes) == ([], {"delete": 3})
    assert shell.sandbox.inventory() == before


@pytest.mark.parametrize(
    ("token", "given", "told"),
    [
        (VPC, {"cidrBlock": "10.0.0.0/16", "ipv6CidrBlock": "::/56"}, ("ipv6CidrBlock", "does not serve it")),
        (VPC, {}, ("cidrBlock", "Missing required argument")),
        (BALANCER, {"name": "b" * 25 + "-1234567"}, None),
    ],
    ids=["not served", "missing", "whole"],
)
def test_what_check_refuses(
    provider: ProviderProcess, token: str, given: Properties, told: tuple[str, str] | None
) -> None:
    """A property that is not served, and one that is missing, each by its name."""
    _, failures = provider.check(token, given)
    assert len(failures) == (told is not None)
    for (name, reason), wanted in zip(failures, [told] if told else [], strict=True):
        assert name == wanted[0] and wanted[1] in reason


def test_names_are_made_up_as_the_bridge_does(provider: ProviderProcess) -> None:
    """The resource's own and seven digits, the same each time, and kept; too long a name is refused."""
    urn = f"urn:pulumi:dev::project::{BALANCER}::web"
    first, _ = provider.check(BALANCER, {}, urn=urn)
    assert str(first["name"]).startswith("web-") and len(str(first["name"])) == 11
    assert provider.check(BALANCER, {}, urn=urn) == (first, [])
    assert provider.check(BALANCER, {}, {"name": "web-old"}, urn=urn)[0]["name"] == "web-old"
    _, ((name, reason),) = provider.check(BALANCER, {}, urn=f"urn:pulumi:dev::project::{BALANCER}::{'w' * 30}")
    assert name == "name" and "longer than 32" in reason


def test_what_the_cloud_refuses(provider: ProviderProcess) -> None:
    """It is told in the cloud's words, and is a clean failure."""
    with pytest.raises(Failed, match=r"FAILED_PRECONDITION.*InvalidVpc\.Range") as refused:
        provider.create(VPC, {"cidrBlock": "10.0.0.0/30"})
    assert refused.value.unfinished is None


def test_what_is_not_served(provider: ProviderProcess) -> None:
    """A type or a function is refused by its name; so is a change in place that no stack makes, before it is made."""
    with pytest.raises(Failed, match=r"UNIMPLEMENTED.*does not serve aws:sqs/queue:Queue, but aws:ec2/"):
        provider.check("aws:sqs/queue:Queue", {})
    with pytest.raises(Failed, match=r"UNIMPLEMENTED.*does not serve aws:index/getPartition:getPartition"):
        provider.invoke("aws:index/getPartition:getPartition", {})
    there: Properties = {"name": "web", "subnets": ["subnet-1", "subnet-2"]}
    with pytest.raises(Failed, match="does not change subnets"):
        provider.update(BALANCER, "arn", there, there, {**there, "subnets": ["subnet-3"]}, preview=True)


def test_a_preview(provider: ProviderProcess, shell: Shell) -> None:
    """Says what is given, and of the rest that nobody knows it yet; nothing is made."""
    before = shell.sandbox.inventory()
    id, foreseen = provider.create(VPC, {"cidrBlock": "10.0.0.0/16"}, preview=True)
    assert (id, foreseen["cidrBlock"], foreseen["mainRouteTableId"]) == ("", "10.0.0.0/16", UNKNOWN)
    diff = provider.diff(
        VPC, "vpc-1", {"cidrBlock": "10.0.0.0/16"}, {"cidrBlock": "10.0.0.0/16"}, {"cidrBlock": UNKNOWN}
    )
    assert (diff.changes, diff.replaces) == ("DIFF_SOME", ["cidrBlock"])
    assert shell.sandbox.inventory() == before


def test_an_interruption_leaves_what_was_begun_in_the_state(
    shell: Shell, environ: dict[str, str], tmp_path: Path
) -> None:
    """A Cancel while a balancer is on its way answers at once, with its ARN; it is read and taken away by that."""
    with running(tmp_path, environ, command=command("aws")) as provider:
        provider.configure(region=control.REGION)
        vpc, _ = provider.create(VPC, {"cidrBlock": "10.0.0.0/16"})
        subnets = []
        for zone in "ab":
            where = {"cidrBlock": f"10.0.{ord(zone)}.0/24", "availabilityZone": f"eu-west-1{zone}"}
            subnets.append(provider.create(SUBNET, {"vpcId": vpc, **where})[0])
        elb, ended = client(shell, "elbv2"), list[Failed]()

        def create() -> None:
            try:
                provider.create(BALANCER, {"name": "web", "subnets": list(subnets)})
            except Failed as error:
                ended.append(error)

        creating = threading.Thread(target=create)
        creating.start()
        until(lambda: elb.describe_load_balancers()["LoadBalancers"])
        provider.cancel()
        creating.join(5)
        (stopped,) = ended
        assert stopped.code is grpc.StatusCode.CANCELLED
        assert stopped.unfinished is not None and stopped.unfinished.refresh_before_update
        (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
        assert stopped.unfinished.id == balancer["LoadBalancerArn"]
        assert balancer["State"]["Code"] == "provisioning"
        _, state, inputs = provider.read(BALANCER, stopped.unfinished.id)
        assert state["dnsName"] == balancer["DNSName"] and inputs is not None and inputs["name"] == "web"
        provider.delete(BALANCER, stopped.unfinished.id, state, inputs)
        for each in subnets:
            provider.delete(SUBNET, each, {}, {})
        provider.delete(VPC, vpc, {}, {})

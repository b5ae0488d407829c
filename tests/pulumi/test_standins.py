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
from tests.pulumi.engine import MODULES
from tests.pulumi.lifecycle import lives_a_whole_life
from tests.pulumi.process import Failed, ProviderProcess, running
from tests.pulumi.standins import command

pytestmark = pytest.mark.slow

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


def test_lives_as_resources_of_ours_do(provider: ProviderProcess, shell: Shell) -> None:
    """A stand-in keeps all that our own provider's resources keep, and leaves nothing."""
    before = shell.sandbox.inventory()
    given: Properties = {"cidrBlock": "10.20.0.0/16", "tags": {"Name": "web"}}
    lives_a_whole_life(provider, VPC, given, {**given, "tags": {"Name": "shop"}})
    assert shell.sandbox.inventory() == before


def test_what_is_there_is_what_counts(provider: ProviderProcess, shell: Shell) -> None:
    """A diff is of what was seen last: what was changed by hand is a difference, of the inputs that were given alone;
    what cannot be changed is made anew; what is gone is gone."""
    ec2 = client(shell, "ec2")
    given: Properties = {"cidrBlock": "10.20.0.0/16", "tags": {"Name": "web"}}
    inputs, _ = provider.check(VPC, given)
    id, state = provider.create(VPC, inputs)
    ec2.create_tags(Resources=[id], Tags=[{"Key": "by", "Value": "hand"}])
    _, seen, told = provider.read(VPC, id, state, inputs)
    assert seen["tags"] == {"Name": "web", "by": "hand"} and told is not None
    assert provider.diff(VPC, id, seen, told, inputs).detailed == {"tags": "UPDATE"}
    assert provider.update(VPC, id, seen, told, inputs)["tags"] == {"Name": "web"}

    other = provider.diff(VPC, id, state, inputs, {**inputs, "cidrBlock": "10.30.0.0/16"})
    assert (other.replaces, other.detailed) == (["cidrBlock"], {"cidrBlock": "UPDATE_REPLACE"})
    ec2.delete_vpc(VpcId=id)
    assert provider.read(VPC, id, state, inputs)[0] == ""


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

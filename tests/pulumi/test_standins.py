"""What stands in for the providers of the clouds' own resources, in programs that run whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from osvdeploy.sandbox import control
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.http import Shell
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.pulumi.engine import MiniStack
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


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    shell = Shell(Sandbox(runner=InlineRunner(), speed=50))
    shell.start()
    yield shell
    shell.stop()


@pytest.fixture
def aws(shell: Shell, tmp_path: Path) -> MiniStack:
    environ = {
        "AWS_ENDPOINT_URL": shell.url,
        "AWS_ACCESS_KEY_ID": control.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": control.SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.0/8",
        "no_proxy": "127.0.0.0/8",
    }
    return MiniStack(tmp_path, {"aws": command("aws")}, environ=environ, config={"aws:region": control.REGION})


def client(shell: Shell, service: Any) -> Any:
    session = boto3.Session(control.ACCESS_KEY, control.SECRET_KEY)
    return session.client(service, region_name=control.REGION, endpoint_url=shell.url)


def test_life(aws: MiniStack, shell: Shell) -> None:
    """What a program of pulumi_aws says is made, changed, replaced and taken away in the sandbox, and nothing twice."""
    before = shell.sandbox.inventory()
    (aws.folder / "__main__.py").write_text(NETWORK)
    planned = aws.preview("__main__.py")
    assert (planned.errors, planned.changes) == ([], {"create": 3})
    assert shell.sandbox.inventory() == before
    done = aws.up("__main__.py")
    assert (done.errors, done.changes) == ([], {"create": 3})
    ec2 = client(shell, "ec2")
    (vpc,) = ec2.describe_vpcs()["Vpcs"]
    assert vpc["VpcId"] == done.outputs["vpc"]
    assert vpc["Tags"] == [{"Key": "Name", "Value": "web"}]
    assert str(done.outputs["table"]).startswith("rtb-")
    for again in (aws.preview("__main__.py"), aws.up("__main__.py"), aws.refresh()):
        assert (again.errors, again.changes) == ([], {})

    aws.config |= {"called": "shop", "first": "7"}
    changed = aws.up("__main__.py")
    assert (changed.errors, changed.changes) == ([], {"update": 1, "replace": 1, "delete": 1})
    assert changed.step("vpc").paths == {"tags": "UPDATE"}
    assert ec2.describe_vpcs()["Vpcs"][0]["Tags"] == [{"Key": "Name", "Value": "shop"}]
    subnets = {each["CidrBlock"]: each["SubnetId"] for each in ec2.describe_subnets()["Subnets"]}
    assert set(subnets) == {"10.20.7.0/24", "10.20.1.0/24"}

    ec2.delete_subnet(SubnetId=subnets["10.20.1.0/24"])
    ec2.create_tags(Resources=[vpc["VpcId"]], Tags=[{"Key": "Name", "Value": "by hand"}])
    seen = aws.refresh()
    assert (seen.errors, seen.changes) == ([], {"refresh": 1, "delete": 1})
    assert aws.up("__main__.py").changes == {"update": 1, "create": 1}
    assert ec2.describe_vpcs()["Vpcs"][0]["Tags"] == [{"Key": "Name", "Value": "shop"}]

    gone = aws.destroy()
    assert (gone.errors, gone.changes) == ([], {"delete": 3})
    assert shell.sandbox.inventory() == before


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ('aws.sqs.Queue("queue")', "does not serve aws:sqs/queue:Queue, but aws:ec2/"),
        ('aws.ec2.Vpc("vpc", ipv6_cidr_block="::/56")', "property ipv6CidrBlock: the stand-in of"),
        ('aws.ec2.Vpc("vpc")', "property cidrBlock: Missing required"),
        ('aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/30")', "InvalidVpc.Range"),
        ("aws.get_partition()", "does not serve aws:index/getPartition:getPartition"),
    ],
    ids=["type", "property", "missing", "the cloud", "function"],
)  # fmt: skip
def test_refusals(aws: MiniStack, program: str, said: str) -> None:
    """A type, a property or a function that is not served is refused by its name, and so is what the cloud refuses."""
    (aws.folder / "__main__.py").write_text(f"import pulumi_aws as aws\n\n{program}\n")
    failed = aws.up("__main__.py")
    assert not failed.ok
    assert said in failed.said()

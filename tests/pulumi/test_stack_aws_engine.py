"""stacks/aws with Pulumi's own command, its committed Pulumi.yaml and all: `pytest -m engine` with `pulumi` on PATH."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from osvdeploy.sandbox import control
from tests.pulumi.cli import needs_pulumi
from tests.pulumi.places import Place, client, free_port, move_traffic, needs_loopback, on_aws
from tests.pulumi.stack_cli import StackCli
from tests.pulumi.stacks import Copied

pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_pulumi, needs_loopback]

LEDGER = "s3://acme-releases/service"
GREETING = "good day to you"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with on_aws(tmp_path / "place") as place:
        bucket = {"LocationConstraint": control.REGION}
        client(place, "s3").create_bucket(Bucket="acme-releases", CreateBucketConfiguration=bucket)
        yield place


@pytest.fixture
def cli(tmp_path: Path, place: Place) -> StackCli:
    config = {
        "instanceType": "t3.small", "minReady": "0s", "bootTimeout": "30s", "bake": "0s", "listenerPort": free_port(),
        "releaser": "arn:aws:iam::123456789012:user/ci",
    }  # fmt: skip
    cli = StackCli(Copied.of("aws", tmp_path, place), tmp_path, config)
    assert cli.run("config", "set", "--secret", "--path", "env.GREETING", GREETING).code == 0
    return cli


def test_story(cli: StackCli, place: Place) -> None:
    """The same as in the small engine, with the exit codes that scripts go by, and with an interruption while the
    network is made."""
    before = cli.copied.held()
    elb = client(place, "elbv2")
    cli.begins(19, lambda: len(elb.describe_load_balancers()["LoadBalancers"]) > 1)
    assert len(elb.describe_load_balancers()["LoadBalancers"]) == 2, "one of the stack's, one of somebody's"
    assert requests.get(cli.output("url"), timeout=10).text.startswith(f"{GREETING} from service-1.0.0-")
    assert GREETING not in cli.run("stack", "export").text, "a secret variable is in no state"
    cli.releases(LEDGER)

    (group,) = [each["id"] for each in cli.export() if each["urn"].endswith("SecurityGroup::machines")]
    (listener,) = [each["id"] for each in cli.export() if each["urn"].endswith("Listener::clients")]
    ec2 = client(place, "ec2")
    (rules,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rules["IpPermissions"])
    move_traffic(replace(place, inputs={"listenerArn": listener}), 50, 50)
    cli.mends()
    (again,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert again["IpPermissions"] == rules["IpPermissions"]

    cli.ends(LEDGER)
    assert cli.copied.held() == before


def test_half_a_network(cli: StackCli) -> None:
    """What a configuration lacks is said in a sentence, and no traceback."""
    assert cli.run("config", "set", "vpcId", "vpc-0a1b2c3d4e5f60718").code == 0
    refused = cli.run("preview")
    assert refused.code == 1
    assert "error: half a network: subnetIds is missing" in refused.text
    assert "Traceback" not in refused.text


def test_taken_over(cli: StackCli, place: Place) -> None:
    """A balancer of somebody's gets into the state by its ARN, with all that makes it no change afterwards."""
    (balancer,) = client(place, "elbv2").describe_load_balancers()["LoadBalancers"]
    words = ["import", "aws:lb/loadBalancer:LoadBalancer", "theirs", balancer["LoadBalancerArn"]]
    # The code that the command would print is made of the plugin's schema, which a stand-in has none of.
    ran = cli.run(*words, "--yes", "--skip-preview", "--protect=false", "--generate-code=false")
    assert ran.code == 0, ran.text
    (taken,) = [each for each in cli.export() if each["type"] == words[1]]
    assert taken["inputs"]["name"] == balancer["LoadBalancerName"]
    assert taken["outputs"]["dnsName"] == balancer["DNSName"]

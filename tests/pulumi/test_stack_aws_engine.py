"""stacks/aws with Pulumi's own command, its committed Pulumi.yaml and all: `pytest -m engine` with `pulumi` on PATH."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from osvdeploy.sandbox import control
from tests.pulumi import standins
from tests.pulumi.cli import Cli, Ran, interrupted, needs_pulumi
from tests.pulumi.engine import MODULES
from tests.pulumi.places import Place, client, free_port, move_traffic, needs_loopback, on_aws
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
def copied(tmp_path: Path, place: Place) -> Copied:
    copied = Copied.of("aws", tmp_path, place)
    # What `pip install -r requirements.txt` makes.
    (copied.folder / ".venv").symlink_to(sys.prefix)
    return copied


@pytest.fixture
def cli(tmp_path: Path, copied: Copied) -> Cli:
    path = os.pathsep.join([str(standins.all_in(tmp_path / "plugins")), os.environ["PATH"]])
    cli = Cli(
        copied.folder,
        tmp_path / "pulumi",
        environ={**copied.place.environ, "PYTHONPATH": MODULES, "PATH": path},
    )
    assert cli.run("stack", "init", "dev").code == 0
    wanted = {
        "instanceType": "t3.small", "minReady": "0s", "bootTimeout": "30s", "bake": "0s", "listenerPort": free_port(),
        "releaser": "arn:aws:iam::123456789012:user/ci",
    }  # fmt: skip
    for key, value in wanted.items():
        assert cli.run("config", "set", key, str(value)).code == 0
    assert cli.run("config", "set", "--secret", "--path", "env.GREETING", GREETING).code == 0
    return cli


def serves(cli: Cli, copied: Copied, done: Ran, version: str) -> None:
    """A client gets that version's answers, the stack says so, and there is nothing more to do."""
    assert done.code == 0, done.text
    assert copied.serves(cli.output("url"), version)
    assert cli.output("release").startswith(f"service-{version}-")
    same = cli.up("--expect-no-changes")
    assert same.code == 0, same.text


def test_story(cli: Cli, copied: Copied, place: Place) -> None:
    """The same as in the small engine, with the exit codes that scripts go by, and with an interruption while the
    network is made."""
    before = copied.held()
    copied.release("1.0.0")
    planned = cli.run("preview")
    assert planned.code == 0, planned.text
    assert "+ 19 to create" in planned.text
    assert cli.run("preview", "--expect-no-changes").code == 7
    assert copied.held() == before

    elb = client(place, "elbv2")
    stopped = interrupted(cli, lambda: len(elb.describe_load_balancers()["LoadBalancers"]) > 1)
    assert stopped.code == 1, stopped.text
    serves(cli, copied, cli.up(), "1.0.0")
    assert len(elb.describe_load_balancers()["LoadBalancers"]) == 2, "one of the stack's, one of somebody's"
    assert requests.get(cli.output("url"), timeout=10).text.startswith(f"{GREETING} from service-1.0.0-")
    assert GREETING not in cli.run("stack", "export").text, "a secret variable is in no state"

    copied.release("1.1.0")
    planned = cli.run("preview", "--expect-no-changes")
    assert planned.code == 7, planned.text
    serves(cli, copied, cli.up(), "1.1.0")

    copied.release("1.2.0", broken=True)
    failed = cli.up()
    assert failed.code == 1
    assert "no database" in failed.text and "corrupt" not in failed.text
    assert copied.serves(cli.output("url"), "1.1.0")

    copied.release("1.1.0")
    ran = copied.osvdeploy("rollback", ledger=LEDGER)
    assert ran.code == 0, ran.stderr
    held = cli.up()
    assert held.text.partition("Diagnostics:")[2].count("is held since") == 1, held.text
    serves(cli, copied, held, "1.0.0")
    copied.release("1.3.0")
    serves(cli, copied, cli.up(), "1.3.0")

    (group,) = [each["id"] for each in cli.export() if each["urn"].endswith("SecurityGroup::machines")]
    (listener,) = [each["id"] for each in cli.export() if each["urn"].endswith("Listener::clients")]
    ec2 = client(place, "ec2")
    (rules,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rules["IpPermissions"])
    move_traffic(replace(place, inputs={"listenerArn": listener}), 50, 50)
    drifted = cli.run("refresh", "--yes", "--skip-preview")
    assert drifted.code == 0, drifted.text
    planned = cli.run("preview", "--expect-no-changes")
    assert planned.code == 7, planned.text
    assert "put traffic right" in planned.text
    serves(cli, copied, cli.up(), "1.3.0")
    (again,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert again["IpPermissions"] == rules["IpPermissions"]

    assert cli.run("config", "set", "bake", "3s").code == 0
    copied.release("1.4.0")

    stopped = interrupted(cli, lambda: copied.bakes(LEDGER))
    assert stopped.code == 1, stopped.text
    assert "left in stage bake" in stopped.text
    serves(cli, copied, cli.up(), "1.4.0")

    gone = cli.run("destroy", "--yes", "--skip-preview")
    assert gone.code == 0, gone.text
    assert copied.held() == before


def test_half_a_network(cli: Cli) -> None:
    """What a configuration lacks is said in a sentence, and no traceback."""
    assert cli.run("config", "set", "vpcId", "vpc-0a1b2c3d4e5f60718").code == 0
    refused = cli.run("preview")
    assert refused.code == 1
    assert "error: half a network: subnetIds is missing" in refused.text
    assert "Traceback" not in refused.text


def test_taken_over(cli: Cli, place: Place) -> None:
    """A balancer of somebody's gets into the state by its ARN, with all that makes it no change afterwards."""
    (balancer,) = client(place, "elbv2").describe_load_balancers()["LoadBalancers"]
    words = ["import", "aws:lb/loadBalancer:LoadBalancer", "theirs", balancer["LoadBalancerArn"]]
    # The code that the command would print is made of the plugin's schema, which a stand-in has none of.
    ran = cli.run(*words, "--yes", "--skip-preview", "--protect=false", "--generate-code=false")
    assert ran.code == 0, ran.text
    (taken,) = [each for each in cli.export() if each["type"] == words[1]]
    assert taken["inputs"]["name"] == balancer["LoadBalancerName"]
    assert taken["outputs"]["dnsName"] == balancer["DNSName"]

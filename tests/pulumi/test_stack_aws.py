"""stacks/aws, run whole: its program, our provider, the stand-in of pulumi_aws and a sandbox whose machines run."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import requests

from osvdeploy.sandbox import control
from tests.pulumi.places import Place, client, free_port, move_traffic, needs_loopback, on_aws
from tests.pulumi.stacks import STACKS, Copied, Story, settings_of

pytestmark = [pytest.mark.slow, needs_loopback]

LEDGER = "s3://acme-releases/service"
QUICK = {"instanceType": "t3.small", "minReady": "0s", "bootTimeout": "30s", "bake": "0s"}
"""In place of what is for machines that boot: for those that are processes."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An account with a network and a balancer of somebody's, and the bucket of the ledger."""
    with on_aws(tmp_path_factory.mktemp("aws")) as place:
        bucket = {"LocationConstraint": control.REGION}
        client(place, "s3").create_bucket(Bucket="acme-releases", CreateBucketConfiguration=bucket)
        yield place


class OnAws(Story):
    def __init__(self, copied: Copied, **config: str) -> None:
        super().__init__(copied, "aws", **{**QUICK, **config})

    def stands_as_it_says(self) -> None:
        """The balancer has a way to the internet; machines have none, and are reached from the balancer alone."""
        ec2 = client(self.copied.place, "ec2")

        def gateways(subnet: str) -> set[str]:
            of_it = [{"Name": "association.subnet-id", "Values": [subnet]}]
            tables = ec2.describe_route_tables(Filters=of_it)["RouteTables"]
            return {route["GatewayId"] for table in tables for route in table["Routes"]}

        ids = {each.urn.rpartition("::")[2]: each.id for each in self.stack.records if "Subnet" in each.type}
        assert gateways(ids["public-a"]) == gateways(ids["public-b"]) == {"local", self.stack.record("gateway").id}
        assert gateways(ids["machines-a"]) == gateways(ids["machines-b"]) == set()
        inside = [{"Name": "vpc-id", "Values": [self.stack.record("vpc").id]}]
        # One may have been replaced: on a busy machine a program is not always there in time.
        machines = [
            each
            for reservation in ec2.describe_instances(Filters=inside)["Reservations"]
            for each in reservation["Instances"]
            if each["State"]["Name"] in ("pending", "running")
        ]
        assert {each["SubnetId"] for each in machines} <= {ids["machines-a"], ids["machines-b"]}
        (group,) = {each["GroupId"]: each for machine in machines for each in machine["SecurityGroups"]}.values()
        (rules,) = ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
        (permission,) = rules["IpPermissions"]
        assert (permission["FromPort"], permission["IpRanges"]) == (8080, [])
        (peer,) = permission["UserIdGroupPairs"]
        (balancer,) = [each.id for each in self.stack.records if each.urn.endswith("SecurityGroup::balancer")]
        assert peer["GroupId"] == balancer


_PREFIXES = {"elbv2": "elasticloadbalancing"}
_ACTIONS = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "sts:GetCallerIdentity": "",
}
"""The action that lets a call through, where it has another name (Service Authorization Reference)."""


@dataclass(frozen=True)
class Permissions:
    """What a role may do, by the actions' names."""

    actions: Sequence[str]

    @classmethod
    def of_role(cls, place: Place, arn: str) -> Permissions:
        iam, name = client(place, "iam"), arn.rpartition("/")[2]
        assert iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]
        policies = [
            iam.get_role_policy(RoleName=name, PolicyName=each)["PolicyDocument"]
            for each in iam.list_role_policies(RoleName=name)["PolicyNames"]
        ]
        return cls([action for policy in policies for each in policy["Statement"] for action in each["Action"]])

    def refused(self, place: Place, began: int) -> set[str]:
        """Which calls since then the role would not have been allowed."""
        done = {
            f"{_PREFIXES.get(each.service, each.service)}:{each.operation}" for each in place.shell.sandbox.calls(began)
        }
        wanted = {_ACTIONS.get(each, each) for each in done} - {""}
        return {each for each in wanted if not any(fnmatchcase(each, action) for action in self.actions)}


def test_story(place: Place, tmp_path: Path) -> None:
    """From nothing to a service and through its releases: a second, a bad one, back from the command line, a hold, a
    fourth, what was changed by hand, an interruption; and nothing is left."""
    copied = Copied.of("aws", tmp_path, place)
    before = copied.held()
    story = OnAws(
        copied,
        listenerPort=str(free_port()),
        releaser="arn:aws:iam::123456789012:user/ci",
        env=json.dumps({"GREETING": "good day"}),
    )
    first = story.begins(18)
    url = str(first.outputs["url"])
    assert requests.get(url, timeout=10).text == f"good day from {first.outputs['release']}\n"
    story.stands_as_it_says()
    lawful = Permissions.of_role(place, str(first.outputs["releaserRole"]))

    began = place.shell.sandbox.calls()[-1].number
    story.releases(LEDGER)
    assert lawful.refused(place, began) == set(), "what releases do, the role for them allows"

    group = story.stack.record("machines").id
    ec2 = client(place, "ec2")
    (rules,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rules["IpPermissions"])
    listener = story.stack.record("clients").id
    move_traffic(replace(place, inputs={"listenerArn": listener}), 50, 50)
    seen = story.stack.refresh()
    assert (seen.errors, seen.changes) == ([], {"refresh": 2})
    assert seen.step("machines").paths == {"ingress": "UPDATE"}
    assert story.brought("1.3.0").changes == {"update": 2}
    (again,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert again["IpPermissions"] == rules["IpPermissions"]

    story.ends()
    assert copied.held() == before


def test_on_a_balancer_that_is_there(place: Place, tmp_path: Path) -> None:
    """A network and a listener that are there are used as they are; of the network a security group alone is made, and
    goes. A listener of another network is refused."""
    copied = Copied.of("aws", tmp_path, place)
    before = copied.held()
    (listener,) = client(place, "elbv2").describe_listeners(ListenerArns=[place.inputs["listenerArn"]])["Listeners"]
    arn = listener["LoadBalancerArn"]
    (balancer,) = client(place, "elbv2").describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"]
    there = {"subnetIds": json.dumps(place.inputs["subnetIds"]), "listenerArn": str(place.inputs["listenerArn"])}
    copied.release("1.0.0")
    wrong = OnAws(copied, vpcId="vpc-0a1b2c3d4e5f60718", **there).preview()
    assert f"its balancer is in {balancer['VpcId']}, and vpcId is vpc-0a1b2c3d4e5f60718" in wrong.said()

    story = OnAws(copied, vpcId=balancer["VpcId"], host="orders.example.com", **there)
    done = story.up()
    assert (done.errors, done.changes) == ([], {"create": 4})
    assert done.outputs["dnsName"] == balancer["DNSName"]
    assert done.outputs["url"] == f"http://orders.example.com:{listener['Port']}"
    answer = requests.get(place.url, headers={"host": "orders.example.com"}, timeout=10)
    assert answer.headers["x-release"] == done.outputs["release"]
    assert requests.get(place.url, timeout=10).status_code == 404, "other hosts are not the service's"
    gone = story.stack.destroy()
    assert (gone.errors, gone.changes) == ([], {"delete": 4})
    assert copied.held() == before


def test_https(place: Place, tmp_path: Path) -> None:
    """With a certificate the listener is HTTPS, and there is one more that leads to it."""
    copied = Copied.of("aws", tmp_path, place)
    copied.release("1.0.0")
    certificate = "arn:aws:acm:eu-west-1:123456789012:certificate/1"
    planned = OnAws(copied, certificateArn=certificate).preview()
    assert (planned.errors, planned.changes) == ([], {"create": 17})
    assert {"clients", "to-https"} <= {each.name for each in planned.steps}


def test_the_role_may_tell_the_topics_that_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no others."""
    topic = "arn:aws:sns:eu-west-1:111122223333:rollouts"
    listener = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/web/1/2"
    with settings_of(STACKS / "aws", monkeypatch):
        releaser = importlib.import_module("releaser")
        monkeypatch.delitem(sys.modules, "releaser")
    allowed = releaser.permissions(listener, LEDGER, [topic])
    assert {"Effect": "Allow", "Action": ["sns:Publish"], "Resource": [topic]} in allowed
    assert "sns:" not in json.dumps(releaser.permissions(listener, LEDGER, []))


def test_gates_of_a_stack(place: Place, tmp_path: Path) -> None:
    """They are the deployment's, which says at its property what is wrong with one."""
    copied = Copied.of("aws", tmp_path, place)
    copied.release("1.0.0")
    metric = {"cloudwatch": "HTTPCode_Target_5XX_Count", "per": "RequestCount", "max": 0.01}
    said = {"bake": "10m", "notify": json.dumps([{"webhookVariable": "SLACK"}])}
    planned = OnAws(copied, gates=json.dumps([{"metric": metric}]), **said).preview()
    assert planned.errors == []
    refused = OnAws(copied, gates=json.dumps([{"metric": {**metric, "maxRatio": 2}}]), **said).preview()
    assert 'property gates[0].metric.maxRatio: needs against = "stable"' in refused.said()

"""The types of pulumi_aws that the stand-in serves, one by one, against the sandbox in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from osvdeploy.context import SystemClock
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.pulumi.standins import aws
from tests.pulumi.standins.cloud import Call, Document, fits
from tests.pulumi.standins.judging import lives_as_told

pytestmark = pytest.mark.sandbox

TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]})
NOTHING = {"type": "fixed-response", "fixedResponse": {"contentType": "text/plain", "statusCode": "404"}}
TLS = {"type": "redirect", "redirect": {"protocol": "HTTPS", "port": "443", "statusCode": "HTTP_301"}}
WEB = {"protocol": "tcp", "fromPort": 80.0, "toPort": 80.0, "cidrBlocks": ["0.0.0.0/0"]}
OUT = {"protocol": "-1", "fromPort": 0.0, "toPort": 0.0, "cidrBlocks": ["0.0.0.0/0"]}


class Scene:
    """An account, and what is in it by its names."""

    def __init__(self) -> None:
        self.sandbox = Sandbox(runner=InlineRunner(), speed=1000)
        account = aws.Account(connect(self.sandbox, SystemClock()))
        self.call = Call(lambda: account, Event())
        self.ids: dict[str, str] = {}

    def made(self, name: str, type: Any, /, **given: Any) -> str:
        self.ids[name] = type.create(self.call, given)
        return self.ids[name]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    scene = Scene()
    vpc = scene.made("vpc", aws.Vpc(), cidrBlock="10.0.0.0/16")
    gateway = scene.made("gateway", aws.InternetGateway(), vpcId=vpc)
    scene.made("table", aws.RouteTable(), vpcId=vpc, routes=[{"cidrBlock": "0.0.0.0/0", "gatewayId": gateway}])
    for zone in "ab":
        block = f"10.0.{ord(zone)}.0/24"
        scene.made(f"subnet {zone}", aws.Subnet(), vpcId=vpc, cidrBlock=block, availabilityZone=f"eu-west-1{zone}")
    group = scene.made("group", aws.SecurityGroup(), vpcId=vpc, name="all")
    subnets = [scene.ids["subnet a"], scene.ids["subnet b"]]
    scene.made("balancer", aws.LoadBalancer(), name="there", subnets=subnets, securityGroups=[group])
    scene.made("role", aws.Role(), name="there", assumeRolePolicy=TRUST)
    yield scene


@pytest.mark.parametrize(
    ("type", "given", "changed"),
    [
        (aws.Vpc(), {"cidrBlock": "10.1.0.0/16", "tags": {"a": "1"}}, {"tags": {"b": "2"}}),
        (aws.InternetGateway(), {"tags": {"a": "1"}}, {"tags": {}}),
        (aws.InternetGateway(), {"vpcId": "$other"}, {"tags": {"a": "1"}}),
        (
            aws.RouteTable(),
            {"vpcId": "$vpc", "routes": [{"cidrBlock": "0.0.0.0/0", "gatewayId": "$gateway"}]},
            {"routes": [{"cidrBlock": "192.0.2.0/24", "gatewayId": "$gateway"}], "tags": {"a": "1"}},
        ),
        (aws.RouteTableAssociation(), {"routeTableId": "$table", "subnetId": "$subnet a"}, {}),
        (aws.Subnet(), {"vpcId": "$vpc", "cidrBlock": "10.0.7.0/24"}, {"tags": {"a": "1"}}),
        (
            aws.SecurityGroup(),
            {"vpcId": "$vpc", "name": "web", "ingress": [WEB, {**WEB, "toPort": 90.0}], "tags": {"a": "1"}},
            {
                "ingress": [{"protocol": "tcp", "fromPort": 1.0, "toPort": 9.0, "securityGroups": ["$group"]}],
                "egress": [OUT],
            },
        ),
        (
            aws.LoadBalancer(),
            {"name": "web", "internal": True, "subnets": ["$subnet b", "$subnet a"], "securityGroups": ["$group"]},
            {"tags": {"a": "1"}},
        ),
        (
            aws.Listener(),
            {"loadBalancerArn": "$balancer", "port": 8080.0, "protocol": "HTTP", "defaultActions": [NOTHING]},
            {"defaultActions": [TLS], "port": 8081.0, "tags": {"a": "1"}},
        ),
        (
            aws.Role(),
            {"name": "ci", "assumeRolePolicy": TRUST, "description": "x", "path": "/osv/"},
            {"assumeRolePolicy": TRUST.replace("AssumeRole", "TagSession")},
        ),
        (
            aws.RolePolicy(),
            {"role": "$role", "name": "p", "policy": TRUST},
            {"policy": TRUST.replace("Allow", "Deny")},
        ),
    ],
    ids=lambda value: value.token.rpartition("/")[2] if hasattr(value, "token") else "",
)
def test_lives_as_it_is_told(scene: Scene, type: Any, given: Document, changed: Document) -> None:
    """From its making on, through a change, until it is gone."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: named(each) for name, each in value.items()}
        if isinstance(value, list):
            return [named(each) for each in value]
        return scene.ids[value[1:]] if isinstance(value, str) and value.startswith("$") else value

    if "other" in str(given):
        scene.made("other", aws.Vpc(), cidrBlock="10.9.0.0/16")
    lives_as_told(scene.sandbox, scene.call, type, named(given), named(changed))


@pytest.mark.parametrize(
    ("wanted", "there", "fit"),
    [
        ({"a": 1.0}, {"a": 1, "b": 2}, True),
        ({"a": 1.0}, {"a": 2}, False),
        ([1, 2], [2, 1], True),
        ([1], [1, 1], False),
        ([1, 1], [1, 2], False),
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', True),
        ('{"a": 1}', '{"a": 2}', False),
        ({}, None, True),
        (False, None, True),
        (0.0, None, False),
        ({"a": []}, {}, True),
    ],
)  # fmt: skip
def test_what_fits(wanted: Any, there: Any, fit: bool) -> None:
    """The cloud may say more, in another order and another spelling; not less and nothing else."""
    assert fits(wanted, there) is fit

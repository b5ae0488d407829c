"""adopt as a user meets it: a group that was made by hand, the first deploy beside it, and all of it given back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.alive import until
from tests.cli.test_bad_input import Account, User, account, customer, guest, refused, user  # noqa: F401 (fixtures, found by their names)
from tests.contract import aws_scene

pytestmark = pytest.mark.slow

GROUP = "legacy"


@dataclass(frozen=True)
class Clients:
    """What somebody else works with."""

    ec2: Any
    elbv2: Any
    autoscaling: Any


@pytest.fixture
def legacy(account: Account, guest: User) -> Iterator[User]:  # noqa: F811 (fixtures)
    """Somebody's group has every request of the listener, by a rule at 500."""
    ran = guest.run("publish")
    assert ran.code == 0, ran.stderr
    clients: Any = Clients(account.client("ec2"), account.client("elbv2"), account.client("autoscaling"))
    listener = account.variables["LISTENER"]
    subnets = (account.variables["SUBNET_A"], account.variables["SUBNET_B"])
    aws_scene.plant_service(clients, listener, GROUP, ran.stdout.strip(), subnets, 500)
    [target] = clients.elbv2.describe_target_groups(Names=[GROUP])["TargetGroups"]

    def healthy() -> int:
        found = clients.elbv2.describe_target_health(TargetGroupArn=target["TargetGroupArn"])
        return sum(each["TargetHealth"]["State"] == "healthy" for each in found["TargetHealthDescriptions"])

    until(lambda: healthy() == 2, 60)
    yield guest
    for rule in clients.elbv2.describe_rules(ListenerArn=listener)["Rules"]:
        if rule["Priority"] == "500":
            clients.elbv2.delete_rule(RuleArn=rule["RuleArn"])
    clients.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=GROUP, ForceDelete=True)
    until(lambda: not clients.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"], 60)
    clients.elbv2.delete_target_group(TargetGroupArn=target["TargetGroupArn"])
    clients.ec2.delete_launch_template(LaunchTemplateName=GROUP)


def test_a_group_made_by_hand_is_adopted_deployed_beside_and_given_back(legacy: User) -> None:
    """Each command says what stays somebody else's."""
    refused(legacy.run("deploy"), 2, "500", "would take them away", hint="--adopt GROUP")
    looked = legacy.run("adopt", "--group", GROUP, "--dry-run", "--json")
    assert looked.code == 0, looked.stderr
    assert looked.document["dry_run"] is True and "500" in looked.document["led_by"]
    assert not legacy.ledger.exists()

    ran = legacy.run("adopt", "--group", GROUP, "--json")
    assert ran.code == 0, ran.stderr
    assert ran.document["outcome"] == "succeeded" and ran.document["group"] == GROUP
    assert legacy.run("adopt", "--group", GROUP).code == 0
    shown = legacy.run("status", "--json").document
    assert [slot["adopted"] for slot in shown["slots"]] == [True, False]
    assert "was adopted" in legacy.run("status").stdout
    assert legacy.run("drift").code == 0, legacy.run("drift").stdout

    assert legacy.run("deploy", "--adopt", GROUP).code == 0
    would = legacy.run("destroy", "--dry-run", "--json").document
    assert would["kept"] == [GROUP] and GROUP not in would["groups"]
    assert legacy.run("destroy", "--yes").code == 0


def test_what_cannot_be_adopted_is_told_with_what_to_do(legacy: User) -> None:
    """Before anything is made; and options that say nothing together."""
    refused(legacy.run("adopt", "--group", "nobody"), 2, "nobody", "no group of that name", hint="Auto Scaling group")
    ran = legacy.run("adopt", "--group", GROUP, "--set", "deploy.test.route.priority=500")
    refused(ran, 2, "500", hint="choose `route.priority = 499`")
    elsewhere = ("--set", "deploy.test.route.path=/api/*", "--set", "deploy.test.health.path=/api/healthz")
    ran = legacy.run("adopt", "--group", GROUP, *elsewhere)
    refused(ran, 2, "is sent other requests", hint="route.path")
    refused(legacy.run("adopt", "--group", GROUP, "--from-cloud"), 2, "what is to be adopted?", hint="one of both")
    refused(legacy.run("adopt", "--from-cloud", "--own"), 2, "--own", hint="leave them out")
    assert not legacy.ledger.exists()

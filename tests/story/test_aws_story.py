"""The story on AWS in the sandbox, in process and in virtual time: from bytes to traffic, and back to nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.cloud.elb_tags import text_of
from osvdeploy.cloud.interfaces import Slot
from osvdeploy.cloud.tags import LEDGER
from osvdeploy.rollout.model import Outcome, Stage
from osvdeploy.rollout.releases import Release, StrategyKind, TrafficStep
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.wire import Call
from tests.aws_world import AwsWorld
from tests.contract.aws_scene import scale_group
from tests.rollout.made import SETTINGS
from tests.world import ABORTING, BAD, GOOD

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> AwsWorld:
    return AwsWorld(tmp_path)


def serving(world: AwsWorld) -> str | None:
    return world.answer().headers.get("x-release")


def test_blue_green_and_back(world: AwsWorld) -> None:
    """Two good releases, a bad one, an aborting one, a warm and a cold rollback, and nothing left at the end."""
    first = world.build("1.0.0")
    assert world.deploy(first).outcome is Outcome.SUCCEEDED
    assert serving(world) == first.id

    second = world.build("1.1.0")
    assert world.deploy(second).outcome is Outcome.SUCCEEDED
    assert serving(world) == second.id

    bad = world.build("1.2.0", BAD)
    outcome = world.deploy(bad)
    assert outcome.exit_code == 3 and "[500]" in outcome.told
    assert serving(world) == second.id

    aborting = world.build("1.3.0", ABORTING)
    began = world.clock.monotonic()
    outcome = world.deploy(aborting)
    assert outcome.exit_code == 3 and "boot log" in outcome.told and "Aborted" in outcome.told
    assert outcome.run is not None and outcome.run.ended is not None
    assert world.clock.monotonic() - began < 200
    assert serving(world) == second.id

    third = world.build("1.4.0")
    assert world.deploy(third).outcome is Outcome.SUCCEEDED

    before = len(world.calls())
    outcome = world.rollback()
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.warm
    changes = [
        call for call in world.calls(before) if not call.partition(".")[2].startswith(("Describe", "Get", "List"))
    ]
    assert changes[0] == "elbv2.ModifyRule" and set(changes[1:]) <= {"autoscaling.DeleteAutoScalingGroup"}
    assert serving(world) == second.id

    assert world.rollback(first).outcome is Outcome.SUCCEEDED
    assert serving(world) == first.id

    here = world.process()
    here.manager.destroy(here.ctx)
    world.wait(600)
    held = world.held()
    assert set(held) <= {"image", "snapshot"}, held


def changes(world: AwsWorld, since: int) -> list[str]:
    """What the sandbox was asked to change, but for the ledger's own writes."""
    reading = ("Describe", "Get", "List", "Head")
    calls = (call.partition(".") for call in world.calls(since))
    return [f"{service} {name}" for service, _, name in calls if service != "s3" and not name.startswith(reading)]


def test_a_run_keeps_the_calls_that_changed_the_cloud(world: AwsWorld) -> None:
    """In order, refused ones too: what was asked of the account stands beside what was decided."""
    first = world.build("1.0.0")
    world.publish(first)
    before = len(world.calls())
    here = world.process()
    outcome = here.manager.deploy(here.ctx, first)
    assert outcome.run is not None
    assert [f"{each.service} {each.operation}" for each in outcome.run.calls] == changes(world, before)
    kept = world.ledger.head(here.ctx)
    assert kept is not None and kept.run is not None and kept.run.calls == outcome.run.calls
    assert all(each.error is None and each.at >= outcome.run.started for each in outcome.run.calls)


def rules(world: AwsWorld, release: Release) -> dict[str, Any]:
    """What scales the release's group, as AWS tells it, but for what names it and its own ARNs."""
    asg, name = world.session.client("autoscaling"), world.group_of(release)
    [group] = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    policies = asg.describe_policies(AutoScalingGroupName=name)["ScalingPolicies"]
    actions = asg.describe_scheduled_actions(AutoScalingGroupName=name)["ScheduledUpdateGroupActions"]
    hooks = asg.describe_lifecycle_hooks(AutoScalingGroupName=name)["LifecycleHooks"]
    own = ("AutoScalingGroupName", "PolicyARN", "Alarms", "ScheduledActionARN")
    [requests] = [each for each in policies if each["PolicyName"] == "requests"]
    metric = requests["TargetTrackingConfiguration"]["PredefinedMetricSpecification"]
    assert metric.pop("ResourceLabel").endswith(group["TargetGroupARNs"][0].rpartition(":")[2])
    return {
        "sizes": [group[field] for field in ("MinSize", "DesiredCapacity", "MaxSize", "DefaultCooldown")],
        "suspended": sorted(each["ProcessName"] for each in group["SuspendedProcesses"]),
        "metrics": group["EnabledMetrics"],
        "rules": sorted(
            ({key: value for key, value in each.items() if key not in own} for each in (*policies, *actions, *hooks)),
            key=str,
        ),
    }


PAUSED = ["AZRebalance", "AlarmNotification", "ScheduledActions"]


def test_a_service_that_scales_keeps_its_scaling(tmp_path: Path) -> None:
    """From release to release, with its size of the moment; a bad one leaves the stable group with exactly what it had,
    and while traffic is away nothing makes that group smaller."""
    world = AwsWorld(tmp_path, strategy=replace(SETTINGS.strategy, bake=60.0))
    first = world.build("1.0.0")
    assert world.deploy(first).outcome is Outcome.SUCCEEDED
    asg, name = world.session.client("autoscaling"), world.group_of(first)
    scale_group(asg, name, 1, 6, world.network.listener)
    asg.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=3)
    world.wait(60)
    before = rules(world, first)
    assert before["sizes"] == [1, 3, 6, 120] and before["suspended"] == [] and len(before["rules"]) == 5

    second = world.build("1.1.0")
    outcome = world.deploy(second)
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.capacity == 3
    assert rules(world, second) == before
    assert rules(world, first) == {**before, "suspended": PAUSED}

    # A load of the night comes just when traffic has left: the group keeps its machines.
    shifted: list[str] = []

    def night(moment: Moment, call: Call) -> None:
        if call.operation == "ModifyRule" and moment is Moment.AFTER and not shifted:
            shifted.append(call.operation)
            asg.put_scheduled_update_group_action(
                AutoScalingGroupName=world.group_of(second),
                ScheduledActionName="now",
                StartTime=world.clock.now() + timedelta(seconds=5),
                DesiredCapacity=1,
            )

    breaking = world.build("1.2.0", {**GOOD, "phases": [{"after": 40, "answers": {"*": 500}}]})
    world.sandbox.hook = night
    outcome = world.deploy(breaking)
    world.sandbox.hook = None
    assert outcome.exit_code == 3 and shifted and outcome.run is not None and outcome.run.shifted is not None
    assert rules(world, second) == before
    assert serving(world) == second.id

    calls = len(world.calls())
    assert world.rollback(first).outcome is Outcome.SUCCEEDED
    assert rules(world, first) == before
    changes = [
        call for call in world.calls(calls) if not call.partition(".")[2].startswith(("Describe", "Get", "List"))
    ]
    assert "autoscaling.SuspendProcesses" not in changes


def test_a_maximum_that_is_raised_under_a_canary_is_the_new_group_s(tmp_path: Path) -> None:
    """Somebody lets what serves grow while it shares its traffic: all of it is on as many machines in the end, and the
    group that has it may grow as far. What the rollout had suspended is not."""
    steps = (TrafficStep(10, 120.0), TrafficStep(100))
    world = AwsWorld(tmp_path, strategy=replace(SETTINGS.strategy, kind=StrategyKind.CANARY, steps=steps, bake=30.0))
    first = world.build("1.0.0")
    assert world.deploy(first).outcome is Outcome.SUCCEEDED
    asg, name = world.session.client("autoscaling"), world.group_of(first)
    scale_group(asg, name, 1, 4, world.network.listener)
    world.wait(30)
    second, raised = world.build("1.1.0"), list[str]()

    def raises(moment: Moment, call: Call) -> None:
        run = world.head.run
        if not raised and run is not None and run.candidate == second.id and run.stage is Stage.BAKE:
            raised.append(call.operation)
            asg.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=12, DesiredCapacity=7)

    world.sandbox.hook = raises
    outcome = world.deploy(second)
    world.sandbox.hook = None
    assert outcome.outcome is Outcome.SUCCEEDED and raised
    world.wait(60)
    found = rules(world, second)
    assert found["sizes"] == [1, 7, 12, 120] and found["suspended"] == []
    assert rules(world, first) == {**found, "suspended": PAUSED}


def test_a_rollout_s_record_names_the_place(world: AwsWorld) -> None:
    """The head holds all that rollback and destroy need: account, region, listener, rules, backends."""
    world.deploy(world.build("1.0.0"))
    place = world.head.place
    assert place is not None
    assert place.cloud == "aws" and place.region == "eu-west-1" and place.account == world.sandbox.account
    assert place.route.listener == world.network.listener
    assert world.head.serving is Slot.BLUE


def test_healthy_machines_of_others_in_its_slot_do_not_make_a_release_well(world: AwsWorld) -> None:
    """Somebody attached the group that serves to the other target group, too, and nothing names a release: one whose
    machines all answer 500 gets no traffic."""
    world.settings = replace(world.settings, health=replace(world.settings.health, version_header=None))
    first = world.build("1.0.0")
    world.deploy(first)
    elb, asg = world.session.client("elbv2"), world.session.client("autoscaling")
    [idle] = [each for each in elb.describe_target_groups()["TargetGroups"] if "green" in each["TargetGroupName"]]
    group = world.group_of(first)
    asg.attach_load_balancer_target_groups(AutoScalingGroupName=group, TargetGroupARNs=[idle["TargetGroupArn"]])
    world.wait(60)
    ended = world.deploy(world.build("1.1.0", BAD))
    assert ended.outcome is Outcome.ROLLED_BACK and ended.run is not None and not ended.run.moves
    assert "0 of 2 healthy" in ended.told and "2 of others than" in ended.told


@pytest.mark.parametrize("ledger", ["~/ledgers/acme", "/srv/ledger (prod)", "s3://acme/o~neil"])
def test_a_ledger_may_be_called_as_its_owner_likes(ledger: str, world: AwsWorld) -> None:
    """A balancer's tags take fewer characters than a directory's name has: what is found by them names it as it is."""
    world.settings = replace(world.settings, ledger=ledger)
    for version in ("1.0.0", "1.1.0"):
        assert world.deploy(world.build(version)).outcome is Outcome.SUCCEEDED
    here, place = world.process(), world.head.place
    assert place is not None
    [found] = here.cloud.router.find(here.ctx, place.route.service, place.route.key)
    assert found.tags[LEDGER] == ledger
    elb = world.session.client("elbv2")
    arns = [each["TargetGroupArn"] for each in elb.describe_target_groups()["TargetGroups"]]
    told = [tag for each in elb.describe_tags(ResourceArns=arns)["TagDescriptions"] for tag in each["Tags"]]
    [value] = {tag["Value"] for tag in told if tag["Key"] == LEDGER}
    assert text_of(value) == ledger != value
    assert world.rollback().outcome is Outcome.SUCCEEDED

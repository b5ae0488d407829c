"""What has gone wrong in other tools, where only the balancers and groups of a real API can tell (test_stories.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from osvdeploy.rollout.model import Outcome, Request, RequestKind
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.wire import Call
from tests.aws_world import REGION, AwsWorld
from tests.contract.aws_scene import scale_group
from tests.faults.matrix import Site
from tests.faults.scenarios import SITES, AwsSite
from tests.world import BAD, GOOD

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


@pytest.fixture
def world(tmp_path: Path) -> AwsWorld:
    return AwsWorld(tmp_path)


def image_of(world: AwsWorld, machine: dict[str, Any]) -> str:
    [found] = world.session.client("ec2").describe_images(ImageIds=[machine["ImageId"]])["Images"]
    return str(found["Name"])


def machines(world: AwsWorld, group: str) -> list[dict[str, Any]]:
    asg, ec2 = world.session.client("autoscaling"), world.session.client("ec2")
    [found] = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
    ids = [each["InstanceId"] for each in found["Instances"]]
    reserved = ec2.describe_instances(InstanceIds=ids)["Reservations"] if ids else []
    return [each for reservation in reserved for each in reservation["Instances"]]


def test_a_release_that_answers_as_the_old_one_does_not_serve(world: AwsWorld) -> None:
    """Healthy, 200, and the wrong program: its answers say who they are from."""
    first = world.build("1.0.0")
    world.deploy(first)
    wrong = world.build("1.1.0", {**GOOD, "headers": {"x-release": first.id}})
    ended = world.deploy(wrong)
    assert ended.exit_code == 3 and first.id in ended.told
    assert world.answer().headers["x-release"] == first.id
    assert world.head.stable is not None and world.head.stable.release == first.id


def test_no_way_back_ever_boots_the_image_that_failed(world: AwsWorld) -> None:
    """What serves has a template of its own. A machine of it that is replaced after a failed deploy boots the same
    image as before, and so does a cold rollback."""
    first = world.build("1.0.0")
    world.deploy(first)
    assert world.deploy(world.build("1.1.0", BAD)).outcome is Outcome.ROLLED_BACK
    group = world.group_of(first)
    before = machines(world, group)
    world.session.client("ec2").terminate_instances(InstanceIds=[before[0]["InstanceId"]])
    world.wait(300)
    after = machines(world, group)
    assert len(after) == 2 and {each["InstanceId"] for each in after} != {each["InstanceId"] for each in before}
    assert {image_of(world, each) for each in after} == {first.id}
    second = world.build("1.2.0")
    world.deploy(second)
    world.rollback(first)
    world.wait(60)
    world.rollback(second)
    world.wait(60)
    assert world.rollback(first).outcome is Outcome.SUCCEEDED
    assert {image_of(world, each) for each in machines(world, world.group_of(first))} == {first.id}


def test_the_idle_slot_stays_in_the_rule_at_weight_0_and_is_checked(world: AwsWorld) -> None:
    """A target group that no rule names is not checked, and could not be gone back to at once."""
    world.deploy(world.build("1.0.0"))
    world.deploy(world.build("1.1.0"))
    elb = world.session.client("elbv2")
    rules = elb.describe_rules(ListenerArn=world.network.listener)["Rules"]
    [rule] = [each for each in rules if each["Priority"] == str(world.settings.priority)]
    pairs = rule["Actions"][0]["ForwardConfig"]["TargetGroups"]
    assert sorted(each["Weight"] for each in pairs) == [0, 100]
    for pair in pairs:
        health = elb.describe_target_health(TargetGroupArn=pair["TargetGroupArn"])["TargetHealthDescriptions"]
        assert [each["TargetHealth"]["State"] for each in health] == ["healthy", "healthy"]


def test_a_failed_deploy_leaves_the_sizes_of_what_serves_as_they_were(world: AwsWorld) -> None:
    """Least, wanted and most, and what scales it."""
    first = world.build("1.0.0")
    world.deploy(first)
    asg, group = world.session.client("autoscaling"), world.group_of(first)
    scale_group(asg, group, 1, 6, world.network.listener)
    world.wait(30)

    def sizes() -> tuple[object, ...]:
        [found] = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
        suspended = sorted(each["ProcessName"] for each in found["SuspendedProcesses"])
        return found["MinSize"], found["DesiredCapacity"], found["MaxSize"], suspended

    before = sizes()
    assert world.deploy(world.build("1.1.0", BAD)).outcome is Outcome.ROLLED_BACK
    assert sizes() == before


def test_a_rollback_while_somebody_resizes_what_serves_ends_none_of_its_machines(world: AwsWorld) -> None:
    """By hand, in mid-rollback: the group that traffic comes from is as large as they said, until traffic has left."""
    first = world.build("1.0.0")
    world.deploy(first)
    second = world.build("1.1.0")
    world.deploy(second)
    asg, group = world.session.client("autoscaling"), world.group_of(second)
    seen: list[int] = []

    def resize(moment: Moment, call: Call) -> None:
        if moment is Moment.BEFORE and call.operation == "DescribeRules" and not seen:
            seen.append(0)
            world.sandbox.hook = None
            asg.update_auto_scaling_group(AutoScalingGroupName=group, MaxSize=4, DesiredCapacity=4)
            world.sandbox.hook = resize
        if moment is Moment.BEFORE and call.operation == "ModifyRule":
            found = world.sandbox.store.begin().get(REGION, "autoscaling.group", group)
            assert found is not None
            seen.append(int(found["DesiredCapacity"]))

    world.sandbox.hook = resize
    assert world.rollback().outcome is Outcome.SUCCEEDED
    world.sandbox.hook = None
    assert seen == [0, 4]
    assert world.answer().headers["x-release"] == first.id


@pytest.mark.parametrize("kind", SITES)
def test_a_fix_is_rolled_out_over_machines_that_are_all_sick(kind: str, tmp_path: Path) -> None:
    """On both clouds' groups: what serves has no healthy machine, and is not waited for."""
    site: Site = SITES[kind](tmp_path)
    site.made("1.0.0", {**GOOD, "phases": [{"after": 120, "answers": {"*": 500}}]})
    assert site.deploy("1.0.0").exit_code == 0
    site.world.wait(240)
    assert site.ask() is None
    site.made("1.1.0")
    assert site.deploy("1.1.0").exit_code == 0
    assert site.ask() == site.names["1.1.0"]


@pytest.mark.parametrize("kind", SITES)
def test_gc_keeps_the_image_of_every_group_that_may_start_machines(kind: str, tmp_path: Path) -> None:
    """However few are to be kept: what serves and what is warm replace their machines from it."""
    site: Site = SITES[kind](tmp_path)
    site.put_into_service("1.0.0", "1.1.0", "1.2.0")
    site.gc()
    held = site.standing()
    images = str(held.get("image", held.get("compute.image")))
    for version in ("1.1.0", "1.2.0"):
        assert version in images or version.replace(".", "-") in images
    assert site.rollback().exit_code == 0
    assert site.ask() == site.names["1.1.0"]


@pytest.mark.parametrize("kind", SITES)
def test_gc_waits_for_a_cloud_that_cannot_now(kind: str, tmp_path: Path) -> None:
    """Of hundreds of images to go some are throttled, more often than one call is repeated."""
    site: Site = SITES[kind](tmp_path)
    site.put_into_service("1.0.0", "1.1.0", "1.2.0")
    site.world.wait(2 * 3600)
    site.world.sandbox.faults.add(
        Fault({"aws": "DeregisterImage"}.get(kind, "images.delete"), FaultKind.THROTTLED, times=6)
    )
    site.gc()
    assert not site.world.sandbox.faults.waiting()
    held = site.standing()
    images = str(held.get("image", held.get("compute.image")))
    assert "1.0.0" not in images and "1-0-0" not in images


def test_a_cancelled_deploy_never_ends_with_no_machines(tmp_path: Path) -> None:
    """Neither of the group that serves nor of its balancer's healthy targets."""
    site = AwsSite(tmp_path)
    site.new("1.0.0")
    here = site.place.process(site.limits)
    said: list[int] = []

    def cancel(moment: Moment, call: Call) -> None:
        run = site.world.head.unfinished if not said and call.mutating else None
        if run is not None and moment is Moment.AFTER and call.operation == "CreateAutoScalingGroup":
            said.append(1)
            asked = site.place.process(site.limits)
            now = site.world.clock.now()
            site.world.ledger.ask(asked.ctx, run.id, Request(RequestKind.ABORT, "ann@desk", now, run.step))

    site.world.sandbox.hook = cancel
    ended = here.manager.deploy(here.ctx, site.releases["new"])
    site.world.sandbox.hook = None
    assert ended.outcome is Outcome.ABORTED and said
    assert set(site.carrying().values()) == {2}
    site.world.wait(300)
    assert site.ask() == site.names["1.0.0"] and len(site.groups()) == 1

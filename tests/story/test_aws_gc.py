"""What `osvdeploy gc` takes on AWS, and what of it others have, over the simulated API."""

from __future__ import annotations

from typing import Any

import pytest

from osvdeploy.api import services, wiring
from osvdeploy.api.declared import Service
from osvdeploy.errors import Refused
from osvdeploy.events import Warned
from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.retention import Garbage
from osvdeploy.sandbox.faults import Fault, FaultKind
from tests.aws_world import AwsWorld
from tests.world import Prepared

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

HOUR = 3600.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Prepared[AwsWorld]:
    world = AwsWorld(tmp_path_factory.mktemp("served"))
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        assert world.deploy(world.build(version)).outcome is Outcome.SUCCEEDED
    world.wait(2 * HOUR)
    return Prepared(world)


@pytest.fixture
def world(served: Prepared[AwsWorld]) -> AwsWorld:
    """1.0.0 and 1.1.0 served once, two hours ago; 1.2.0 serves."""
    return served.again()


def gc(world: AwsWorld, *, dry_run: bool = False) -> Garbage:
    """Keeping one release."""
    here = world.process()
    service = Service("hello", "production", str(world.folder / "ledger"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(wiring, "ground", lambda *_: here.cloud)
        return services.gc(here.ctx, service, keep=1, dry_run=dry_run)


def images(world: AwsWorld) -> dict[str, str]:
    """AMIs of the account by their names, of which a release's is told by its version alone."""
    found = world.session.client("ec2").describe_images(Owners=["self"])["Images"]
    return {each["Name"][:11] + "*" * (len(each["Name"]) > 11): each["ImageId"] for each in found}


def template(world: AwsWorld, name: str, *versions: str) -> str:
    """Somebody's own launch template."""
    ec2: Any = world.session.client("ec2")
    first, *others = [{"ImageId": image, "InstanceType": "t3.nano"} for image in versions]
    made = ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=first)
    for data in others:
        ec2.create_launch_template_version(LaunchTemplateName=name, LaunchTemplateData=data)
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def test_what_no_release_needs_and_nobody_has_goes(world: AwsWorld) -> None:
    """Our own templates, groups and machines are no reason to keep anything, whether they go or stay."""
    found = gc(world)
    assert {image.name[:11] for image, _ in found.images} == {"hello-1.0.0", "hello-1.1.0"}
    assert len(found.images) == len(found.disks) == 4 and found.kept == ()
    world.wait(600)
    assert set(images(world)) == {"hello-1.2.0", "hello-1.2.0*"}


def test_a_group_of_others_can_go_on_starting_machines(world: AwsWorld) -> None:
    """It is pinned to an older version of its template; a dry run tells of it too, and afterwards it scales out."""
    held = images(world)["hello-1.0.0*"]
    of = template(world, "batch", images(world)["hello-1.2.0*"], held, images(world)["hello-1.2.0*"])
    scaling: Any = world.session.client("autoscaling")
    scaling.create_auto_scaling_group(
        AutoScalingGroupName="batch",
        LaunchTemplate={"LaunchTemplateName": "batch", "Version": "2"},
        MinSize=0,
        MaxSize=2,
        VPCZoneIdentifier=",".join(world.network.subnets),
    )
    for dry_run in (True, False):
        found = gc(world, dry_run=dry_run)
        assert {image.name[:11] for image, _ in found.images} == {"hello-1.1.0"}
        [kept] = found.kept
        assert (kept.image.id, kept.users) == (held, (f"launch template batch ({of}), version 2",))
    world.wait(600)
    assert set(images(world)) == {"hello-1.0.0", "hello-1.0.0*", "hello-1.2.0", "hello-1.2.0*"}
    scaling.update_auto_scaling_group(AutoScalingGroupName="batch", DesiredCapacity=2)
    world.wait(600)
    [group] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["batch"])["AutoScalingGroups"]
    assert [each["LifecycleState"] for each in group["Instances"]] == ["InService"] * 2


def test_who_starts_a_machine_by_hand_has_its_image(world: AwsWorld) -> None:
    """Until it is gone."""
    ec2: Any = world.session.client("ec2")
    held = images(world)["hello-1.1.0*"]
    [made] = ec2.run_instances(
        ImageId=held, InstanceType="t3.nano", MinCount=1, MaxCount=1, SubnetId=world.network.subnets[0]
    )["Instances"]
    [kept] = gc(world, dry_run=True).kept
    assert (kept.image.id, kept.users) == (held, (f"instance {made['InstanceId']}",))
    ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
    world.wait(600)
    assert gc(world, dry_run=True).kept == ()


def test_who_may_not_look_loses_no_image(world: AwsWorld) -> None:
    """All else goes, and what to allow is what the command ends with; the next one that may takes the images too."""
    before = images(world)
    world.sandbox.faults.add(Fault("DescribeInstances", FaultKind.DENIED, times=2))
    found = gc(world, dry_run=True)
    with pytest.raises(Refused, match="DescribeInstances"):
        gc(world)
    assert not found.images and not found.disks and len(found.templates) == 2 and len(found.groups) == 1
    assert len(found.kept) == 4 and all("allow the action DescribeInstances" in each.why for each in found.kept)
    warned = [event for event in world.recorder.events if isinstance(event, Warned)]
    assert any("images stay" in event.text and "DescribeInstances" in str(event.hint) for event in warned)
    assert images(world) == before
    world.wait(600)
    [template] = world.session.client("ec2").describe_launch_templates()["LaunchTemplates"]
    [group] = world.session.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert template["LaunchTemplateName"] == group["AutoScalingGroupName"]
    assert len(gc(world).images) == 4


def test_a_sweep_that_finds_no_image_asks_nobody(world: AwsWorld) -> None:
    gc(world)
    world.wait(600)
    since = len(world.sandbox.calls())
    assert gc(world).empty
    assert not {"ec2.DescribeInstances", "ec2.DescribeLaunchTemplateVersions"} & set(world.calls(since))

"""Whatever is done to a group in whatever order, it ends where it was told to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox.dataplane import SendTo
from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services import elbv2
from tests.sandbox.test_autoscaling import NAME, create, group, members, served, targets
from tests.sandbox.test_elbv2 import forward, target_group
from tests.sandbox.volumes import declared, volume
from tests.sandbox.world import World

pytestmark = pytest.mark.slow

Deed = Callable[[World], object]
PROCESSES = ["Launch", "Terminate", "HealthCheck", "ReplaceUnhealthy", "AddToLoadBalancer"]


def stop_one(world: World) -> None:
    for name, state in members(world).items():
        if state == "InService" and world.ec2.instances[name].state == "running":
            return world.ec2.stop(name)
    return None


def end_one(world: World) -> None:
    for name in members(world):
        world.asg("TerminateInstanceInAutoScalingGroup", InstanceId=name, ShouldDecrementDesiredCapacity=False)
        return


def set_image(world: World, good: bool) -> None:
    world.ec2.images["ami-1"] = volume({"/app": declared() if good else declared(boot="abort")})


deeds: st.SearchStrategy[Deed] = st.one_of(
    st.integers(0, 4).map(
        lambda n: lambda w: w.asg("SetDesiredCapacity", AutoScalingGroupName=NAME, DesiredCapacity=n)
    ),
    st.sampled_from(PROCESSES).map(
        lambda p: lambda w: w.asg("SuspendProcesses", AutoScalingGroupName=NAME, ScalingProcesses=[p])
    ),
    st.sampled_from(PROCESSES).map(
        lambda p: lambda w: w.asg("ResumeProcesses", AutoScalingGroupName=NAME, ScalingProcesses=[p])
    ),
    st.booleans().map(lambda good: lambda w: set_image(w, good)),
    st.sampled_from([stop_one, end_one]),
    st.floats(0.1, 60).map(lambda seconds: lambda w: w.wait(seconds)),
)


@given(st.lists(deeds, max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_group_ends_with_what_is_desired_and_leaves_nothing_behind(done: list[Deed]) -> None:
    """After any deeds, once all processes run and the image is good: the desired number in service and healthy in the
    target group; after its deletion no instance, no target."""
    world = World()
    _, blue = served(world, draining="20")
    create(world, TargetGroupARNs=[blue])
    for deed in done:
        try:
            deed(world)
        except ApiError as refused:
            assert refused.code == "ScalingActivityInProgress"
        assert len(world.ec2.living()) <= 4 + list(members(world).values()).count("Terminating")
    set_image(world, good=True)
    world.asg("ResumeProcesses", AutoScalingGroupName=NAME)
    world.asg("UpdateAutoScalingGroup", AutoScalingGroupName=NAME, HealthCheckType="ELB")
    world.wait(400)
    shown = group(world)
    assert shown is not None
    assert list(members(world).values()) == ["InService"] * shown["DesiredCapacity"]
    assert set(world.ec2.living()) == set(members(world))
    assert {name for name, state in targets(world, blue).items() if state == "healthy"} <= set(members(world))
    world.asg("DeleteAutoScalingGroup", AutoScalingGroupName=NAME, ForceDelete=True)
    world.wait(60)
    assert group(world) is None
    assert world.ec2.living() == []
    assert targets(world, blue) == {}


@given(st.lists(st.tuples(st.sampled_from([(1, 0), (0, 1), (50, 50)]), st.floats(0, 6)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_no_switch_loses_a_request(switches: list[tuple[tuple[int, int], float]]) -> None:
    """With both slots healthy, any sequence of switches, however quick, always finds a target, and the last one given
    is in force in the end."""
    world = World()
    listener, blue = served(world)
    green = target_group(world, "green")
    names = {}
    world.elb("ModifyListener", ListenerArn=listener, DefaultActions=forward((blue, 1), (green, 0)))
    for arn in (blue, green):
        names[arn] = world.ec2.run()
        world.elb("RegisterTargets", TargetGroupArn=arn, Targets=[{"Id": names[arn]}])
    world.wait(20)
    for (to_blue, to_green), pause in switches:
        world.elb("ModifyListener", ListenerArn=listener, DefaultActions=forward((blue, to_blue), (green, to_green)))
        for _ in range(3):
            world.wait(pause / 3)
            assert all(isinstance(world.decide(listener, draw=draw), SendTo) for draw in (0.1, 0.6))
    world.wait(elbv2.RULES_REACH_DATA_PLANE)
    (to_blue, to_green), _ = switches[-1]
    serving = {world.decide(listener, draw=number / 10) for number in range(10)}
    wanted = {names[arn] for arn, weight in ((blue, to_blue), (green, to_green)) if weight}
    assert {each.target.id for each in serving if isinstance(each, SendTo)} == wanted

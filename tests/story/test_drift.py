"""What somebody changes behind a service's back, on AWS and on Google: found, said, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from osvdeploy.api import Service, services, wiring
from osvdeploy.api.drifting import differing
from osvdeploy.cloud.gcp.backends import write
from osvdeploy.cloud.gcp.scope import address_of, link_of
from osvdeploy.cloud.interfaces import Slot
from osvdeploy.rollout.drifting import Drift, DriftKind
from osvdeploy.rollout.model import Outcome
from tests.aws_world import AwsWorld
from tests.contract.gcp_place import insert
from tests.contract.gcp_scene import REGION, ZONE
from tests.gcp_world import GcpWorld
from tests.world import Prepared, World

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

PLACES: dict[str, Callable[[Path], World]] = {
    "aws": AwsWorld,
    "google": GcpWorld,
    "google-region": lambda folder: GcpWorld(folder, REGION),
    "google-pointer": lambda folder: GcpWorld(folder, ZONE, pointer=True),
}


@pytest.fixture(scope="module", params=PLACES)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared[Any]:
    """1.1.0 serves in green, and 1.0.0 stands warm in blue."""
    world: Any = PLACES[request.param](tmp_path_factory.mktemp("world"))
    for version in ("1.0.0", "1.1.0"):
        assert world.deploy(world.build(version)).outcome is Outcome.SUCCEEDED
    return Prepared(world)


@pytest.fixture
def world(prepared: Prepared[Any]) -> Any:
    return prepared.again()


def drifted(world: Any) -> list[Drift]:
    """``osvdeploy drift``."""
    here = world.process()
    ground = getattr(here, "cloud", None) or here.ground
    service = Service("hello", "production", str(world.folder / "ledger"))
    with mock.patch.object(wiring, "ground_again", lambda *_: ground):
        found = services.standing(here.ctx, service)
    assert found is not None
    return differing(here.ctx, world.ledger, ground, found)


_TOLD = ("kind", "index", "fingerprint", "name")


def asked(told: Any) -> Any:
    """A document as it is sent: answers have more."""
    if isinstance(told, dict):
        return {key: asked(value) for key, value in told.items() if key not in _TOLD}
    return [asked(each) for each in told] if isinstance(told, list) else told


def starts_otherwise(world: Any, group: str) -> None:
    """Somebody points the group at another template, of larger machines."""
    if isinstance(world, AwsWorld):
        asg, ec2 = world.aws.autoscaling, world.aws.ec2
        found = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"][0]
        template = found["LaunchTemplate"]["LaunchTemplateId"]
        made = ec2.create_launch_template_version(
            LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"InstanceType": "m5.large"}
        )["LaunchTemplateVersion"]
        asg.update_auto_scaling_group(
            AutoScalingGroupName=group,
            LaunchTemplate={"LaunchTemplateId": template, "Version": str(made["VersionNumber"])},
        )
        return
    ctx, gcp = world.next_context(), world.account.gcp()
    place = world.head.place
    area = f"projects/{place.account}/{'zones' if place.region == ZONE else 'regions'}/{place.region}"
    link = f"{area}/instanceGroupManagers/{group}"
    own = link_of(gcp.get(ctx, address_of(gcp, link), link)["instanceTemplate"])
    properties = gcp.get(ctx, address_of(gcp, own), own)["properties"]
    collection = own.rpartition("/")[0]
    body = {"name": "theirs", "properties": asked({**properties, "machineType": "n2-standard-2"})}
    insert(ctx, gcp, collection.removeprefix(f"projects/{place.account}/"), body)
    write(gcp, ctx, link, {"instanceTemplate": f"{collection}/theirs"}, link)


def is_checked_otherwise(world: Any) -> None:
    """Somebody has the balancer look at another path, in green; on Google one check is both slots'."""
    route = world.head.place.route
    if isinstance(world, AwsWorld):
        group = world.aws.elbv2.describe_target_groups(Names=[f"osvd-{route.key}-green"])["TargetGroups"][0]
        world.aws.elbv2.modify_target_group(TargetGroupArn=group["TargetGroupArn"], HealthCheckPath="/other")
        return
    ctx, gcp = world.next_context(), world.account.gcp()
    backends = [each["resource"] for each in world.sandbox.store.begin().all("", "compute.backendService")]
    link = next(link_of(each["healthChecks"][0]) for each in backends if route.key in each["name"])
    write(gcp, ctx, link, {"type": "HTTP", "httpHealthCheck": {"requestPath": "/other"}}, link)


def test_what_is_as_it_was_deployed_is_no_drift(world: Any) -> None:
    assert drifted(world) == []
    assert world.rollback().outcome is Outcome.SUCCEEDED
    assert drifted(world) == []


def test_a_group_that_starts_other_machines_is_found(world: Any) -> None:
    """Which its next machine would be; what serves now is as it was."""
    group = world.head.stable.group
    starts_otherwise(world, group)
    (found,) = drifted(world)
    assert found.kind is DriftKind.TEMPLATE and not found.repairable
    other = "m5.large" if isinstance(world, AwsWorld) else "n2-standard-2"
    assert f"({group}) are started with machine type {other} and not {world.settings.machine_type}" in found.what


def test_machines_that_are_checked_otherwise_are_found(world: Any) -> None:
    is_checked_otherwise(world)
    found = drifted(world)
    slots = ["green"] if isinstance(world, AwsWorld) else [slot.value for slot in Slot]
    assert [each.what.partition(" are ")[0] for each in found] == [f"machines in {slot}" for slot in slots]
    assert {each.kind for each in found} == {DriftKind.HEALTH_CHECK}
    assert all("GET /other each" in each.what for each in found)
    assert all("GET /healthz each" in each.cure for each in found)


def test_a_check_of_another_port_or_of_other_answers_is_found(world: Any) -> None:
    """Which no route can ask for: what is sick may count as healthy by it."""
    route = world.head.place.route
    if isinstance(world, AwsWorld):
        group = world.aws.elbv2.describe_target_groups(Names=[f"osvd-{route.key}-green"])["TargetGroups"][0]
        world.aws.elbv2.modify_target_group(
            TargetGroupArn=group["TargetGroupArn"], HealthCheckPort="22", Matcher={"HttpCode": "200-499"}
        )
        (told,) = drifted(world)
        assert "(on port 22, answered with 200-499) each" in told.what
        return
    ctx, gcp = world.next_context(), world.account.gcp()
    backends = [each["resource"] for each in world.sandbox.store.begin().all("", "compute.backendService")]
    link = next(link_of(each["healthChecks"][0]) for each in backends if route.key in each["name"])
    write(gcp, ctx, link, {"type": "HTTP", "httpHealthCheck": {"port": 22}}, link)
    found = drifted(world)
    assert len(found) == 2 and all("(on port 22) each" in each.what for each in found)

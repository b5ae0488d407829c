"""What has gone wrong in other tools, where only the balancers and groups of a real API can tell (test_stories.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.rollout.model import Outcome, Request, RequestKind
from osvdeploy.rollout.releases import Release, StrategyKind
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.wire import Call
from tests.aws_world import REGION, AwsWorld
from tests.contract import aws_scene, gcp_scene
from tests.contract.gcp_place import COMPUTE, PROJECT
from tests.contract.gcp_scene import ZONE
from tests.faults.matrix import Site
from tests.faults.scenarios import SITES
from tests.gcp_world import GcpWorld
from tests.world import BAD, GOOD

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


class Hand(ABC):
    """Whoever sees a world's groups in the cloud's own words, and changes them by hand."""

    first_look: str
    """The call by which a rollback begins to look at the cloud."""

    switch: str
    """The call that moves traffic."""

    def __init__(self, world: AwsWorld | GcpWorld) -> None:
        self.world = world

    @abstractmethod
    def image(self, release: Release) -> str:
        """What the cloud calls the image of a release."""

    @abstractmethod
    def machines(self, group: str) -> Mapping[str, str]:
        """A group's machines by their ids, each with the image that it was booted from."""

    @abstractmethod
    def end(self, group: str, machine: str) -> None:
        """End one of a group's machines; the group is to have as many as before."""

    @abstractmethod
    def scale(self, group: str) -> None:
        """Let the group be scaled by itself, from 1 to 6 machines."""

    @abstractmethod
    def resize(self, group: str, size: int) -> None: ...

    @abstractmethod
    def size(self, group: str) -> int:
        """As the cloud has it, without a call."""

    @abstractmethod
    def sizes(self, group: str) -> object:
        """Least, wanted and most, and what scales it."""


class AwsHand(Hand):
    """On AWS."""

    first_look, switch = "DescribeRules", "ModifyRule"

    def __init__(self, folder: Path) -> None:
        self.at = AwsWorld(folder)
        super().__init__(self.at)
        self.asg: Any = self.at.session.client("autoscaling")
        self.ec2: Any = self.at.session.client("ec2")

    def image(self, release: Release) -> str:
        return release.id

    def machines(self, group: str) -> Mapping[str, str]:
        ids = [each["InstanceId"] for each in self.described(group)["Instances"]]
        reserved = self.ec2.describe_instances(InstanceIds=ids)["Reservations"] if ids else []
        found = [each for reservation in reserved for each in reservation["Instances"]]
        return {each["InstanceId"]: self._image_of(each) for each in found}

    def _image_of(self, machine: Mapping[str, Any]) -> str:
        [found] = self.ec2.describe_images(ImageIds=[machine["ImageId"]])["Images"]
        return str(found["Name"])

    def described(self, group: str) -> Mapping[str, Any]:
        [found] = self.asg.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]
        described: Mapping[str, Any] = found
        return described

    def end(self, group: str, machine: str) -> None:
        self.ec2.terminate_instances(InstanceIds=[machine])

    def scale(self, group: str) -> None:
        aws_scene.scale_group(self.asg, group, 1, 6, self.at.network.listener)

    def resize(self, group: str, size: int) -> None:
        self.asg.update_auto_scaling_group(AutoScalingGroupName=group, MaxSize=size, DesiredCapacity=size)

    def size(self, group: str) -> int:
        found = self.at.sandbox.store.begin().get(REGION, "autoscaling.group", group)
        assert found is not None
        return int(found["DesiredCapacity"])

    def sizes(self, group: str) -> object:
        found = self.described(group)
        suspended = sorted(each["ProcessName"] for each in found["SuspendedProcesses"])
        return found["MinSize"], found["DesiredCapacity"], found["MaxSize"], suspended


def _google(folder: Path, *, pointer: bool = False, **health: Any) -> GcpWorld:
    """What never comes up is waited for about as long as on AWS."""
    world = GcpWorld(folder, pointer=pointer)
    health = {"boot_timeout": 90.0, **health}
    world.settings = replace(world.settings, health=replace(world.settings.health, **health))
    return world


class GoogleHand(Hand):
    """On Google, behind a URL map."""

    first_look, switch = "urlMaps.get", "urlMaps.patch"

    def __init__(self, folder: Path) -> None:
        self.at = _google(folder)
        super().__init__(self.at)

    def image(self, release: Release) -> str:
        here = self.at.process()
        found = here.ground.images.find(here.ctx, release.id)
        assert found is not None
        return _name(found.id)

    def machines(self, group: str) -> Mapping[str, str]:
        """A machine that is made anew has the name of the one before, and another id."""
        manager = f"zones/{ZONE}/instanceGroupManagers/{group}"
        members = self.at.network.ask("POST", f"{manager}/listManagedInstances").get("managedInstances", [])
        found = [self.at.network.ask("GET", f"zones/{ZONE}/instances/{each['name']}") for each in members]
        return {each["id"]: self._image_of(each) for each in found}

    def _image_of(self, machine: Mapping[str, Any]) -> str:
        [template] = [each["value"] for each in machine["metadata"]["items"] if each["key"] == "instance-template"]
        [disk] = self.at.network.ask("GET", template.removeprefix(f"projects/{PROJECT}/"))["properties"]["disks"]
        return _name(disk["initializeParams"]["sourceImage"])

    def end(self, group: str, machine: str) -> None:
        there = self.at.network.ask("GET", f"zones/{ZONE}/instances")["items"]
        [name] = [each["name"] for each in there if each["id"] == machine]
        self.at.network.ask("DELETE", f"zones/{ZONE}/instances/{name}")

    def scale(self, group: str) -> None:
        gcp_scene.scale_group(self.at.account.ctx, self.at.account.gcp(), f"zones/{ZONE}", group, 1, 6)

    def resize(self, group: str, size: int) -> None:
        # Not by `network.ask`, which waits: somebody does it in the midst of a command.
        manager = f"{COMPUTE}/compute/v1/projects/{PROJECT}/zones/{ZONE}/instanceGroupManagers/{group}"
        assert self.at.account.session().post(f"{manager}/resize?size={size}").ok

    def size(self, group: str) -> int:
        managers = self.at.sandbox.store.begin().all("", "compute.instanceGroupManager")
        [found] = [each["resource"] for each in managers if each["resource"]["name"] == group]
        return int(found["targetSize"])

    def sizes(self, group: str) -> object:
        found = self.at.network.ask("GET", f"zones/{ZONE}/instanceGroupManagers/{group}")
        scalers = self.at.network.ask("GET", f"zones/{ZONE}/autoscalers").get("items", [])
        policies = [each["autoscalingPolicy"] for each in scalers if each["target"] == found["selfLink"]]
        return found["targetSize"], found["updatePolicy"], policies


def _name(link: str) -> str:
    return link.rpartition("/")[2]


HANDS: Mapping[str, Callable[[Path], Hand]] = {"aws": AwsHand, "google": GoogleHand}


@pytest.fixture(params=HANDS)
def hand(request: pytest.FixtureRequest, tmp_path: Path) -> Hand:
    return HANDS[request.param](tmp_path)


NAMING_THEMSELVES: Mapping[str, Callable[[Path], AwsWorld | GcpWorld]] = {
    "aws": AwsWorld,
    "google, URL map": lambda folder: _google(folder, version_header="x-release"),
    "google, forwarding rule": lambda folder: _google(folder, pointer=True),
}
"""Services whose programs say which release they are of."""


@pytest.mark.parametrize("kind", NAMING_THEMSELVES)
def test_a_release_that_answers_as_the_old_one_does_not_serve(kind: str, tmp_path: Path) -> None:
    """Healthy, 200, and the wrong program: its answers say who they are from."""
    world = NAMING_THEMSELVES[kind](tmp_path)
    first = world.build("1.0.0")
    world.deploy(first)
    wrong = world.build("1.1.0", {**GOOD, "headers": {"x-release": first.id}})
    ended = world.deploy(wrong)
    assert ended.exit_code == 3 and first.id in ended.told
    assert world.answer().headers["x-release"] == first.id
    assert world.head.stable is not None and world.head.stable.release == first.id


def test_no_way_back_ever_boots_the_image_that_failed(hand: Hand) -> None:
    """What serves has a template of its own. A machine of it that is replaced after a failed deploy boots the same
    image as before, and so does a cold rollback."""
    world = hand.world
    first = world.build("1.0.0")
    world.deploy(first)
    assert world.deploy(world.build("1.1.0", BAD)).outcome is Outcome.ROLLED_BACK
    group = world.group_of(first)
    before = hand.machines(group)
    ended = next(iter(before))
    hand.end(group, ended)
    world.wait(300)
    after = hand.machines(group)
    assert len(after) == 2 and ended not in after
    assert set(after.values()) == {hand.image(first)}
    second = world.build("1.2.0")
    world.deploy(second)
    world.rollback(first)
    world.wait(60)
    world.rollback(second)
    world.wait(60)
    assert world.rollback(first).outcome is Outcome.SUCCEEDED
    assert set(hand.machines(world.group_of(first)).values()) == {hand.image(first)}


def test_the_idle_slot_stays_in_the_rule_at_weight_0_and_is_checked(tmp_path: Path) -> None:
    """A target group that no rule names is not checked, and could not be gone back to at once."""
    world = AwsWorld(tmp_path)
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


def test_the_idle_slot_stays_in_the_url_map_at_weight_0_and_is_checked(tmp_path: Path) -> None:
    """A backend service that no rule names is not checked, and could not be gone back to at once."""
    world = GcpWorld(tmp_path)
    world.deploy(world.build("1.0.0"))
    world.deploy(world.build("1.1.0"))
    matchers = world.network.ask("GET", "global/urlMaps/web")["pathMatchers"]
    rules = [rule for matcher in matchers for rule in matcher["routeRules"]]
    [rule] = [each for each in rules if each["priority"] == world.settings.priority]
    pairs = rule["routeAction"]["weightedBackendServices"]
    assert sorted(each["weight"] for each in pairs) == [0, 100]
    for pair in pairs:
        service = f"global/backendServices/{_name(pair['backendService'])}"
        [behind] = world.network.ask("GET", service)["backends"]
        health = world.network.ask("POST", f"{service}/getHealth", {"group": behind["group"]})["healthStatus"]
        assert [each["healthState"] for each in health] == ["HEALTHY", "HEALTHY"]


def test_a_failed_deploy_leaves_the_sizes_of_what_serves_as_they_were(hand: Hand) -> None:
    """Least, wanted and most, and what scales it."""
    world = hand.world
    first = world.build("1.0.0")
    world.deploy(first)
    group = world.group_of(first)
    hand.scale(group)
    world.wait(30)
    before = hand.sizes(group)
    assert world.deploy(world.build("1.1.0", BAD)).outcome is Outcome.ROLLED_BACK
    assert hand.sizes(group) == before


def test_a_rollback_while_somebody_resizes_what_serves_ends_none_of_its_machines(hand: Hand) -> None:
    """By hand, in mid-rollback: the group that traffic comes from is as large as they said, until traffic has left."""
    world = hand.world
    first = world.build("1.0.0")
    world.deploy(first)
    second = world.build("1.1.0")
    world.deploy(second)
    group = world.group_of(second)
    seen: list[int] = []

    def resize(moment: Moment, call: Call) -> None:
        if moment is Moment.BEFORE and call.operation == hand.first_look and not seen:
            seen.append(0)
            world.sandbox.hook = None
            hand.resize(group, 4)
            world.sandbox.hook = resize
        if moment is Moment.BEFORE and call.operation == hand.switch:
            seen.append(hand.size(group))

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


MAKING = {"aws": "CreateAutoScalingGroup", "google": "instanceGroupManagers.insert"}
"""The call that makes a group."""


@pytest.mark.parametrize(("kind", "makes"), MAKING.items(), ids=MAKING)
def test_a_cancelled_deploy_never_ends_with_no_machines(kind: str, makes: str, tmp_path: Path) -> None:
    """Neither of the group that serves nor of its balancer's healthy targets."""
    site: Site = SITES[kind](tmp_path)
    site.new("1.0.0")
    here = site.place.process(site.limits)
    said: list[int] = []

    def cancel(moment: Moment, call: Call) -> None:
        run = site.world.head.unfinished if not said and call.mutating else None
        if run is not None and moment is Moment.AFTER and call.operation == makes:
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


LEAST = {
    "aws": ("ModifyRule", "DeleteAutoScalingGroup", 20.0),
    "google": ("urlMaps.patch", "backendServices.patch", 120.0),
}
"""The call that moves traffic, the first one that takes machines from behind the balancer, and the seconds between."""


@pytest.mark.parametrize("how", ["rollback", "all at once"])
@pytest.mark.parametrize("kind", LEAST)
def test_machines_end_once_requests_had_their_time(kind: str, how: str, tmp_path: Path) -> None:
    """By each cloud's own way to end a group, which waits for nothing."""
    moves, ends, seconds = LEAST[kind]
    site: Site = SITES[kind](tmp_path)
    if how == "rollback":
        site.put_into_service("1.0.0", "1.1.0")
    else:
        site.put_into_service("1.0.0")
        kept = replace(site.world.settings.strategy, kind=StrategyKind.ALL_AT_ONCE, keep_warm=0.0)
        site.world.settings = replace(site.world.settings, strategy=kept)
        site.made("1.1.0")
    site.world.wait(300)
    moved: list[float] = []
    ended: list[float] = []

    def look(moment: Moment, call: Call) -> None:
        if moment is Moment.AFTER and call.operation in (moves, ends):
            (moved if call.operation == moves else ended).append(site.world.clock.monotonic())

    site.world.sandbox.hook = look
    rollout = site.rollback() if how == "rollback" else site.deploy("1.1.0")
    site.world.sandbox.hook = None
    assert rollout.outcome is Outcome.SUCCEEDED
    last = [each for each in moved if each < ended[-1]][-1]
    assert ended[-1] - last >= seconds

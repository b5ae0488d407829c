"""What is foretold of a deploy is what it then does: each changing call, on each cloud, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from osvdeploy import api
from osvdeploy.api import monthly_cost, wiring
from osvdeploy.api.planning import publishing_calls
from osvdeploy.cloud.interfaces import Cloud, Ground, ReleaseId
from osvdeploy.context import Context, ProcessIdentity
from osvdeploy.publish.blocks import needed
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.ledger import Lease
from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.planning import Prices
from osvdeploy.rollout.rehearsal import Rehearsed, rehearse
from osvdeploy.rollout.releases import Concurrent, Release, Strategy, StrategyKind, TrafficStep
from osvdeploy.sizes import GIB
from tests.aws_world import AwsWorld
from tests.contract.aws_scene import scale_group as scale_aws
from tests.contract.gcp_scene import REGION, ZONE
from tests.contract.gcp_scene import scale_group as scale_gcp
from tests.faults.scenarios import SITES, adopt_first, scaled
from tests.gcp_world import GcpWorld
from tests.world import ABORTING, World

pytestmark = pytest.mark.slow

BLUE_GREEN = Strategy(StrategyKind.BLUE_GREEN, (TrafficStep(100),), bake=30.0, keep_warm=3600.0)
ALL_AT_ONCE = Strategy(StrategyKind.ALL_AT_ONCE, (TrafficStep(100),), bake=0.0, keep_warm=0.0)
CANARY = Strategy(
    StrategyKind.CANARY,
    (TrafficStep(5, 20.0), TrafficStep(50, 20.0), TrafficStep(100)),
    bake=20.0,
    keep_warm=3600.0,
)

_READING = ("getHealth", "listManagedInstances", "wait", "get", "list", "aggregatedList")


class Aws:
    """The world on AWS, planned and deployed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.world = AwsWorld(folder)

    def process(self) -> tuple[Context, Ground]:
        here = self.world.process()
        return here.ctx, here.cloud

    def publish(self, release: Release) -> None:
        self.world.publish(release)

    def roll_out(self, release: Release) -> Rollout:
        here = self.world.process()
        return here.manager.deploy(here.ctx, release)


class Gcp:
    """The world on Google, planned and deployed."""

    def __init__(self, folder: Path, place: str = ZONE, *, pointer: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self.world = GcpWorld(folder, place, pointer=pointer)

    def process(self) -> tuple[Context, Ground]:
        here = self.world.process()
        return here.ctx, here.ground

    def publish(self, release: Release) -> None:
        self.world.publish(release)

    def roll_out(self, release: Release) -> Rollout:
        here = self.world.process()
        return here.manager.deploy(here.ctx, release)


Place = Aws | Gcp
PLACES: dict[str, Callable[[Path], Place]] = {
    "aws": Aws,
    "gcp": Gcp,
    "gcp-region": lambda folder: Gcp(folder, REGION),
    "gcp-pointer": lambda folder: Gcp(folder, pointer=True),
}


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return PLACES[request.param](tmp_path)


def changing(world: World, since: int) -> list[str]:
    """``service.Operation`` of each call since that number that changed something."""
    return [
        f"{call.service}.{call.operation}"
        for call in world.sandbox.calls(since)
        if call.mutating and call.operation.rpartition(".")[2] not in _READING
    ]


def foretold(plan: Rehearsed) -> list[str]:
    return [f"{call.service}.{call.operation}" for deed in plan.deeds for call in deed.calls]


def planned(place: Place, version: str, **settings: Any) -> Release:
    """Plan a release, then deploy it; both tell the same calls, and the plan makes none."""
    world = place.world
    release = world.build(version)
    release = replace(release, settings=replace(release.settings, **settings))
    ctx, ground = place.process()
    before, documents = len(world.sandbox.calls(0)), sorted(world.folder.glob("ledger/**/*"))
    plan = rehearse(ctx, ground, world.ledger, release, image=None)
    assert plan.rollout.outcome is Outcome.SUCCEEDED, plan.rollout.told
    assert changing(world, before) == []
    assert sorted(world.folder.glob("ledger/**/*")) == documents

    place.publish(release)
    since = len(world.sandbox.calls(0))
    ended = place.roll_out(release)
    assert ended.outcome is Outcome.SUCCEEDED, ended.told
    assert foretold(plan) == changing(world, since)
    return release


def test_a_plan_names_each_changing_call_of_the_deploy_that_follows(place: Place) -> None:
    """The first release, a second, a third onto a slot that is taken; then all at once with nothing kept warm."""
    planned(place, "1.0.0", strategy=BLUE_GREEN)
    planned(place, "1.1.0", strategy=BLUE_GREEN)
    planned(place, "1.2.0", strategy=BLUE_GREEN)
    planned(place, "1.3.0", strategy=ALL_AT_ONCE)
    planned(place, "1.4.0", strategy=ALL_AT_ONCE)


def test_the_calls_of_publishing_are_those_that_are_made(tmp_path: Path) -> None:
    """Of an image and its release; of a release on an image that is there; where a disk was brought before."""
    place = Aws(tmp_path / "aws")
    world = place.world
    for version, settings in (("1.0.0", {}), ("1.0.0", {"more": "1"}), ("1.1.0", {})):
        release = world.build(version)
        release = replace(release, id=ReleaseId(f"{release.id}{settings.get('more', '')}"))
        ctx, cloud = place.process()
        assert isinstance(cloud, Cloud)
        there = cloud.images.find(ctx, f"hello-{version}")
        blocks = len(needed(world.raw.read, cloud.snapshots.block_size))
        image = None if there is not None else f"hello-{version}"
        told = publishing_calls(ctx, cloud, image, release.id, blocks, through=False)
        since = len(world.sandbox.calls(0))
        place.publish(release)
        assert told == Counter(each.rpartition(".")[2] for each in changing(world, since))
    ctx, cloud = place.process()
    assert isinstance(cloud, Cloud)
    found = cloud.images.find(ctx, release.id)
    assert found is not None
    cloud.images.deregister(ctx, found.id)
    world.wait(60)
    assert publishing_calls(ctx, cloud, None, release.id, 1, through=False) == {"RegisterImage": 1}


def test_a_canary_is_foretold_share_by_share(tmp_path: Path) -> None:
    """Each share is a call of its own on both clouds, and shares are not for a pointer."""
    for place in (Aws(tmp_path / "aws"), Gcp(tmp_path / "gcp")):
        planned(place, "1.0.0", strategy=CANARY)
        second = planned(place, "1.1.0", strategy=CANARY)
        assert second.settings.strategy.kind is StrategyKind.CANARY


def test_what_a_failed_deploy_left_is_known_to_the_next_plan(tmp_path: Path) -> None:
    """Templates and slots that are there already are not made again."""
    for place in (Aws(tmp_path / "aws"), Gcp(tmp_path / "gcp")):
        planned(place, "1.0.0", strategy=BLUE_GREEN)
        bad = place.world.build("1.1.0", ABORTING)
        place.publish(bad)
        assert place.roll_out(bad).outcome is not Outcome.SUCCEEDED
        planned(place, "1.2.0", strategy=BLUE_GREEN)


def test_scaling_that_is_handed_over_is_foretold_rule_by_rule(tmp_path: Path) -> None:
    """On AWS each policy, action and hook is a call, on Google the autoscaler and the group's update policy."""
    aws = Aws(tmp_path / "aws")
    first = planned(aws, "1.0.0", strategy=BLUE_GREEN)
    scale_aws(aws.world.session.client("autoscaling"), aws.world.group_of(first), 1, 6, aws.world.network.listener)
    planned(aws, "1.1.0", strategy=BLUE_GREEN)

    gcp = Gcp(tmp_path / "gcp")
    first = planned(gcp, "1.0.0", strategy=BLUE_GREEN)
    account = gcp.world.account
    scale_gcp(account.ctx, account.gcp(), f"zones/{ZONE}", gcp.world.group_of(first), 3, 6)
    planned(gcp, "1.1.0", strategy=BLUE_GREEN)
    planned(gcp, "1.2.0", strategy=BLUE_GREEN)


@pytest.mark.parametrize("kind", SITES)
def test_what_scales_a_group_that_is_let_go_is_foretold_to_go_on(kind: str, tmp_path: Path) -> None:
    """Before it is let go, by the deploy that needs its slot."""
    site = SITES[kind](tmp_path)
    adopt_first(site)
    scaled(site)
    for version in ("1.0.0", "1.1.0"):
        site.made(version)
    assert site.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    here = site.place.process(site.limits)
    ground = getattr(here, "cloud", None) or here.ground
    plan = rehearse(here.ctx, ground, site.world.ledger, site.releases["1.1.0"], image=None)
    assert plan.rollout.outcome is Outcome.SUCCEEDED, plan.rollout.told
    since = len(site.world.sandbox.calls(0))
    assert site.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert foretold(plan) == changing(site.world, since)
    goes_on = {"aws": "autoscaling.ResumeProcesses", "google": "compute.autoscalers.patch"}[kind]
    assert goes_on in foretold(plan)


def test_a_rollout_that_nobody_works_on_is_ended_in_the_plan_as_in_the_deploy(tmp_path: Path) -> None:
    """A canary that stands at a share is taken back first, and the plan has these calls too."""
    for place in (Aws(tmp_path / "aws"), Gcp(tmp_path / "gcp")):
        planned(place, "1.0.0", strategy=BLUE_GREEN)
        half = place.world.build("1.1.0")
        asking = replace(CANARY, steps=(TrafficStep(50, 20.0, approve=True), TrafficStep(100)))
        half = replace(half, settings=replace(half.settings, strategy=asking))
        place.publish(half)
        assert place.roll_out(half).outcome is Outcome.WAITING
        planned(place, "1.2.0", strategy=replace(BLUE_GREEN, concurrent=Concurrent.SUPERSEDE))


def test_families_that_follow_what_serves_are_foretold(tmp_path: Path) -> None:
    """On Google the release's image joins its family once it serves."""
    place = Gcp(tmp_path)
    planned(place, "1.0.0", family="hello-production")
    planned(place, "1.1.0", family="hello-production")


def test_a_dry_run_weighs_what_would_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the blocks that EBS holds of a disk: a release's is one on top of its image's. Nothing is taken away."""
    place = Aws(tmp_path)
    for version in ("1.0.0", "1.1.0"):
        planned(place, version, strategy=ALL_AT_ONCE)
    place.world.wait(2 * 3600.0)
    ctx, ground = place.process()
    monkeypatch.setattr(wiring, "ground", lambda *_: ground)
    service = api.Service("hello", "production", str(place.world.folder / "ledger"))
    since = len(place.world.sandbox.calls(0))

    found = api.gc(ctx, service, keep=1, dry_run=True)

    weights = {disk.name: found.stored[disk.id] for disk, _ in found.disks}
    assert isinstance(ground, Cloud)
    below = ground.snapshots.find(ctx, "hello-1.0.0")
    assert below is not None and set(weights) == {"hello-1.0.0", *(n for n in weights if n.startswith("hello-1.0.0-"))}
    block = ground.snapshots.block_size
    assert sorted(weights.values()) == [block, ground.snapshots.stored(ctx, below.id)]
    assert found.size == sum(weights.values()) and found.size < GIB // 2
    price = Prices("USD", {}, Decimal("0.05"))
    assert monthly_cost(found, price) == (Decimal(found.size) / GIB * Decimal("0.05")).quantize(Decimal("0.000001"))
    assert changing(place.world, since) == []
    # Young enough to be gone back to.
    young = api.gc(ctx, service, keep=1, age=90 * 86400.0, dry_run=True)
    assert young.images == () == young.disks and len(young.templates) == 1


@pytest.mark.parametrize("name", ["gcp", "gcp-pointer"])
def test_what_shuts_a_dead_process_out_is_foretold(name: str, tmp_path: Path) -> None:
    """On Google whoever takes a lease over writes so into the route first."""
    place = PLACES[name](tmp_path)
    planned(place, "1.0.0", strategy=BLUE_GREEN)
    ctx, _ = place.process()
    dead = replace(ProcessIdentity.current(), pid=2**30, started="1")
    head = place.world.head
    left = replace(head, n=head.n + 1, epoch=head.epoch + 1, nonce=ctx.nonce(), lease=Lease(dead, 60.0))
    place.world.ledger.write(ctx, left)
    planned(place, "1.1.0", strategy=BLUE_GREEN)


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_route_that_is_left_is_taken_away_in_the_plan_too(name: str, tmp_path: Path) -> None:
    """A service that never came to serve may be declared elsewhere: what was made there goes, and is made anew."""
    place = PLACES[name](tmp_path)
    bad = place.world.build("1.0.0", ABORTING)
    place.publish(bad)
    assert place.roll_out(bad).outcome is Outcome.FAILED
    planned(place, "1.1.0", strategy=BLUE_GREEN, priority=200)

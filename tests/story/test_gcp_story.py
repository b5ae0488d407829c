"""The story on Google in the sandbox, in process and in virtual time: from bytes to traffic, and back to nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.cloud.gcp.backends import write
from osvdeploy.cloud.gcp.scope import area_of
from osvdeploy.cloud.gcp.urlmap import RELEASE_HEADER
from osvdeploy.cloud.interfaces import Slot
from osvdeploy.context import Context
from osvdeploy.errors import LeaseLost
from osvdeploy.rollout.model import Outcome, RequestKind, Stage
from osvdeploy.rollout.releases import Release, StrategyKind, TrafficStep
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.wire import Call
from tests.contract.gcp_place import PROJECT
from tests.contract.gcp_scene import REGION, URL_MAP, ZONE, scale_group
from tests.gcp_world import GcpWorld
from tests.world import ABORTING, BAD, GOOD

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


@pytest.fixture
def world(tmp_path: Path) -> GcpWorld:
    return GcpWorld(tmp_path)


def serving(world: GcpWorld) -> str | None:
    return world.answer().headers.get(RELEASE_HEADER)


def test_blue_green_and_back(world: GcpWorld) -> None:
    """Two good releases, a bad one, a warm and a cold rollback, and nothing left at the end."""
    first = world.build("1.0.0")
    assert world.deploy(first).outcome is Outcome.SUCCEEDED
    assert serving(world) == first.id

    second = world.build("1.1.0")
    assert world.deploy(second).outcome is Outcome.SUCCEEDED
    assert serving(world) == second.id

    bad = world.build("1.2.0", BAD)
    outcome = world.deploy(bad)
    assert outcome.exit_code == 3 and "Google gets no 200 from /healthz at port 8080" in outcome.told
    assert serving(world) == second.id

    third = world.build("1.3.0")
    assert world.deploy(third).outcome is Outcome.SUCCEEDED

    before = len(world.sandbox.calls())
    outcome = world.rollback()
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.warm
    changes = world.changes(before)
    assert changes[0] == "urlMaps.patch" and changes.count("urlMaps.patch") == 1
    assert serving(world) == second.id

    assert world.rollback(first).outcome is Outcome.SUCCEEDED
    assert serving(world) == first.id

    here = world.process()
    here.manager.destroy(here.ctx)
    world.wait(600)
    left = {kind for kind in world.held() if not kind.startswith(("storage.", "compute.operation", "compute.request"))}
    assert left <= {"compute.image"}, world.held()


def test_what_a_boot_said_ends_a_deploy(world: GcpWorld) -> None:
    """An abort is read from the serial port, long before the boot's time is over."""
    first = world.build("1.0.0")
    world.deploy(first)
    began = world.clock.monotonic()
    outcome = world.deploy(world.build("1.1.0", ABORTING))
    assert outcome.exit_code == 3 and "boot log" in outcome.told and "Aborted" in outcome.told
    assert world.clock.monotonic() - began < 250
    assert serving(world) == first.id
    assert outcome.run is not None
    assert any("Aborted" in evidence.text for evidence in outcome.run.evidence)


@pytest.mark.parametrize(
    ("kind", "code"), [(FaultKind.EXHAUSTED, "ZONE_RESOURCE_POOL_EXHAUSTED"), (FaultKind.QUOTA, "QUOTA_EXCEEDED")]
)
def test_a_zone_without_room_is_gone_back_from(world: GcpWorld, kind: FaultKind, code: str) -> None:
    """With Google's own words, and the machines of the stable release as they were."""
    first = world.build("1.0.0")
    world.deploy(first)
    world.sandbox.faults.add(Fault("instances.insert", kind, times=None))
    outcome = world.deploy(world.build("1.1.0"))
    assert outcome.exit_code == 3 and code in outcome.told
    assert serving(world) == first.id


def test_machines_may_be_spread_over_a_region(tmp_path: Path) -> None:
    """The same story with groups of a region, their machines in several of its zones."""
    world = GcpWorld(tmp_path, REGION)
    first = world.build("1.0.0")
    world.deploy(first)
    [blue] = world.process().ground.groups.owned(Context(clock=world.clock), {})
    assert len({machine.id.split("/")[1] for machine in blue.machines}) == 2
    second = world.build("1.1.0")
    assert world.deploy(second).outcome is Outcome.SUCCEEDED
    assert serving(world) == second.id
    assert world.rollback().outcome is Outcome.SUCCEEDED
    assert serving(world) == first.id


def scaling(world: GcpWorld, area: str, release: Release) -> dict[str, Any]:
    """What scales the release's group, as Google tells it."""
    name = world.group_of(release)
    group = world.network.ask("GET", f"{area}/instanceGroupManagers/{name}")
    scaler = str(group["status"]["autoscaler"]).rpartition("/")[2]
    policy = world.network.ask("GET", f"{area}/autoscalers/{scaler}")["autoscalingPolicy"]
    assert name in policy["customMetricUtilizations"][0].pop("filter")
    return {"size": group["targetSize"], "update": group["updatePolicy"]["type"], "policy": policy}


@pytest.mark.parametrize("place", [ZONE, REGION])
def test_a_service_that_scales_keeps_its_scaling(tmp_path: Path, place: str) -> None:
    """From release to release, with its size of the moment; a bad one leaves the stable group with exactly what it had,
    and while traffic is away its autoscaler may only add machines."""
    world = GcpWorld(tmp_path, place)
    world.settings = replace(world.settings, strategy=replace(world.settings.strategy, bake=60.0))
    area = area_of(place)
    first = world.build("1.0.0")
    assert world.deploy(first).outcome is Outcome.SUCCEEDED
    scale_group(world.account.ctx, world.account.gcp(), area, world.group_of(first), 3, 6)
    before = scaling(world, area, first)
    assert (before["size"], before["update"], before["policy"]["mode"]) == (3, "PROACTIVE", "ON")

    second = world.build("1.1.0")
    outcome = world.deploy(second)
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.capacity == 3
    assert scaling(world, area, second) == before
    warm = scaling(world, area, first)
    assert warm == {**before, "policy": {**before["policy"], "mode": "ONLY_SCALE_OUT"}}

    modes: list[str] = []

    def seen(moment: Moment, call: Call) -> None:
        if call.operation.lower().endswith("urlmaps.patch") and moment is Moment.BEFORE:
            documents = world.sandbox.store.begin().all("", "compute.autoscaler")
            modes.extend(
                each["resource"]["autoscalingPolicy"]["mode"]
                for each in documents
                if each["resource"]["target"].endswith(world.group_of(second))
            )

    breaking = world.build("1.2.0", {**GOOD, "phases": [{"after": 60, "answers": {"*": 500}}]})
    world.sandbox.hook = seen
    outcome = world.deploy(breaking)
    world.sandbox.hook = None
    assert outcome.exit_code == 3 and outcome.run is not None and outcome.run.shifted is not None
    assert modes[-2:] == ["ONLY_SCALE_OUT", "ONLY_SCALE_OUT"]
    assert scaling(world, area, second) == before
    assert serving(world) == second.id

    assert world.rollback(first).outcome is Outcome.SUCCEEDED
    assert scaling(world, area, first) == before
    here = world.process()
    here.manager.destroy(here.ctx)
    world.wait(600)
    assert "compute.autoscaler" not in world.held()


def test_a_group_that_is_resized_while_an_approval_is_awaited_is_followed(tmp_path: Path) -> None:
    """By hand, and nothing scales it: as many serve after the switch as before it."""
    world = GcpWorld(tmp_path)
    first = world.build("1.0.0")
    assert world.deploy(first).outcome is Outcome.SUCCEEDED
    world.settings = replace(world.settings, strategy=replace(world.settings.strategy, approve=True))
    second = world.build("1.1.0")
    assert world.deploy(second).outcome is Outcome.WAITING
    group = f"{area_of(ZONE)}/instanceGroupManagers/{world.group_of(first)}"
    world.network.ask("POST", f"{group}/resize?size=5")
    here = world.process()
    asked = here.manager.request(here.ctx, RequestKind.APPROVE).rollout
    assert asked is not None and asked.outcome is Outcome.SUCCEEDED and asked.run is not None
    assert asked.run.capacity == 5 and serving(world) == second.id


def test_bounds_that_are_raised_under_a_canary_are_the_new_group_s(tmp_path: Path) -> None:
    """Somebody lets what serves grow while it shares its traffic: all of it is on as many machines in the end, and the
    group that has it may grow as far. What the rollout had paused is not."""
    world = GcpWorld(tmp_path)
    steps = (TrafficStep(10, 120.0), TrafficStep(100))
    canary = replace(world.settings.strategy, kind=StrategyKind.CANARY, steps=steps, bake=30.0)
    area = area_of(ZONE)
    first = world.build("1.0.0")
    assert world.deploy(first).outcome is Outcome.SUCCEEDED
    name = world.group_of(first)
    scale_group(world.account.ctx, world.account.gcp(), area, name, 2, 4)
    world.settings = replace(world.settings, strategy=canary)
    second, raised = world.build("1.1.0"), list[str]()

    def raises(moment: Moment, call: Call) -> None:
        run = world.head.run
        if not raised and run is not None and run.candidate == second.id and run.stage is Stage.BAKE:
            raised.append(call.operation)
            bounds = {"minNumReplicas": 5, "maxNumReplicas": 12}
            scalers = f"projects/{PROJECT}/{area}/autoscalers"
            changed = {"autoscalingPolicy": bounds}
            write(world.account.gcp(), world.account.ctx, f"{scalers}?autoscaler=scales-{name}", changed, scalers)

    world.sandbox.hook = raises
    outcome = world.deploy(second)
    world.sandbox.hook = None
    assert outcome.outcome is Outcome.SUCCEEDED and raised
    world.wait(120)
    found = scaling(world, area, second)
    policy = found["policy"]
    assert (found["size"], policy["minNumReplicas"], policy["maxNumReplicas"], policy["mode"]) == (5, 5, 12, "ON")
    assert scaling(world, area, first)["policy"]["mode"] == "ONLY_SCALE_OUT"


def test_a_rollout_s_record_names_the_place(world: GcpWorld) -> None:
    """The head holds all that rollback and destroy need: project, zone, URL map, rules, backend services."""
    world.deploy(world.build("1.0.0"))
    place = world.head.place
    assert place is not None
    assert (place.cloud, place.account, place.region) == ("gcp", PROJECT, ZONE)
    assert place.route.listener == URL_MAP and len(place.rules) == 3
    assert set(place.backends) == set(Slot)


def test_taking_over_goes_on_and_the_late_process_stops(world: GcpWorld) -> None:
    """A process that slept through its lease cannot move traffic any more, whatever it still believes."""
    first, second = world.build("1.0.0"), world.build("1.1.0")
    world.deploy(first)
    late = world.process()
    world.deploy(second)
    route = world.head.place.route if world.head.place else None
    assert route is not None and late.ground.fence is not None
    late.ground.fence.hold(route, 1)
    with pytest.raises(LeaseLost):
        late.ground.router.set_weights(late.ctx, route, {Slot.BLUE: 100, Slot.GREEN: 0})
    assert serving(world) == second.id

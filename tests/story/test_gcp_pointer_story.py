"""The story on Google where the way in is a forwarding rule: all traffic moves in one step, and back as well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.errors import LeaseLost, NotOurs, UsageError
from osvdeploy.events import Note
from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.releases import Release, TrafficStep
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.wire import Call
from tests.contract.gcp_place import PROJECT
from tests.contract.gcp_scene import REGION, Pointer
from tests.gcp_world import GcpWorld
from tests.world import ABORTING, BAD, Kept

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


@pytest.fixture
def world(tmp_path: Path) -> GcpWorld:
    return GcpWorld(tmp_path, pointer=True)


def serving(world: GcpWorld) -> str | None:
    return world.answer().headers.get("x-release")


def leads_to(world: GcpWorld) -> str:
    assert isinstance(world.network, Pointer)
    return str(world.network.shown()["target"]).rpartition("/")[2]


def proved_by(world: GcpWorld, release: Release) -> str:
    """What the traffic gate of a release's deploy saw."""
    run = world.head.run
    assert run is not None and run.candidate == release.id
    return next(gate.seen for gate in run.gates if gate.gate == "traffic")


def test_blue_green_and_back(world: GcpWorld) -> None:
    """Two good releases, a bad one, a warm and a cold rollback, and nothing left but the rule as it was."""
    first = world.build("1.0.0")
    assert world.deploy(first).outcome is Outcome.SUCCEEDED
    assert serving(world) == first.id

    second = world.build("1.1.0")
    assert world.deploy(second).outcome is Outcome.SUCCEEDED
    assert serving(world) == second.id
    assert first.id not in proved_by(world, second) and second.id in proved_by(world, second)

    before = leads_to(world)
    outcome = world.deploy(world.build("1.2.0", BAD))
    assert outcome.exit_code == 3 and "Google gets no 200 from /healthz at port 8080" in outcome.told
    assert serving(world) == second.id and leads_to(world) == before

    third = world.build("1.3.0")
    assert world.deploy(third).outcome is Outcome.SUCCEEDED

    since = len(world.sandbox.calls())
    outcome = world.rollback()
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.warm
    changes = world.changes(since)
    assert changes[0] == "forwardingRules.setTarget" and changes.count("forwardingRules.setTarget") == 1
    assert serving(world) == second.id

    assert world.rollback(first).outcome is Outcome.SUCCEEDED
    assert serving(world) == first.id

    here = world.process()
    here.manager.destroy(here.ctx)
    world.wait(600)
    assert leads_to(world) == "nobody"
    left = {kind for kind in world.held() if not kind.startswith(("storage.", "compute.operation", "compute.request"))}
    assert left <= {"compute.image"}, world.held()


def test_an_abort_ends_a_deploy_and_traffic_never_moved(world: GcpWorld) -> None:
    """What a slot's own address answered is kept beside the console."""
    first = world.build("1.0.0")
    world.deploy(first)
    since = len(world.sandbox.calls())
    outcome = world.deploy(world.build("1.1.0", ABORTING))
    assert outcome.exit_code == 3 and "boot log" in outcome.told
    assert "forwardingRules.setTarget" not in world.changes(since)
    assert serving(world) == first.id
    assert outcome.run is not None
    assert next(each.source for each in outcome.run.evidence) == "answer from slot green"


def test_without_a_header_the_proof_is_the_weaker_one_and_said_to_be(world: GcpWorld) -> None:
    """Good answers alone, for as long as a change may take to be in force."""
    settings = replace(world.settings, health=replace(world.settings.health, version_header=None))
    world.settings = settings
    for version in ("1.0.0", "1.1.0"):
        release = world.build(version)
        assert world.deploy(release).outcome is Outcome.SUCCEEDED
        assert "no version header: the weaker proof" in proved_by(world, release)
        assert serving(world) == release.id
    run = world.head.run
    assert run is not None
    shifted = next(record for record in run.stages if record.stage == "shift")
    assert (shifted.left - shifted.entered).total_seconds() >= 120


def test_what_it_has_not_is_told_before_anything_is_made(world: GcpWorld) -> None:
    """No weights, no preview; a strategy that needs weights is refused."""
    release, here = world.build("1.0.0"), world.process()
    here.manager.preflight(here.ctx, release)
    told = [event.text for event in world.recorder.events if isinstance(event, Note)]
    assert any("has no weights and no preview" in each for each in told), told
    strategy = replace(world.settings.strategy, steps=(TrafficStep(5), TrafficStep(100)))
    by_steps = replace(release, settings=replace(world.settings, strategy=strategy))
    with pytest.raises(UsageError, match=r"gives the new release 5 % first, but .* has no weights"):
        here.manager.preflight(here.ctx, by_steps)


def test_somebody_elses_traffic_is_not_taken_by_a_first_deploy(world: GcpWorld) -> None:
    """A wrong name in a spec is met before an image is made."""
    theirs = world.build("1.0.0")
    world.deploy(theirs)
    assert isinstance(world.network, Pointer)
    world.network.make(f"regions/{REGION}/forwardingRules", **_another_rule(world))
    listener = f"projects/{PROJECT}/regions/{REGION}/forwardingRules/second"
    moved = replace(theirs, app="other", settings=replace(world.settings, listener=listener))
    here = world.process()
    with pytest.raises(NotOurs, match="would take their traffic away"):
        here.manager.preflight(here.ctx, moved)


def _another_rule(world: GcpWorld) -> dict[str, object]:
    """One that a person made, and that leads to the service's machines."""
    assert isinstance(world.network, Pointer)
    target = world.network.shown()["target"]
    return {"name": "second", "target": target, "loadBalancingScheme": "EXTERNAL_MANAGED", "portRange": "8001"}


def test_taking_over_goes_on_and_the_late_process_stops(world: GcpWorld) -> None:
    """A process that slept through its lease cannot move traffic any more, whatever it still believes."""
    first = world.build("1.0.0")
    world.deploy(first)
    second = world.build("1.1.0")
    asleep: list[Kept] = []

    def asked(moment: Moment, call: Call) -> None:
        if call.operation == "forwardingRules.setTarget" and not asleep:
            asleep.append(world.kept())

    world.sandbox.hook = asked
    world.deploy(second)
    world.put_back(asleep[0])
    epoch = world.head.epoch
    assert world.deploy(second).outcome is Outcome.SUCCEEDED
    late = world.process()
    assert world.head.place is not None and late.ground.fence is not None
    late.ground.fence.hold(world.head.place.route, epoch)
    with pytest.raises(LeaseLost):
        late.ground.router.set_weights(late.ctx, world.head.place.route, {Slot.BLUE: 100, Slot.GREEN: 0})
    assert serving(world) == second.id

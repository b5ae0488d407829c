"""Capacity that counts for a release is of its own machines: whatever else stands in its slot is told, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.cloud.interfaces import GroupState, Machine, Route, Slot, TargetHealth
from osvdeploy.cloud.memory import Behaviour, Call, Moment
from osvdeploy.cloud.memory.groups import MemoryGroups
from osvdeploy.cloud.memory.router import MemoryRouter
from osvdeploy.context import Context
from osvdeploy.errors import Refused
from osvdeploy.events import Waiting, Warned
from osvdeploy.rollout.drifting import DriftKind
from osvdeploy.rollout.model import Outcome, Run
from osvdeploy.rollout.releases import Health
from tests.rollout.service import Service
from tests.rollout.test_drifting import looked

UNNAMED = Health(path="/healthz", version_header=None, boot_timeout=60.0, interval=5.0, timeout=2.0, min_ready=10.0)
SICK = Behaviour(health=500, answers=(500,))


@pytest.fixture
def service() -> Service:
    """1.0.0 serves, in blue, and nothing names a release."""
    service = Service(health=UNNAMED)
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    return service


def deployed(service: Service, version: str) -> Run:
    run = service.deploy(version).run
    assert run is not None
    return run


def also_in(service: Service, slot: Slot, version: str = "1.0.0") -> list[str]:
    """Somebody lets the machines of a release stand in another slot, too, where they are checked."""
    world, place = service.cloud.world, service.head.place
    assert place is not None
    machines = world.groups[service.group(version)].kept
    for machine in machines:
        world.register(machine, f"osvd-{place.route.key}-{slot}", world.settle())
    service.clock.advance(60)
    world.settle()
    return [machine.id for machine in machines]


def warned(service: Service) -> list[str]:
    return [event.text for event in service.recorder.events if isinstance(event, Warned)]


def waited(service: Service) -> list[str]:
    return [event.what for event in service.recorder.events if isinstance(event, Waiting)]


def test_healthy_machines_of_others_are_not_the_candidates(service: Service) -> None:
    """All of the new release's machines are sick, and the old one's stand in its slot too: it gets no traffic, and what
    is waited for and why it failed both say that the healthy ones are not its own."""
    also_in(service, Slot.GREEN)
    service.cloud.world.behaviours[service.id("1.1.0")] = SICK
    run = deployed(service, "1.1.0")
    assert run.verdict is Outcome.ROLLED_BACK and not run.moves
    assert run.reason.startswith("0 of 2 healthy after 1m")
    others = f"2 of others than {run.candidate} in slot green"
    assert others in run.reason
    assert any("0 of 2 healthy" in told and others in told for told in waited(service))


def test_machines_of_others_are_told_before_they_get_traffic(service: Service) -> None:
    """The new release is well, and gets its share with them: once, by name, and with what to do."""
    others = also_in(service, Slot.GREEN)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    [told] = [told for told in warned(service) if "slot green" in told]
    assert all(machine in told for machine in others)


def test_a_release_that_falls_sick_is_not_kept_by_others(service: Service) -> None:
    """Likewise while it bakes: what is healthy beside it holds nothing up."""
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, bake=600.0))
    also_in(service, Slot.GREEN)

    def hook(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            service.cloud.world.behaviours[service.id("1.1.0")] = Behaviour(health=500)

    service.cloud.on_call(hook)
    run = deployed(service, "1.1.0")
    assert run.verdict is Outcome.ROLLED_BACK
    assert "0 of 2 healthy" in run.reason and "2 of others than" in run.reason


def test_a_warm_slot_is_not_warm_by_machines_of_others(service: Service) -> None:
    """Going back waits for machines of the release that is gone back to."""
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    also_in(service, Slot.BLUE, "1.1.0")
    world = service.cloud.world
    group = world.groups[service.group("1.0.0")]
    for machine in group.kept:
        world.backends[group.backend].targets[machine.id].state = "unhealthy"
    service.recorder.events.clear()
    assert service.rollback().outcome is Outcome.SUCCEEDED
    assert any(told.startswith("0 of 2 healthy") for told in waited(service))


@pytest.mark.parametrize("stands", ["twice", "once"])
def test_a_machine_that_is_told_of_twice_is_one(service: Service, stands: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A balancer may tell of each of its ways to one; two machines are wanted, and one of them never gets well."""
    told = MemoryRouter.health

    def twice(self: MemoryRouter, ctx: Context, route: Route, slot: Slot) -> tuple[TargetHealth, ...]:
        return told(self, ctx, route, slot) * (2 if stands == "twice" else 1)

    monkeypatch.setattr(MemoryRouter, "health", twice)
    service.cloud.world.behaviours[service.id("1.1.0")] = Behaviour(apart=3600.0)
    run = deployed(service, "1.1.0")
    assert run.verdict is Outcome.ROLLED_BACK and run.reason.startswith("1 of 2 healthy")


def test_a_machine_that_no_list_shows_yet_is_waited_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of a group's machines may be later than the balancer. For as long as the stage has, and no longer."""
    listed, begun = MemoryGroups.observe, service.clock.monotonic()
    late = 45.0

    def later(self: MemoryGroups, ctx: Context, name: str) -> GroupState | None:
        found = listed(self, ctx, name)
        none: tuple[Machine, ...] = ()
        return found if found is None or ctx.monotonic() - begun > late else replace(found, machines=none)

    monkeypatch.setattr(MemoryGroups, "observe", later)
    run = deployed(service, "1.1.0")
    assert run.verdict is Outcome.SUCCEEDED
    assert (run.moves[0].at - run.started).total_seconds() >= late
    assert not warned(service)
    begun, late = service.clock.monotonic(), 3600.0
    assert deployed(service, "1.2.0").reason.startswith("0 of 2 healthy after 1m")


def test_machines_that_a_group_started_meanwhile_are_its_own(service: Service) -> None:
    """One that died under traffic was replaced: by a machine that no look had seen before."""
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, bake=600.0))
    world = service.cloud.world

    def hook(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            group = world.groups[service.group("1.1.0")]
            world.stop(group.kept[0], world.settle(), "somebody ended it")
            world.fill(group, world.settle())

    service.cloud.on_call(hook)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert not warned(service)


def test_knowing_whose_machines_they_are_costs_no_call(service: Service) -> None:
    """While a release bakes, its group is not asked for: its machines were seen when they came up."""
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, bake=600.0))
    asked: list[str] = []
    service.cloud.on_call(lambda call, moment: asked.append(call.operation) if moment is Moment.BEFORE else None)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    first = asked.index("router.modify_rule")
    assert asked[first:].count("router.health") > 20
    assert "groups.observe" not in asked[first:]


def test_drift_tells_of_machines_that_are_nobodys_in_a_slot(service: Service) -> None:
    """They get a part of what comes to it. Those of a group of ours are told with their group."""
    service.deploy("1.1.0")
    others = also_in(service, Slot.GREEN)
    [found] = looked(service)
    assert found.kind is DriftKind.STRANGER and not found.repairable
    assert all(machine in found.what for machine in others) and "green" in found.what


def test_traffic_is_not_sent_to_a_slot_by_the_health_of_others(service: Service) -> None:
    """Somebody sent it away from what serves, whose machines are sick: those of the other release stand there too, and
    are no reason to send it back."""
    service.deploy("1.1.0")
    also_in(service, Slot.GREEN)
    world, place = service.cloud.world, service.head.place
    assert place is not None
    world.behaviours[service.id("1.1.0")] = SICK
    service.clock.advance(60)
    service.cloud.cloud.router.set_weights(service.context(), place.route, {Slot.BLUE: 100, Slot.GREEN: 0})
    with pytest.raises(Refused, match="no machine in green is healthy"):
        service.manager().realign(service.context())

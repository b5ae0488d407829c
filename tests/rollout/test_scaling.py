"""A service that scales by itself keeps doing so from release to release, and never at a rollout's cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from osvdeploy.cloud.interfaces import Scaling, Slot
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import Interrupted, LeaseLost, Refused
from osvdeploy.events import Warned
from osvdeploy.rollout.drifting import DriftKind
from osvdeploy.rollout.model import Outcome, Request, RequestKind, Stage
from osvdeploy.rollout.releases import TrafficStep
from tests.rollout.service import Service
from tests.rollout.test_drifting import looked

pytestmark = pytest.mark.whole


@pytest.fixture
def service() -> Service:
    """1.0.0 serves on four machines, between two and six, as its load asks for."""
    service = Service(strategy=replace(Service().settings.strategy, bake=60.0))
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    service.scale("1.0.0", 2, 6)
    service.cloud.load(service.group("1.0.0"), 4)
    service.clock.advance(30)
    return service


def known(found: Scaling | None) -> Scaling:
    assert found is not None
    return found


def at_first_shift(service: Service, then: Callable[[], None]) -> None:
    """Do something once the rule's weights have moved for the first time."""
    moved: list[Call] = []

    def asked(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER and not moved:
            moved.append(call)
            then()

    service.cloud.on_call(asked)


def breaks_after_shift(service: Service, version: str) -> None:
    """A release that is a good one until it has traffic; stable's load goes meanwhile."""

    def broken() -> None:
        service.cloud.load(service.group("1.0.0"), 0)
        service.cloud.behave(service.id(version), answers=(500,))

    at_first_shift(service, broken)


def test_the_next_release_is_scaled_as_the_one_before(service: Service) -> None:
    """It begins with as many machines as serve at the switch, and has bounds and rules afterwards; what is left warm
    keeps its size, whatever its load."""
    before = known(service.scaling("1.0.0"))
    at_first_shift(service, lambda: service.cloud.load(service.group("1.0.0"), 0))
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None
    assert outcome.run.capacity == 4 and outcome.run.scaling == before and outcome.run.scaled
    found = known(service.scaling("1.1.0"))
    assert found == before and not found.paused
    warm = known(service.scaling("1.0.0"))
    assert warm.paused and warm.desired == 4


def test_a_bad_release_leaves_scaling_as_it_was(service: Service) -> None:
    """To the letter; and while traffic was away nothing was taken from the group that it came back to."""
    before = known(service.scaling("1.0.0"))
    breaks_after_shift(service, "1.1.0")
    sizes = []
    load = service.cloud.load

    def loaded(group: str, machines: int) -> None:
        load(group, machines)
        sizes.append(service.cloud.world.groups[group].capacity)

    service.cloud.load = loaded  # type: ignore[method-assign]  # to see what the load's going does at that moment
    outcome = service.deploy("1.1.0")
    service.cloud.on_call(None)
    assert outcome.outcome is Outcome.ROLLED_BACK and sizes == [4]
    # From here on its load counts again, and there was none.
    assert replace(known(service.scaling("1.0.0")), desired=4) == before
    assert known(service.scaling("1.0.0")).desired == 2


def test_a_release_that_never_boots_touches_nothing(service: Service) -> None:
    """Scaling is paused for a shift alone."""
    service.cloud.behave(service.id("1.1.0"), never_healthy=True)
    calls = len(service.cloud.mutations)
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    assert not [call for call in service.cloud.mutations[calls:] if "scaling" in call.operation]


def test_a_load_that_grows_meanwhile_is_followed(service: Service) -> None:
    """The candidate gets as many machines as stable has right before the switch."""
    grown: list[Call] = []

    def asked(call: Call, moment: Moment) -> None:
        if call.operation == "groups.create_group" and moment is Moment.AFTER and not grown:
            grown.append(call)
            service.cloud.load(service.group("1.0.0"), 6)

    service.cloud.on_call(asked)
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.capacity == 6


def test_a_load_that_grows_under_a_canary_is_followed_before_its_next_share(service: Service) -> None:
    """Six machines serve by then: all traffic on four of the new release is no good end. What has a share keeps it."""
    steps = (TrafficStep(10, 60.0), TrafficStep(50, 30.0), TrafficStep(100))
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, steps=steps))
    healthy: list[tuple[int, int]] = []

    def asked(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "router.modify_rule" and moment is Moment.BEFORE else None
        if run is not None and run.moves:
            group = service.cloud.world.groups[run.group]
            healthy.append((run.moves[-1].weight, len(group.alive)))
            if run.moves[-1].weight == 10:
                service.cloud.load(service.group("1.0.0"), 6)

    service.cloud.on_call(asked)
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.capacity == 6
    assert healthy == [(10, 4), (50, 6), (100, 6)]
    assert outcome.run.shifted is not None and [move.weight for move in outcome.run.moves] == [10, 50, 100]
    assert len(service.cloud.world.groups[service.group("1.1.0")].alive) == 6


def raised(service: Service, maximum: int, wanted: int) -> None:
    """Somebody lets what serves grow beyond its old maximum, which its load asks for."""
    group = service.cloud.world.groups[service.group("1.0.0")]
    assert group.scaler is not None
    group.scaler.maximum = maximum
    service.cloud.load(group.name, wanted)


def in_canary(service: Service, *steps: TrafficStep, **changes: object) -> Service:
    """What is deployed next shares traffic first."""
    steps = steps or (TrafficStep(10, 60.0), TrafficStep(100))
    strategy = replace(service.settings.strategy, steps=steps, **changes)  # type: ignore[arg-type]  # named by the caller
    service.settings = replace(service.settings, strategy=strategy)
    return service


def test_a_maximum_that_is_raised_under_a_canary_is_the_new_group_s(service: Service) -> None:
    """Ten machines have all the traffic in the end; by the maximum of before there would be six. It is in the ledger
    before the share that it is for, and what the rollout had paused is not paused in the new group."""
    service = in_canary(service)
    known_by_then: list[Scaling | None] = []

    def asked(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "router.modify_rule" and moment is Moment.BEFORE else None
        if run is not None and run.moves:
            known_by_then.append(run.scaling)
            if len(known_by_then) == 1:
                raised(service, 12, 10)

    service.cloud.on_call(asked)
    outcome = service.deploy("1.1.0")
    service.cloud.on_call(None)
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.capacity == 10
    assert [each and (each.maximum, each.paused) for each in known_by_then] == [(6, False), (12, False)]
    service.clock.advance(300)
    found = known(service.scaling("1.1.0"))
    assert (found.minimum, found.desired, found.maximum, found.paused) == (2, 10, 12, False)
    assert known(service.scaling("1.0.0")).paused


def test_a_canary_that_fails_leaves_what_was_changed_meanwhile_and_no_pause(service: Service) -> None:
    """The maximum is the user's, the pause was the rollout's."""
    service = in_canary(service, TrafficStep(10, 60.0), TrafficStep(50, 60.0), TrafficStep(100))

    def asked(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "router.modify_rule" and moment is Moment.AFTER else None
        if run is not None and run.moves[-1].weight == 10:
            raised(service, 12, 8)
        if run is not None and run.moves[-1].weight == 50:
            service.cloud.behave(service.id("1.1.0"), answers=(500,))

    service.cloud.on_call(asked)
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    service.cloud.on_call(None)
    found = known(service.scaling("1.0.0"))
    assert (found.minimum, found.desired, found.maximum, found.paused) == (2, 8, 12, False)
    assert service.head.run is not None and service.head.run.scaled


def test_a_pause_that_somebody_lifts_under_a_canary_is_made_again_before_the_next_share(service: Service) -> None:
    """What loses more traffic would be made smaller."""
    service = in_canary(service)
    group, sizes = service.group("1.0.0"), list[int]()

    def asked(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "router.modify_rule" and moment is Moment.AFTER else None
        if run is not None and run.moves[-1].weight == 10:
            service.cloud.cloud.groups.resume(service.context(), group, known(run.scaling))
        elif run is not None:
            service.cloud.load(group, 0)
            sizes.append(service.cloud.world.groups[group].capacity)

    service.cloud.on_call(asked)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    service.cloud.on_call(None)
    assert sizes == [4] and known(service.scaling("1.0.0")).paused
    assert not known(service.scaling("1.1.0")).paused


def test_scaling_that_is_taken_away_under_a_canary_is_not_the_new_group_s(service: Service) -> None:
    """Whoever takes it away has said what they want."""
    service = in_canary(service)

    def asked(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "router.modify_rule" and moment is Moment.AFTER else None
        if run is not None and run.moves[-1].weight == 10:
            service.cloud.world.groups[service.group("1.0.0")].scaler = None

    service.cloud.on_call(asked)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    service.cloud.on_call(None)
    assert known(service.scaling("1.1.0")).fixed and service.head.run is not None and service.head.run.scaled


def test_what_a_canary_s_stable_group_is_owed_is_not_forgotten_by_looking_at_it_again(service: Service) -> None:
    """It has none of it: the run before could not hand it over, and this one could not either, at first."""
    before = known(service.scaling("1.0.0"))
    service.cloud.faults.fail("groups.apply_scaling", Refused("not allowed"), times=4)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert known(service.scaling("1.1.0")).fixed
    assert in_canary(service).deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert replace(known(service.scaling("1.2.0")), desired=4) == before


def test_what_is_owed_takes_no_machine_from_what_serves(service: Service) -> None:
    """Somebody has made the group larger by hand since, as nothing scaled it: its maximum is what it has, and that is
    said."""
    service.cloud.faults.fail("groups.apply_scaling", Refused("not allowed"), times=3)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    group = service.cloud.world.groups[service.group("1.1.0")]
    group.capacity = 9
    service.cloud.world.fill(group, service.cloud.world.settle())
    service.clock.advance(60)
    service.deploy("1.1.0")
    found = known(service.scaling("1.1.0"))
    assert (found.minimum, found.desired, found.maximum) == (2, 9, 9)
    assert any(isinstance(each, Warned) and "a maximum of 6" in each.text for each in service.recorder.events)
    assert service.head.run is not None and service.head.run.scaled


def test_a_rollback_has_the_bounds_that_what_it_leaves_has_at_the_switch(service: Service) -> None:
    """A cold one starts machines first, and the maximum is raised meanwhile."""
    in_canary(service, TrafficStep(100), keep_warm=0.0)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED

    def asked(call: Call, moment: Moment) -> None:
        if call.operation == "groups.create_group" and moment is Moment.AFTER:
            group = service.cloud.world.groups[service.group("1.1.0")]
            assert group.scaler is not None
            group.scaler.maximum = 12
            service.cloud.load(group.name, 10)

    service.cloud.on_call(asked)
    assert service.rollback().outcome is Outcome.SUCCEEDED
    service.cloud.on_call(None)
    found = known(service.scaling("1.0.0"))
    assert (found.minimum, found.desired, found.maximum) == (2, 10, 12)


def resized(service: Service, machines: int) -> None:
    """Somebody makes what serves another size by hand."""
    world = service.cloud.world
    group = world.groups[service.group("1.0.0")]
    group.capacity = machines
    world.fill(group, world.settle())


def unscaled(**changes: object) -> Service:
    """1.0.0 serves, and nothing scales it."""
    service = Service()
    service.settings = replace(service.settings, **changes)  # type: ignore[arg-type]  # named by the caller
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    return service


def test_a_group_that_somebody_makes_larger_under_a_canary_is_followed() -> None:
    """Nothing scales it: eight machines serve by then, and all traffic is not to go to two."""
    service, sizes = in_canary(unscaled()), list[int]()

    def asked(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "router.modify_rule" and moment is Moment.BEFORE else None
        if run is not None and run.moves:
            sizes.append(len(service.cloud.world.groups[run.group].alive))
            if len(sizes) == 1:
                resized(service, 8)

    service.cloud.on_call(asked)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert sizes == [2, 8]


def test_a_group_that_somebody_makes_larger_while_an_approval_is_awaited_is_followed() -> None:
    """Before the first share."""
    service = in_canary(unscaled(), TrafficStep(100), approve=True)
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    resized(service, 8)
    service.clock.advance(60)
    asked = service.manager().request(service.context(), RequestKind.APPROVE)
    assert asked.rollout is not None and asked.rollout.outcome is Outcome.SUCCEEDED
    assert asked.rollout.run is not None and asked.rollout.run.capacity == 8


@pytest.mark.parametrize(("by_hand", "expected"), [(None, 3), (4, 3), (6, 6)])
def test_fewer_machines_by_the_spec_are_fewer_until_somebody_adds_some(by_hand: int | None, expected: int) -> None:
    """The spec's change wins over what stood when the deploy began, and not over what was added since."""
    service = in_canary(unscaled(capacity=5))
    service.settings = replace(service.settings, capacity=3)
    if by_hand is not None:
        at_first_shift(service, lambda: resized(service, by_hand))
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.capacity == expected


def test_hooks_of_a_group_say_nothing_of_its_size() -> None:
    """What is attached to it has no bounds: the spec's change wins as where there is nothing."""
    service = unscaled(capacity=5)
    service.cloud.scale(service.group("1.0.0"), 5, 5, hook="wait")
    service.settings = replace(service.settings, capacity=3)
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.capacity == 3
    assert known(service.scaling("1.1.0")).parts == ("hook",)


def test_what_is_attached_under_a_canary_is_paused_and_passes_on() -> None:
    """Nothing scaled the group when the deploy began."""
    service = in_canary(unscaled())
    at_first_shift(service, lambda: service.scale("1.0.0", 2, 6))
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.scaled
    found = known(service.scaling("1.1.0"))
    assert (found.minimum, found.maximum, found.parts, found.paused) == (2, 6, ("cpu", "night"), False)
    assert known(service.scaling("1.0.0")).paused


def test_what_is_attached_under_a_canary_that_fails_goes_on_as_it_was() -> None:
    """It had been paused before the next share."""
    service = in_canary(unscaled(), TrafficStep(10, 60.0), TrafficStep(50, 60.0), TrafficStep(100))
    attached: list[Scaling] = []

    def asked(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "router.modify_rule" and moment is Moment.AFTER else None
        if run is not None and run.moves[-1].weight == 10:
            service.scale("1.0.0", 2, 6)
            attached.append(known(service.scaling("1.0.0")))
        if run is not None and run.moves[-1].weight == 50:
            assert known(service.scaling("1.0.0")).paused
            service.cloud.behave(service.id("1.1.0"), answers=(500,))

    service.cloud.on_call(asked)
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    service.cloud.on_call(None)
    assert [service.scaling("1.0.0")] == attached


def test_a_canary_that_cannot_grow_with_the_load_goes_back(service: Service) -> None:
    """Machines that do not come up are a failure of the release."""
    steps = (TrafficStep(10, 60.0), TrafficStep(100))
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, steps=steps))

    def grows() -> None:
        service.cloud.load(service.group("1.0.0"), 6)
        service.cloud.behave(service.id("1.1.0"), never_healthy=True)

    at_first_shift(service, grows)
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.ROLLED_BACK and "healthy" in outcome.told
    assert service.cloud.serving == {service.id("1.0.0")}


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(
    ("worse", "told"),
    [
        ({"answers": (500,), "health": 200}, "bad answers in a row through the balancer"),
        ({"console": "OSv v0.57.0\nAborted\n\n[backtrace]\n0x000000004039c7f6\n"}, "boot log"),
    ],
)
def test_a_canary_that_falls_sick_while_it_grows_goes_back_at_once(
    service: Service, worse: dict[str, object], told: str, paused: bool
) -> None:
    """It has its share meanwhile, and the machines that it is to have more may take their time; paused or not."""
    steps = (TrafficStep(90, 60.0), TrafficStep(100))
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, steps=steps))
    grew: list[datetime] = []

    def asked(call: Call, moment: Moment) -> None:
        watched = moment is Moment.AFTER and call.operation in ("router.modify_rule", "groups.resize")
        run = service.head.run if watched else None
        if run is None:
            return
        if call.operation == "router.modify_rule" and len(run.moves) == 1:
            service.cloud.load(service.group("1.0.0"), 6)
        if call.operation == "groups.resize" and run.shifted is not None and not grew:
            grew.append(service.clock.now())
            # What has run for longer than that is as healthy as before.
            service.cloud.behave(service.id("1.1.0"), healthy_after=50.0, **worse)
            if paused:
                asking = Request(RequestKind.PAUSE, "ann@desk", service.clock.now(), run.step)
                service.ledger.ask(service.context(), run.id, asking)

    service.cloud.on_call(asked)
    outcome = service.deploy("1.1.0")
    assert grew and outcome.outcome is Outcome.ROLLED_BACK and told in outcome.told, outcome.told
    assert outcome.run is not None
    back = next(record for record in outcome.run.stages if record.stage is Stage.REVERT)
    assert (back.entered - grew[0]).total_seconds() < 20


def test_a_warm_rollback_is_one_call_until_traffic_has_moved(service: Service) -> None:
    """What it needs of scaling comes after that: the release that is back is scaled as the one that it left."""
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    service.scale("1.1.0", 3, 8)
    before = known(service.scaling("1.1.0"))
    calls = len(service.cloud.mutations)
    outcome = service.rollback()
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.warm
    made = [call.operation for call in service.cloud.mutations[calls:] if not call.operation.startswith("store.")]
    assert made[0] == "router.modify_rule" and "groups.apply_scaling" in made
    assert known(service.scaling("1.0.0")) == before


def test_a_rollback_to_fewer_machines_than_serve_gets_capacity_first(service: Service) -> None:
    """What stood warm is brought to the size of today."""
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    service.cloud.load(service.group("1.1.0"), 6)
    service.clock.advance(30)
    at_first_shift(service, lambda: service.cloud.load(service.group("1.0.0"), 6))
    outcome = service.rollback()
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None
    assert not outcome.run.warm and outcome.run.capacity == 6
    assert known(service.scaling("1.0.0")).desired == 6


def test_steps_of_weights_pause_once(service: Service) -> None:
    """However many steps a canary has."""
    steps = (TrafficStep(10, 30.0), TrafficStep(50, 30.0), TrafficStep(100))
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, steps=steps))
    calls = len(service.cloud.mutations)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    made = [call.operation for call in service.cloud.mutations[calls:]]
    assert made.count("groups.pause_scaling") == 1 and made.count("groups.apply_scaling") == 1
    assert made.count("groups.resume_scaling") == 0


def test_a_service_that_nobody_scales_pays_a_look_for_each_share(service: Service) -> None:
    """No change more, and no other read while a rollout is under way: none while it bakes or waits for somebody's word.
    A rollback has none."""
    plain = Service()
    plain.deploy("1.0.0")
    calls = len(plain.cloud.calls)
    assert plain.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    asked = [call.operation for call in plain.cloud.calls[calls:] if "scaling" in call.operation]
    assert asked == ["groups.scaling"] * (1 + 1)
    calls = len(plain.cloud.calls)
    assert plain.rollback().outcome is Outcome.SUCCEEDED
    asked = [call.operation for call in plain.cloud.calls[calls:] if "scaling" in call.operation]
    assert asked == ["groups.scaling"]
    steps = (TrafficStep(10, 600.0), TrafficStep(50, 600.0), TrafficStep(100))
    in_canary(plain, *steps, approve=True)
    calls = len(plain.cloud.calls)
    assert plain.deploy("1.2.0").outcome is Outcome.WAITING
    plain.clock.advance(600)
    asking = Request(RequestKind.APPROVE, "ann@desk", plain.clock.now(), 0)
    run = plain.head.run
    assert run is not None
    plain.ledger.ask(plain.context(), run.id, asking)
    assert plain.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    asked = [call.operation for call in plain.cloud.calls[calls:] if "scaling" in call.operation]
    assert asked == ["groups.scaling"] * (1 + len(steps))


def test_what_could_not_be_handed_over_is_owed_to_the_next_release(service: Service) -> None:
    """The release serves, says what it lacks, and the next one has it."""
    before = known(service.scaling("1.0.0"))
    service.cloud.faults.fail("groups.apply_scaling", Refused("not allowed"), times=3)
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED and "cpu, night" in outcome.told
    assert known(service.scaling("1.1.0")).fixed
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    found = known(service.scaling("1.2.0"))
    assert (found.rules, found.minimum, found.maximum) == (before.rules, 2, 6)


def test_half_of_it_is_not_taken_for_the_whole(service: Service) -> None:
    """Where the bounds and one rule were handed over before the place said no, the next release has the rest too."""
    before = known(service.scaling("1.0.0"))
    service.cloud.faults.fail("groups.apply_scaling", Refused("not allowed"), times=3)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    service.cloud.scale(service.group("1.1.0"), 2, 6, cpu="60 %")
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    found = known(service.scaling("1.2.0"))
    assert (found.rules, found.minimum, found.maximum) == (before.rules, 2, 6)


def test_the_same_release_again_brings_what_was_owed(service: Service) -> None:
    """The next deploy does it, whatever it deploys; what a user has attached in between is not replaced."""
    before = known(service.scaling("1.0.0"))
    service.cloud.faults.fail("groups.apply_scaling", Refused("not allowed"), times=6)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    for _ in range(4):
        outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED and "between 2 and 6" in outcome.told
    assert replace(known(service.scaling("1.1.0")), desired=4) == before
    assert service.head.run is not None and service.head.run.scaled
    service.cloud.scale(service.group("1.1.0"), 1, 3, queue="5")
    service.deploy("1.1.0")
    assert known(service.scaling("1.1.0")).parts == ("queue",)


def test_a_pause_that_could_not_be_taken_back_is_nobody_s_wish(service: Service) -> None:
    """The next deploy does not take it for the user's."""
    before = known(service.scaling("1.0.0"))
    breaks_after_shift(service, "1.1.0")
    service.cloud.faults.fail("groups.resume_scaling", Refused("not allowed"), times=3)
    outcome = service.deploy("1.1.0")
    service.cloud.on_call(None)
    assert outcome.outcome is Outcome.ROLLED_BACK and "cpu, night" in outcome.told
    assert known(service.scaling("1.0.0")).paused
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    found = known(service.scaling("1.2.0"))
    assert not found.paused and found.rules == before.rules


@pytest.mark.parametrize("times", [1, 1000])
def test_a_rollback_does_without_knowing_what_scales(service: Service, times: int) -> None:
    """Traffic comes back all the same, and it is said; and the pause that the warm group was in is not for ever."""
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    service.cloud.faults.fail("groups.scaling", Refused("not allowed"), times=times)
    told = len(service.recorder.events)
    assert service.rollback().outcome is Outcome.SUCCEEDED
    assert any(isinstance(event, Warned) and "not allowed" in event.text for event in service.recorder.events[told:])
    service.cloud.faults.clear()
    if times > 1:
        service.deploy("1.0.0")
    found = known(service.scaling("1.0.0"))
    assert not found.paused and found.parts == ("cpu", "night")


@pytest.mark.parametrize("good", [True, False], ids=["success", "failure"])
def test_who_may_not_look_at_scaling_still_ends_a_rollout(service: Service, good: bool) -> None:
    """Another person may go on with it, who has other permissions: what could not be seen is owed."""
    before = known(service.scaling("1.0.0"))
    service.publish("1.1.0")
    ctx = service.context()
    moved: list[Call] = []

    def asked(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER and not moved:
            moved.append(call)
            if not good:
                service.cloud.behave(service.id("1.1.0"), answers=(500,))
            ctx.cancel.cancel()

    service.cloud.on_call(asked)
    with pytest.raises(Interrupted):
        service.manager().deploy(ctx, service.release("1.1.0"))
    service.cloud.on_call(None)
    service.cloud.faults.fail("groups.scaling", Refused("not allowed"), times=1000)
    ended = service.deploy("1.1.0")
    service.cloud.faults.clear()
    assert ended.outcome is (Outcome.SUCCEEDED if good else Outcome.ROLLED_BACK) and ended.run is not None
    assert not ended.run.scaled and "cpu, night" in ended.told
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert replace(known(service.scaling("1.2.0")), desired=4) == before


def test_the_same_release_again_leaves_its_size_to_what_scales_it(service: Service) -> None:
    """Another capacity in the spec is no reason to make it another size."""
    service.settings = replace(service.settings, capacity=3)
    outcome = service.deploy("1.0.0")
    assert outcome.outcome is Outcome.SUCCEEDED and "between 2 and 6" in outcome.told
    assert known(service.scaling("1.0.0")).desired == 4


@pytest.mark.parametrize(
    ("declared", "by_hand", "expected"), [(2, 2, 2), (2, 5, 5), (3, 5, 3), (3, 2, 3)], ids=lambda each: str(each)
)
def test_without_scaling_the_spec_s_change_wins(declared: int, by_hand: int, expected: int) -> None:
    """Else a group that somebody made larger by hand is followed by one as large."""
    service = Service()
    service.deploy("1.0.0")
    group = service.cloud.world.groups[service.group("1.0.0")]
    group.capacity = by_hand
    service.settings = replace(service.settings, capacity=declared)
    outcome = service.deploy("1.1.0")
    assert outcome.run is not None and outcome.run.capacity == expected


def test_no_more_are_started_than_its_scaling_would_leave(service: Service) -> None:
    """A declared capacity above the maximum counts as the maximum."""
    service.settings = replace(service.settings, capacity=9)
    outcome = service.deploy("1.1.0")
    assert outcome.run is not None and outcome.run.capacity == 6


def paused_late(service: Service, *, good: bool = True) -> None:
    """A deploy stands still for longer than its lease as it is about to pause what scales stable; another one takes
    over, and ends it. Then the pause arrives."""
    done: list[Call] = []

    def hook(call: Call, moment: Moment) -> None:
        if call.operation == "groups.pause_scaling" and moment is Moment.BEFORE and not done:
            done.append(call)
            service.cloud.on_call(None)
            service.rollback()
            service.cloud.on_call(hook)

    service.cloud.on_call(hook)
    with pytest.raises(LeaseLost):
        service.deploy("1.1.0")
    service.cloud.on_call(None)
    assert known(service.scaling("1.0.0")).paused


def test_a_pause_that_comes_late_is_told_and_taken_back(service: Service) -> None:
    """Nobody's wish, and nothing else tells it: what serves would keep its size for ever."""
    paused_late(service)
    [found] = looked(service)
    assert (found.kind, found.repairable) == (DriftKind.SCALING, True)
    assert found.what == f"what scales {service.id('1.0.0')} is suspended, and was not when its last rollout ended"
    service.manager().realign(service.context())
    assert not known(service.scaling("1.0.0")).paused
    assert looked(service) == []


@pytest.mark.parametrize("operation", ["groups.scaling", "groups.resume_scaling"])
def test_traffic_is_put_right_also_by_who_may_not_touch_what_scales(service: Service, operation: str) -> None:
    """It is told, and stays to be told."""
    paused_late(service)
    service.cloud.set_weights("hello/production", {Slot.BLUE: 50, Slot.GREEN: 50})
    service.cloud.faults.fail(operation, Refused("not allowed"), times=9)
    service.manager().realign(service.context())
    service.cloud.faults.clear()
    warned = [event.text for event in service.recorder.events if isinstance(event, Warned)]
    assert f"what scales {service.id('1.0.0')} is left as it is: not allowed" in warned
    assert [each.kind for each in looked(service)] == [DriftKind.SCALING]


def test_a_deploy_says_that_what_was_suspended_since_passes_on_so(service: Service) -> None:
    """It may be somebody's wish, who suspended it by hand."""
    paused_late(service)
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    warned = [event for event in service.recorder.events if isinstance(event, Warned)]
    assert any("is suspended, and was not" in event.text and "--repair" in (event.hint or "") for event in warned)
    assert known(service.scaling("1.2.0")).paused


def test_what_was_taken_away_is_not_called_suspended(service: Service) -> None:
    """Whoever takes a policy away has said what they want."""
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    service.cloud.scale(service.group("1.1.0"), 2, 6)
    service.cloud.cloud.groups.pause(service.context(), service.group("1.1.0"))
    assert looked(service) == []

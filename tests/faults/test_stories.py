"""What has gone wrong in other tools that move traffic, each as a test of what must hold here: docs/faults.md.

On the memory cloud, in virtual time, but for what only the balancers and groups of a real API can tell
(test_stories_in_clouds.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest, Slot
from osvdeploy.cloud.memory import Call, Moment, Timing
from osvdeploy.errors import Interrupted, LeaseHeld, OsvDeployError, Refused, RolloutWaiting, Unavailable, UsageError
from osvdeploy.events import Event, Waiting
from osvdeploy.rollout.drifting import DriftKind
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.ledger import Head
from osvdeploy.rollout.model import Limits, Outcome, RequestKind, Run, Stage, Until
from osvdeploy.rollout.releases import Concurrent, OnFailure, Strategy, StrategyKind, TrafficStep
from tests.rollout.made import SETTINGS
from tests.rollout.test_control import CANARY, Controlled, living
from tests.rollout.test_drifting import looked

pytestmark = pytest.mark.slow

BAKED = replace(SETTINGS.strategy, bake=120.0)
AT_ONCE = replace(SETTINGS.strategy, kind=StrategyKind.ALL_AT_ONCE, keep_warm=0.0)
STEPS = replace(CANARY, steps=(TrafficStep(50, 30.0), TrafficStep(90, 30.0), TrafficStep(100)), keep_warm=0.0)
ASKING = replace(CANARY, steps=(TrafficStep(20, 5.0, approve=True), TrafficStep(100)), bake=10.0)

Looks = Callable[[Call], object]


class Story(Controlled):
    """A service whose clients and whose capacity are looked at around every call."""

    def __init__(self, *served: str, strategy: Strategy = SETTINGS.strategy, timing: Timing | None = None) -> None:
        """``served``: versions that served one after the other. What comes next goes by ``strategy``."""
        super().__init__()
        self.bad: list[str] = []
        self._looks: list[Looks] = []
        for version in served:
            assert self.deploy(version).outcome is Outcome.SUCCEEDED
        if timing is not None:
            self.cloud.world.timing = timing
            self.clock.advance(max(timing.propagation) + 1.0)
        self.settings = replace(self.settings, strategy=strategy)

    def answers(self) -> list[ProbeAnswer]:
        """What clients get now, at each entry point of the balancer."""
        with self.unseen():
            place = self.head.place
            assert place is not None
            listener = self.cloud.world.listeners[place.route.listener]
            return [
                self.cloud.prober.probe(self.context(), ProbeRequest(f"{place.base_url}/", address=f"{each}:80"))
                for each in listener.addresses
            ]

    def releases(self) -> list[str | None]:
        """Which release answers at each entry point; None for no good answer."""
        return [each.headers.get("x-release") if each.status == 200 else None for each in self.answers()]

    def healthy(self, slot: Slot) -> int:
        with self.unseen():
            place = self.head.place
            assert place is not None
            targets = self.cloud.cloud.router.health(self.context(), place.route, slot)
        return sum(target.state == "healthy" for target in targets)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """What a test looks at is no call of anybody's."""
        hook, self.cloud.faults.hook = self.cloud.faults.hook, None
        log = len(self.cloud.faults.log)
        yield
        self.cloud.faults.hook = hook
        del self.cloud.faults.log[log:]

    def before(self, look: Looks) -> None:
        """``look`` before each call takes effect, after those that look already."""
        self._looks.append(look)

        def hook(call: Call, moment: Moment) -> None:
            if moment is Moment.BEFORE:
                for each in tuple(self._looks):
                    each(call)

        self.cloud.on_call(hook)

    def at_stage(self, stage: Stage, act: Callable[[], object]) -> None:
        """Somebody acts once, before the first call in a stage."""
        done: list[Stage] = []

        def look(call: Call) -> None:
            with self.unseen():
                run = self.head.unfinished
                if not done and run is not None and run.stage is stage:
                    done.append(stage)
                    act()

        self.before(look)

    def at_switch(self, look: Callable[[], object]) -> None:
        """``look`` before each change of the weights."""
        self.before(lambda call: look() if call.operation == "router.modify_rule" else None)

    def at_rest(self) -> None:
        """Nobody looks any more."""
        self._looks.clear()
        self.cloud.on_call(None)

    def demand(self) -> None:
        """From now on each client gets a good answer at any time, of any release."""

        def look(call: Call) -> None:
            if None in self.releases():
                self.bad.append(f"a client got no good answer before {call}")

        self.before(look)

    def lose(self, version: str, machines: int) -> None:
        """The first machines of a release's group are gone, and nothing replaces them until the group is filled."""
        world = self.cloud.world
        for machine in world.groups[self.group(version)].kept[:machines]:
            world.stop(machine, world.settle(), "lost")
        self.clock.advance(world.timing.stop + 0.1)
        world.settle()

    def refill(self, version: str) -> None:
        world = self.cloud.world
        world.fill(world.groups[self.group(version)], world.settle())

    def sick(self, version: str, **behaviour: object) -> None:
        self.cloud.behave(self.id(version), **behaviour)

    @property
    def run(self) -> Run:
        run = self.head.run
        assert run is not None
        return run


def ends(story: Story, version: str) -> Rollout:
    story.publish(version)
    ended = story.deploy(version)
    story.at_rest()
    assert story.bad == []
    return ended


# ------------------------------------------------------------------------------------- what the balancer really does


@pytest.mark.parametrize("late", [(1.0, 25.0), (1.0, 60.0), (25.0, 1.0), (60.0, 1.0)])
def test_old_machines_stay_while_the_balancer_still_sends_them_traffic(late: tuple[float, float]) -> None:
    """At one of its entry points, whichever, a switch is in force a minute late, and the API has told it at once."""
    story = Story("1.0.0", strategy=AT_ONCE, timing=Timing(propagation=late))
    gone: list[list[str | None]] = []

    def look(call: Call) -> None:
        if call.operation == "groups.delete" and call.arguments == (story.group("1.0.0"),):
            gone.append(story.releases())

    story.before(look)
    assert ends(story, "1.1.0").outcome is Outcome.SUCCEEDED
    assert gone == [[story.id("1.1.0")] * 2]


def goes_at(story: Story, version: str) -> list[tuple[float, list[str | None]]]:
    """When a release's machines are begun to be taken away, by the clock, and who answers then."""
    gone: list[tuple[float, list[str | None]]] = []

    def look(call: Call) -> None:
        if call.operation == "groups.delete":
            with story.unseen():
                if call.arguments == (story.group(version),):
                    gone.append((story.clock.monotonic(), story.releases()))

    story.before(look)
    return gone


def switched_at(story: Story) -> list[float]:
    """When weights were changed, by the clock."""
    times: list[float] = []
    story.at_switch(lambda: times.append(story.clock.monotonic()))
    return times


def _deployed_at_once(story: Story) -> None:
    assert story.deploy("1.1.0").outcome is Outcome.SUCCEEDED


def _gone_back(story: Story) -> None:
    assert story.rollback().outcome is Outcome.SUCCEEDED


def _reverted(story: Story) -> None:
    story.at_stage(Stage.BAKE, lambda: story.sick("1.1.0", answers=(500,), health=500))
    assert story.deploy("1.1.0").outcome is Outcome.ROLLED_BACK


LEAVINGS = {
    "all at once": (AT_ONCE, "1.0.0", _deployed_at_once),
    "rollback": (SETTINGS.strategy, "1.1.0", _gone_back),
    "revert": (BAKED, "1.1.0", _reverted),
}


@pytest.mark.parametrize("how", LEAVINGS)
def test_requests_under_way_have_their_time_before_machines_go(how: str) -> None:
    """Twenty seconds at least after the switch is proved, whatever takes the traffic away."""
    strategy, left, act = LEAVINGS[how]
    story = Story("1.0.0", strategy=strategy)
    story.publish("1.1.0")
    if act is _gone_back:
        story.deploy("1.1.0")
        story.clock.advance(60)
    switched, gone = switched_at(story), goes_at(story, left)
    act(story)
    story.at_rest()
    assert len(gone) == 1 and gone[0][0] - switched[-1] >= 20 + 1
    assert left not in {None if each is None else each.split("-")[1] for each in gone[0][1]}
    story.clock.advance(30)
    assert len(story.cloud.running) == 1


def test_a_warm_release_that_makes_way_has_had_the_same_time() -> None:
    """The deploy after next comes at once: what lost its traffic a moment ago may still have requests."""
    story = Story("1.0.0")
    assert ends(story, "1.1.0").outcome is Outcome.SUCCEEDED
    served, gone = story.clock.monotonic(), goes_at(story, "1.0.0")
    assert ends(story, "1.2.0").outcome is Outcome.SUCCEEDED
    assert len(gone) == 1 and gone[0][0] - served >= 19


@pytest.mark.parametrize("how", LEAVINGS)
def test_machines_stay_while_an_entry_point_that_nobody_sees_may_send_to_them(how: str) -> None:
    """A balancer has more of them than it tells: one follows a minute late, and its clients get good answers."""
    strategy, left, act = LEAVINGS[how]
    story = Story("1.0.0", strategy=strategy, timing=Timing(propagation=(1.0, 60.0)))
    story.cloud.late = 90.0
    story.publish("1.1.0")
    if act is _gone_back:
        story.deploy("1.1.0")
        story.clock.advance(120)
    listeners = story.cloud.world.listeners
    listeners.update({name: replace(each, hidden=1) for name, each in listeners.items()})
    switched, gone = switched_at(story), goes_at(story, left)
    act(story)
    story.at_rest()
    assert len(gone) == 1 and gone[0][0] - switched[-1] >= 89
    assert left not in {None if each is None else each.split("-")[1] for each in gone[0][1]}


@pytest.mark.parametrize("never", [(1.0, 100_000.0), (100_000.0, 1.0)])
def test_a_switch_that_never_comes_into_force_takes_no_machine_away(never: tuple[float, float]) -> None:
    """The API shows the new weights, and an entry point goes on as before: that is no success, and nothing goes."""
    story = Story("1.0.0", strategy=AT_ONCE, timing=Timing(propagation=never))
    story.demand()
    ended = ends(story, "1.1.0")
    assert ended.outcome is Outcome.ROLLED_BACK and "not proved" in ended.told
    assert story.healthy(Slot.BLUE) == 2 and story.releases() == [story.id("1.0.0")] * 2


@pytest.mark.parametrize("late", [(1.0, 5.0), (1.0, 25.0), (25.0, 1.0)])
def test_the_last_step_is_in_force_everywhere_before_old_machines_go(late: tuple[float, float]) -> None:
    """From 90 to 100 %: no client meets machines that are on their way out."""
    story = Story("1.0.0", strategy=STEPS, timing=Timing(propagation=late))
    story.demand()
    assert ends(story, "1.1.0").outcome is Outcome.SUCCEEDED
    story.clock.advance(60)
    assert story.cloud.running == {story.id("1.1.0")}


def test_a_success_is_never_told_while_the_old_release_answers() -> None:
    """At any entry point, at the end of every kind of rollout."""
    for strategy in (SETTINGS.strategy, AT_ONCE, STEPS, BAKED):
        story = Story("1.0.0", strategy=strategy, timing=Timing(propagation=(20.0, 1.0)))
        assert ends(story, "1.1.0").outcome is Outcome.SUCCEEDED
        assert {*story.releases(), *story.releases(), *story.releases()} == {story.id("1.1.0")}


def test_what_names_no_release_does_not_serve() -> None:
    """Healthy, and answering, but nobody can tell that it is the new one."""
    story = Story("1.0.0")
    story.sick("1.1.0", header=None)
    assert ends(story, "1.1.0").outcome is Outcome.ROLLED_BACK
    assert story.cloud.serving == story.cloud.running == {story.id("1.0.0")}


# ------------------------------------------------------------------------------------------------ capacity and weight


def test_a_rollback_sends_no_traffic_before_all_of_todays_capacity_is_healthy() -> None:
    """One machine of the old release is up, and that is not enough."""
    story = Story("1.0.0", "1.1.0")
    story.lose("1.0.0", 1)
    story.then(40.0, lambda: story.refill("1.0.0"))
    moved: list[int] = []
    story.at_switch(lambda: moved.append(story.healthy(Slot.BLUE)))
    assert story.rollback().outcome is Outcome.SUCCEEDED
    story.at_rest()
    assert moved == [2]


def test_a_rollback_to_fewer_machines_than_serve_makes_them_more_first() -> None:
    """Two served then, five do now."""
    story = Story("1.0.0")
    story.settings = replace(story.settings, capacity=5)
    story.deploy("1.1.0")
    story.settings = replace(story.settings, capacity=2)
    moved: list[int] = []
    story.at_switch(lambda: moved.append(story.healthy(Slot.BLUE)))
    assert story.rollback("1.0.0").outcome is Outcome.SUCCEEDED
    story.at_rest()
    assert moved == [5]


@pytest.mark.parametrize("weight", [5, 50])
def test_no_share_goes_to_a_release_whose_machines_are_gone(weight: int) -> None:
    """They were healthy, and are gone when traffic was to move."""
    story = Story("1.0.0", strategy=replace(CANARY, steps=(TrafficStep(weight, 10.0), TrafficStep(100))))
    lost: list[str] = []

    def look(call: Call) -> None:
        if call.operation == "prober.probe" and not lost and story.run.stage is Stage.VERIFY:
            lost.append("all")
            with story.unseen():
                story.lose("1.1.0", 2)
        if call.operation == "router.modify_rule":
            assert story.healthy(Slot.GREEN) == 2
        if lost and None in story.releases():
            story.bad.append(str(call))

    story.before(look)
    story.then(90.0, lambda: story.refill("1.1.0") if story.group("1.1.0") in story.cloud.world.groups else None)
    ends(story, "1.1.0")
    assert lost


def test_what_serves_keeps_its_size_until_traffic_has_left_it_for_good() -> None:
    """Without load its scaling would make it smaller, just when it may have to take everything back."""
    story = Story("1.0.0", strategy=BAKED)
    story.scale("1.0.0", 1, 6)
    story.cloud.load(story.group("1.0.0"), 4)
    story.clock.advance(60)
    story.sick("1.1.0", sick_after=70.0)
    moved: list[int] = []
    story.at_switch(lambda: moved.append(story.healthy(Slot.BLUE)))
    story.when(lambda: story.weights().get(Slot.GREEN) == 100, lambda: story.cloud.load(story.group("1.0.0"), 1))
    assert ends(story, "1.1.0").outcome is Outcome.ROLLED_BACK
    assert moved == [4, 4]


def test_while_a_new_release_fails_no_machine_of_the_old_one_is_touched() -> None:
    """In whatever way it fails."""
    ways: list[dict[str, object]] = [
        {"answers": (500,)},
        {"never_healthy": True},
        {"aborts": "OSv v0.57.0\nAborted\n"},
        {"launch_fails": "no capacity"},
        {"dies_at": 3.0},
        {"sick_after": 25.0},
    ]
    for way in ways:
        story = Story("1.0.0", strategy=BAKED)
        story.sick("1.1.0", **way)
        old = [machine.id for machine in story.cloud.world.groups[story.group("1.0.0")].kept]
        assert story.deploy("1.1.0").outcome is Outcome.ROLLED_BACK, way
        assert [machine.id for machine in story.cloud.world.groups[story.group("1.0.0")].kept] == old
        story.clock.advance(60)
        assert story.cloud.running == {story.id("1.0.0")}, way


def test_nothing_is_taken_away_before_what_takes_its_place_serves() -> None:
    """Neither a deploy nor a rollback destroys first."""
    for back in (False, True):
        story = Story("1.0.0", "1.1.0")
        story.settings = replace(story.settings, strategy=AT_ONCE)
        story.demand()
        assert (story.rollback() if back else story.deploy("1.2.0")).outcome is Outcome.SUCCEEDED
        assert story.bad == []


def test_a_fix_is_rolled_out_over_a_release_that_is_all_sick() -> None:
    """Nothing of what serves is healthy: that is when a fix is needed, and it needs none of it."""
    story = Story("1.0.0")
    story.sick("1.0.0", answers=(500,), health=500)
    story.clock.advance(120)
    assert story.healthy(Slot.BLUE) == 0
    assert story.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert story.releases() == [story.id("1.1.0")] * 2


def test_a_release_that_flaps_after_it_was_ready_goes_back_by_itself() -> None:
    """It was healthy and proved; what served before comes back, and is whole."""
    story = Story("1.0.0", strategy=BAKED)
    story.sick("1.1.0", sick_after=40.0)
    ended = story.deploy("1.1.0")
    assert ended.outcome is Outcome.ROLLED_BACK and story.run.shifted is not None
    assert story.releases() == [story.id("1.0.0")] * 2 and story.healthy(Slot.BLUE) == 2


def test_what_failed_or_was_left_costs_nothing_afterwards() -> None:
    """The bad release's machines go as part of the way back: after a failure, and after a rollback."""
    story = Story("1.0.0", "1.1.0")
    assert story.rollback().outcome is Outcome.SUCCEEDED
    story.sick("1.2.0", answers=(500,))
    assert story.deploy("1.2.0").outcome is Outcome.ROLLED_BACK
    story.clock.advance(60)
    assert story.cloud.running == {story.id("1.0.0")}
    assert {group.name for group in story.cloud.world.groups.values()} == {story.group("1.0.0")}


# ---------------------------------------------------------------------------------------------------- abort and ending


@pytest.mark.parametrize("strategy", [BAKED, CANARY, AT_ONCE], ids=["blue-green", "canary", "all at once"])
@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.BOOT, Stage.VERIFY, Stage.SHIFT, Stage.BAKE, Stage.CLEAN_UP])
def test_an_abort_at_every_stage_leaves_all_machines_of_what_serves(stage: Stage, strategy: Strategy) -> None:
    """Never nothing: the same machines, and as many."""
    story = Story("1.0.0", strategy=strategy)
    old = [machine.id for machine in story.cloud.world.groups[story.group("1.0.0")].kept]
    story.at_stage(stage, lambda: story.say(RequestKind.ABORT))
    story.demand()
    ended = ends(story, "1.1.0")
    story.clock.advance(120)
    assert None not in story.releases()
    if ended.outcome is Outcome.ABORTED:
        assert [machine.id for machine in story.cloud.world.groups[story.group("1.0.0")].kept] == old
        assert story.healthy(Slot.BLUE) == 2 and story.cloud.running == {story.id("1.0.0")}
    else:
        # Where it was decided already, it ends as it would have.
        assert ended.outcome is Outcome.SUCCEEDED and story.healthy(Slot.GREEN) == 2


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.BOOT, Stage.VERIFY, Stage.SHIFT, Stage.BAKE])
def test_an_abort_at_every_stage_leaves_scaling_as_it_was(stage: Stage) -> None:
    """Its bounds are not pinned, and nothing stays paused."""
    story = Story("1.0.0", strategy=BAKED)
    story.scale("1.0.0", 1, 6)
    before = story.scaling("1.0.0")
    story.at_stage(stage, lambda: story.say(RequestKind.ABORT))
    assert story.deploy("1.1.0").outcome is Outcome.ABORTED
    assert story.scaling("1.0.0") == before


def test_an_abort_with_nothing_under_way_touches_no_machine() -> None:
    """After a deploy, a rollback, a failure and an abort."""
    for before in ("deploy", "rollback", "failure", "abort"):
        story = Story("1.0.0", "1.1.0", strategy=BAKED)
        if before == "rollback":
            story.rollback()
        if before == "failure":
            story.sick("1.2.0", answers=(500,))
            story.deploy("1.2.0")
        if before == "abort":
            story.then(20.0, lambda story=story: story.say(RequestKind.ABORT))  # type: ignore[misc]
            story.deploy("1.2.0")
        story.clock.advance(60)
        running, changes = story.cloud.running, len(story.cloud.mutations)
        with pytest.raises(UsageError, match="no rollout is under way"):
            story.manager().request(story.context(), RequestKind.ABORT)
        story.clock.advance(120)
        assert story.cloud.running == running and len(story.cloud.mutations) == changes, before


def test_each_abort_of_a_release_waits_anew_until_traffic_has_left_it() -> None:
    """Tried again and aborted again: its machines are not taken away faster the second time."""
    story = Story("1.0.0", strategy=ASKING, timing=Timing(propagation=(1.0, 25.0)))
    for _ in range(3):
        assert story.deploy("1.1.0").outcome is Outcome.WAITING
        story.clock.advance(30)
        story.demand()
        asked = story.manager().request(story.context(), RequestKind.ABORT)
        story.at_rest()
        assert asked.rollout is not None and asked.rollout.outcome is Outcome.ABORTED
        assert story.bad == []
        run = story.run
        back = next(record for record in run.stages if record.stage is Stage.REVERT)
        assert (back.left - back.entered).total_seconds() >= 30.0


def test_the_time_to_stay_warm_begins_when_traffic_has_left() -> None:
    """And not when the rollout began, nor at the first share."""
    story = Story("1.0.0", strategy=replace(STEPS, keep_warm=300.0, bake=60.0))
    assert story.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    until = story.head.slots[Slot.BLUE].warm_until
    full = next(move.at for move in story.run.moves if move.weight == 100)
    assert until is not None and (until - full).total_seconds() >= 300.0


@pytest.mark.parametrize("way", [{"never_healthy": True}, {"answers": (500,)}, {"launch_fails": "no capacity"}])
def test_a_second_bad_release_ends_as_soon_as_the_first_did(way: dict[str, object]) -> None:
    """Its deadline counts from its own beginning."""
    story = Story("1.0.0")
    took = []
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        story.sick(version, **way)
        began = story.time.monotonic()
        assert story.deploy(version).outcome is Outcome.ROLLED_BACK
        took.append(story.time.monotonic() - began)
    assert max(took) <= min(took) + 15.0 and max(took) < 60.0 + 60.0


def test_no_stage_goes_on_for_ever() -> None:
    """Whatever the cloud refuses, and whatever never comes about: an end, with its reason."""
    refusals = ["groups.create_group", "router.create_backend", "router.modify_rule", "groups.delete", "console.read"]
    for operation in refusals:
        for error in (Refused("not allowed"), Unavailable("no answer")):
            story = Story("1.0.0", "0.9.0", strategy=AT_ONCE)

            def no(call: Call, operation: str = operation, error: OsvDeployError = error) -> None:
                if call.operation == operation:
                    raise error

            story.before(no)
            began = story.time.monotonic()
            try:
                ended: object = story.deploy("1.1.0")
            except OsvDeployError as raised:
                ended = raised
            story.at_rest()
            assert story.time.monotonic() - began < 2500.0, f"{operation}: {ended}"
            assert None not in story.releases()


def test_a_rollback_that_cannot_come_up_ends_and_the_next_command_goes_on() -> None:
    """Nothing has to be deleted by hand to get out of it."""
    story = Story("1.0.0", "1.1.0", "1.2.0")
    story.clock.advance(4000)
    story.sick("1.0.0", never_healthy=True)
    assert story.rollback("1.0.0").outcome is Outcome.ROLLBACK_FAILED
    assert story.cloud.serving == {story.id("1.2.0")} and story.releases() == [story.id("1.2.0")] * 2
    assert story.deploy("1.3.0").outcome is Outcome.SUCCEEDED
    assert story.rollback().outcome is Outcome.SUCCEEDED


def test_a_command_ends_when_its_rollout_does_and_fails_with_it() -> None:
    """A pipeline sees in its exit code what came about."""
    story = Story("1.0.0", strategy=BAKED)
    story.sick("1.1.0", sick_after=40.0)
    assert (story.deploy("1.1.0").exit_code, story.head.unfinished) == (3, None)
    assert (story.deploy("1.2.0").exit_code, story.head.unfinished) == (0, None)


def test_nobody_asks_the_cloud_without_end() -> None:
    """While a group does not go, while machines do not come, while it bakes, and after an abort: few looks a minute."""

    def looks(story: Story, strategy: Strategy, seconds: float, **way: object) -> float:
        story.settings = replace(story.settings, strategy=strategy)
        story.sick("1.1.0", **way)
        before, began = len(story.cloud.calls), story.time.monotonic()
        story.deploy("1.1.0")
        passed = story.time.monotonic() - began
        assert passed > seconds
        return 60.0 * len([c for c in story.cloud.calls[before:] if not c.operation.startswith("prober")]) / passed

    assert looks(Story("1.0.0"), replace(BAKED, bake=3600.0), 3000.0) < 60
    slow = Story("1.0.0")
    slow.settings = replace(slow.settings, health=replace(slow.settings.health, boot_timeout=1800.0))
    assert looks(slow, SETTINGS.strategy, 1700.0, never_healthy=True) < 300
    stuck = Story("1.0.0", timing=Timing(stop=600.0))
    stuck.at_stage(Stage.BAKE, lambda: stuck.say(RequestKind.ABORT))
    assert looks(stuck, BAKED, 500.0) < 300
    calls = len(stuck.cloud.calls)
    stuck.clock.advance(3600)
    assert len(stuck.cloud.calls) == calls


# --------------------------------------------------------------------------------------------------- several releases


@pytest.mark.parametrize("concurrent", list(Concurrent))
def test_a_release_that_comes_while_a_canary_waits_is_never_forgotten(concurrent: Concurrent) -> None:
    """It is refused aloud, or it serves: at once, or when somebody has decided about the canary."""
    story = Story("1.0.0", strategy=ASKING)
    assert story.deploy("1.1.0").outcome is Outcome.WAITING
    story.settings = replace(story.settings, strategy=replace(SETTINGS.strategy, concurrent=concurrent))
    story.then(300.0, lambda: story.manager().request(story.context(), RequestKind.APPROVE))
    if concurrent is not Concurrent.REFUSE:
        assert story.deploy("1.2.0").outcome is Outcome.SUCCEEDED
        assert story.cloud.serving == {story.id("1.2.0")}
    else:
        with pytest.raises(RolloutWaiting, match=r"hello-1\.1\.0"):
            story.deploy("1.2.0")
        assert story.weights() == {Slot.BLUE: 80, Slot.GREEN: 20}


@pytest.mark.parametrize("late", [1.0, 25.0])
def test_a_release_that_is_superseded_keeps_its_machines_until_it_has_no_traffic(late: float) -> None:
    """A third release comes while the second has a share: nobody meets machines that were taken away."""
    story = Story("1.0.0", strategy=ASKING, timing=Timing(propagation=(1.0, late)))
    assert story.deploy("1.1.0").outcome is Outcome.WAITING
    story.clock.advance(60)
    story.settings = replace(story.settings, strategy=replace(AT_ONCE, concurrent=Concurrent.SUPERSEDE))
    story.demand()
    assert ends(story, "1.2.0").outcome is Outcome.SUCCEEDED


def test_traffic_that_is_superseded_goes_back_to_a_release_that_can_take_all_of_it() -> None:
    """In one step, which is why stable keeps its machines; a third release gets none before."""
    story = Story("1.0.0", strategy=replace(ASKING, steps=(TrafficStep(90, 5.0, approve=True), TrafficStep(100))))
    assert story.deploy("1.1.0").outcome is Outcome.WAITING
    story.settings = replace(story.settings, strategy=replace(AT_ONCE, concurrent=Concurrent.SUPERSEDE))
    seen: list[tuple[set[str], int]] = []

    def look(call: Call) -> None:
        if call.operation == "router.modify_rule":
            seen.append(({str(each) for each in story.cloud.running}, story.healthy(Slot.BLUE)))

    story.before(look)
    assert ends(story, "1.2.0").outcome is Outcome.SUCCEEDED
    first, last = seen[0], seen[-1]
    assert first == ({story.id("1.0.0"), story.id("1.1.0")}, 2)
    assert last == ({story.id("1.0.0"), story.id("1.2.0")}, 2)


def test_a_service_changes_its_strategy_from_deploy_to_deploy() -> None:
    """From each to each."""
    linear = replace(CANARY, kind=StrategyKind.LINEAR, steps=tuple(TrafficStep(each, 5.0) for each in (50, 100)))
    strategies = [SETTINGS.strategy, AT_ONCE, STEPS, linear]
    story, number = Story("1.0.0"), 0
    for one in strategies:
        for other in strategies:
            for strategy in (one, other):
                number += 1
                story.settings = replace(story.settings, strategy=strategy)
                assert story.deploy(f"2.{number}.0").outcome is Outcome.SUCCEEDED
                assert story.cloud.serving == {story.id(f"2.{number}.0")}


# ------------------------------------------------------------------------------------------- other hands on the weights


@pytest.mark.parametrize("stage", [Stage.SHIFT, Stage.BAKE])
@pytest.mark.parametrize("strategy", [BAKED, CANARY], ids=["blue-green", "canary"])
def test_weights_put_back_in_mid_shift_by_another_tool_end_the_rollout_with_stable_serving(
    stage: Stage, strategy: Strategy
) -> None:
    """It has its own idea of what is declared. Nobody fights with it, and nothing that it sends traffic to goes."""
    story = Story("1.0.0", strategy=strategy)

    def declared() -> None:
        story.cloud.set_weights("hello/production", {Slot.BLUE: 100, Slot.GREEN: 0})

    story.at_stage(stage, declared)
    story.demand()
    ended = ends(story, "1.1.0")
    if stage is Stage.BAKE:
        assert ended.outcome is Outcome.ROLLED_BACK and "changed by somebody else" in ended.told
        assert story.releases() == [story.id("1.0.0")] * 2
    else:
        # Seen within the same shift it is set again, as any change that did not come about.
        assert ended.outcome in (Outcome.SUCCEEDED, Outcome.ROLLED_BACK)
    story.clock.advance(120)
    assert None not in story.releases()


@pytest.mark.parametrize("kind", ["stranger", "path"])
@pytest.mark.parametrize("strategy", [BAKED, CANARY], ids=["blue-green", "canary"])
def test_a_rule_that_is_changed_under_a_bake_ends_the_rollout_with_the_rule_put_right(
    kind: str, strategy: Strategy
) -> None:
    """As changed weights do: what the rollout has set is not there any more, and stable has its clients back."""
    story = Story("1.0.0", strategy=strategy)

    def changed() -> None:
        if kind == "stranger":
            story.cloud.share_out("hello/production", 900)
        else:
            story.cloud.narrow("hello/production", "/nowhere")

    story.at_stage(Stage.BAKE, changed)
    ended = ends(story, "1.1.0")
    assert ended.outcome is Outcome.ROLLED_BACK
    assert "the rule was changed by somebody else: " in ended.told
    story.at_rest()
    assert looked(story) == []
    assert story.cloud.serving == {story.id("1.0.0")}


@pytest.mark.parametrize("idle", [1, 50, 100])
def test_an_idle_slot_that_somebody_gave_weight_is_told_and_not_built_upon(idle: int) -> None:
    """A declared 0 that arrived as 1, or weights that were reset: drift tells it, a deploy refuses, a repair cures."""
    story = Story("1.0.0", "1.1.0")
    story.cloud.set_weights("hello/production", {Slot.BLUE: idle, Slot.GREEN: 100 - idle})
    assert [each.kind for each in looked(story)] == [DriftKind.ROUTE]
    with pytest.raises(UsageError, match="the rule's weights are"):
        story.deploy("1.2.0")
    assert story.cloud.running == {story.id("1.0.0"), story.id("1.1.0")}
    story.manager().realign(story.context())
    assert looked(story) == []
    assert story.deploy("1.2.0").outcome is Outcome.SUCCEEDED


def test_every_group_that_stands_is_in_the_ledger_and_goes_with_the_service() -> None:
    """None is copied behind anybody's back."""
    story = Story("1.0.0", "1.1.0", "1.2.0", strategy=STEPS)
    for version in ("1.3.0", "1.4.0"):
        story.deploy(version)
        assert {record.group for record in story.head.slots.values()} == {
            group.name for group in story.cloud.world.groups.values() if not group.deleting
        }
    story.destroy()
    assert story.cloud.standing == set()


# --------------------------------------------------------------------------------------------------- the way back


def test_a_rollback_passes_every_gate_that_a_deploy_does() -> None:
    """It is the same way with another release: what comes not up, answers badly or names nothing gets no traffic."""
    ways: list[dict[str, object]] = [
        {"never_healthy": True},
        {"answers": (500,)},
        {"aborts": "OSv v0.57.0\nAborted\n"},
        {"header": None},
    ]
    for way in ways:
        story = Story("1.0.0", "1.1.0", "1.2.0")
        story.sick("1.0.0", **way)
        story.demand()
        assert story.rollback("1.0.0").outcome is Outcome.ROLLBACK_FAILED, way
        story.at_rest()
        assert story.bad == [] and story.cloud.serving == {story.id("1.2.0")}


def test_the_release_before_is_the_one_that_served_before() -> None:
    """Not the newest document, nor what failed in between."""
    story = Story("1.0.0", "1.1.0")
    story.sick("1.2.0", answers=(500,))
    story.deploy("1.2.0")
    story.deploy("1.3.0")
    assert story.rollback().outcome is Outcome.SUCCEEDED
    assert story.cloud.serving == {story.id("1.1.0")}


def test_a_rollback_goes_by_no_steps_and_asks_nobody() -> None:
    """However its release was deployed."""
    story = Story("1.0.0", strategy=replace(CANARY, approve=True, on_failure=OnFailure.PAUSE))
    story.deploy("1.1.0")
    story.manager().request(story.context(), RequestKind.APPROVE)
    story.settings = replace(story.settings, strategy=SETTINGS.strategy)
    story.deploy("1.2.0")
    began = story.time.monotonic()
    assert story.rollback().outcome is Outcome.SUCCEEDED
    assert [move.weight for move in story.run.moves] == [100]
    assert story.cloud.serving == {story.id("1.1.0")} and story.time.monotonic() - began < 60.0


def test_an_automatic_rollback_keeps_what_tells_why_before_machines_go() -> None:
    """The console of a machine that is gone can be asked of nobody."""
    story = Story("1.0.0", strategy=BAKED)
    story.sick("1.1.0", sick_after=40.0, console="OSv v0.57.0\nout of heap\n")
    assert story.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    story.clock.advance(60)
    assert story.cloud.running == {story.id("1.0.0")}
    kept = {each.source.split()[0]: each.text for each in story.run.evidence}
    assert "out of heap" in kept["console"] and "500" in kept["answer"]


def test_a_broken_notification_or_metric_keeps_no_traffic_from_coming_back() -> None:
    """The way back asks for neither."""
    story = Story("1.0.0", "1.1.0")
    story.before(lambda call: _down() if call.operation.startswith(("metrics", "console", "images.current")) else None)
    assert story.rollback().outcome is Outcome.SUCCEEDED
    story.at_rest()
    assert story.releases() == [story.id("1.0.0")] * 2


def _down() -> None:
    raise Unavailable("down")


# ------------------------------------------------------------------------------------------------- processes and people


def test_ctrl_c_leaves_no_lock_behind() -> None:
    """At any call: the next command begins at once."""
    whole = Story("1.0.0")
    before = len(whole.cloud.calls)
    whole.deploy("1.1.0")
    for at in range(2, len(whole.cloud.calls) - before, 5):
        story = Story("1.0.0")
        story.publish("1.1.0")
        ctx, seen = story.context(), [0]

        def stop(call: Call, at: int = at, seen: list[int] = seen, ctx: object = ctx) -> None:
            seen[0] += 1
            if seen[0] == at:
                ctx.cancel.cancel()  # type: ignore[attr-defined]

        story.before(stop)
        try:
            story.manager().deploy(ctx, story.release("1.1.0"))
        except Interrupted:
            pass
        story.at_rest()
        assert story.head.lease is None, f"interrupted at call {at}"
        began = story.time.monotonic()
        assert story.deploy("1.1.0").outcome is Outcome.SUCCEEDED
        assert story.time.monotonic() - began < 60.0


def test_two_pipelines_at_once_are_one_rollout_and_one_refusal() -> None:
    """The one that comes second is told who is at work; both do not half succeed."""
    story = Story("1.0.0", strategy=BAKED)
    story.publish("1.1.0")
    story.publish("1.2.0")
    told: list[str] = []
    looking = False

    def meet(call: Call) -> None:
        nonlocal looking
        if told or looking:
            return
        looking = True  # looking is a call, too
        begun = story.head.unfinished is not None
        looking = False
        if not begun:
            return
        told.append("")
        with pytest.raises((LeaseHeld, RolloutWaiting)) as refused:
            story.manager().deploy(living(story), story.release("1.2.0"))
        told[0] = str(refused.value)

    story.before(meet)
    ended = story.manager().deploy(living(story), story.release("1.1.0"))
    assert ended.outcome is Outcome.SUCCEEDED
    assert "hello-1.1.0" in told[0]
    assert story.cloud.serving == {story.id("1.1.0")}


def test_whoever_waits_says_for_what() -> None:
    """Never a quarter of a minute without a word, in any stage."""
    story = Story("1.0.0", strategy=replace(CANARY, bake=300.0))
    story.publish("1.1.0")
    said = [story.time.monotonic()]

    def tell(event: Event) -> None:
        if isinstance(event, Waiting):
            said.append(story.time.monotonic())

    story.manager().deploy(story.context().reporting_to(tell), story.release("1.1.0"))
    said.append(story.time.monotonic())
    assert max(later - sooner for sooner, later in itertools.pairwise(said)) < 15.0


def test_what_a_killed_process_had_made_is_found_and_used() -> None:
    """Its answer was lost, and nobody wrote down that it is there: no second group, and none is left."""
    story = Story("1.0.0")
    story.publish("1.1.0")

    class Killed(BaseException):
        pass

    def die(call: Call, moment: Moment) -> None:
        if call.operation == "groups.create_group" and moment is Moment.AFTER:
            raise Killed

    story.cloud.on_call(die)
    with pytest.raises(Killed):
        story.manager().deploy(story.context(), story.release("1.1.0"))
    story.at_rest()
    made = [machine.id for machine in story.cloud.world.groups[story.group("1.1.0")].kept]
    assert len(made) == 2
    assert story.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert [machine.id for machine in story.cloud.world.groups[story.group("1.1.0")].kept] == made


def test_a_wait_for_traffic_ends_before_the_bake_does() -> None:
    """A long bake keeps a way back open, and no pipeline waiting."""
    story = Story("1.0.0", strategy=replace(BAKED, bake=82_800.0))
    heads: list[Head] = []
    story.at_stage(Stage.BAKE, lambda: heads.append(story.head))
    story.then(3600.0, lambda: story.say(RequestKind.ABORT))
    assert story.deploy("1.1.0").outcome is Outcome.ABORTED
    run = heads[0].run
    assert run is not None and run.stage is Stage.BAKE and run.steps[run.step].weight == 100
    assert (run.entered - run.started).total_seconds() < 120.0


def test_a_look_costs_few_calls_and_they_get_fewer_with_time() -> None:
    """An account's calls are shared: a stage that lasts is looked at less often, and a switch is never kept waiting."""
    story = Story("1.0.0")
    story.settings = replace(story.settings, health=replace(story.settings.health, boot_timeout=600.0))
    story.sick("1.1.0", healthy_after=500.0)
    times: list[float] = []
    story.before(
        lambda call: times.append(story.time.monotonic()) if call.operation == "router.health" else None,
    )
    began = story.time.monotonic()
    assert story.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    story.at_rest()
    first = [each for each in times if each - began < 60.0]
    later = [each for each in times if 300.0 < each - began < 360.0]
    assert len(later) <= 60.0 / Limits().poll + 1 < len(first)


def test_a_deploy_goes_no_further_than_its_process_was_told() -> None:
    """And whoever is told to begin only, does not hold the lease for those who go on."""
    story = Story("1.0.0", strategy=BAKED)
    story.until = Until.BEGUN
    assert story.deploy("1.1.0").outcome is Outcome.BEGUN
    assert story.head.lease is None and story.cloud.serving == {story.id("1.0.0")}

"""Somebody's group, which has the traffic already, becomes a release; and stays theirs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from osvdeploy.api.from_cloud import Whereabouts, go_back
from osvdeploy.cloud.interfaces import ProbeRequest, Slot
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.cloud.memory.calls import Hook
from osvdeploy.errors import UsageError
from osvdeploy.events import Waiting
from osvdeploy.rollout.drifting import DriftKind
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.logbook import entries
from osvdeploy.rollout.machine import advance
from osvdeploy.rollout.model import GiveRouteBack, Kind, Limits, Observation, Outcome, RequestKind, Stage, Until
from osvdeploy.rollout.releases import Adopted, ProbePlace, Release, adopted_release
from osvdeploy.sizes import format_duration
from tests.faults.venues import Killed
from tests.rollout.made import NOW, SETTINGS
from tests.rollout.made import run as made_run
from tests.rollout.service import Service
from tests.rollout.test_drifting import looked
from tests.rollout.test_hooked import FAILED, comes_to, hook, stages_of

pytestmark = pytest.mark.whole

GROUP = "legacy-web"


class Legacy(Service):
    """A group that somebody made by hand answers at the listener, by a rule at priority 200."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.settings = replace(self.settings, **settings)  # type: ignore[arg-type]  # the caller names fields
        self.cloud.plant_service(GROUP, 200)
        self.clock.advance(60)
        self.bad = 0

    def adopted(self, *, own: bool = False) -> Release:
        settings = replace(self.settings, health=replace(self.settings.health, version_header=None))
        group = Adopted(GROUP, "image-of-theirs", "rule at priority 200", own)
        return adopted_release("hello", "0.9.0", group, settings, created=self.context().now(), by="somebody")

    def adopt(self, *, own: bool = False) -> Rollout:
        return self.manager().adopt(self.context(), self.adopted(own=own))

    def ask(self) -> str:
        """What a client gets: the first word of who answers, "" for no good answer."""
        listener = self.cloud.world.listeners["listener-1"]
        for address in listener.addresses:
            request = ProbeRequest(f"http://{listener.host}:{listener.port}/", {}, 1.0, address)
            answer = self.cloud.prober.probe(self.context(), request)
            if answer.status != 200:
                return ""
        return answer.body.decode().split()[-1]

    def watched(self) -> None:
        """Ask as a client around every change."""

        def hook(call: Call, moment: Moment) -> None:
            if call.mutating and not call.operation.startswith("store.") and not self.ask():
                self.bad += 1

        self.cloud.on_call(hook)

    @property
    def theirs(self) -> dict[str, str]:
        return dict(self.cloud.world.groups[GROUP].tags)


@pytest.fixture
def legacy() -> Legacy:
    return Legacy()


def test_traffic_goes_on_while_a_group_becomes_a_release(legacy: Legacy) -> None:
    """No client notices; slot blue has it, and its own rule goes before theirs."""
    legacy.watched()
    ended = legacy.adopt()
    assert ended.outcome is Outcome.SUCCEEDED
    assert legacy.bad == 0
    assert legacy.ask() == GROUP
    head = legacy.head
    assert head.serving is Slot.BLUE
    assert head.slots[Slot.BLUE].group == GROUP
    assert head.run is not None and head.run.kind is Kind.ADOPT
    assert {gate.gate for gate in head.run.gates} == {"healthy targets", "preview probe", "traffic"}
    kept = legacy.ledger.release(legacy.context(), head.slots[Slot.BLUE].release)
    assert kept is not None and kept.adopted is not None and kept.adopted.group == GROUP


def test_it_is_said_how_long_answers_are_waited_for_that_name_nobody(legacy: Legacy) -> None:
    """Else one looks at good answers for a minute, and wonders."""
    assert legacy.adopt().outcome is Outcome.SUCCEEDED
    waited = {event.what for event in legacy.recorder.events if isinstance(event, Waiting)}
    needed = legacy.manager().limits.settle
    assert f"answers for {format_duration(needed)} to prove 100 % on slot blue; last: 200" in waited


@pytest.mark.parametrize("stage", ["prepare", "boot", "verify", "shift", "bake"])
def test_a_hook_that_says_no_gives_it_back(stage: str) -> None:
    """At whichever stage: no client notices, nothing of ours is left, and those of the way back are asked too."""
    legacy = Legacy(hooks=(hook("smoke"),))
    before = set(legacy.cloud.standing)
    legacy.watched()
    comes_to(legacy, FAILED, stage)
    ended = legacy.adopt()
    assert (ended.outcome, legacy.bad, legacy.ask()) == (Outcome.FAILED, 0, GROUP)
    assert "hook smoke: exit status 1: no; it has its traffic as before" in ended.told
    assert legacy.cloud.standing == before and legacy.theirs == {}
    back = [] if stage in ("prepare", "boot", "verify") else ["revert"]
    assert stages_of(legacy)[-len(back) - 3 :] == [stage, *back, "clean-up", "done"]


def test_what_its_hooks_need_is_looked_for_before_anything_is_changed() -> None:
    """Also where it is only looked whether it could be adopted."""
    legacy = Legacy(hooks=(hook("smoke"),))
    legacy.cloud.hooks.missing.add("smoke")
    for attempt in (legacy.manager().refuse_unadoptable, legacy.manager().adopt):
        with pytest.raises(UsageError, match="hook smoke"):
            attempt(legacy.context(), legacy.adopted())
    changed = [call for call in legacy.cloud.mutations if not call.operation.startswith("store.")]
    assert not changed


def test_a_deploy_goes_beside_it_and_a_rollback_comes_back(legacy: Legacy) -> None:
    """At once, while it is warm."""
    legacy.adopt()
    legacy.watched()
    assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    assert legacy.ask() == legacy.id("1.0.0")
    went = legacy.rollback()
    assert went.outcome is Outcome.SUCCEEDED
    assert went.run is not None and went.run.warm
    assert legacy.ask() == GROUP
    assert legacy.bad == 0


def test_going_back_to_a_release_is_refused_while_a_group_is_adopted(legacy: Legacy) -> None:
    """It would end the adoption, and say that it succeeded though that release does not serve."""
    manager = legacy.manager()
    manager.until = Until.BEGUN
    manager.adopt(legacy.context(), legacy.adopted())
    with pytest.raises(UsageError, match=f"{GROUP} is being adopted"):
        legacy.rollback("1.0.0")
    assert legacy.head.unfinished is not None
    assert legacy.manager().rollback(legacy.context()).outcome is Outcome.SUCCEEDED
    assert legacy.head.unfinished is None and legacy.head.stable is None and legacy.ask() == GROUP


def test_their_group_is_let_go_and_not_deleted(legacy: Legacy) -> None:
    """By the deploy that needs its slot: without our tags, at its size, behind what it stood behind before."""
    legacy.adopt()
    for version in ("1.0.0", "1.1.0"):
        assert legacy.deploy(version).outcome is Outcome.SUCCEEDED
    group = legacy.cloud.world.groups[GROUP]
    assert not legacy.theirs
    assert (group.capacity, len(group.alive), group.beside) == (2, 2, "")
    assert legacy.cloud.running == {GROUP, legacy.id("1.0.0"), legacy.id("1.1.0")}


def test_one_that_was_given_is_deleted(legacy: Legacy) -> None:
    """With --own."""
    legacy.adopt(own=True)
    for version in ("1.0.0", "1.1.0"):
        legacy.deploy(version)
    assert GROUP not in legacy.cloud.world.groups


def test_it_can_be_gone_back_to_after_it_was_let_go(legacy: Legacy) -> None:
    """It is put behind the slot again, with the capacity of today."""
    legacy.adopt()
    legacy.settings = replace(legacy.settings, capacity=3)
    for version in ("1.0.0", "1.1.0"):
        legacy.deploy(version)
    legacy.watched()
    went = legacy.manager().rollback(legacy.context(), legacy.adopted())
    assert went.outcome is Outcome.SUCCEEDED
    assert legacy.ask() == GROUP
    assert legacy.cloud.world.groups[GROUP].capacity == 3
    assert legacy.bad == 0


def test_a_group_that_is_gone_is_not_gone_back_to(legacy: Legacy) -> None:
    """Said before anything moves."""
    legacy.adopt()
    for version in ("1.0.0", "1.1.0"):
        legacy.deploy(version)
    del legacy.cloud.world.groups[GROUP]
    before = len(legacy.cloud.mutations)
    with pytest.raises(UsageError, match="which is gone"):
        legacy.manager().rollback(legacy.context(), legacy.adopted())
    assert {call.operation for call in legacy.cloud.mutations[before:]} == {"store.put"}


def test_destroy_gives_the_route_back(legacy: Legacy) -> None:
    """First: their rule has the traffic again before their group leaves us. Nothing of ours is left."""
    legacy.adopt()
    legacy.watched()
    legacy.destroy()
    assert legacy.bad == 0
    assert legacy.ask() == GROUP
    assert not legacy.theirs
    assert legacy.cloud.standing == set()


def test_what_is_not_well_behind_a_slot_keeps_its_traffic_as_before(legacy: Legacy) -> None:
    """Our check finds it unhealthy, theirs does not: it fails before any traffic, and nothing of ours is left."""
    legacy.cloud.behave(GROUP, health=503)
    legacy.watched()
    ended = legacy.adopt()
    assert ended.outcome is Outcome.FAILED
    assert "not adopted" in ended.told and "as before" in ended.told
    assert legacy.bad == 0
    assert not legacy.theirs
    assert legacy.cloud.standing == set()
    legacy.cloud.on_call(None)
    legacy.cloud.behave(GROUP, health=None)
    assert legacy.adopt().outcome is Outcome.SUCCEEDED


def test_an_adoption_can_be_aborted(legacy: Legacy) -> None:
    """From anywhere, also when nobody works on it any more: the traffic is given back, and nothing is left."""
    legacy.cloud.faults.fail("store.put", Killed(), at=8, times=1_000_000)
    with pytest.raises(Killed):
        legacy.adopt()
    legacy.cloud.faults.clear()
    asked = legacy.manager().request(legacy.context(), RequestKind.ABORT)
    assert asked.rollout is not None and asked.rollout.outcome is Outcome.ABORTED
    assert legacy.ask() == GROUP
    assert not legacy.theirs
    assert legacy.cloud.standing == set()
    assert legacy.adopt().outcome is Outcome.SUCCEEDED


def test_the_group_may_grow_meanwhile(legacy: Legacy) -> None:
    """What scales it goes on, and is handed on with the first deploy as ever."""
    legacy.cloud.scale(GROUP, 2, 5, cpu="60 %")
    legacy.cloud.load(GROUP, 4)
    legacy.clock.advance(60)
    assert legacy.adopt().outcome is Outcome.SUCCEEDED
    assert legacy.head.run is not None and legacy.head.run.capacity == 4
    assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    scaling = legacy.scaling("1.0.0")
    assert scaling is not None and (scaling.minimum, scaling.desired, scaling.maximum) == (2, 4, 5)


def test_what_cannot_be_adopted_is_refused_before_anything_moves(legacy: Legacy) -> None:
    """A rule that would come first, other requests, no such group."""
    before = len(legacy.cloud.mutations)
    for settings, told in (
        ({"priority": 200}, "`route.priority` below 200"),
        ({"priority": 300}, "`route.priority` below 200"),
        ({"path": "/other/*"}, "None"),
    ):
        was, legacy.settings = legacy.settings, replace(legacy.settings, **settings)
        with pytest.raises(UsageError) as refused:
            legacy.adopt()
        assert told in str(refused.value.hint)
        legacy.settings = was
    changes = [call for call in legacy.cloud.mutations[before:] if not call.operation.startswith("store.")]
    assert not changes


def test_a_service_that_serves_adopts_nothing(legacy: Legacy) -> None:
    """Another environment does."""
    legacy.cloud.add_listener("listener-2")
    legacy.settings = replace(legacy.settings, listener="listener-2")
    assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    with pytest.raises(UsageError, match="only a service of which nothing serves yet"):
        legacy.adopt()


def test_a_group_of_another_service_is_left_alone(legacy: Legacy) -> None:
    """A group is of one service."""
    legacy.adopt()
    other = Legacy()
    theirs = {**legacy.theirs, "osvdeploy:service": "other/production"}
    other.cloud.world.groups[GROUP].tags = theirs
    ended = other.adopt()
    assert ended.outcome is Outcome.FAILED and "refused" in ended.told
    assert other.theirs == theirs
    assert other.ask() == GROUP


def dying(number: int, *, after: bool) -> Hook:
    """The ``number``-th change is the last, before or after it took effect."""
    seen = 0

    def hook(call: Call, moment: Moment) -> None:
        nonlocal seen
        if not call.mutating:
            return
        if moment is Moment.BEFORE:
            seen += 1
        if seen > number or (seen == number and (moment is Moment.AFTER) == after):
            raise Killed

    return hook


@pytest.mark.slow
def test_whoever_dies_anywhere_is_gone_on_with() -> None:
    """Before and after each change: the next `adopt` ends as it would have, and no client noticed."""
    counted = Legacy()
    counted.adopt()
    changes = len(counted.cloud.mutations)
    assert changes > 10
    for number in range(1, changes + 1):
        for after in (False, True):
            legacy = Legacy()
            legacy.watched()
            legacy.cloud.faults.fail("*", Killed(), at=0, times=0) if False else None
            seen = 0

            def hook(
                call: Call, moment: Moment, legacy: Legacy = legacy, number: int = number, after: bool = after
            ) -> None:
                nonlocal seen
                if not call.mutating:
                    return
                if moment is Moment.BEFORE:
                    seen += 1
                if seen > number or (seen == number and (moment is Moment.AFTER) == after):
                    raise Killed

            legacy.cloud.on_call(hook)
            with pytest.raises(Killed):
                legacy.adopt()
            legacy.cloud.on_call(None)
            legacy.clock.advance(30)
            assert legacy.ask() == GROUP, (number, after)
            legacy.watched()
            ended = legacy.adopt()
            assert ended.outcome is Outcome.SUCCEEDED, (number, after, ended.told)
            assert legacy.bad == 0, (number, after)
            assert legacy.ask() == GROUP
            assert legacy.head.slots[Slot.BLUE].group == GROUP
            legacy.destroy()
            assert legacy.cloud.standing == set() and not legacy.theirs, (number, after)


def test_a_run_that_stands_still_is_told_as_an_adoption(legacy: Legacy) -> None:
    """By its kind, for `status` and `history`."""
    legacy.adopt()
    run = legacy.head.run
    assert run is not None
    assert (run.kind, run.stage, run.group) == ("adopt", Stage.DONE, GROUP)


def test_the_log_tells_of_an_adoption() -> None:
    """And each of its documents has an entry; what failed says where the traffic is."""
    legacy = Legacy()
    legacy.cloud.behave(GROUP, answers=(200,) * 5 + (500,) * 200)
    legacy.adopt()
    legacy.cloud.behave(GROUP, answers=(200,))
    legacy.adopt()
    heads = list(legacy.ledger.heads(legacy.context()))[::-1]
    told = list(entries(heads))
    assert any(entry.told.startswith(f"{GROUP} is adopted as hello-0.9.0-") for entry in told)
    silent = {head.why for head in heads if head.n not in {entry.id[0] for entry in told}}
    assert silent <= {"lease renewed"}
    assert all("None" not in entry.told for entry in told)


def test_what_was_adopted_is_gone_back_to_without_the_ledger() -> None:
    """Its tags say that it has no image of ours."""
    legacy = Legacy()
    legacy.adopt()
    assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    where = Whereabouts("hello", "production", "memory", "nowhere-1", ledger="nowhere")
    ctx = legacy.context()
    went = go_back(ctx, where, legacy.cloud.cloud, legacy.cloud.prober)
    assert went.rollout.outcome is Outcome.SUCCEEDED
    assert legacy.ask() == GROUP


def _begun(legacy: Legacy) -> None:
    """An adoption whose process died after it began."""
    legacy.cloud.faults.fail("store.put", Killed(), at=8, times=1_000_000)
    with pytest.raises(Killed):
        legacy.adopt()
    legacy.cloud.faults.clear()


def test_a_rollback_gives_an_unfinished_adoption_back() -> None:
    """It is no bad release, so nothing is held."""
    legacy = Legacy()
    _begun(legacy)
    ended = legacy.manager().rollback(legacy.context())
    assert ended.outcome is Outcome.SUCCEEDED and "as before" in ended.told
    assert not legacy.head.holds
    assert legacy.ask() == GROUP and not legacy.theirs


def test_a_deploy_does_not_end_an_unfinished_adoption() -> None:
    """It would take the traffic from what is being adopted."""
    legacy = Legacy()
    _begun(legacy)
    with pytest.raises(UsageError, match="is being adopted"):
        legacy.deploy("1.0.0")
    assert legacy.ask() == GROUP
    assert legacy.manager().recover(legacy.context()).outcome is Outcome.SUCCEEDED


def test_where_nobody_is_asked_time_alone_gives_traffic_back() -> None:
    """Whose machines are behind no slot, is counted by nobody of ours."""
    health = replace(SETTINGS.health, probe_from=ProbePlace.REQUESTS)
    run = made_run(
        kind=Kind.ADOPT,
        stable=None,
        stable_group=None,
        stage=Stage.REVERT,
        verdict=Outcome.FAILED,
        shifted=NOW,
        settings=replace(SETTINGS, health=health),
    )
    limits, seen = Limits(settle=30.0), Observation(wired=True, weights=None)
    first = advance(run, seen, limits, NOW)
    assert first.run.stage is Stage.REVERT and first.wait > 0
    assert advance(first.run, seen, limits, NOW + timedelta(seconds=10)).run.stage is Stage.REVERT
    assert advance(first.run, seen, limits, NOW + timedelta(seconds=40)).run.stage is Stage.CLEAN_UP
    still = Observation(wired=True, weights={Slot.BLUE: 0, Slot.GREEN: 100})
    assert advance(run, still, limits, NOW).action == GiveRouteBack()


def test_an_adopted_group_that_left_its_slot_is_told_and_put_back(legacy: Legacy) -> None:
    """Somebody took it from behind our backend, or a process that stood still did so late."""
    legacy.adopt()
    assert looked(legacy) == []
    legacy.cloud.world.groups[GROUP].beside = ""
    [told] = looked(legacy)
    assert told.kind is DriftKind.MACHINES and told.repairable and GROUP in told.what
    legacy.manager().realign(legacy.context())
    legacy.clock.advance(60)
    assert looked(legacy) == [] and legacy.ask() == GROUP

"""The manager on a cloud in memory: whole rollouts, in virtual time."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import ProbeAnswer, ReleaseId, Route, Slot
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.cloud.memory import Call, MemoryCloud, Moment
from osvdeploy.context import Context
from osvdeploy.errors import Interrupted, LeaseHeld, LeaseLost, NotOurs, Refused, ReleaseHeld, Unavailable, UsageError
from osvdeploy.events import GateJudged, StageEntered, Waiting, Warned
from osvdeploy.rollout import lease
from osvdeploy.rollout.ledger import Hold
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Limits, Outcome, Request, RequestKind, Stage
from osvdeploy.rollout.releases import Release, StrategyKind, TrafficStep, release_id
from tests.rollout.made import NOW, SETTINGS
from tests.rollout.made import release as made_release
from tests.rollout.service import Service
from tests.rollout.test_drifting import looked

pytestmark = pytest.mark.whole


@pytest.fixture
def service() -> Service:
    return Service()


def test_a_first_deploy_serves(service: Service) -> None:
    """One release, nothing before it: two machines behind the route, and the ledger says so."""
    outcome = service.deploy("1.0.0")
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.exit_code == 0
    assert service.cloud.serving == {service.id("1.0.0")}
    assert service.head.serving is Slot.BLUE and service.head.lease is None
    assert [served.release for served in service.head.served] == [service.id("1.0.0")]


def test_a_second_deploy_goes_to_the_other_slot_and_the_old_one_stays_warm(service: Service) -> None:
    """Blue-green: traffic moves, the old machines stand, and are recorded as warm."""
    service.deploy("1.0.0")
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.1.0")}
    assert service.cloud.running == {service.id("1.0.0"), service.id("1.1.0")}
    assert service.head.slots[Slot.BLUE].warm_until is not None


def test_a_third_deploy_takes_the_oldest_ones_place(service: Service) -> None:
    """Two slots: the warm release before the last makes room."""
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        service.deploy(version)
    assert service.cloud.serving == {service.id("1.2.0")}
    assert service.cloud.running == {service.id("1.1.0"), service.id("1.2.0")}


class SameBytes(Service):
    """A service whose versions differ in nothing but their number."""

    def release(self, version: str) -> Release:
        first = super().release("1.0.0")
        return replace(first, id=release_id(first.app, version, first.digest), version=version)


def test_a_version_with_the_bytes_of_the_one_before_is_a_release_of_its_own() -> None:
    """Raising the version alone deploys: its machines stand beside those of the release with the same digest."""
    service = SameBytes()
    for version in ("1.0.0", "1.0.1", "1.0.2"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.0.2")}
    assert service.cloud.running == {service.id("1.0.1"), service.id("1.0.2")}
    assert service.rollback().outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.0.1")}


def test_a_release_that_answers_500_never_gets_traffic(service: Service) -> None:
    """The gate fails, stable serves, the candidate's machines are gone, and answer and console are kept."""
    service.deploy("1.0.0")
    service.cloud.behave(service.id("1.1.0"), answers=(500,))
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.ROLLED_BACK and outcome.exit_code == 3
    assert service.cloud.serving == service.cloud.running == {service.id("1.0.0")}
    assert outcome.run is not None and "500" in outcome.run.reason
    kept = {evidence.source.split()[0]: evidence.text for evidence in outcome.run.evidence}
    assert "500" in kept["answer"] and "OSv" in kept["console"]
    assert not any(call.operation == "router.modify_rule" for call in service.cloud.mutations)


def test_a_release_that_aborts_fails_at_once_by_its_boot_log(service: Service) -> None:
    """Nobody waits for the boot timeout when the console says how it ended."""
    service.deploy("1.0.0")
    service.cloud.behave(service.id("1.1.0"), aborts="OSv v0.57.0\nAborted\n\n[backtrace]\n0x000000004039c7f6\n")
    began = service.clock.monotonic()
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.ROLLED_BACK and "Aborted" in outcome.told
    assert service.clock.monotonic() - began < SETTINGS.health.boot_timeout / 2
    assert service.cloud.running == {service.id("1.0.0")}


def test_a_first_release_that_fails_leaves_nothing_running(service: Service) -> None:
    """No stable release: the run fails with exit code 1, and its machines are gone."""
    service.cloud.behave(service.id("1.0.0"), never_healthy=True)
    outcome = service.deploy("1.0.0")
    assert outcome.outcome is Outcome.FAILED and outcome.exit_code == 1
    assert service.cloud.running == set()
    service.cloud.behave(service.id("1.0.1"))
    assert service.deploy("1.0.1").outcome is Outcome.SUCCEEDED


def test_a_release_that_falls_sick_under_traffic_is_rolled_back() -> None:
    """What turns bad while it bakes goes, and stable serves again."""
    service = Service(strategy=replace(SETTINGS.strategy, bake=120.0))
    service.deploy("1.0.0")
    service.cloud.behave(service.id("1.1.0"), sick_after=40.0)
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.ROLLED_BACK
    assert service.cloud.serving == service.cloud.running == {service.id("1.0.0")}


def test_a_place_without_capacity_is_named(service: Service) -> None:
    """What the place says of machines it could not start is in the reason."""
    service.deploy("1.0.0")
    service.cloud.behave(service.id("1.1.0"), launch_fails="Insufficient capacity in zone b")
    assert "Insufficient capacity in zone b" in service.deploy("1.1.0").told


def test_deploying_what_serves_is_nothing(service: Service) -> None:
    """The second deploy of a release makes no mutating call."""
    service.deploy("1.0.0")
    before = len([call for call in service.cloud.mutations if not call.operation.startswith("store")])
    service.manager().deploy(service.context(), service.release("1.0.0"))
    assert len([call for call in service.cloud.mutations if not call.operation.startswith("store")]) == before


def test_a_warm_rollback_is_one_mutating_call(service: Service) -> None:
    """Until traffic has moved, the only change to the cloud is the rule's; then what was left is taken away."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    before = len(service.cloud.calls)
    outcome = service.rollback()
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.warm
    changes = [
        call.operation
        for call in service.cloud.calls[before:]
        if call.mutating and not call.operation.startswith("store")
    ]
    assert changes == ["router.modify_rule", "groups.delete"]
    assert service.cloud.serving == {service.id("1.0.0")}
    service.clock.advance(60)
    assert service.cloud.running == {service.id("1.0.0")}


def test_a_cold_rollback_brings_back_the_capacity_of_today() -> None:
    """Two machines were enough when it served; today's five come back."""
    service = Service(strategy=replace(SETTINGS.strategy, keep_warm=0.0))
    service.deploy("1.0.0")
    service.settings = replace(service.settings, capacity=5)
    service.deploy("1.1.0")
    service.clock.advance(60)
    assert service.cloud.running == {service.id("1.1.0")}
    service.settings = replace(service.settings, capacity=2)
    outcome = service.rollback("1.0.0")
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None
    assert not outcome.run.warm and outcome.run.capacity == 5


def test_a_rollback_holds_what_it_left(service: Service) -> None:
    """The release that was left is refused until somebody names it or takes the hold away, whatever is deployed
    meanwhile; and no rollback goes to it by itself."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.rollback()
    with pytest.raises(ReleaseHeld, match=r"hello-1\.1\.0"):
        service.deploy("1.1.0")
    service.deploy("1.2.0")
    with pytest.raises(ReleaseHeld, match=r"hello-1\.1\.0"):
        service.deploy("1.1.0")
    service.rollback()
    assert service.cloud.serving == {service.id("1.0.0")}
    with pytest.raises(UsageError, match=r"what served before .* is held: hello-1\.1\.0"):
        service.rollback()
    assert {hold.release for hold in service.head.holds} == {service.id("1.1.0"), service.id("1.2.0")}
    with pytest.raises(UsageError, match=r"hello-1\.0\.0-\w+ is not held by its name; held is hello-1\.1\.0"):
        service.manager().unhold(service.context(), service.id("1.0.0"))
    service.manager().hold(service.context(), service.id("1.0.0"), "by hand")
    service.manager().unhold(service.context(), service.id("1.0.0"))
    assert {hold.release for hold in service.head.holds} == {service.id("1.1.0"), service.id("1.2.0")}
    ended = service.manager().deploy(service.context(), service.release("1.1.0"), forced=True)
    assert ended.outcome is Outcome.SUCCEEDED
    assert {hold.release for hold in service.head.holds} == {service.id("1.2.0")}


def test_unhold_lets_the_release_go_again(service: Service) -> None:
    """After unhold, the release that a rollback left may be deployed."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.rollback()
    service.manager().unhold(service.context())
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED


def test_a_held_release_goes_where_it_is_forced(service: Service) -> None:
    """Its own hold gives way and is over then; one of every release does not."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.rollback()
    with pytest.raises(ReleaseHeld):
        service.deploy("1.1.0")
    release = service.release("1.1.0")
    service.manager().hold(service.context(), None, "a freeze")
    for use in (service.manager().preflight, service.manager().deploy):
        with pytest.raises(ReleaseHeld, match="every release is held"):
            use(service.context(), release, forced=True)
    service.manager().unhold(service.context())
    service.manager().hold(service.context(), release.id, "a rollback left it")
    service.manager().preflight(service.context(), release, forced=True)
    assert service.manager().deploy(service.context(), release, forced=True).outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {release.id} and service.head.holds == ()


@pytest.mark.parametrize("served", [True, False], ids=["after another", "the first"])
def test_a_release_whose_image_goes_once_its_rollout_began_ends_it(service: Service, served: bool) -> None:
    """Somebody collects it just then: the rollout ends, and does not wait for a person with an error each time."""
    if served:
        service.deploy("1.0.0")
    service.publish("1.1.0")

    def collected(call: Call, moment: Moment) -> None:
        service.cloud.on_call(None)
        head = service.ledger.head(service.context())
        if head is None or head.unfinished is None or head.unfinished.candidate != service.id("1.1.0"):
            service.cloud.on_call(collected)
            return
        image = service.cloud.images.find(service.context(), service.id("1.1.0"))
        assert image is not None
        service.cloud.images.deregister(service.context(), image.id)

    service.cloud.on_call(collected)
    ended = service.manager().deploy(service.context(), service.release("1.1.0"))
    assert ended.outcome is (Outcome.ROLLED_BACK if served else Outcome.FAILED)
    assert "its image is not in" in ended.told
    assert service.head.unfinished is None
    assert service.cloud.serving == ({service.id("1.0.0")} if served else set())


def test_a_rollback_whose_image_is_gone_moves_nothing(service: Service) -> None:
    """It is said before anything is changed."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    image = service.cloud.images.find(service.context(), service.id("1.0.0"))
    assert image is not None
    service.cloud.images.deregister(service.context(), image.id)
    with pytest.raises(UsageError, match="its image is not in"):
        service.rollback()
    assert service.cloud.serving == {service.id("1.1.0")}
    assert service.head.lease is None


def test_a_rollback_to_what_was_never_deployed_moves_nothing(service: Service) -> None:
    """Though its image is there."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.publish("0.9.0")
    before = service.head.run
    with pytest.raises(UsageError, match="was never deployed, as far as the ledger memory knows"):
        service.rollback("0.9.0")
    assert service.head.run == before and service.cloud.serving == {service.id("1.1.0")}


def test_a_rollback_that_cannot_come_up_leaves_the_present_serving(service: Service) -> None:
    """Exit code 6, and whoever served still does."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.deploy("1.2.0")
    service.cloud.behave(service.id("1.0.0"), never_healthy=True)
    outcome = service.rollback("1.0.0")
    assert outcome.outcome is Outcome.ROLLBACK_FAILED and outcome.exit_code == 6
    assert service.cloud.serving == {service.id("1.2.0")}


def test_nothing_to_roll_back_to_is_said(service: Service) -> None:
    """A service with one release has no release before."""
    service.deploy("1.0.0")
    with pytest.raises(UsageError, match="no release served before"):
        service.rollback()


def test_a_foreign_rule_is_refused_before_anything_is_made(service: Service) -> None:
    """A rule of somebody else at one of our priorities ends the deploy with nothing changed."""
    service.publish("1.0.0")
    service.cloud.plant_rule(SETTINGS.priority - 1)
    with pytest.raises(NotOurs):
        service.manager().deploy(service.context(), service.release("1.0.0"))
    assert service.cloud.standing == set()
    assert service.head.lease is None and service.head.run is None


def test_weights_that_somebody_moved_are_not_undone_unasked(service: Service) -> None:
    """When the rule disagrees with the ledger, a deploy says so and changes nothing."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.cloud.set_weights("hello/production", {Slot.BLUE: 50, Slot.GREEN: 50})
    service.publish("1.2.0")
    with pytest.raises(UsageError, match="blue 50, green 50"):
        service.manager().deploy(service.context(), service.release("1.2.0"))


def test_moved_weights_are_put_right_when_asked(service: Service) -> None:
    """All traffic goes to the slot that the ledger says, and the lease is given back; where all is well nothing
    is done."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.cloud.set_weights("hello/production", {Slot.BLUE: 30, Slot.GREEN: 70})
    head = service.manager().realign(service.context())
    assert service.cloud.serving == {service.id("1.1.0")}
    assert head.why == f"traffic is on {service.id('1.1.0')} again" and service.head.lease is None
    calls = len(service.cloud.calls)
    service.manager().realign(service.context())
    asked = service.cloud.calls[calls:]
    assert not [call for call in asked if call.mutating and not call.operation.startswith("store.")]


def test_traffic_is_not_sent_back_to_what_is_not_well(service: Service) -> None:
    """Who moved it away from machines that are not healthy knew why: it stays, and that is said."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.cloud.behave(service.id("1.1.0"), sick_after=40.0)
    service.context().sleep(120)
    service.cloud.set_weights("hello/production", {Slot.BLUE: 100, Slot.GREEN: 0})
    with pytest.raises(Refused, match="no machine in green is healthy, so traffic stays where it is"):
        service.manager().realign(service.context())
    assert service.cloud.serving == {service.id("1.0.0")}


def test_a_moved_route_is_refused(service: Service) -> None:
    """A service in use keeps its listener, priority and port."""
    service.deploy("1.0.0")
    service.settings = replace(service.settings, priority=200)
    with pytest.raises(UsageError, match=r"priority \(was 100, is 200\)"):
        service.deploy("1.1.0")


def test_a_second_deploy_at_once_is_refused(service: Service) -> None:
    """Whoever holds the lease and shows signs of life is not disturbed."""
    service.publish("1.0.0")
    holder = service.context()
    held = lease.acquire(holder, service.ledger, "deploy")

    def renew(call: Call, moment: Moment) -> None:
        if call.operation == "store.keys" and service.clock.monotonic() > 20:
            service.cloud.on_call(None)
            held.renew(holder)
            held.save(holder, "still at work")

    service.cloud.on_call(renew)
    with pytest.raises(LeaseHeld):
        service.manager().deploy(service.context(), service.release("1.0.0"))


def test_an_interrupted_deploy_goes_on(service: Service) -> None:
    """Ctrl-C gives the lease back; the same command picks the run up where it was."""
    service.deploy("1.0.0")
    service.publish("1.1.0")
    ctx = service.context()
    service.cloud.on_call(lambda call, moment: ctx.cancel.cancel() if call.operation == "router.health" else None)
    with pytest.raises(Interrupted):
        service.manager().deploy(ctx, service.release("1.1.0"))
    service.cloud.on_call(None)
    assert service.head.lease is None
    unfinished = service.head.unfinished
    assert unfinished is not None and unfinished.stage is Stage.BOOT
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.id == unfinished.id


def test_a_newer_deploy_ends_an_interrupted_one_first(service: Service) -> None:
    """Never three releases: the interrupted candidate goes before the next comes."""
    service.deploy("1.0.0")
    service.publish("1.1.0")
    ctx = service.context()
    service.cloud.on_call(lambda call, moment: ctx.cancel.cancel() if call.operation == "router.health" else None)
    with pytest.raises(Interrupted):
        service.manager().deploy(ctx, service.release("1.1.0"))
    service.cloud.on_call(None)
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert service.cloud.running == {service.id("1.0.0"), service.id("1.2.0")}


def test_a_rollback_of_an_interrupted_deploy_aborts_it(service: Service) -> None:
    """On call at 3 am, with a half-done deploy: stable serves, the candidate is gone, and held."""
    service.deploy("1.0.0")
    service.publish("1.1.0")
    ctx = service.context()
    service.cloud.on_call(lambda call, moment: ctx.cancel.cancel() if call.operation == "router.health" else None)
    with pytest.raises(Interrupted):
        service.manager().deploy(ctx, service.release("1.1.0"))
    service.cloud.on_call(None)
    outcome = service.rollback()
    assert outcome.exit_code == 0
    assert service.cloud.serving == service.cloud.running == {service.id("1.0.0")}
    assert [hold.release for hold in service.head.holds] == [service.id("1.1.0")]


def test_changed_capacity_of_the_same_release_is_applied(service: Service) -> None:
    """Deploying what serves with another capacity only scales it."""
    service.deploy("1.0.0")
    service.settings = replace(service.settings, capacity=3)
    outcome = service.deploy("1.0.0")
    assert "2 to 3" in outcome.told
    group = service.cloud.cloud.groups.observe(service.context(), service.head.slots[Slot.BLUE].group)
    assert group is not None and group.capacity == 3


def test_machines_that_somebody_has_added_stay(service: Service) -> None:
    """Deploying what serves, as it was declared before, takes none of them away: they are there for a reason."""
    service.deploy("1.0.0")
    cloud = service.cloud.cloud
    [group] = cloud.groups.owned(service.context(), {})
    service.cloud.world.groups[group.name].capacity = 6
    outcome = service.deploy("1.0.0")
    assert outcome.outcome is Outcome.SUCCEEDED and "6 machines" in outcome.told and "stay" in outcome.told
    now = cloud.groups.observe(service.context(), group.name)
    assert now is not None and now.capacity == 6
    service.settings = replace(service.settings, capacity=3)
    service.deploy("1.0.0")
    now = cloud.groups.observe(service.context(), group.name)
    assert now is not None and now.capacity == 3, "another number in the spec is somebody's word"
    service.cloud.world.groups[group.name].capacity = 6
    exact = RolloutManager(service.ledger, cloud, service.cloud.prober, service.limits, exactly=True)
    exact.deploy(service.context(), service.release("1.0.0"))
    now = cloud.groups.observe(service.context(), group.name)
    assert now is not None and now.capacity == 3, "whoever shows the difference first may have them taken away"


def test_destroy_takes_everything_away_and_a_deploy_brings_it_back(service: Service) -> None:
    """Nothing of the service stands afterwards, and the ledger still knows its history."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.destroy()
    assert service.cloud.standing == set()
    assert service.head.destroyed
    with pytest.raises(UsageError, match="was destroyed"):
        service.rollback()
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    "operation", ["groups.owned", "groups.delete", "router.delete_rule", "groups.templates", "groups.delete_template"]
)
def test_destroy_waits_for_a_cloud_that_cannot_now(service: Service, operation: str) -> None:
    """Throttled calls, and those without an answer, are made again for a while, by the one command."""
    service.deploy("1.0.0")
    service.cloud.faults.fail(operation, Unavailable("Request limit exceeded"), times=6)
    service.destroy()
    assert service.cloud.standing == set() and service.head.destroyed
    told = {event.seen for event in service.recorder.events if isinstance(event, Waiting)}
    assert "Request limit exceeded" in told, "nobody is to wonder for two minutes"


def test_destroy_does_not_wait_for_ever(service: Service) -> None:
    """A cloud that does not come back ends it, and the next one goes on."""
    service.deploy("1.0.0")
    service.cloud.faults.fail("groups.delete", Unavailable("Request limit exceeded"), times=1000)
    began = service.clock.monotonic()
    with pytest.raises(Unavailable):
        service.destroy()
    assert 60 < service.clock.monotonic() - began < 300
    service.cloud.faults.clear()
    service.destroy()
    assert service.cloud.standing == set()


class _Gone(BaseException):
    """The process is killed."""


@pytest.mark.slow
@pytest.mark.parametrize("serving", Slot)
def test_a_deploy_after_a_destroy_that_was_cut_off_leaves_no_machines(serving: Slot) -> None:
    """Wherever the destroy died: the new release serves, traffic was never without machines that had it, and no group
    stands that no slot has."""
    for died in range(1, 60):
        service = Service()
        for version in ("1.0.0", "1.1.0") if serving is Slot.GREEN else ("0.9.0", "1.0.0", "1.1.0"):
            service.deploy(version)
        calls = 0

        def dies(call: Call, moment: Moment, died: int = died) -> None:
            nonlocal calls
            calls += moment is Moment.AFTER and call.mutating
            if calls >= died:
                raise _Gone

        service.cloud.on_call(dies)
        with suppress(_Gone):
            service.destroy()
        service.cloud.on_call(None)
        assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
        recorded = {record.group for record in service.head.slots.values()}
        standing = {name for name, group in service.cloud.world.groups.items() if not group.deleting}
        assert standing == recorded, f"after call {died}"
        if calls < died:
            return
    raise AssertionError("a destroy makes fewer calls")


def test_a_service_that_another_ledger_knows_is_left_alone(service: Service) -> None:
    """A fresh ledger is no empty place: what serves without it knowing is not taken for something old."""
    service.deploy("1.0.0")
    service.store = MemoryCloud(service.clock).store
    service.publish("1.1.0")
    before = len(service.cloud.mutations)
    for attempt in (service.manager().preflight, service.manager().deploy):
        with pytest.raises(UsageError, match="is in service already") as lost:
            attempt(service.context(), service.release("1.1.0"))
        assert "has lost it" in str(lost.value) and "adopt --from-cloud" in str(lost.value.hint)
    elsewhere = replace(service.settings, ledger="gs://elsewhere")
    with pytest.raises(UsageError, match="does not know of it") as unknown:
        service.manager().preflight(service.context(), made_release("1.1.0", settings=elsewhere))
    assert str(unknown.value.hint).endswith(f": {service.settings.ledger}")
    changed = {call.operation for call in service.cloud.mutations[before:]}
    assert changed <= {"store.put", "store.put_if_absent"}, changed
    assert service.cloud.serving == {service.id("1.0.0")}


def test_a_console_that_cannot_be_read_blinds_nobody(service: Service) -> None:
    """Health and answers decide where the boot log cannot be had, and that is said once."""
    service.deploy("1.0.0")
    service.cloud.behave(service.id("1.1.0"), answers=(500,))

    def denied(call: Call, moment: Moment) -> None:
        if call.operation == "console.read":
            raise Refused("not authorized to read consoles")

    service.cloud.on_call(denied)
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.ROLLED_BACK and service.cloud.serving == {service.id("1.0.0")}
    told = [event for event in service.recorder.events if isinstance(event, Warned)]
    assert len(told) == 1 and "not authorized" in told[0].text


def test_a_rollback_that_failed_and_was_taken_back_leaves_no_slot_without_machines(service: Service) -> None:
    """What is gone back to falls sick at the switch: its machines go, and the ledger does not say that they stand."""
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        service.deploy(version)

    def sick(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            service.cloud.behave(service.id("1.0.0"), answers=(500,))

    service.cloud.on_call(sick)
    assert service.rollback("1.0.0").outcome is Outcome.ROLLBACK_FAILED
    service.cloud.on_call(None)
    assert service.cloud.serving == service.cloud.running == {service.id("1.2.0")}
    assert {record.release for record in service.head.slots.values()} == {service.id("1.2.0")}
    assert looked(service) == []


def test_a_rollback_that_failed_can_be_asked_for_again() -> None:
    """The ledger knows that the candidate may carry traffic, gc leaves it, and `rollback` brings traffic back."""
    service = Service(strategy=replace(SETTINGS.strategy, bake=120.0))
    service.deploy("1.0.0")
    service.cloud.behave(service.id("1.1.0"), sick_after=40.0)
    refusals = 0

    def stuck(call: Call, moment: Moment) -> None:
        nonlocal refusals
        if call.operation != "router.modify_rule" or moment is not Moment.BEFORE:
            return
        if service.head.run is not None and service.head.run.stage is Stage.REVERT:
            refusals += 1
            raise Refused("somebody locked the rule")

    service.cloud.on_call(stuck)
    outcome = service.deploy("1.1.0")
    service.cloud.on_call(None)
    assert outcome.outcome is Outcome.ROLLBACK_FAILED and outcome.exit_code == 6 and refusals > 1
    assert service.head.slots[Slot.GREEN].release == service.id("1.1.0")
    again = service.rollback()
    assert again.exit_code == 0 and service.cloud.serving == service.cloud.running == {service.id("1.0.0")}


def test_a_rollback_after_a_deploy_that_died_going_back_goes_no_further(service: Service) -> None:
    """What the on-call asks for is to be where it was good, and that is where finishing the deploy ends."""
    for version in ("1.0.0", "1.1.0"):
        service.deploy(version)
    service.publish("1.2.0")
    service.cloud.behave(service.id("1.2.0"), answers=(500,))
    ctx = service.context()

    def interrupt(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "groups.delete" else None
        if run is not None and run.verdict is Outcome.ROLLED_BACK:
            ctx.cancel.cancel()

    service.cloud.on_call(interrupt)
    with pytest.raises(Interrupted):
        service.manager().deploy(ctx, service.release("1.2.0"))
    service.cloud.on_call(None)
    unfinished = service.head.unfinished
    assert unfinished is not None and unfinished.verdict is Outcome.ROLLED_BACK
    assert service.rollback().exit_code == 0
    assert service.cloud.serving == {service.id("1.1.0")}


def test_a_route_that_never_served_may_move(service: Service) -> None:
    """After a failed first deploy, another priority leaves nothing of the old one behind."""
    service.cloud.behave(service.id("1.0.0"), never_healthy=True)
    service.deploy("1.0.0")
    service.settings = replace(service.settings, priority=200)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    service.destroy()
    assert service.cloud.standing == set()


def test_a_refused_deploy_is_no_release(service: Service) -> None:
    """What a hold refused does not stand in the history, nor change what is deployed."""
    service.deploy("1.0.0")
    service.manager().hold(service.context(), None, "a freeze")
    with pytest.raises(ReleaseHeld) as told:
        service.deploy("9.9.9")
    assert told.value.hint == "take the hold away with `osvdeploy unhold hello/production`", (
        "no other release is let pass either"
    )
    assert [release.version for release in service.ledger.releases(service.context())] == ["1.0.0"]


def test_other_machines_for_the_same_release_are_refused_by_name(service: Service) -> None:
    """Nothing that a user asked for is dropped silently."""
    service.deploy("1.0.0")
    service.settings = replace(service.settings, machine_type="m5.large")
    with pytest.raises(UsageError, match="another machine type"):
        service.deploy("1.0.0")


def test_the_place_is_recorded_whole(service: Service) -> None:
    """After the first deploy the ledger has every rule and backend."""
    service.deploy("1.0.0")
    place = service.head.place
    assert place is not None and set(place.backends) == set(Slot) and len(place.rules) == 3


def test_a_rollback_to_a_held_release_lets_it_go(service: Service) -> None:
    """What serves is not held, and each release is held once at most."""
    for version in ("1.0.0", "1.1.0"):
        service.deploy(version)
    service.rollback()
    service.rollback("1.1.0")
    assert [hold.release for hold in service.head.holds] == [service.id("1.0.0")]


def test_a_controller_that_lost_its_lease_repeats_no_action(service: Service) -> None:
    """An action without a write of its own asks first whether another process is at work now."""
    service.publish("1.0.0")
    taken = False

    def lag(call: Call, moment: Moment) -> None:
        nonlocal taken
        if taken or moment is not Moment.BEFORE or call.operation not in ("groups.ensure", "groups.create_group"):
            return
        taken = True
        service.cloud.on_call(None)
        service.clock.advance(120)
        lease.acquire(service.context(), service.ledger, "another")
        raise Unavailable("the answer was lost")

    service.cloud.on_call(lag)
    with pytest.raises(LeaseLost):
        service.manager().deploy(service.context(), service.release("1.0.0"))
    assert taken and service.cloud.running == set()


def test_gates_are_told_before_the_stage_they_open(service: Service) -> None:
    """A warm rollback passes several stages on one look, and still tells them in order."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    before = len(service.recorder.events)
    service.rollback()
    told = [
        event.gate if isinstance(event, GateJudged) else event.stage
        for event in service.recorder.events[before:]
        if isinstance(event, GateJudged | StageEntered)
    ]
    assert told[:7] == ["prepare", "boot", "healthy targets", "verify", "preview probe", "shift", "traffic"]


def test_where_the_places_api_is_asked_is_kept() -> None:
    """For commands that are given no spec."""
    service = Service()
    ground = replace(service.cloud.cloud, endpoint="http://127.0.0.1:1")
    service.publish("1.0.0")
    RolloutManager(service.ledger, ground, service.cloud.prober).deploy(service.context(), service.release("1.0.0"))
    assert service.head.place is not None and service.head.place.endpoint == "http://127.0.0.1:1"


class Fenced:
    """A fence that tells what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def hold(self, route: Route, epoch: int) -> None:
        self.asked.append(("hold", epoch))

    def take_over(self, ctx: Context, route: Route, epoch: int) -> None:
        self.asked.append(("take over", epoch))


def test_who_held_the_lease_before_is_shut_out() -> None:
    """With its epoch, before anything of the route changes; at once, where nobody gave the lease back."""
    service, fence = Service(), Fenced()
    manager = RolloutManager(service.ledger, replace(service.cloud.cloud, fence=fence), service.cloud.prober)
    service.publish("1.0.0")
    manager.deploy(service.context(), service.release("1.0.0"))
    [first] = fence.asked
    assert first == ("hold", service.head.epoch)

    lease.acquire(service.context(), service.ledger, "a process that is killed")
    manager.destroy(service.context())
    assert fence.asked[1:] == [("take over", first[1] + 2)]


def test_the_first_release_goes_by_no_steps() -> None:
    """Nobody is there for the rest of the traffic, who would answer 503."""
    steps = (TrafficStep(10, 60.0), TrafficStep(100))
    canary = replace(SETTINGS.strategy, kind=StrategyKind.CANARY, steps=steps)
    service = Service(strategy=canary)
    first = service.deploy("1.0.0")
    assert (first.outcome, first.run and first.run.steps) == (Outcome.SUCCEEDED, (TrafficStep(100),))
    second = service.deploy("2.0.0")
    assert (second.outcome, second.run and second.run.steps) == (Outcome.SUCCEEDED, steps)


@pytest.mark.parametrize("why", ["nobody can be reached", "an abort"])
def test_a_warm_rollback_that_fails_leaves_its_machines_warm(
    service: Service, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stood before, and the next one goes back to them: from where the balancer is reached, or once they are
    well."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    warm = service.group("1.0.0")
    if why == "nobody can be reached":
        monkeypatch.setattr(service.cloud.prober, "probe", lambda ctx, request: ProbeAnswer(None, error="timed out"))
    else:

        def aborts(call: Call, moment: Moment) -> None:
            run = service.head.unfinished if call.operation == "router.modify_rule" else None
            if moment is Moment.AFTER and run is not None and not run.heard:
                service.cloud.on_call(None)
                service.ledger.ask(service.context(), run.id, Request(RequestKind.ABORT, "ann@desk", NOW, run.step))

        service.cloud.on_call(aborts)
    ended = service.rollback()
    assert ended.outcome is not Outcome.SUCCEEDED and service.cloud.serving == {service.id("1.1.0")}
    assert service.cloud.running == {service.id("1.0.0"), service.id("1.1.0")}
    record = service.head.slots[Slot.BLUE]
    assert record.group == warm and record.warm_until is not None
    monkeypatch.undo()
    service.clock.advance(60)
    again = service.rollback()
    assert again.outcome is Outcome.SUCCEEDED and again.run is not None and again.run.warm


def out_of_reach(service: Service, stage: Stage, seconds: float) -> None:
    """No document can be written for some time after the first one of a stage."""
    ends: list[float] = []

    def hook(call: Call, moment: Moment) -> None:
        if call.operation != "store.put":
            return
        if not ends and moment is Moment.AFTER:
            run = service.head.run
            if run is not None and run.stage is stage:
                ends.append(service.clock.monotonic() + seconds)
        elif ends and moment is Moment.BEFORE and service.clock.monotonic() < ends[0]:
            raise Unavailable("s3 is down")

    service.cloud.on_call(hook)


@pytest.mark.parametrize("arrives", [0, 1, None])
def test_of_several_tries_of_a_document_any_may_be_the_one_that_arrived(service: Service, arrives: int | None) -> None:
    """Its answer was lost, and the store is out of reach then: it is ours all the same, and nobody else's is."""
    service.deploy("1.0.0")
    ctx = service.context()
    tries: list[Call] = []

    def hook(call: Call, moment: Moment) -> None:
        if call.operation == "store.put":
            number = len(tries) - (moment is Moment.AFTER)
            if moment is Moment.BEFORE:
                tries.append(call)
            if number < 3 and (number == arrives) == (moment is Moment.AFTER):
                raise Unavailable("no answer")

    with lease.held(ctx, service.ledger, "a test") as held:
        service.cloud.on_call(hook)
        for _ in range(3):
            with pytest.raises(Unavailable):
                held.save(ctx, "a document")
        assert held.save(ctx, "another one").why == "another one"
        service.cloud.on_call(None)
    assert service.head.lease is None


def test_a_ledger_that_stays_out_of_reach_is_given_up_with_a_word_on_what_to_do(service: Service) -> None:
    """There is another way back."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    out_of_reach(service, Stage.PREPARE, 1e6)
    began = service.clock.monotonic()
    with pytest.raises(Unavailable, match="s3 is down") as told:
        service.rollback()
    assert "osvdeploy rollback hello/production --from-cloud" in str(told.value.hint)
    assert service.clock.monotonic() - began < 90


def test_what_is_written_while_another_document_is_in_doubt_is_there(service: Service) -> None:
    """The first had arrived, and its answer was lost. The second says something else: it is the next one then."""
    service.deploy("1.0.0")
    ctx = service.context()

    def lose(call: Call, moment: Moment) -> None:
        if call.operation == "store.put" and moment is Moment.AFTER:
            service.cloud.on_call(None)
            raise Unavailable("no answer")

    with lease.held(ctx, service.ledger, "a test") as held:
        service.cloud.on_call(lose)
        with pytest.raises(Unavailable):
            held.save(ctx, "lease renewed")
        held.save(ctx, "a hold", holds=(Hold(service.id("1.0.0"), "a test", "ann", NOW),))
        assert [hold.why for hold in service.head.holds] == ["a test"] and service.head == held.head
        assert [head.why for head in itertools.islice(service.ledger.heads(ctx), 2)] == ["a hold", "lease renewed"]


@pytest.mark.parametrize("stage", [Stage.BOOT, Stage.SHIFT, Stage.BAKE])
def test_a_deploy_waits_for_a_ledger_that_comes_back(service: Service, stage: Stage) -> None:
    """For ten minutes no document can be written. Nothing is changed meanwhile, what to do is said, and it goes on."""
    service.deploy("1.0.0")
    out_of_reach(service, stage, 600)
    ended = service.deploy("1.1.0")
    assert ended.outcome is Outcome.SUCCEEDED and service.cloud.serving == {service.id("1.1.0")}
    warned = [each for each in service.recorder.events if isinstance(each, Warned) and "out of reach" in each.text]
    assert [each.hint for each in warned] == ["`osvdeploy rollback hello/production --from-cloud` goes back without it"]


@pytest.mark.parametrize("drain", [20.0, 1800.0])
def test_machines_whose_requests_take_long_are_taken_away_all_the_same(service: Service, drain: float) -> None:
    """However long requests have to end: no stage is over before that, by the deploy itself or by the next one."""
    service.limits = Limits(drain=drain)
    service.deploy("1.0.0")
    at_once = replace(SETTINGS.strategy, kind=StrategyKind.ALL_AT_ONCE, keep_warm=0.0)
    service.settings = replace(service.settings, strategy=at_once)
    began = service.clock.monotonic()
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.clock.monotonic() - began >= drain
    service.clock.advance(60)
    assert service.cloud.running == {service.id("1.1.0")}
    service.settings = replace(service.settings, strategy=SETTINGS.strategy)
    for version in ("1.2.0", "1.3.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    service.clock.advance(60)
    assert service.cloud.running == {service.id("1.2.0"), service.id("1.3.0")}


def test_a_way_back_is_proved_however_long_a_change_takes(service: Service) -> None:
    """Where a quarter of an hour may pass before it is in force everywhere, no stage is given up before that."""
    service.cloud.late = 900.0
    service.deploy("1.0.0")

    def hook(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            service.cloud.on_call(None)
            service.cloud.behave(service.id("1.1.0"), answers=(500,))

    service.cloud.on_call(hook)
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK


class Moved(DirectoryStore):
    """A ledger's directory that is moved away for some time, once the service's run is in a stage."""

    def __init__(self, root: Path, service: Service, stage: Stage, seconds: float) -> None:
        super().__init__(root)
        self.root, self.service, self.stage, self.seconds = root, service, stage, seconds
        self.ends: float | None = None

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        hidden = self.root.with_name("hidden")
        if self.ends is not None and self.service.clock.monotonic() >= self.ends and hidden.exists():
            hidden.rename(self.root)
        put = super().put_if_absent(ctx, key, content)
        run = self.service.head.run if self.ends is None else None
        if run is not None and run.stage is self.stage:
            self.ends = self.service.clock.monotonic() + self.seconds
            self.root.rename(hidden)
        return put


@pytest.mark.parametrize("stage", [Stage.BOOT, Stage.SHIFT, Stage.BAKE])
def test_a_deploy_waits_for_a_directory_that_comes_back(service: Service, stage: Stage, tmp_path: Path) -> None:
    """A ledger in a directory that is moved away for ten minutes, or unmounted, is not made anew in its place."""
    root = tmp_path / "ledger"
    service.store = DirectoryStore(root)
    service.deploy("1.0.0")
    service.store = moved = Moved(root, service, stage, 600)
    ended = service.deploy("1.1.0")
    assert ended.outcome is Outcome.SUCCEEDED and service.cloud.serving == {service.id("1.1.0")}
    assert not root.with_name("hidden").exists() and moved.ends is not None
    warned = [each for each in service.recorder.events if isinstance(each, Warned) and "out of reach" in each.text]
    assert len(warned) == 1 and "was there before, and is gone" in warned[0].text
    service.store = DirectoryStore(root)
    assert service.rollback().outcome is Outcome.SUCCEEDED


def test_a_deploy_waits_a_quarter_of_an_hour_for_its_ledger(service: Service) -> None:
    """Then it ends, and whoever goes on once it is there finds what was done."""
    service.deploy("1.0.0")
    out_of_reach(service, Stage.BAKE, 3600)
    began = service.clock.monotonic()
    with pytest.raises(Unavailable, match="s3 is down") as told:
        service.deploy("1.1.0")
    assert "osvdeploy recover hello/production" in str(told.value.hint)
    assert 900 <= service.clock.monotonic() - began < 1200
    service.clock.advance(3600)
    ended = service.manager().recover(service.context())
    assert ended is not None and ended.outcome is Outcome.SUCCEEDED


def test_no_traffic_moves_by_what_was_seen_before_a_store_took_its_time(service: Service) -> None:
    """The document that comes before the switch takes 50 s, and the candidate's machines fall ill in that time."""
    service.deploy("1.0.0")
    new, late = service.id("1.1.0"), list[float]()
    shares: list[set[ReleaseId]] = []

    def hook(call: Call, moment: Moment) -> None:
        if moment is Moment.BEFORE or call.operation not in ("router.modify_rule", "store.put"):
            return
        run = service.head.run
        if call.operation == "router.modify_rule":
            shares.append(service.cloud.serving)
        elif run is not None and run.candidate == new and run.moves and not late:
            service.cloud.behave(new, answers=(500,), health=500)
            service.clock.advance(50)
            late.append(service.clock.monotonic())

    service.cloud.on_call(hook)
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    assert late and all(new not in share for share in shares)


def test_a_warm_release_that_may_not_be_taken_away_stays_in_its_slot(service: Service) -> None:
    """A deploy needs its place, is refused it, and goes back: the warm one can be gone back to as before."""
    for version in ("1.0.0", "1.1.0"):
        service.deploy(version)
    service.cloud.faults.fail("groups.delete", Refused("not allowed"))
    assert service.deploy("1.2.0").outcome is Outcome.ROLLED_BACK
    assert service.head.slots[Slot.BLUE].release == service.id("1.0.0")
    assert service.rollback().outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.0.0")}


def test_a_warm_release_that_was_about_to_go_goes_with_the_rollout_that_is_aborted(service: Service) -> None:
    """Its process died between writing that down and doing it; one that is in its slot still stays warm."""
    for version in ("1.0.0", "1.1.0"):
        service.deploy(version)
    service.publish("1.2.0")

    def die(call: Call, moment: Moment) -> None:
        if call.operation == "groups.delete" and moment is Moment.BEFORE:
            raise KeyboardInterrupt

    service.cloud.on_call(die)
    with pytest.raises(KeyboardInterrupt):
        service.manager().deploy(service.context(), service.release("1.2.0"))
    service.cloud.on_call(None)
    assert Slot.BLUE not in service.head.slots and service.id("1.0.0") in service.cloud.running
    service.manager().rollback(service.context())
    assert service.cloud.running == {service.id("1.1.0")}

"""Going back, and writing a ledger anew, by the cloud's tags alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from osvdeploy.api import from_cloud, wiring
from osvdeploy.cloud.interfaces import ObjectStore, Scaling, Slot, WebhookTarget
from osvdeploy.cloud.memory import Call, MemoryStore, Moment
from osvdeploy.errors import OsvDeployError, Refused, ReleaseHeld, Unavailable, UsageError
from osvdeploy.events import Warned
from osvdeploy.rollout import traces
from osvdeploy.rollout.drifting import DriftKind
from osvdeploy.rollout.hooks import Notify
from osvdeploy.rollout.model import OVERTAKEN, Outcome, RequestKind, Stage
from osvdeploy.rollout.news import NewsKind
from osvdeploy.rollout.releases import Concurrent, OnFailure, Strategy, StrategyKind, TrafficStep, group_epoch
from osvdeploy.spec.model import Health
from osvdeploy.spec.model import Strategy as DeclaredStrategy
from tests.rollout.test_drifting import looked
from tests.rollout.unledgered import Died, Gone, Unledgered, asked, dies_entering

pytestmark = pytest.mark.slow

CANARY = Strategy(StrategyKind.CANARY, (TrafficStep(20, 5.0, approve=True), TrafficStep(100)), 5.0, 3600.0)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Unledgered:
    """1.1.0 serves, 1.0.0 stands warm beside it, and the ledger's store does not answer until ``lost`` is False."""
    service = Unledgered()
    for version in ("1.0.0", "1.1.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    service.lost = True

    def opened(address: str) -> ObjectStore:
        return Gone() if service.lost else service.cloud.store

    monkeypatch.setattr(wiring, "open_store", opened)
    return service


def test_what_stands_warm_is_gone_back_to_by_one_change_of_weights(service: Unledgered) -> None:
    """And a note of what was left, which comes first; the release that was left goes, as with every rollback."""
    before = len(service.cloud.mutations)
    went = service.back()
    assert went.rollout.outcome is Outcome.SUCCEEDED
    assert (went.left, went.ledger, went.noted) == (service.id("1.1.0"), "memory", True)
    service.serves("1.0.0")
    changes = [call.operation for call in service.cloud.mutations[before:] if not call.operation.startswith("store.")]
    assert changes == ["router.note_left", "router.modify_rule", "groups.delete"]


def test_answers_prove_it_by_the_header_that_names_the_release(service: Unledgered) -> None:
    """Which no tag tells: it is found in the answers."""
    run = service.back().rollout.run
    assert run is not None and run.settings.health.version_header == "x-release"
    assert {gate.gate for gate in run.gates} == {"healthy targets", "preview probe", "traffic"}


def test_the_ledger_learns_it_with_the_next_command(service: Unledgered) -> None:
    """With a hold on what was left; the note goes."""
    service.back()
    service.lost = False
    service.publish("1.1.0")
    with pytest.raises(ReleaseHeld, match="without the ledger"):
        service.deploy("1.1.0")
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    service.serves("1.2.0")
    assert [each.release for each in service.head.served[-2:]] == [service.id("1.0.0"), service.id("1.2.0")]
    place = service.head.place
    assert place is not None
    assert service.cloud.cloud.router.observe(service.context(), place.route).left is None


def test_repairing_drift_does_not_undo_it(service: Unledgered) -> None:
    """The ledger's word is older than the note."""
    service.back()
    service.lost = False
    head = service.manager().realign(service.context())
    service.serves("1.0.0")
    assert head.stable is not None and head.stable.release == service.id("1.0.0")
    assert [hold.release for hold in head.holds] == [service.id("1.1.0")]


def test_a_second_run_does_not_go_forward_again(service: Unledgered) -> None:
    """Whoever died after the switch and runs it again is told that it is done."""
    service.cloud.faults.fail("groups.delete", Unavailable("died"), at=1, times=1_000_000)
    service.limits = replace(service.manager().limits, clean_up=1.0)
    cloud = service.cloud.cloud
    where = service.where()
    went = from_cloud.go_back(service.context(), where, cloud, service.cloud.prober, limits=service.limits)
    assert went.rollout.outcome is Outcome.SUCCEEDED
    assert service.cloud.running == {service.id("1.0.0"), service.id("1.1.0")}
    service.cloud.faults.clear()
    went = service.back()
    assert went.rollout.outcome is Outcome.SUCCEEDED
    service.serves("1.0.0")
    assert service.cloud.running == {service.id("1.0.0")}


def test_no_group_has_a_name_that_another_one_had(service: Unledgered) -> None:
    """Each time its machines are started anew: a ledger that has one in a slot does not take the next one for it,
    wherever that stands, nor does whoever was about to take the first one away."""
    names: list[str] = []
    for version in ("1.0.0", "1.1.0", "1.0.0", "1.1.0"):
        assert service.back(to=version).rollout.outcome is Outcome.SUCCEEDED
        names.append(service.group(version))
        service.clock.advance(60)
    assert len(set(names)) == len(names), names


def test_a_sick_release_is_not_gone_back_to(service: Unledgered) -> None:
    """All gates hold: what stands warm and is not well gets nothing, and what serves goes on."""
    service.cloud.behave(service.id("1.0.0"), answers=(500,))
    service.clock.advance(60)
    went = service.back()
    assert went.rollout.outcome is Outcome.ROLLBACK_FAILED
    service.serves("1.1.0")
    assert service.weights() == {Slot.GREEN: 100, Slot.BLUE: 0}


def test_a_cold_release_is_started_as_what_serves_is(service: Unledgered) -> None:
    """Its image is found by its tags; machine type, networks and firewalls by the template of the present group."""
    service.lost = False
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    service.lost = True
    went = service.back("1.0.0")
    assert went.rollout.outcome is Outcome.SUCCEEDED
    service.serves("1.0.0")
    template = service.cloud.world.templates[service.group("1.0.0")]
    assert (template.machine_type, template.networks, template.firewalls) == (
        service.settings.machine_type,
        service.settings.networks,
        service.settings.firewalls,
    )
    assert sum(machine.gone is None for machine in service.cloud.world.groups[service.group("1.0.0")].machines) == 2


def test_a_rule_that_somebody_changed_is_put_right_by_the_switch(service: Unledgered) -> None:
    """With the ledger that is refused for `drift --repair`, which needs one: nobody is kept from going back for it."""
    service.cloud.share_out("hello/production", 900)
    assert service.back().rollout.outcome is Outcome.SUCCEEDED
    service.serves("1.0.0")
    service.lost = False
    place = service.head.place
    assert place is not None
    assert service.cloud.cloud.router.observe(service.context(), place.route).changed == ""


def test_without_anything_warm_a_release_must_be_named(service: Unledgered) -> None:
    """The images that there are, are named; nothing moves."""
    service.back()
    before = len(service.cloud.mutations)
    service.cloud.cloud.router.note_left(service.context(), service.head.place.route, None)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="nothing stands warm") as told:
        service.back()
    assert service.id("1.1.0") in str(told.value.hint)
    assert len(service.cloud.mutations) == before + 1


@pytest.mark.parametrize("stage", [Stage.BOOT, Stage.VERIFY, Stage.SHIFT])
def test_what_was_started_after_what_serves_is_nothing_to_go_back_to(service: Unledgered, stage: Stage) -> None:
    """A rollout stood still before it had any traffic: its release is well, and nobody has approved of it. Traffic
    stays, and stays to be gone back with by name."""
    service.settings = replace(service.settings, strategy=replace(CANARY, approve=True))
    dies_entering(service, stage)
    service.clock.advance(120)
    before = len(service.cloud.mutations)
    with pytest.raises(UsageError, match="was started after it") as told:
        service.back()
    new, old = service.id("1.2.0"), service.id("1.1.0")
    assert f"{old} has all the traffic, and {new}, which stands beside it," in str(told.value)
    assert "--to" in str(told.value.hint)
    assert len(service.cloud.mutations) == before
    service.serves("1.1.0")
    assert service.back("1.0.0").rollout.outcome is Outcome.SUCCEEDED
    service.serves("1.0.0")


def test_scaling_that_a_rollout_had_suspended_is_told_where_its_ledger_is_lost(service: Unledgered) -> None:
    """Nobody else knows that it did: what serves would keep its size for ever. Where nothing is suspended, nothing is
    told."""
    service.scale("1.1.0", 2, 6)
    service.settings = replace(service.settings, strategy=replace(CANARY, approve=False))
    service.lost = False
    assert service.deploy("1.2.0").outcome is Outcome.WAITING
    service.lost = True
    told = [f"what scales {service.id('1.1.0')} is suspended (cpu, night)"]
    service.recorder.events.clear()
    service.back("1.1.0")
    service.cloud.store._objects.clear()
    service.lost = False
    service.written()
    warned = [event.text for event in service.recorder.events if isinstance(event, Warned)]
    assert [each.partition(": ")[2].partition(":")[0] for each in warned if "suspended" in each] == told * 2
    service.cloud.cloud.groups.resume(service.context(), service.group("1.1.0"), Scaling(2, 2, 6))
    service.recorder.events.clear()
    service.cloud.store._objects.clear()
    service.written()
    assert not [event for event in service.recorder.events if isinstance(event, Warned)]


def test_scaling_that_a_rollout_had_suspended_goes_on_where_traffic_was_moved_from_under_it(
    service: Unledgered,
) -> None:
    """To a third release, by tags, which has taken over that what it left stood still: the rollout's ledger knows that
    this is nobody's wish."""
    service.lost = False
    service.scale("1.1.0", 2, 6)
    service.settings, before = replace(service.settings, strategy=replace(CANARY, approve=False)), service.settings
    assert service.deploy("1.2.0").outcome is Outcome.WAITING
    service.settings, service.lost = before, True
    service.back("1.1.0")
    assert service.back("1.0.0").rollout.outcome is Outcome.SUCCEEDED
    passed_on = service.scaling("1.0.0")
    assert passed_on is not None and passed_on.paused and passed_on.maximum == 6
    service.lost = False
    assert service.manager().recover(service.context()).outcome is Outcome.ABORTED
    assert service.deploy("1.3.0").outcome is Outcome.SUCCEEDED
    scaling = service.scaling("1.3.0")
    assert scaling is not None and (scaling.minimum, scaling.maximum, scaling.paused) == (2, 6, False)


def test_nothing_is_owed_of_scaling_where_what_serves_now_goes_on(service: Unledgered) -> None:
    """A rollout that never came to suspend anything was overtaken. Nobody is told that something is owed, and a pause
    of later is somebody's: it passes on, and is said."""
    service.lost = False
    service.scale("1.1.0", 2, 6)
    dies_entering(service, Stage.VERIFY)
    service.clock.advance(120)
    service.lost = True
    assert service.back("1.0.0").rollout.outcome is Outcome.SUCCEEDED
    service.lost = False
    assert service.manager().recover(service.context()).outcome is Outcome.ABORTED
    assert not [each for each in looked(service) if each.kind is DriftKind.SCALING]
    service.cloud.cloud.groups.pause(service.context(), service.group("1.0.0"))
    assert service.deploy("1.3.0").outcome is Outcome.SUCCEEDED
    scaling = service.scaling("1.3.0")
    assert scaling is not None and scaling.paused
    warned = [event.text for event in service.recorder.events if isinstance(event, Warned)]
    assert any("is suspended, and was not when its last rollout ended" in text for text in warned)


def test_traffic_that_goes_half_to_nobody_is_given_to_who_is_there(service: Unledgered) -> None:
    """By somebody's hand, with nothing in the other slot: whoever asks there gets errors."""
    service.lost = False
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, keep_warm=0.0))
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    service.lost = True
    service.cloud.set_weights("hello/production", {Slot.BLUE: 50, Slot.GREEN: 50})
    service.clock.advance(60)
    with pytest.raises(UsageError, match="nobody in green 50 %"):
        service.back()
    went = service.back("1.2.0")
    assert went.rollout.outcome is Outcome.SUCCEEDED and went.left is None
    assert went.rollout.told == f"{service.id('1.2.0')} has all the traffic"
    assert service.weights() == {Slot.BLUE: 100, Slot.GREEN: 0}
    service.cloud.store._objects.clear()
    service.lost = False
    assert service.written().head.serving is Slot.BLUE


def test_a_ledger_that_is_lost_in_a_rollout_does_not_take_its_release_for_one_that_served(
    service: Unledgered,
) -> None:
    """Nobody has approved of it: a rollback after that does not go forward to it."""
    service.settings = replace(service.settings, strategy=replace(CANARY, approve=True))
    dies_entering(service, Stage.SHIFT)
    service.clock.advance(120)
    service.cloud.store._objects.clear()
    service.lost = False
    head = service.written().head
    assert head.stable is not None and head.stable.release == service.id("1.1.0")
    assert [each.release for each in head.served] == [service.id("1.1.0")]
    with pytest.raises(UsageError, match="no release served before"):
        service.rollback()
    assert service.deploy("1.2.0").outcome is Outcome.WAITING
    service.serves("1.1.0")


@pytest.mark.parametrize(("to", "left"), [("1.1.0", "1.2.0"), ("1.2.0", "1.1.0")])
def test_a_canary_is_ended_one_way_or_the_other(service: Unledgered, to: str, left: str) -> None:
    """Who has the traffic is not for us to guess: without --to that is refused."""
    service.lost = False
    service.settings = replace(service.settings, strategy=CANARY)
    assert service.deploy("1.2.0").outcome is Outcome.WAITING
    service.lost = True
    with pytest.raises(UsageError, match="shared") as told:
        service.back()
    assert told.value.hint == "say with --to which of them is to have all of it"
    with pytest.raises(UsageError, match="shared") as told:
        service.written()
    assert "rollback hello/production --from-cloud --to RELEASE" in str(told.value.hint)
    went = service.back(to)
    assert went.rollout.outcome is Outcome.SUCCEEDED
    service.serves(to)
    assert went.left == service.id(left)
    assert service.cloud.running == {service.id(to)}


def test_a_rollout_that_stood_still_is_ended_when_the_ledger_is_back(service: Unledgered) -> None:
    """Its canary was taken from the traffic meanwhile: whoever goes on with it does not give it any again."""
    service.lost = False
    service.settings = replace(service.settings, strategy=CANARY)
    assert service.deploy("1.2.0").outcome is Outcome.WAITING
    service.lost = True
    service.back("1.1.0")
    service.lost = False
    ended = service.manager().recover(service.context())
    assert ended.outcome is Outcome.ABORTED
    service.serves("1.1.0")


COMMANDS: dict[str, Callable[[Unledgered], object]] = {
    "recover": lambda service: service.manager().recover(service.context()),
    "the same deploy": lambda service: service.deploy("1.2.0"),
    "another deploy, queued": lambda service: queued(service).deploy("1.3.0"),
    "another deploy": lambda service: service.deploy("1.3.0"),
    "rollback": lambda service: service.rollback(),
    "abort": lambda service: service.manager().request(service.context(), RequestKind.ABORT),
    "promote": lambda service: service.manager().request(service.context(), RequestKind.PROMOTE),
    "drift --repair": lambda service: service.manager().realign(service.context()),
    "destroy": lambda service: service.destroy(),
}


def queued(service: Unledgered) -> Unledgered:
    strategy = replace(service.settings.strategy, concurrent=Concurrent.QUEUE)
    service.settings = replace(service.settings, strategy=strategy)
    return service


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.BOOT, Stage.SHIFT, Stage.BAKE, Stage.CLEAN_UP])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_rollout_whose_stable_release_was_left_meanwhile_moves_no_traffic(
    service: Unledgered, command: str, stage: Stage
) -> None:
    """Its process died at a stage; then somebody went back to another release than the one that it knows as stable,
    whose machines went. Whatever comes next learns that first: it is what serves now."""
    dies_entering(service, stage)
    service.back(to="1.0.0")
    service.serves("1.0.0")
    service.clock.advance(120)
    service.lost = False
    bad = asked(service)
    refused: OsvDeployError | None = None
    try:
        COMMANDS[command](service)
    except OsvDeployError as error:
        refused = error
    if command == "destroy":
        assert service.head.destroyed
        return
    # Where 1.2.0 has served it was what was left, and is held. Nothing can be asked of a rollout that is nearly over.
    held = command == "the same deploy" and stage in (Stage.BAKE, Stage.CLEAN_UP)
    senseless = stage is Stage.CLEAN_UP if command == "abort" else command == "promote" and stage is not Stage.BAKE
    assert (refused is None) is not (held or senseless)
    if refused is not None or command == "drift --repair":
        # A rollout that is under way it leaves alone.
        service.manager().recover(service.context())
    assert not bad, bad[:3]
    service.cloud.on_call(None)
    deploys = {"the same deploy": "1.2.0", "another deploy": "1.3.0", "another deploy, queued": "1.3.0"}
    wanted = deploys.get(command, "1.0.0") if refused is None else "1.0.0"
    service.serves(wanted)
    head = service.head
    assert head.unfinished is None and head.stable is not None and head.stable.release == service.id(wanted)
    recorded = {record.group for record in head.slots.values()}
    assert {name for name, group in service.cloud.world.groups.items() if not group.deleting} == recorded


def test_a_deploy_whose_ledger_comes_back_lets_a_rollback_of_meanwhile_stand(service: Unledgered) -> None:
    """Its process has lived on: it does not send traffic where somebody has gone back from."""
    ends: list[float] = []
    service.lost = False

    def out_of_reach(call: Call, moment: Moment) -> None:
        if call.operation != "store.put" or service.lost:
            return
        if not ends and moment is Moment.AFTER:
            run = service.head.run
            if run is not None and run.candidate == service.id("1.2.0") and run.stage is Stage.BAKE:
                ends.append(service.clock.monotonic() + 400)
                service.lost = True
                assert service.back(to="1.0.0").rollout.outcome is Outcome.SUCCEEDED
                service.lost = False
        elif ends and moment is Moment.BEFORE and service.clock.monotonic() < ends[0]:
            raise Unavailable("s3 is down")

    service.cloud.on_call(out_of_reach)
    ended = service.deploy("1.2.0")
    assert ends and ended.outcome is Outcome.ABORTED and OVERTAKEN in ended.told
    service.serves("1.0.0")
    assert [hold.release for hold in service.head.holds] == [service.id("1.2.0")]


def test_a_deploy_that_had_all_the_traffic_does_not_take_it_again_from_a_rollback_of_meanwhile(
    service: Unledgered,
) -> None:
    """The rollback had switched, and died: the machines of both stand."""
    ends: list[float] = []
    service.lost = False

    def out_of_reach(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            if service.lost:
                raise Died
            if not ends and service.cloud.serving == {service.id("1.2.0")}:
                ends.append(service.clock.monotonic() + 400)
        if call.operation != "store.put" or service.lost or moment is Moment.AFTER or not ends:
            return
        if service.clock.monotonic() < ends[0]:
            if service.cloud.serving == {service.id("1.2.0")}:
                service.lost = True
                with pytest.raises(Died):
                    service.back(to="1.1.0")
                service.lost = False
            raise Unavailable("s3 is down")

    service.cloud.on_call(out_of_reach)
    ended = service.deploy("1.2.0")
    assert ends and ended.outcome is not Outcome.SUCCEEDED
    service.serves("1.1.0")


def noted(service: Unledgered) -> None:
    """1.1.0 was left for 1.0.0 without the ledger, which answers again."""
    service.lost = True
    assert service.back().rollout.outcome is Outcome.SUCCEEDED
    service.lost = False


def test_no_deploy_begins_beside_a_note_that_cannot_be_taken_away(service: Unledgered) -> None:
    """Whoever goes back without the ledger goes by it, and whoever recovers the deploy."""
    noted(service)
    service.cloud.faults.fail("router.note_left", Refused("not allowed"))
    with pytest.raises(Refused, match=r"the note on its route that hello-1\.1\.0-\w+ was left stays: not allowed"):
        service.deploy("1.2.0")
    assert service.head.unfinished is None
    service.serves("1.0.0")
    assert [each.kind for each in looked(service)] == [DriftKind.ROUTE]
    service.manager().realign(service.context())
    assert not looked(service)
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert [hold.release for hold in service.head.holds] == [service.id("1.1.0")]


def test_a_deploy_insists_on_taking_a_note_away(service: Unledgered) -> None:
    noted(service)
    for _ in range(3):
        service.cloud.faults.fail("router.note_left", Unavailable("throttled"))
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert not looked(service) and service.head.note is None


@pytest.mark.parametrize("stage", [Stage.SHIFT, Stage.CLEAN_UP])
def test_a_note_that_stays_tells_nothing_of_a_rollback_of_later(service: Unledgered, stage: Stage) -> None:
    """Whoever recovers it brings it to its own end, and nobody takes it for one that was overtaken."""
    service.lost = False
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    service.lost = True
    assert service.back().rollout.outcome is Outcome.SUCCEEDED
    service.lost = False
    service.serves("1.1.0")
    for _ in range(3):
        service.cloud.faults.fail("router.note_left", Refused("not allowed"))

    def dies(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "store.put" and moment is Moment.AFTER else None
        if run is not None and run.candidate == service.id("1.0.0") and run.stage is stage and not run.over:
            service.cloud.on_call(None)
            raise Died

    service.cloud.on_call(dies)
    with pytest.raises(Died):
        service.rollback("1.0.0")
    service.clock.advance(120)
    ended = service.manager().recover(service.context())
    assert ended.outcome is Outcome.SUCCEEDED and OVERTAKEN not in ended.told
    service.serves("1.0.0")
    service.manager().realign(service.context())
    assert not looked(service) and service.head.note is None


def test_of_a_rollout_that_was_overtaken_nobody_is_told_that_its_stable_release_serves(service: Unledgered) -> None:
    """Neither whoever recovers it nor whoever is notified: another one serves."""
    telling = Notify(WebhookTarget(None, "HOOK"), (NewsKind.ABORTED.value,))
    service.settings = replace(service.settings, notify=(telling,))
    dies_entering(service, Stage.SHIFT)
    service.back(to="1.0.0")
    service.clock.advance(120)
    service.lost = False
    ended = service.manager().recover(service.context())
    new, now = service.id("1.2.0"), service.id("1.0.0")
    assert ended.told == f"{new} was aborted: {OVERTAKEN}; {now} serves"
    [(_, message, _)] = service.cloud.notifier.sent
    assert json.loads(message.body)["told"] == f"the deploy of {new} aborted: {OVERTAKEN}"


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.BOOT, Stage.SHIFT, Stage.BAKE, Stage.CLEAN_UP])
def test_where_no_note_could_be_left_the_ledger_learns_by_being_asked_to(service: Unledgered, stage: Stage) -> None:
    """Also in the midst of a rollout, which ends in place: `recover` would send traffic to machines that are gone.
    Where its own stable release or candidate has the traffic, `recover` is right, and that is said."""
    dies_entering(service, stage)
    service.cloud.faults.fail("router.note_left", Refused("not allowed"), times=1_000)
    went = service.back(to="1.0.0")
    assert went.rollout.outcome is Outcome.SUCCEEDED and not went.noted
    service.cloud.faults.clear()
    service.clock.advance(120)
    service.lost = False
    bad = asked(service)
    head = service.written().head
    assert head.unfinished is None and head.stable is not None and head.stable.release == service.id("1.0.0")
    assert service.deploy("1.3.0").outcome is Outcome.SUCCEEDED
    service.cloud.on_call(None)
    assert not bad, bad[:3]
    recorded = {record.group for record in service.head.slots.values()}
    assert {name for name, group in service.cloud.world.groups.items() if not group.deleting} == recorded
    dies_entering(service, stage, "1.4.0")
    service.clock.advance(120)
    with pytest.raises(UsageError, match="has a rollout under way") as told:
        service.written()
    assert "recover" in str(told.value.hint)


def test_a_ledger_that_answers_is_to_be_used(service: Unledgered) -> None:
    """It knows more than tags."""
    service.lost = False
    with pytest.raises(UsageError, match="can be read") as told:
        service.back()
    assert "osvdeploy rollback hello/production" in str(told.value.hint)
    service.serves("1.1.0")


def test_a_ledger_that_cannot_be_written_is_of_no_use(service: Unledgered, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers, so a rollback by it begins, and says which other one there is."""
    service.lost = False

    def refuse(*asked: object) -> bool:
        raise Refused("PutObject: access denied", hint="ask for s3:PutObject")

    monkeypatch.setattr(service.cloud.store, "put_if_absent", refuse)
    monkeypatch.setattr(service.cloud.store, "refuse_unwritable", refuse)
    with pytest.raises(Refused) as told:
        service.rollback()
    hint = str(told.value.hint)
    assert hint.startswith("ask for s3:PutObject; ") and "osvdeploy rollback hello/production --from-cloud" in hint
    assert service.back().rollout.outcome is Outcome.SUCCEEDED
    service.serves("1.0.0")


def test_nobody_is_stopped_where_rules_have_no_versions(service: Unledgered) -> None:
    """That is said."""
    service.back()
    told = [event.text for event in service.recorder.events if isinstance(event, Warned)]
    assert any("not stopped" in each for each in told)


def test_a_service_that_is_not_there_is_not_found(service: Unledgered) -> None:
    """By its whole name."""
    where = replace(service.where(), environment="staging")
    with pytest.raises(UsageError, match="hello/staging"):
        from_cloud.go_back(service.context(), where, service.cloud.cloud, service.cloud.prober)


def test_a_lost_ledger_is_written_anew(service: Unledgered) -> None:
    """Place, slots, what serves, releases: rollback, deploy and destroy go on from there."""
    service.lost = False
    old = service.head
    service.cloud.store._objects.clear()
    with pytest.raises(UsageError, match="has lost it") as told:
        service.deploy("1.2.0")
    assert "osvdeploy adopt --from-cloud" in str(told.value.hint)
    made = service.written(service.settings)
    assert not made.learnt
    head = service.head
    # Neither has a later group the name of one that stands.
    assert all(0 < group_epoch(each.group) < head.epoch for each in head.slots.values())
    assert head.place == old.place
    assert head.serving is old.serving
    assert {slot: (each.release, each.group) for slot, each in head.slots.items()} == {
        slot: (each.release, each.group) for slot, each in old.slots.items()
    }
    assert head.lease is None
    released = service.ledger.release(service.context(), service.id("1.0.0"))
    assert released is not None and released.settings == service.settings
    assert service.rollback().outcome is Outcome.SUCCEEDED
    service.serves("1.0.0")
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    service.destroy()
    assert service.cloud.standing == set()


def test_a_ledger_written_anew_gives_no_name_of_what_is_on_its_way_out(service: Unledgered) -> None:
    """Nor does it ask for an approval of what may have served."""
    service.lost = False
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, keep_warm=0.0))
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    there = {group_epoch(name) for name in service.cloud.world.groups}
    service.cloud.store._objects.clear()
    service.lost = True
    service.back(to="1.0.0")
    service.lost = False
    service.written(replace(service.settings, strategy=replace(service.settings.strategy, approve=True)))
    assert service.head.epoch > max(there)
    assert service.rollback("1.1.0").outcome is Outcome.SUCCEEDED
    service.serves("1.1.0")


def test_without_a_spec_settings_are_what_stands(service: Unledgered) -> None:
    """A deploy from the spec then finds the same route."""
    service.lost = False
    service.cloud.store._objects.clear()
    service.written()
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    service.serves("1.2.0")


def test_a_rollback_before_the_ledger_was_written_anew_leaves_its_hold(service: Unledgered) -> None:
    """The note is read by whoever writes it."""
    service.back()
    service.lost = False
    service.cloud.store._objects.clear()
    service.written()
    assert [hold.release for hold in service.head.holds] == [service.id("1.1.0")]
    stable = service.head.stable
    assert stable is not None and stable.release == service.id("1.0.0")


def test_a_ledger_that_is_there_learns_what_serves(service: Unledgered) -> None:
    """Somebody has switched by hand: who says so has the cloud believed."""
    service.lost = False
    service.cloud.set_weights("hello/production", {Slot.BLUE: 100, Slot.GREEN: 0})
    with pytest.raises(UsageError, match="weights are"):
        service.deploy("1.2.0")
    assert service.written().learnt
    stable = service.head.stable
    assert stable is not None and stable.release == service.id("1.0.0")
    assert not service.head.holds
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED


def test_a_ledger_is_written_anew_at_another_address(service: Unledgered, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is named; what stands keeps its tags, and later releases get the new one's."""
    other = MemoryStore(address="elsewhere")
    monkeypatch.setattr(wiring, "open_store", lambda address: other if address == "elsewhere" else Gone())
    where = replace(service.where(), ledger="elsewhere")
    made = from_cloud.write_anew(service.context(), where, service.cloud.cloud, service.cloud.prober)
    assert made.head.place is not None
    assert made.head.place.route.tags["osvdeploy:ledger"] == "elsewhere"


def test_what_no_tag_tells_is_what_a_spec_leaves_out() -> None:
    """So that nobody has two sets of defaults in mind."""
    assert Health().min_ready == traces.MIN_READY
    assert DeclaredStrategy().keep_warm == traces.KEEP_WARM
    assert OnFailure(DeclaredStrategy().on_failure) is OnFailure.ROLLBACK


def test_a_ledger_that_is_written_anew_has_the_slow_start_that_stands(service: Unledgered) -> None:
    """So that no `drift --repair` takes it away. It is a cause to stop for nobody who goes back."""
    router, place = service.cloud.cloud.router, service.head.place
    assert place is not None
    router.set_slow_start(service.context(), replace(place.route, slow_start=90.0))
    service.cloud.faults.fail("router.slow_start", Refused("not allowed"), times=1)
    assert service.back().rollout.outcome is Outcome.SUCCEEDED
    assert any("slow start" in str(each) for each in service.recorder.events if isinstance(each, Warned))
    assert {router.slow_start(service.context(), place.route, slot) for slot in Slot} == {90.0}
    service.lost = False
    service.cloud.store._objects.clear()
    service.written()
    assert service.head.place is not None and service.head.place.route.slow_start == 90.0
    release = service.ledger.release(service.context(), service.head.slots[Slot.BLUE].release)
    assert release is not None and release.settings.health.slow_start == 90.0

"""What can be said of a deploy before it begins, and a deploy that is only rehearsed."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.api import basis_document, load_plan, monthly_cost
from osvdeploy.api.differing import changed_settings
from osvdeploy.api.planning import basis_now
from osvdeploy.cloud.interfaces import (
    CloudImage,
    CommandHook,
    CommandMetric,
    Quota,
    Scaling,
    Slot,
    UploadedDisk,
    WebhookTarget,
)
from osvdeploy.context import ProcessIdentity
from osvdeploy.digests import Digest
from osvdeploy.errors import PlanOutdated, UsageError
from osvdeploy.rollout.gates import Bound, Gate, GateStage
from osvdeploy.rollout.hooks import Hook, Notify
from osvdeploy.rollout.ledger import Hold, Lease
from osvdeploy.rollout.model import Approval, Kind, Limits, Outcome, Run, Stage, StageRecord
from osvdeploy.rollout.planning import Basis, Prices, cautions, changed_since, course, estimate
from osvdeploy.rollout.rehearsal import Rehearsed, rehearse
from osvdeploy.rollout.releases import OnFailure, ProbePlace, Strategy, StrategyKind, TrafficStep, settings_digest
from osvdeploy.rollout.retention import Garbage
from osvdeploy.sizes import GIB
from tests.rollout.made import NOW, SETTINGS, after, run
from tests.rollout.service import Service
from tests.rollout.test_adopt import Legacy

pytestmark = pytest.mark.whole

CANARY = Strategy(
    StrategyKind.CANARY,
    (TrafficStep(5, 120.0), TrafficStep(50, 300.0, approve=True), TrafficStep(100)),
    bake=600.0,
    keep_warm=3600.0,
    approve=True,
)
BASIS = Basis(
    service="hello/production",
    ledger="memory",
    version="1.1.0",
    head=7,
    serving=None,
    groups={"a": 2},
    weights={Slot.BLUE: 100, Slot.GREEN: 0},
    wired=(Slot.BLUE, Slot.GREEN),
    settings=Digest("1" * 64),
    build=Digest("2" * 64),
    configuration=Digest("3" * 64),
    image=Digest("4" * 64),
)


# --------------------------------------------------------------------------------------------------------- the basis

OTHER: dict[str, Any] = {
    "service": "hello/staging",
    "ledger": "elsewhere",
    "version": "1.2.0",
    "head": 8,
    "serving": "hello-1.0.0-1a2b3c4d",
    "groups": {"a": 3, "b": 1},
    "weights": {Slot.BLUE: 95, Slot.GREEN: 5},
    "wired": (),
    "settings": "5" * 64,
    "configuration": "6" * 64,
    "image": "7" * 64,
    "scaling": "1 to 4: cpu 60 % (0123456789ab)",
}


@given(st.sets(st.sampled_from(sorted(OTHER))))
def test_each_thing_that_has_changed_is_told_and_nothing_else(names: set[str]) -> None:
    """From what to what; two groups are two things."""
    now = replace(BASIS, **{name: OTHER[name] for name in names})
    told = changed_since(BASIS, now)
    assert len(told) == len(names) + ("groups" in names)
    assert all(" -> " in each for each in told)


def test_every_part_of_a_basis_is_compared() -> None:
    """A field that is forgotten would let a changed world pass. What it is built of counts only where nothing was."""
    assert {each.name for each in fields(Basis)} == {*OTHER, "build"}
    assert changed_since(BASIS, replace(BASIS, build=Digest("9" * 64))) == []
    unbuilt = replace(BASIS, image=None)
    assert changed_since(unbuilt, BASIS) == []
    assert len(changed_since(unbuilt, replace(BASIS, build=Digest("9" * 64)))) == 1


def test_a_plan_is_outdated_once_something_scales_the_machines() -> None:
    """At the same size, too: there are policies to carry over, and something to suspend."""
    service = Service()
    service.deploy("1.0.0")
    digest = Digest("2" * 64)

    def now() -> Basis:
        ground = service.cloud.cloud
        return basis_now(service.context(), service.ledger, ground, service.release("1.1.0"), digest, None)

    planned = now()
    service.scale("1.0.0", 1, 4)
    [told] = changed_since(planned, now())
    assert told.startswith("what scales the machines that serve: none -> 1 to 4")


def test_settings_have_one_digest_and_any_change_another() -> None:
    """Times with a fraction too, which canonical JSON does not hold."""
    longer = replace(SETTINGS, health=replace(SETTINGS.health, min_ready=10.5))
    assert settings_digest(SETTINGS) == settings_digest(replace(SETTINGS))
    assert settings_digest(longer) != settings_digest(SETTINGS)


def test_a_first_hook_is_told_by_its_parts_alone() -> None:
    """And the last that goes: the list that was or is empty would be told as none."""
    hooked = replace(SETTINGS, hooks=(Hook("smoke", CommandHook(("./smoke",)), ("verify",)),))
    for before, after_it in ((SETTINGS, hooked), (hooked, SETTINGS)):
        told = {change.key for change in changed_settings(before, after_it)}
        assert "hooks[0].name" in told and "hooks" not in told


def test_a_plan_is_read_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    """Slots, missing weights and all."""
    for number, basis in enumerate((BASIS, replace(BASIS, weights=None, serving=None, image=None, groups={}))):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps({"schema": 1, "command": "plan", "basis": basis_document(basis)}))
        assert load_plan(file) == basis


def test_a_deploy_by_a_plan_is_refused_where_somebody_was_quicker() -> None:
    """Between the last look and the lease, too: nothing of the cloud is changed."""
    service = Service()
    service.deploy("1.0.0")
    service.publish("2.0.0")
    planned = service.head.n
    service.manager().hold(service.context(), service.id("9.9.9"), "somebody was quicker")
    began = len(service.cloud.faults.mutations)
    with pytest.raises(PlanOutdated) as refused:
        service.manager().deploy(service.context(), service.release("2.0.0"), since=planned)
    assert refused.value.changes == (f"newest document of the ledger: {planned} -> {planned + 3}",)
    assert refused.value.exit_code == 2
    store_writes = [call for call in service.cloud.faults.mutations[began:] if not str(call).startswith("store.")]
    assert store_writes == []
    assert (
        service.manager().deploy(service.context(), service.release("2.0.0"), since=service.head.n).outcome
        is Outcome.SUCCEEDED
    )


def test_a_first_deploy_by_a_plan_begins_an_empty_ledger() -> None:
    """Its plan stands on no document at all."""
    service = Service()
    service.publish("1.0.0")
    ended = service.manager().deploy(service.context(), service.release("1.0.0"), since=0)
    assert ended.outcome is Outcome.SUCCEEDED


# ---------------------------------------------------------------------------------------------- course, time and money


def test_the_course_of_a_canary_has_its_shares_bakes_and_approvals() -> None:
    """In their order; a first release goes by no steps, but somebody approves it all the same."""
    legs = course(replace(SETTINGS, strategy=CANARY), first=False)
    told = [(leg.stage.value, leg.weight, leg.seconds, leg.approval) for leg in legs]
    assert told == [
        ("prepare", None, 0.0, False),
        ("boot", None, 10.0, False),
        ("verify", None, 0.0, False),
        ("shift", 5, 0.0, True),
        ("bake", 5, 120.0, False),
        ("shift", 50, 0.0, False),
        ("bake", 50, 300.0, True),
        ("shift", 100, 0.0, False),
        ("bake", 100, 600.0, False),
        ("clean-up", None, 0.0, False),
    ]
    first = course(replace(SETTINGS, strategy=CANARY), first=True)
    assert [(leg.weight, leg.approval) for leg in first if leg.stage is Stage.SHIFT] == [(100, True)]


def test_the_course_has_its_hooks_where_they_are_asked() -> None:
    """At each share; a bake without any time of its own is in the course for them, and so is the end."""
    smoke = Hook("smoke", CommandHook(("smoke",)), ("verify", "bake", "revert"), timeout=30.0)
    tell = Hook("tell", CommandHook(("tell",)), ("bake", "done"), timeout=5.0)
    hooked = replace(SETTINGS, hooks=(smoke, tell), strategy=replace(SETTINGS.strategy, bake=0.0))
    legs = course(hooked, first=False)
    asked = [(leg.stage.value, [(hook.name, hook.timeout) for hook in leg.hooks]) for leg in legs if leg.hooks]
    assert asked == [
        ("verify", [("smoke", 30.0)]),
        ("bake", [("smoke", 30.0), ("tell", 5.0)]),
        ("done", [("tell", 5.0)]),
    ]
    without = course(replace(hooked, hooks=()), first=False)
    assert [leg.stage.value for leg in without] == ["prepare", "boot", "verify", "shift", "clean-up"]
    longest = estimate(legs, [], hooked, Limits()).high - estimate(without, [], hooked, Limits()).high
    assert longest == 30.0 + 35.0 + 5.0
    assert estimate(legs, [], hooked, Limits()).low == estimate(without, [], hooked, Limits()).low


def past(*seconds: float, **changes: Any) -> Run:
    """A deploy that succeeded; its stages took so long."""
    stages, at = [], NOW
    order = (Stage.PREPARE, Stage.BOOT, Stage.VERIFY, Stage.SHIFT, Stage.BAKE, Stage.CLEAN_UP)
    for stage, took in zip(order, seconds, strict=True):
        stages.append(StageRecord(stage, at, at + timedelta(seconds=took), ""))
        at += timedelta(seconds=took)
    ended = run(stage=Stage.DONE, verdict=Outcome.SUCCEEDED, stages=tuple(stages))
    return replace(ended, **changes)


def test_a_stage_takes_what_it_took() -> None:
    """The median and the range of earlier deploys; a bake what the strategy says, whatever it was then."""
    runs = [past(3, 20, 1, 2, 99, 0), past(5, 40, 1, 2, 99, 0), past(4, 24, 1, 2, 99, 0)]
    baking = replace(SETTINGS, strategy=replace(SETTINGS.strategy, bake=60.0))
    found = estimate(course(baking, first=False), runs, baking, Limits())
    boot = next(each for each in found.legs if each.leg.stage is Stage.BOOT)
    assert (boot.low, boot.usual, boot.high, boot.runs) == (20, 24, 40, 3)
    assert (found.low, found.usual, found.high) == (86, 91, 108)


def test_a_boot_takes_as_long_as_machines_have_to_stay_healthy_now() -> None:
    """However short that was in the past."""
    longer = replace(SETTINGS, health=replace(SETTINGS.health, min_ready=60.0))
    found = estimate(course(longer, first=False), [past(3, 20, 1, 2, 0, 0)], longer, Limits())
    assert [each.usual for each in found.legs if each.leg.stage is Stage.BOOT] == [70]


def test_without_a_past_only_bounds_are_told() -> None:
    """From what is waited for in any case to where the rollout is given up; what failed or went back is no past."""
    runs = [past(1, 1, 1, 1, 1, 1, verdict=Outcome.ROLLED_BACK), past(1, 1, 1, 1, 1, 1, kind=Kind.ROLLBACK)]
    for known in ([], runs):
        found = estimate(course(SETTINGS, first=False), known, SETTINGS, Limits())
        assert found.usual is None
        assert found.low == SETTINGS.health.min_ready
        assert found.high == 600 + SETTINGS.health.boot_timeout + 60 + 300 + 900


def test_the_time_of_people_is_no_time_of_a_stage() -> None:
    """A shift that somebody approved an hour later says nothing of the next one."""
    asked = past(3, 20, 1, 3600, 0, 0, approvals=(Approval(Stage.SHIFT, "ann", after(100)),))
    found = estimate(course(SETTINGS, first=False), [asked], SETTINGS, Limits())
    assert [each.runs for each in found.legs if each.leg.stage in (Stage.BOOT, Stage.SHIFT)] == [1, 0]


def test_an_end_that_takes_machines_away_is_not_told_from_one_that_does_not() -> None:
    """Keeping the old release warm takes no time."""
    cold = replace(SETTINGS, strategy=replace(SETTINGS.strategy, keep_warm=0.0))
    found = estimate(course(cold, first=False), [past(3, 20, 1, 2, 0, 0)], cold, Limits())
    assert found.legs[-1].usual is None and found.legs[-1].high == Limits().clean_up


def test_money_is_exact() -> None:
    """Decimals, as they were written; where a price is missing there is no sum."""
    prices = Prices("USD", {"t3.small": Decimal("0.0228"), "t3.nano": Decimal("0.1")})
    assert prices.hourly({"t3.small": 3, "t3.nano": 2}) == Decimal("0.2684")
    assert prices.hourly({"t3.small": 3, "m5.large": 1}) is None
    assert prices.hourly({"m5.large": 0}) == 0
    assert prices.monthly(Decimal(3), snapshots=True) is None


def test_a_month_of_what_goes_is_told_by_the_prices_that_there_are() -> None:
    """Disks by what is stored of them, images by their archives; a price that is missing leaves no sum."""
    disk = UploadedDisk("snap-1", "hello-1.0.0", Digest("1" * 64), 1)
    image = CloudImage("image-1", "hello-1.0.0", Digest("1" * 64), None, size=GIB)
    found = Garbage((), (), ((image, ""),), ((disk, ""),), stored={"snap-1": GIB // 2})
    prices = Prices("USD", {}, Decimal("0.05"), Decimal("0.1"))
    assert monthly_cost(found, prices) == Decimal("0.125")
    assert monthly_cost(found, replace(prices, image_gib_month=None)) is None
    assert monthly_cost(Garbage((), (), (), ()), replace(prices, snapshot_gib_month=None)) == 0
    assert monthly_cost(found, None) is None


# ------------------------------------------------------------------------------------------------------ what to mind


def minded(**changes: Any) -> set[str]:
    given: dict[str, Any] = {
        "settings": SETTINGS, "head": None, "sticky": None, "scaling": None, "quotas": (), "more": {},
        "one_zone": False, "people": True,
    }  # fmt: skip
    given.update(changes)
    return {each.kind for each in cautions(given.pop("settings"), given.pop("head"), **given)}


def test_what_there_is_to_mind_is_told_and_only_that() -> None:
    """One after the other, each at its bound."""
    assert minded() == set()
    assert minded(sticky=3600.0) == set() and minded(sticky=3601.0) == {"sticky"}
    assert minded(sticky=float("inf")) == {"sticky"}
    assert minded(scaling=Scaling(2, 2, 2)) == set() and minded(scaling=Scaling(1, 2, 6, ("policy cpu",))) == {
        "scaling"
    }
    assert minded(one_zone=True) == {"one-zone"}
    assert minded(quotas=[Quota("CPUS", 24, 20)], more={"CPUS": 4}) == set()
    assert minded(quotas=[Quota("CPUS", 24, 20)], more={"CPUS": 5}) == {"quota"}
    assert minded(missing_prices={"t3.nano"}) == {"price"}
    asking = replace(SETTINGS, strategy=replace(SETTINGS.strategy, on_failure=OnFailure.PAUSE))
    assert minded(settings=asking) == set() and minded(settings=asking, people=False) == {"unattended"}
    unnamed = replace(SETTINGS, health=replace(SETTINGS.health, version_header=None))
    assert minded(settings=unnamed) == {"unnamed"}


def test_a_service_that_serves_is_told_that_nothing_stays_warm() -> None:
    """At a first deploy there is nothing to keep."""
    service = Service()
    service.deploy("1.0.0")
    cold = replace(SETTINGS, strategy=replace(SETTINGS.strategy, keep_warm=0.0))
    assert minded(settings=cold, head=service.head) == {"cold"} and minded(settings=cold) == set()


# ------------------------------------------------------------------------------------------------------- rehearsals


def rehearsed(service: Service, version: str) -> Rehearsed:
    return rehearse(service.context(), service.cloud.cloud, service.ledger, service.release(version), image=None)


def shares(found: Rehearsed) -> list[str]:
    return [call.resource for deed in found.deeds for call in deed.calls if call.operation == "set_weights"]


@st.composite
def strategies(draw: st.DrawFn) -> Strategy:
    weights = sorted(draw(st.sets(st.integers(1, 99), max_size=4)))
    steps = (*(TrafficStep(each, draw(st.sampled_from((0.0, 30.0, 7200.0)))) for each in weights), TrafficStep(100))
    kind = StrategyKind.CANARY if weights else StrategyKind.BLUE_GREEN
    bake, warm = draw(st.sampled_from((0.0, 60.0, 86400.0))), draw(st.sampled_from((0.0, 3600.0)))
    return Strategy(kind, steps, bake=bake, keep_warm=warm, approve=draw(st.booleans()))


@given(strategies(), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_rehearsal_changes_nothing_and_ends_well(strategy: Strategy, before: int) -> None:
    """Whatever the strategy, and however many releases there were: no change of the cloud, no document."""
    service = Service()
    for number in range(before):
        service.deploy(f"1.{number}.0")
    service.settings = replace(service.settings, strategy=strategy)
    began, documents = len(service.cloud.faults.mutations), dict(service.cloud.store._objects)

    found = rehearsed(service, "2.0.0")

    assert found.rollout.outcome is Outcome.SUCCEEDED
    assert len(service.cloud.faults.mutations) == began
    assert dict(service.cloud.store._objects) == documents
    assert len(shares(found)) == (1 if before == 0 else len(strategy.steps))
    # The old release is there beside the new one, and no third.
    assert found.most == {"t3.nano": 2 if before == 0 else 4}
    stays = 4 if before and strategy.keep_warm else 2
    assert found.after == {"t3.nano": stays} and found.warm == ({"t3.nano": 2} if stays == 4 else {})


def test_a_rehearsal_passes_holds_and_whoever_is_at_work() -> None:
    """Both are told beside it; what would be done is told all the same."""
    service = Service()
    service.deploy("1.0.0")
    service.manager().hold(service.context(), None, "freeze")
    head = service.head
    busy = Lease(ProcessIdentity("elsewhere", "", "", 1, "1", "ann"), 60.0)
    held = replace(head, n=head.n + 1, nonce="x", lease=busy)
    service.ledger.write(service.context(), held)
    assert isinstance(service.head.holds[0], Hold)

    began = service.clock.monotonic()
    assert rehearsed(service, "2.0.0").rollout.outcome is Outcome.SUCCEEDED
    assert service.clock.monotonic() == began
    assert service.head == held


def test_a_rollout_that_waits_for_a_person_is_gone_on_with_as_if_they_had_come() -> None:
    """Approved, resumed, and with nothing to measure: a rehearsal never waits for what cannot come."""
    service = Service()
    service.deploy("1.0.0")
    gate = Gate(
        "errors", CommandMetric(("false",)), (Bound(1.0),), (GateStage.STEP, GateStage.BAKE), interval=60.0, delay=0.0
    )
    service.settings = replace(service.settings, strategy=CANARY, gates=(gate,))
    waiting = service.deploy("1.1.0")
    assert waiting.outcome is Outcome.WAITING
    found = rehearsed(service, "1.1.0")
    assert found.rollout.outcome is Outcome.SUCCEEDED
    assert shares(found) == ["blue 95, green 5", "blue 50, green 50", "blue 0, green 100"]


def test_what_serves_already_is_rehearsed_as_nothing_to_do() -> None:
    """Or as another number of machines."""
    service = Service()
    service.deploy("1.0.0")
    found = rehearsed(service, "1.0.0")
    assert found.rollout.run is None and found.deeds == ()
    service.settings = replace(service.settings, capacity=5)
    found = rehearsed(service, "1.0.0")
    assert [call.resource for deed in found.deeds for call in deed.calls] == [f"{service.group('1.0.0')}: 5 machines"]
    assert found.after == {"t3.nano": 5}


def test_what_a_deploy_refuses_a_rehearsal_refuses() -> None:
    """With the same words: the route of a service in use cannot change."""
    service = Service()
    service.deploy("1.0.0")
    service.settings = replace(service.settings, port=9090)
    service.publish("2.0.0")
    with pytest.raises(Exception) as real:
        service.manager().deploy(service.context(), service.release("2.0.0"))
    with pytest.raises(type(real.value)) as told:
        rehearsed(service, "2.0.0")
    assert str(told.value) == str(real.value)


def test_what_the_balancer_checks_by_cannot_change_either() -> None:
    """Each setting by its name in the spec, and why; what only this side goes by changes with a release."""
    service = Service()
    service.deploy("1.0.0")
    before = service.settings
    changed = replace(before.health, path="/ready", interval=7.0)
    service.settings = replace(before, health=changed)
    with pytest.raises(UsageError) as told:
        rehearsed(service, "2.0.0")
    moved = "health.path (was /healthz, is /ready); health.interval (was 5.0, is 7.0)"
    assert str(told.value).endswith(f"the route of a service in use cannot change: {moved}")
    assert "what serves is checked by the same rule" in (told.value.hint or "")
    service.settings = replace(before, health=replace(before.health, boot_timeout=99.0, min_ready=3.0))
    assert service.deploy("2.0.0").outcome is Outcome.SUCCEEDED


def test_a_release_after_an_adopted_group_is_rehearsed() -> None:
    """What was adopted stands in its slot like any other."""
    legacy = Legacy()
    assert legacy.adopt().outcome is Outcome.SUCCEEDED
    first = rehearsed(legacy, "1.0.0")
    assert first.rollout.outcome is Outcome.SUCCEEDED
    assert [call.operation for deed in first.deeds for call in deed.calls] == ["ensure", "set_weights"]
    assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    second = rehearsed(legacy, "1.1.0")
    assert [call.operation for deed in second.deeds for call in deed.calls] == ["delete", "ensure", "set_weights"]


def test_a_rehearsal_asks_nobody() -> None:
    """No hook, whoever is to be told, and no probe from elsewhere."""
    service = Service()
    hook = Hook("no", CommandHook(("false",)), ("prepare", "verify", "done"), 60.0)
    told = Notify(WebhookTarget(None, "WEBHOOK", "json"), ("begun",))
    health = replace(service.settings.health, probe_from=ProbePlace.REQUESTS)
    service.settings = replace(service.settings, hooks=(hook,), notify=(told,), health=health)
    assert rehearsed(service, "1.0.0").rollout.outcome is Outcome.SUCCEEDED


def test_what_scales_and_was_suspended_since_is_to_be_minded() -> None:
    """By whosever hand. Before that there is nothing to mind."""
    service = Service()
    service.deploy("1.0.0")
    service.scale("1.0.0", 1, 4)
    service.deploy("1.1.0")
    assert minded(head=service.head, scaling=service.scaling("1.1.0")) == {"scaling"}
    service.cloud.cloud.groups.pause(service.context(), service.group("1.1.0"))
    assert minded(head=service.head, scaling=service.scaling("1.1.0")) == {"scaling", "suspended"}

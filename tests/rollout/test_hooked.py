"""Hooks in a rollout: asked at their stages, they fail a release on its way up and never hold up the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import CommandHook, HookAnswer, HttpHook, Slot
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import Interrupted, UsageError
from osvdeploy.events import Waiting, Warned
from osvdeploy.rollout.hooks import Hook, HookFailure
from osvdeploy.rollout.logbook import EntryKind, entries
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Kind, Outcome, RequestKind, Run, Stage, Until
from osvdeploy.rollout.releases import OnFailure, Strategy, StrategyKind, TrafficStep
from tests.rollout.made import SETTINGS
from tests.rollout.service import Service

pytestmark = pytest.mark.slow

EVERY = tuple(stage.value for stage in Stage)
FAILED = HookAnswer(False, "exit status 1: no", "one\nno\n")
CANARY = Strategy(StrategyKind.CANARY, (TrafficStep(10, 30.0), TrafficStep(100)), bake=60.0, keep_warm=3600.0)


def hook(name: str = "smoke", *on: str, **changes: Any) -> Hook:
    return replace(Hook(name, CommandHook((name,)), on or EVERY), **changes)


def deployed(*hooks: Hook, **changes: Any) -> Service:
    """A service with these hooks whose first release serves, and of whose first deploy nothing is remembered."""
    made = Service(hooks=hooks, **changes)
    assert made.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    made.cloud.hooks.asked.clear()
    made.recorder.events.clear()
    return made


def comes_to(service: Service, answer: HookAnswer, *stages: str, takes: float = 0.0) -> None:
    """Let hooks answer so at these stages (at all where none is named), and pass at once elsewhere."""

    def behaves(facts: dict[str, Any]) -> tuple[float, HookAnswer]:
        if stages and facts["stage"] not in stages:
            return 0.0, HookAnswer(True, "fine")
        return takes, answer

    service.cloud.hooks.behaves = behaves


def stages_of(service: Service) -> list[str]:
    return [each.partition(" ")[2] for each in service.cloud.hooks.turns]


def last(service: Service) -> Run:
    run = service.head.run
    assert run is not None
    return run


def serving(service: Service) -> set[str]:
    return {str(each) for each in service.cloud.serving}


# ------------------------------------------------------------------------------------------------------- the way up


def test_hooks_that_were_declared_last_outlive_more_than_one_rollback() -> None:
    """Also where what is gone back from had none in its days: it was itself gone back to."""
    service = Service()
    for version in ("1.0.0", "1.1.0"):
        service.deploy(version)
    told = Hook("told", CommandHook(("told",)), (Stage.DONE.value,), 10.0, HookFailure.WARN)
    service.settings = replace(service.settings, hooks=(told,))
    service.deploy("1.2.0")
    for version in ("1.1.0", "1.0.0"):
        service.rollback(version)
        run = service.head.run
        assert run is not None and run.candidate == service.id(version)
        assert [hook.name for hook in run.settings.hooks] == ["told"]


def test_a_deploy_asks_its_hooks_at_every_stage_in_order() -> None:
    here = deployed(hook())
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    assert stages_of(here) == ["prepare", "boot", "verify", "shift", "bake", "clean-up", "done"]
    assert [record.passed for record in last(here).hooks] == [True] * 7


def test_at_shift_and_bake_a_hook_is_asked_once_for_each_step() -> None:
    here = deployed(hook("smoke", "shift", "bake"), strategy=CANARY)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    assert [(each.stage, each.step) for each in last(here).hooks] == [
        (Stage.SHIFT, 0), (Stage.BAKE, 0), (Stage.SHIFT, 1), (Stage.BAKE, 1),
    ]  # fmt: skip


def test_several_hooks_of_a_stage_are_asked_one_after_the_other() -> None:
    here = deployed(hook("first", "verify"), hook("second", "verify"))
    comes_to(here, HookAnswer(True, "fine"), takes=20.0)
    here.deploy("2.0.0")
    assert here.cloud.hooks.turns == ["first verify", "second verify"]
    first, second = here.cloud.hooks.asked
    assert second.at - first.at >= 20


def test_a_hook_is_told_the_facts_of_the_run() -> None:
    here = deployed(hook("smoke", "verify"))
    here.deploy("2.0.0")
    (asked,) = here.cloud.hooks.asked
    run = last(here)
    assert {key: asked.facts[key] for key in ("schema", "service", "run", "kind", "stage", "step", "attempt")} == {
        "schema": 1, "service": "hello/production", "run": run.id, "kind": "deploy", "stage": "verify", "step": 0,
        "attempt": 1,
    }  # fmt: skip
    assert (asked.facts["candidate"], asked.facts["stable"]) == (here.id("2.0.0"), here.id("1.0.0"))
    assert asked.facts["preview"] == {
        "url": asked.facts["base_url"],
        "header": {"name": "x-preview", "value": run.slot.value},
    }
    assert asked.facts["event"] == f"{run.id}/verify/0/smoke/1"
    assert asked.facts["weight"] == 0
    assert asked.facts["evidence"] is None


@pytest.mark.parametrize("stage", ["prepare", "boot", "verify"])
def test_a_hook_that_fails_before_any_traffic_takes_the_release_away(stage: str) -> None:
    here = deployed(hook("smoke", stage))
    comes_to(here, FAILED)
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.ROLLED_BACK
    assert (serving(here), {str(each) for each in here.cloud.running}) == ({here.id("1.0.0")}, {here.id("1.0.0")})
    assert last(here).moves == ()
    assert "hook smoke: exit status 1: no" in ended.told
    assert last(here).hooks[0].output == "one\nno\n"


def test_a_hook_at_prepare_is_asked_before_anything_is_made() -> None:
    here = deployed(hook("window", "prepare"))
    comes_to(here, FAILED)
    before = len(here.cloud.mutations)
    here.deploy("2.0.0")
    made = [call.operation for call in here.cloud.mutations[before:]]
    assert not [each for each in made if each.startswith(("groups.", "router."))]


@pytest.mark.parametrize("stage", ["shift", "bake"])
def test_a_hook_that_fails_under_traffic_brings_it_back(stage: str) -> None:
    here = deployed(hook("smoke", stage))
    comes_to(here, FAILED)
    assert here.deploy("2.0.0").outcome is Outcome.ROLLED_BACK
    assert serving(here) == {here.id("1.0.0")}
    assert Stage.REVERT in [record.stage for record in last(here).stages]


def test_under_traffic_a_person_is_asked_where_the_strategy_says_so() -> None:
    """And whoever resumes has it asked again, as another event."""
    here = deployed(hook("smoke", "bake"), strategy=replace(SETTINGS.strategy, bake=30.0, on_failure=OnFailure.PAUSE))
    comes_to(here, FAILED)
    ended = here.deploy("2.0.0")
    assert (ended.outcome, here.cloud.hooks.turns) == (Outcome.WAITING, ["smoke bake"])
    comes_to(here, HookAnswer(True, "fine"))
    asked = here.manager().request(here.context(), RequestKind.RESUME)
    assert asked.rollout is not None
    assert asked.rollout.outcome is Outcome.SUCCEEDED
    assert [event.rpartition("/")[2] for event in here.cloud.hooks.events] == ["1", "2"]
    assert serving(here) == {here.id("2.0.0")}


@pytest.mark.parametrize("stage", ["prepare", "boot", "verify", "shift", "bake", "clean-up", "done"])
def test_a_hook_that_only_warns_decides_nothing(stage: str) -> None:
    here = deployed(hook("smoke", stage, on_failure=HookFailure.WARN))
    comes_to(here, FAILED)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    assert [(each.passed, each.warned) for each in last(here).hooks] == [(False, True)]
    assert [event.text for event in here.recorder.events if isinstance(event, Warned)] == [
        f"hook smoke ({stage}): exit status 1: no"
    ]


@pytest.mark.parametrize("stage", ["clean-up", "done"])
def test_once_a_release_serves_a_failing_hook_decides_nothing(stage: str) -> None:
    here = deployed(hook("smoke", stage))
    comes_to(here, FAILED)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    assert serving(here) == {here.id("2.0.0")}


@pytest.mark.parametrize("stage", ["prepare", "boot", "verify", "shift", "bake"])
def test_a_hook_may_take_longer_than_the_lease_and_the_stage(stage: str) -> None:
    """The lease is renewed meanwhile, and what a hook takes is not counted against its stage."""
    here = deployed(hook("smoke", stage, timeout=900.0))
    comes_to(here, HookAnswer(True, "fine"), takes=800.0)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    renewed = [head for head in here.ledger.heads(here.context()) if head.why == "lease renewed"]
    assert len(renewed) >= 800 / 60


@pytest.mark.parametrize("stage", ["prepare", "verify", "shift", "bake"])
def test_a_hook_that_hangs_is_ended_at_its_deadline_and_has_failed(stage: str) -> None:
    here = deployed(hook("smoke", stage, timeout=90.0))
    comes_to(here, HookAnswer(True, "too late"), takes=10_000.0)
    began = here.clock.monotonic()
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.ROLLED_BACK
    assert "did not end within 1m 30s" in ended.told
    assert [each.stopped and each.closed for each in here.cloud.hooks.asked] == [True]
    assert here.clock.monotonic() - began < 90 + 300


def test_what_is_waited_for_is_told_with_its_deadline() -> None:
    here = deployed(hook("smoke", "verify", timeout=120.0))
    comes_to(here, HookAnswer(True, "fine"), takes=60.0)
    here.deploy("2.0.0")
    waited = [event for event in here.recorder.events if isinstance(event, Waiting) and event.what.startswith("hook")]
    assert {event.what for event in waited} == {"hook smoke (verify)"}
    (until,) = {event.until for event in waited}
    assert until is not None


def test_a_release_that_falls_sick_while_its_hook_is_asked_goes_back_at_once() -> None:
    """And the hook is ended."""
    here = deployed(hook("load", "bake", timeout=900.0))

    def behaves(facts: dict[str, Any]) -> tuple[float, HookAnswer]:
        here.cloud.behave(here.id("2.0.0"), answers=(500,), health=500)
        return 800.0, HookAnswer(True, "fine")

    here.cloud.hooks.behaves = behaves
    began = here.clock.monotonic()
    assert here.deploy("2.0.0").outcome is Outcome.ROLLED_BACK
    assert here.clock.monotonic() - began < 300
    assert here.cloud.hooks.asked[0].stopped
    assert last(here).hooks[0].told.startswith("ended with its stage")


def test_a_bake_lasts_no_longer_for_a_hook_that_is_quicker() -> None:
    strategy = replace(SETTINGS.strategy, bake=300.0)
    plain, hooked = deployed(strategy=strategy), deployed(hook("load", "bake"), strategy=strategy)
    comes_to(hooked, HookAnswer(True, "fine"), takes=50.0)
    took = []
    for here in (plain, hooked):
        assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
        (bake,) = [each for each in last(here).stages if each.stage is Stage.BAKE]
        took.append((bake.left - bake.entered).total_seconds())
    assert took[1] - took[0] < 10


# ------------------------------------------------------------------------------------------------------- people


class During:
    """Does something once, when a hook has been asked for so long."""

    def __init__(self, service: Service, seconds: float, action: Any) -> None:
        self.service, self.seconds, self.action = service, seconds, action

    def __call__(self, call: Call, moment: Moment) -> None:
        asked = self.service.cloud.hooks.asked
        if asked and self.action and self.service.clock.monotonic() - asked[0].at >= self.seconds:
            action, self.action = self.action, None
            action()


def test_an_abort_is_heard_while_a_hook_runs_and_ends_it() -> None:
    here = deployed(hook("smoke", "shift", timeout=900.0))
    comes_to(here, HookAnswer(True, "fine"), takes=800.0)

    def abort() -> None:
        run = last(here)
        manager = here.manager()
        here.ledger.ask(here.context(), run.id, manager._request(here.context(), RequestKind.ABORT, run, "enough"))

    here.cloud.on_call(During(here, 20.0, abort))
    ended = here.deploy("2.0.0")
    (asked,) = here.cloud.hooks.asked
    assert (ended.outcome, asked.stopped) == (Outcome.ABORTED, True)
    assert here.clock.monotonic() - asked.at < 120
    assert serving(here) == {here.id("1.0.0")}


# --------------------------------------------------------------------------------------------------- the way back


def back(service: Service) -> float:
    """Seconds from now until the old release has all the traffic, in a rollback to it."""
    began = service.clock.monotonic()
    moved: list[float] = []

    def watch(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER and not moved:
            moved.append(service.clock.monotonic() - began)

    service.cloud.on_call(watch)
    assert service.rollback().outcome is Outcome.SUCCEEDED
    service.cloud.on_call(None)
    return moved[0]


@pytest.mark.parametrize(
    ("answer", "takes"), [(FAILED, 0.0), (HookAnswer(True, "fine"), 50.0), (HookAnswer(True, "never"), 1e9)]
)
def test_a_rollback_is_held_up_by_no_hook(answer: HookAnswer, takes: float) -> None:
    """Traffic is back as soon as without hooks, and the rollback succeeds whatever they come to."""
    plain, hooked = deployed(), deployed(hook())
    for here in (plain, hooked):
        assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    comes_to(hooked, answer, takes=takes)
    hooked.cloud.hooks.asked.clear()
    assert back(hooked) == pytest.approx(back(plain), abs=0.01)
    assert serving(hooked) == {hooked.id("1.0.0")}
    assert stages_of(hooked) == ["prepare", "boot", "verify", "shift", "bake", "clean-up", "done"]
    assert all(asked.facts["kind"] == "rollback" and asked.facts["weight"] == 100 for asked in hooked.cloud.hooks.asked)


def test_a_cold_rollback_is_held_up_by_no_hook_either() -> None:
    here = deployed(hook(), strategy=replace(SETTINGS.strategy, keep_warm=0.0))
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    comes_to(here, FAILED, takes=1e9)
    here.cloud.hooks.asked.clear()
    assert here.rollback().outcome is Outcome.SUCCEEDED
    run = last(here)
    proved = next(record.left for record in run.stages if record.stage is Stage.SHIFT)
    assert run.kind is Kind.ROLLBACK
    assert all(record.at > proved for record in run.hooks)


def test_a_release_that_failed_is_reverted_before_any_hook_is_asked() -> None:
    """Weights first; its machines go without waiting for what a hook at revert does."""
    here = deployed(hook("page", "revert", "clean-up", "done", timeout=600.0))
    comes_to(here, HookAnswer(True, "never"), takes=1e9)
    weights: list[Any] = []

    def behaves(facts: dict[str, Any]) -> tuple[float, HookAnswer]:
        weights.append(set(serving(here)))
        return 1e9, HookAnswer(True, "never")

    here.cloud.hooks.behaves = behaves

    def sicken(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            here.cloud.behave(here.id("2.0.0"), answers=(500,), health=500)

    here.cloud.on_call(sicken)
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.ROLLED_BACK
    assert weights == [{here.id("1.0.0")}] * 3
    assert stages_of(here) == ["revert", "clean-up", "done"]
    assert here.cloud.hooks.asked[0].facts["evidence"]["run"] == last(here).id
    assert [(each.passed, each.warned) for each in last(here).hooks] == [(False, True)] * 3
    assert {str(each) for each in here.cloud.running} == {here.id("1.0.0")}
    assert here.cloud.hooks.asked[2].facts["outcome"] == "rolled-back"


def test_a_rollback_asks_the_hooks_that_were_declared_last() -> None:
    here = Service()
    here.deploy("1.0.0")
    here.settings = replace(here.settings, hooks=(hook("page", "done"),))
    here.deploy("2.0.0")
    here.cloud.hooks.asked.clear()
    assert here.rollback().outcome is Outcome.SUCCEEDED
    assert here.cloud.hooks.turns == ["page done"]


def test_a_rollback_on_a_machine_without_the_program_warns_and_succeeds() -> None:
    here = deployed(hook("page", "done"))
    here.deploy("2.0.0")
    here.cloud.hooks.missing.add("page")
    assert here.rollback().outcome is Outcome.SUCCEEDED
    assert last(here).hooks[0].warned


# ----------------------------------------------------------------------------------------------- processes that die


@pytest.mark.parametrize("stage", ["prepare", "boot", "verify", "shift", "bake", "clean-up", "done"])
def test_a_hook_whose_process_died_is_asked_again_as_the_same_event(stage: str) -> None:
    here = deployed(hook("smoke", stage, timeout=300.0))
    comes_to(here, HookAnswer(True, "fine"), takes=100.0)

    def die() -> None:
        raise KeyboardInterrupt

    here.cloud.on_call(During(here, 20.0, die))
    with pytest.raises(KeyboardInterrupt):
        here.deploy("2.0.0")
    here.cloud.on_call(None)
    assert last(here).calling is not None
    assert here.manager().recover(here.context()).outcome is Outcome.SUCCEEDED
    first, second = here.cloud.hooks.asked
    assert first.facts["event"] == second.facts["event"]
    assert (first.facts["attempt"], second.facts["attempt"]) == (1, 2)
    assert [(each.attempt, each.passed) for each in last(here).hooks] == [(2, True)]


def test_ctrl_c_ends_the_hook() -> None:
    here = deployed(hook("smoke", "verify", timeout=300.0))
    comes_to(here, HookAnswer(True, "fine"), takes=100.0)
    ctx = here.context()
    here.publish("2.0.0")
    here.cloud.on_call(During(here, 10.0, ctx.cancel.cancel))
    with pytest.raises(Interrupted):
        here.manager().deploy(ctx, here.release("2.0.0"))
    (asked,) = here.cloud.hooks.asked
    assert (asked.stopped, asked.closed) == (True, True)


# --------------------------------------------------------------------------------------------------------- refusals


def test_a_hook_that_cannot_be_asked_from_here_is_refused_before_anything_moves() -> None:
    here = deployed(hook("smoke", "done"))
    here.cloud.hooks.missing.add("smoke")
    here.publish("2.0.0")
    before = here.head
    for refused in (here.manager().preflight, here.manager().deploy):
        with pytest.raises(UsageError, match="hook smoke: smoke: is not there"):
            refused(here.context(), here.release("2.0.0"))
    assert here.head == before


def test_to_go_on_where_the_hook_is_missing_is_refused_on_the_way_up() -> None:
    here = deployed(hook("smoke", "verify", timeout=300.0))
    comes_to(here, HookAnswer(True, "fine"), takes=100.0)
    ctx = here.context()
    here.publish("2.0.0")
    here.cloud.on_call(During(here, 10.0, ctx.cancel.cancel))
    with pytest.raises(Interrupted):
        here.manager().deploy(ctx, here.release("2.0.0"))
    here.cloud.on_call(None)
    here.cloud.hooks.missing.add("smoke")
    with pytest.raises(UsageError, match="is not there"):
        here.manager().recover(here.context())
    assert here.rollback().outcome is Outcome.SUCCEEDED
    assert serving(here) == {here.id("1.0.0")}


# ------------------------------------------------------------------------------------------------------- on record


def test_the_ledger_tells_when_a_hook_was_asked_and_what_it_came_to() -> None:
    here = deployed(hook("smoke", "verify"))
    comes_to(here, FAILED)
    here.deploy("2.0.0")
    heads: Sequence[Any] = list(here.ledger.heads(here.context()))[::-1]
    told = [entry.told for entry in entries(heads) if entry.kind is EntryKind.HOOK and entry.run == last(here).id]
    assert told == ["smoke (verify) is asked", "smoke (verify) failed: exit status 1: no"]


def test_no_value_of_a_variable_comes_into_the_ledger() -> None:
    """A header is declared by the name of what holds it."""
    here = deployed(hook("call", "verify", action=HttpHook("https://acme.example/", {}, {"Authorization": "TOKEN"})))
    here.deploy("2.0.0")
    assert last(here).settings.hooks[0].action == HttpHook("https://acme.example/", {}, {"Authorization": "TOKEN"})


def test_slots_are_as_without_hooks() -> None:
    here = deployed(hook())
    here.deploy("2.0.0")
    head = here.head
    assert head.serving is Slot.GREEN
    assert {slot: record.release for slot, record in head.slots.items()} == {
        Slot.BLUE: here.id("1.0.0"), Slot.GREEN: here.id("2.0.0"),
    }  # fmt: skip


def test_weights_that_somebody_changes_while_a_hook_is_asked_are_put_right_meanwhile() -> None:
    """In steps, as ever: not by looking without a pause until the hook is through."""
    here = deployed(hook("smoke", "shift", timeout=600.0))
    comes_to(here, HookAnswer(True, "fine"), takes=120.0)
    changed: list[int] = []

    def by_hand(call: Call, moment: Moment) -> None:
        if here.cloud.hooks.asked and not changed and moment is Moment.AFTER and call.operation == "router.observe":
            changed.append(len(here.cloud.calls))
            [rule] = [each for each in here.cloud.world.rules.values() if not each.preview]
            weights = {name: 100 - weight for name, weight in (rule.weights or {}).items()}
            rule.history.append((here.cloud.world.settle(), weights))

    here.cloud.on_call(by_hand)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    assert changed and serving(here) == {here.id("2.0.0")}
    assert len(here.cloud.calls) - changed[0] < 3000


# ------------------------------------------------------------------------------------------- from another machine


def test_whoever_approves_without_the_program_is_told_and_the_release_is_not_failed() -> None:
    """The approval counts; whoever has the program goes on."""
    strategy = replace(CANARY, steps=(TrafficStep(10, 30.0, approve=True), TrafficStep(100)))
    here = deployed(hook("smoke", "shift"), strategy=strategy)
    assert here.deploy("2.0.0").outcome is Outcome.WAITING
    here.cloud.hooks.missing.add("smoke")
    with pytest.raises(UsageError, match="it goes on; but it cannot go on from here: hook smoke"):
        here.manager().request(here.context(), RequestKind.APPROVE)
    assert (last(here).verdict, len(last(here).approvals)) == (None, 1)
    here.cloud.hooks.missing.clear()
    assert here.manager().recover(here.context()).outcome is Outcome.SUCCEEDED


def test_whoever_approves_may_leave_the_rest_to_where_the_programs_are() -> None:
    """The word is in the ledger, nothing is asked from here, and it is said who goes on."""
    strategy = replace(CANARY, steps=(TrafficStep(10, 30.0, approve=True), TrafficStep(100)))
    here = deployed(hook("smoke", "shift"), strategy=strategy)
    assert here.deploy("2.0.0").outcome is Outcome.WAITING
    here.cloud.hooks.missing.add("smoke")
    only = RolloutManager(here.ledger, here.cloud.cloud, here.cloud.prober, hooks=here.cloud.hooks, until=Until.BEGUN)
    asked = only.request(here.context(), RequestKind.APPROVE)
    assert asked.done
    assert asked.told == "it goes on, once somebody works on it: `osvdeploy recover hello/production` does"
    assert here.head.lease is None and last(here).verdict is None
    here.cloud.hooks.missing.clear()
    assert here.manager().recover(here.context()).outcome is Outcome.SUCCEEDED


def test_whoever_aborts_needs_no_program() -> None:
    strategy = replace(CANARY, steps=(TrafficStep(10, 30.0, approve=True), TrafficStep(100)))
    here = deployed(hook("smoke", "shift", "revert"), strategy=strategy)
    here.deploy("2.0.0")
    here.cloud.hooks.missing.add("smoke")
    asked = here.manager().request(here.context(), RequestKind.ABORT)
    assert asked.rollout is not None
    assert asked.rollout.outcome is Outcome.ABORTED
    assert serving(here) == {here.id("1.0.0")}


# ------------------------------------------------------------------------------------------------------- any crash


@pytest.mark.parametrize("share", [number / 16 for number in range(16)])
def test_whichever_call_is_the_last_of_a_process_each_hook_is_asked_and_known_by_its_event(share: float) -> None:
    def made() -> Service:
        service = deployed(hook("first"), hook("second", "verify", "shift"), strategy=CANARY)
        comes_to(service, HookAnswer(True, "fine"), takes=3.0)
        service.publish("2.0.0")
        return service

    clean, here = made(), made()
    before = len(clean.cloud.calls)
    clean.deploy("2.0.0")
    left = [round(share * (len(clean.cloud.calls) - before)) + 12]

    def die(call: Call, moment: Moment) -> None:
        left[0] -= moment is Moment.BEFORE
        if left[0] <= 0:
            raise KeyboardInterrupt

    here.cloud.on_call(die)
    with pytest.raises(KeyboardInterrupt):
        here.deploy("2.0.0")
    here.cloud.on_call(None)
    here.deploy("2.0.0")

    def asked(service: Service) -> list[str]:
        return [event.partition("/")[2] for event in dict.fromkeys(service.cloud.hooks.events)]

    assert serving(here) == {here.id("2.0.0")}
    assert asked(here) == asked(clean)
    assert all(record.passed for record in last(here).hooks)


OUTCOMES = st.tuples(st.sampled_from([0.0, 1.0, 11.0, 1e9]), st.booleans())


@pytest.fixture(scope="module")
def plain() -> dict[bool, float]:
    """Seconds until traffic is back without hooks: in a rollback that is warm, and in one that is not."""
    took = {}
    for warm in (True, False):
        here = deployed(strategy=replace(SETTINGS.strategy, keep_warm=3600.0 if warm else 0.0))
        here.deploy("2.0.0")
        took[warm] = back(here)
    return took


@given(stages=st.dictionaries(st.sampled_from(EVERY), OUTCOMES), warm=st.booleans(), hooks=st.integers(1, 2))
@settings(max_examples=12, deadline=None)
def test_whatever_hooks_do_traffic_goes_back_as_soon_as_without(
    plain: dict[bool, float], stages: dict[str, tuple[float, bool]], warm: bool, hooks: int
) -> None:
    made = tuple(hook(f"hook-{number}", timeout=10.0) for number in range(hooks))
    here = deployed(*made, strategy=replace(SETTINGS.strategy, keep_warm=3600.0 if warm else 0.0))
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED

    def behaves(facts: dict[str, Any]) -> tuple[float, HookAnswer]:
        takes, passed = stages.get(facts["stage"], (0.0, True))
        return takes, HookAnswer(passed, "so it is")

    here.cloud.hooks.behaves = behaves
    # New machines are checked each five seconds, whenever that began.
    assert back(here) == pytest.approx(plain[warm], abs=0.01 if warm else SETTINGS.health.interval)
    assert serving(here) == {here.id("1.0.0")}
    run = last(here)
    assert run.calling is None
    assert all(record.passed or record.warned for record in run.hooks)
    assert {record.stage.value for record in run.hooks} == set(EVERY) - {"revert"}

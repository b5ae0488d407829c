"""Traffic is to go back, and the machines of what served before are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from osvdeploy.api import declared, services, wiring
from osvdeploy.cloud.interfaces import CommandHook, HookAnswer
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import ReleaseHeld, Unavailable
from osvdeploy.rollout.ends import Asked
from osvdeploy.rollout.hooks import Hook, HookFailure
from osvdeploy.rollout.model import Outcome, RequestKind, Run, Stage
from osvdeploy.rollout.releases import Strategy, StrategyKind, TrafficStep
from tests.rollout.test_drifting import looked
from tests.rollout.unledgered import Died, Gone, Unledgered, asked, dies_entering

pytestmark = pytest.mark.slow

WHOLE = Strategy(StrategyKind.ALL_AT_ONCE, (TrafficStep(100),), bake=3600.0, keep_warm=3600.0)
SHARED = Strategy(StrategyKind.CANARY, (TrafficStep(20, 3600.0), TrafficStep(100)), bake=0.0, keep_warm=3600.0)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Unledgered:
    """1.0.0 served, 1.1.0 serves."""
    service = Unledgered()
    monkeypatch.setattr(wiring, "open_store", lambda address: Gone())
    for version in ("1.0.0", "1.1.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    return service


def bakes(service: Unledgered, strategy: Strategy = WHOLE) -> None:
    """A deploy whose process dies when its bake has begun."""
    service.settings = replace(service.settings, strategy=strategy)

    dies_entering(service, Stage.BAKE)
    service.clock.advance(120)


def going_back_without_the_ledger_dies(service: Unledgered) -> None:
    """`osvdeploy rollback --from-cloud --to 1.0.0`, killed right after it took the machines of 1.1.0 away."""

    def hook(call: Call, moment: Moment) -> None:
        if call.operation == "groups.delete" and moment is Moment.AFTER:
            raise Died

    service.cloud.on_call(hook)
    with pytest.raises(Died):
        service.back(to="1.0.0")
    service.cloud.on_call(None)
    service.clock.advance(120)


def taken_by_hand(service: Unledgered, version: str) -> None:
    """Somebody deletes the group, past osvdeploy."""
    service.cloud.cloud.groups.delete(service.context(), service.group(version))
    service.clock.advance(120)


def in_stage(service: Unledgered, stage: Stage) -> bool:
    run = service.head.run
    return run is not None and run.stage is stage


def abort(service: Unledgered) -> Asked:
    return service.manager().request(service.context(), RequestKind.ABORT)


COMMANDS: dict[str, tuple[Callable[[Unledgered], object], str]] = {
    "abort": (abort, "1.2.0"),
    "rollback": (lambda service: service.rollback(), "1.1.0"),
    "rollback --to": (lambda service: service.rollback("1.0.0"), "1.0.0"),
    "another deploy": (lambda service: service.deploy("1.3.0"), "1.3.0"),
    "recover": (lambda service: service.manager().recover(service.context()), "1.2.0"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_sends_traffic_to_machines_that_are_gone(service: Unledgered, command: str) -> None:
    """All of it is on the candidate, and stays there until there is something else to send it to: a rollback starts
    what served before anew, a deploy its own release."""
    bakes(service)
    going_back_without_the_ledger_dies(service)
    bad = asked(service)
    ask, serves = COMMANDS[command]
    ask(service)
    assert not bad, bad[:3]
    service.cloud.on_call(None)
    assert service.cloud.serving == {service.id(serves)}
    head = service.head
    assert head.unfinished is None and head.stable is not None and head.stable.release == service.id(serves)
    recorded = {record.group for record in head.slots.values()}
    assert {name for name, group in service.cloud.world.groups.items() if not group.deleting} == recorded


def test_an_abort_that_brings_nothing_back_says_what_serves(service: Unledgered) -> None:
    """And exits as a rollback that failed does: somebody has to look. What was to be left is held: nobody's pipeline
    takes it for deployed when it tries again."""
    bakes(service)
    going_back_without_the_ledger_dies(service)
    ended = abort(service).rollout
    assert ended is not None and ended.outcome is Outcome.ROLLBACK_FAILED and ended.exit_code == 6
    old, new = service.id("1.1.0"), service.id("1.2.0")
    assert ended.told.startswith(f"traffic could not be brought back to {old}: ")
    assert ended.told.endswith(f"the machines of {old} are gone; {new} serves")
    assert service.head.served[-1].release == new
    with pytest.raises(ReleaseHeld, match="was to be left, and nothing else stands"):
        service.deploy("1.2.0")
    with pytest.raises(ReleaseHeld, match="was to be left, and nothing else stands"):
        service.manager().retry(service.context())
    assert not looked(service)


def test_whoever_aborts_is_not_told_that_what_served_before_serves(service: Unledgered) -> None:
    """Before anybody has looked: only that traffic goes back to it."""
    bakes(service)
    taken_by_hand(service, "1.1.0")
    told = abort(service).told
    assert told == "it ends; traffic goes back to what served before"


@pytest.mark.parametrize("command", COMMANDS)
def test_where_traffic_was_shared_nobody_is_sent_to_machines_that_are_gone(service: Unledgered, command: str) -> None:
    """Somebody took the stable release's machines away by hand: its part goes to whoever stands, and every command goes
    on from there."""
    bakes(service, SHARED)
    taken_by_hand(service, "1.1.0")
    ask, serves = COMMANDS[command]
    ask(service)
    assert service.cloud.serving == {service.id(serves)}
    head = service.head
    assert head.unfinished is None and head.stable is not None and head.stable.release == service.id(serves)
    assert sorted(service.weights().values()) == [0, 100] and not looked(service)
    assert service.deploy("1.4.0").outcome is Outcome.SUCCEEDED


def test_a_gate_that_fails_there_ends_the_same(service: Unledgered) -> None:
    """Nobody has to type anything for that."""
    service.settings = replace(
        service.settings, strategy=replace(SHARED, steps=(TrafficStep(20, 60.0), SHARED.steps[1]))
    )
    service.publish("1.2.0")

    def hook(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "router.observe" else None
        if run is not None and run.stage is Stage.BAKE and service.group("1.1.0") in service.cloud.world.groups:
            service.cloud.on_call(None)
            service.cloud.cloud.groups.delete(service.context(), service.group("1.1.0"))

    service.cloud.on_call(hook)
    ended = service.manager().deploy(service.context(), service.release("1.2.0"))
    assert ended.outcome is Outcome.ROLLBACK_FAILED and "bad answers in a row" in ended.told
    assert service.cloud.serving == {service.id("1.2.0")} and sorted(service.weights().values()) == [0, 100]
    assert service.rollback("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.1.0")}


def test_what_was_seen_to_be_gone_is_not_sent_traffic_where_the_next_look_fails(service: Unledgered) -> None:
    bakes(service)
    taken_by_hand(service, "1.1.0")
    looks: list[int] = []

    def hook(call: Call, moment: Moment) -> None:
        if moment is Moment.BEFORE and call.operation == "groups.observe" and in_stage(service, Stage.REVERT):
            looks.append(1)
            if len(looks) > 1:
                raise Unavailable("throttled")

    service.cloud.on_call(hook)
    abort(service)
    service.cloud.on_call(None)
    assert len(looks) == 2 and service.cloud.serving == {service.id("1.2.0")}


def test_a_hook_that_takes_its_time_changes_nothing_of_what_was_seen(service: Unledgered) -> None:
    """What is decided is in the ledger before anybody is asked: neither a look more nor the stage's limit undoes it."""
    slow = Hook("slow", CommandHook(("slow",)), (Stage.REVERT.value, Stage.DONE.value), 400.0, HookFailure.WARN)
    service.settings = replace(service.settings, hooks=(slow,))
    bakes(service)
    service.cloud.hooks.behaves = lambda facts: (350.0, HookAnswer(True, "at last"))
    taken_by_hand(service, "1.1.0")
    ended = abort(service).rollout
    assert ended is not None and ended.run is not None and ended.run.stable_gone
    assert service.cloud.serving == {service.id("1.2.0")} and not looked(service)


@pytest.mark.parametrize("strategy", [WHOLE, SHARED], ids=["whole", "shared"])
def test_gc_takes_nothing_of_what_has_traffic(
    service: Unledgered, strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the ledger calls it: the machines of a run that could not come to its end by its own way."""
    bakes(service, strategy)

    def hook(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.BEFORE:
            raise Unavailable("no answer")

    service.cloud.on_call(hook)
    ended = abort(service).rollout
    assert ended is not None and ended.outcome is Outcome.ROLLBACK_FAILED
    service.cloud.on_call(None)
    before = set(service.cloud.world.groups)
    monkeypatch.setattr(wiring, "ground_of", lambda ctx, place: service.cloud.cloud)
    monkeypatch.setattr(wiring, "open_ledger", lambda named: service.ledger)
    services.gc(service.context(), declared.Service("hello", "production", "memory"), keep=1)
    service.clock.advance(60)
    standing = {name for name, group in service.cloud.world.groups.items() if not group.deleting}
    assert {service.group("1.1.0"), service.group("1.2.0")} <= standing <= before


def test_a_group_that_somebody_made_empty_is_sent_nothing(service: Unledgered) -> None:
    """It stands, and no machine of it does."""
    bakes(service)
    group = service.cloud.world.groups[service.group("1.1.0")]
    group.capacity = 0
    group.machines.clear()
    abort(service)
    assert service.cloud.serving == {service.id("1.2.0")}


def test_a_look_that_fails_keeps_no_traffic_from_going_back(service: Unledgered) -> None:
    """Whether the machines stand is asked once, for a moment: no way back waits for an answer to that."""
    bakes(service)
    looked: list[Run] = []

    def hook(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "groups.observe" else None
        if run is not None and run.stage is Stage.REVERT:
            looked.append(run)
            raise Unavailable("no answer")

    service.cloud.on_call(hook)
    ended = abort(service).rollout
    assert ended is not None and ended.outcome is Outcome.ABORTED and len(looked) == 1
    assert service.cloud.serving == {service.id("1.1.0")}


def test_what_scaled_the_release_that_is_gone_is_owed_to_the_one_that_serves(service: Unledgered) -> None:
    """By the next release that is deployed."""
    service.scale("1.1.0", 2, 6)
    bakes(service)
    going_back_without_the_ledger_dies(service)
    ended = abort(service).rollout
    assert ended is not None and "what serves has not the scaling of before" in ended.told
    assert service.deploy("1.3.0").outcome is Outcome.SUCCEEDED
    scaling = service.scaling("1.3.0")
    assert scaling is not None and (scaling.minimum, scaling.maximum) == (2, 6)


def test_what_could_not_be_proved_back_is_gone_on_from_once_it_is_gone(service: Unledgered) -> None:
    """A revert that failed, then the stable release's machines went: `rollback --to` starts what is asked for, in one
    command, and the rollout that is over is not revived for ever."""
    bakes(service)

    def hook(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.BEFORE:
            raise Unavailable("no answer")

    service.cloud.on_call(hook)
    ended = abort(service).rollout
    service.cloud.on_call(None)
    assert ended is not None and ended.outcome is Outcome.ROLLBACK_FAILED and service.head.serving is not None
    taken_by_hand(service, "1.1.0")
    bad = asked(service)
    back = service.rollback("1.0.0")
    service.cloud.on_call(None)
    assert back.outcome is Outcome.SUCCEEDED and service.cloud.serving == {service.id("1.0.0")}
    assert not bad, bad[:3]

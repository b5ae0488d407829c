"""Somebody's group that scales by itself becomes a release, and has what scales it back once it is let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from osvdeploy.cloud.interfaces import Scaling
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import Refused, Unavailable
from osvdeploy.rollout.model import Outcome, Stage
from tests.faults.venues import Killed
from tests.rollout.test_adopt import GROUP, Legacy, dying


def scaled(*, paused: bool = False, **settings: object) -> Legacy:
    """A group that is adopted and has two machines, of one to six, as its load asks for; ``paused`` by its user."""
    legacy = Legacy(**settings)
    assert legacy.adopt().outcome is Outcome.SUCCEEDED
    legacy.cloud.scale(GROUP, 1, 6, cpu="60 %")
    if paused:
        legacy.cloud.cloud.groups.pause(legacy.context(), GROUP)
    return legacy


def found(legacy: Legacy) -> Scaling:
    there = legacy.cloud.cloud.groups.scaling(legacy.context(), GROUP)
    assert there is not None
    return there


def next_deploy(legacy: Legacy) -> None:
    """What needs the slot that their group stands in."""
    assert legacy.deploy("1.1.0").outcome is Outcome.SUCCEEDED


def destroy(legacy: Legacy) -> None:
    assert legacy.destroy().destroyed


WAYS = pytest.mark.parametrize("let_go", [next_deploy, destroy], ids=lambda way: way.__name__)


@WAYS
def test_what_is_let_go_scales_as_before(let_go: Callable[[Legacy], None]) -> None:
    """The deploy that took its traffic suspended it; no rollout would ever look at it again."""
    legacy = scaled()
    before = found(legacy)
    assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    assert found(legacy).paused
    let_go(legacy)
    assert not legacy.theirs and found(legacy) == before
    assert not legacy.head.lent


def test_what_is_not_kept_warm_scales_as_before_too() -> None:
    """It is let go by the very deploy that takes its traffic."""
    legacy = scaled()
    before = found(legacy)
    legacy.settings = replace(legacy.settings, strategy=replace(legacy.settings.strategy, keep_warm=0.0))
    assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    assert not legacy.theirs and found(legacy) == before and not legacy.head.lent


@WAYS
def test_what_somebody_has_suspended_stays_so(let_go: Callable[[Legacy], None]) -> None:
    """It was before the deploy, and nobody asks for it."""
    legacy = scaled(paused=True)
    assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    let_go(legacy)
    assert not legacy.theirs and found(legacy).paused


@WAYS
def test_it_goes_on_only_where_it_has_all_or_nothing(let_go: Callable[[Legacy], None]) -> None:
    """With a part of its traffic it would be made smaller, and have all of it in the next moment; it is still ours
    then, so that whoever dies there is gone on with."""
    legacy = scaled()
    assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    answers: list[set[str]] = []

    def asked(call: Call, moment: Moment) -> None:
        if call.operation == "groups.resume_scaling" and moment is Moment.BEFORE:
            assert legacy.theirs
            answers.append({legacy.ask() for _ in range(20)})

    legacy.cloud.on_call(asked)
    let_go(legacy)
    assert answers == [{GROUP} if let_go is destroy else {legacy.id("1.0.0")}]


@WAYS
def test_where_nothing_was_suspended_nothing_is_asked(let_go: Callable[[Legacy], None]) -> None:
    """As before."""
    legacy = Legacy()
    legacy.adopt()
    legacy.deploy("1.0.0")
    assert not legacy.head.lent
    let_go(legacy)
    assert not [call for call in legacy.cloud.mutations if "scaling" in call.operation]


@pytest.mark.slow
@WAYS
def test_whoever_dies_while_it_is_let_go_is_gone_on_with(let_go: Callable[[Legacy], None]) -> None:
    """Before and after each change: the same command leaves it as it was."""

    def begun() -> Legacy:
        legacy = scaled()
        assert legacy.deploy("1.0.0").outcome is Outcome.SUCCEEDED
        return legacy

    counted = begun()
    before = len(counted.cloud.mutations)
    let_go(counted)
    wanted = found(counted)
    for number in range(1, len(counted.cloud.mutations) - before + 1):
        for after in (False, True):
            legacy = begun()
            legacy.cloud.on_call(dying(number, after=after))
            with pytest.raises(Killed):
                let_go(legacy)
            legacy.cloud.on_call(None)
            legacy.clock.advance(90)
            if not legacy.head.destroyed:
                let_go(legacy)
            assert (legacy.theirs, found(legacy), legacy.head.lent) == ({}, wanted, {}), (number, after)


@pytest.mark.slow
def test_a_service_that_is_destroyed_amid_a_rollout_leaves_it_as_it_was() -> None:
    """Whenever whoever deployed died: no later run knows what that one has suspended."""
    counted = scaled()
    before, made = found(counted), len(counted.cloud.mutations)
    counted.deploy("1.0.0")
    for number in range(1, len(counted.cloud.mutations) - made + 1):
        for after in (False, True):
            legacy = scaled()
            legacy.cloud.on_call(dying(number, after=after))
            with pytest.raises(Killed):
                legacy.deploy("1.0.0")
            legacy.cloud.on_call(None)
            legacy.clock.advance(90)
            legacy.destroy()
            assert (legacy.theirs, found(legacy)) == ({}, before), (number, after)
            assert legacy.ask() == GROUP


def test_what_a_failed_rollout_still_owes_it_gets_when_it_is_let_go() -> None:
    """To let it go on was refused then."""
    legacy = scaled()
    before = found(legacy)
    legacy.cloud.behave(legacy.id("1.0.0"), answers=(200,) * 30 + (500,) * 1000)
    legacy.cloud.faults.fail("groups.resume_scaling", Refused("not allowed"), times=3)
    ended = legacy.deploy("1.0.0")
    assert ended.outcome is Outcome.ROLLED_BACK and ended.run is not None and ended.run.shifted is not None
    assert not ended.run.scaled and found(legacy).paused
    legacy.destroy()
    assert found(legacy) == before


def test_one_that_may_not_go_on_stays_ours_and_is_told() -> None:
    """Else nobody would know of it any more; the same command goes on from there."""
    legacy = scaled()
    before = found(legacy)
    legacy.deploy("1.0.0")
    legacy.cloud.faults.fail("groups.resume_scaling", Refused("not allowed"), times=1)
    with pytest.raises(Refused, match="not allowed"):
        legacy.destroy()
    assert legacy.theirs and legacy.ask() == GROUP
    legacy.destroy()
    assert not legacy.theirs and found(legacy) == before


def test_one_that_cannot_go_on_now_is_waited_for() -> None:
    """As every change is."""
    legacy = scaled()
    before = found(legacy)
    legacy.deploy("1.0.0")
    legacy.cloud.faults.fail("groups.resume_scaling", Unavailable("busy"), times=2)
    next_deploy(legacy)
    assert not legacy.theirs and found(legacy) == before


def test_what_is_gone_back_to_is_no_longer_owed_anything() -> None:
    """It was given the scaling of what it replaces; what its user suspends from then on stays so."""
    legacy = scaled()
    legacy.deploy("1.0.0")
    assert legacy.head.lent
    assert legacy.rollback().outcome is Outcome.SUCCEEDED
    assert not legacy.head.lent and not found(legacy).paused
    legacy.cloud.cloud.groups.pause(legacy.context(), GROUP)
    legacy.destroy()
    assert found(legacy).paused


def test_what_was_changed_amid_the_rollout_counts() -> None:
    """The bounds and rules that it has are never touched: only what was suspended goes on."""
    legacy = scaled()
    legacy.deploy("1.0.0")
    legacy.cloud.world.groups[GROUP].scaler.maximum = 9  # type: ignore[union-attr]  # it has one
    legacy.destroy()
    assert (found(legacy).maximum, found(legacy).paused) == (9, False)


def test_one_that_was_given_is_deleted_without_ado() -> None:
    """With --own: what scales it goes with it."""
    legacy = Legacy()
    legacy.adopt(own=True)
    legacy.cloud.scale(GROUP, 1, 6, cpu="60 %")
    for version in ("1.0.0", "1.1.0"):
        assert legacy.deploy(version).outcome is Outcome.SUCCEEDED
    assert GROUP not in legacy.cloud.world.groups
    assert not [call for call in legacy.cloud.mutations if call.operation == "groups.resume_scaling"]


def test_a_rollback_that_fails_leaves_what_was_let_go_as_it_was() -> None:
    """Gone back to, it is made larger; whatever that does to what scales it is undone."""
    legacy = scaled()
    legacy.settings = replace(legacy.settings, capacity=3)
    for version in ("1.0.0", "1.1.0"):
        assert legacy.deploy(version).outcome is Outcome.SUCCEEDED
    before = found(legacy)
    legacy.cloud.behave(GROUP, health=503)
    ended = legacy.manager().rollback(legacy.context(), legacy.adopted())
    assert ended.outcome is Outcome.ROLLBACK_FAILED
    assert ended.run is not None and ended.run.stage is Stage.DONE
    there = found(legacy)
    assert not legacy.theirs and not legacy.head.lent
    assert (there.minimum, there.maximum, there.paused) == (before.minimum, before.maximum, False)


@WAYS
def test_one_that_was_let_go_without_the_ledger_scales_on_too(let_go: Callable[[Legacy], None]) -> None:
    """Whoever put a third release into its slot did not know what was suspended; the next deploy and destroy do."""
    legacy = scaled()
    before = found(legacy)
    legacy.deploy("1.0.0")
    legacy.cloud.cloud.groups.delete(legacy.context(), GROUP)
    assert not legacy.theirs and found(legacy).paused
    let_go(legacy)
    assert found(legacy) == before and not legacy.head.lent and (let_go is not destroy or legacy.ask() == GROUP)

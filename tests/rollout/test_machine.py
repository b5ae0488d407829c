"""advance(): what a rollout does next, for whatever is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import Scaling, Slot
from osvdeploy.rollout.machine import advance
from osvdeploy.rollout.model import (
    Answer,
    HandScalingOver,
    Kind,
    Limits,
    Observation,
    Outcome,
    PauseScaling,
    RemoveGroup,
    ResumeScaling,
    Run,
    SetWeights,
    Stage,
    StartCandidate,
    Step,
    Tally,
    WireSlots,
)
from osvdeploy.rollout.releases import TrafficStep
from tests.rollout.made import NOW, after, answers, group, release, run, seen, targets

LIMITS = Limits()
NEW, OLD = release("2.0.0").id, release("1.0.0").id
SHIFTED = {Slot.BLUE: 0, Slot.GREEN: 100}


def step(of: Run, look: Observation, seconds: float = 0.0) -> Step:
    """What is decided on this look, and where that asks for another look, on the same again. This process has been
    at the stage since NOW."""
    of = replace(of, tally=replace(of.tally, since=of.tally.since or NOW))
    decided = advance(of, look, LIMITS, after(seconds))
    while decided.action is None and not decided.wait and not decided.run.over and decided.run != of:
        of = decided.run
        decided = advance(of, look, LIMITS, after(seconds))
    return decided


def test_slots_are_wired_before_anything_is_started() -> None:
    """Without backends and preview rules, the first action makes them."""
    assert step(run(), seen(wired=False)).action == WireSlots()


def test_the_idle_slot_is_emptied_before_the_candidate_moves_in() -> None:
    """Another release's group in the candidate's slot is taken away first, and once."""
    old = group("osvd-x-old", release("0.9.0").id)
    assert step(run(), seen(occupant=old)).action == RemoveGroup("osvd-x-old")
    assert step(run(), seen(occupant=replace(old, deleting=True))).action is None


def test_an_earlier_group_of_the_candidate_must_be_gone_before_it_is_made_anew() -> None:
    """A group that is still being deleted is waited for, not used."""
    leaving = group(run().group, NEW, deleting=True)
    decided = step(run(), seen(candidate=leaving))
    assert decided.action is None and decided.wait > 0 and decided.run.stage is Stage.PREPARE


def test_the_candidate_is_started_until_its_group_shows() -> None:
    """Starting repeats while the cloud does not show the group at its capacity."""
    assert step(run(), seen()).action == StartCandidate()
    assert step(run(), seen(candidate=group(run().group, NEW, capacity=1))).action == StartCandidate()
    assert step(run(), seen(candidate=group(run().group, NEW))).run.stage is Stage.BOOT


def test_a_slot_that_carries_traffic_is_never_prepared() -> None:
    """When somebody moved traffic to the candidate's slot, the run ends, and traffic goes back to stable."""
    decided = step(run(), seen(weights={Slot.BLUE: 50, Slot.GREEN: 50}))
    assert decided.run.verdict is Outcome.ROLLED_BACK
    assert decided.action == SetWeights({Slot.BLUE: 100, Slot.GREEN: 0})


def booting(**changes: Any) -> Run:
    return run(stage=Stage.BOOT, **changes)


def test_capacity_must_be_healthy_for_min_ready() -> None:
    """Enough healthy targets count only after they stayed so; one falling out starts the time afresh."""
    standing = seen(candidate=group(run().group, NEW), targets=targets(2))
    first = step(booting(), standing, 5)
    assert first.run.stage is Stage.BOOT
    fallen = step(first.run, seen(candidate=group(run().group, NEW), targets=targets(1, 1)), 10)
    again = step(fallen.run, standing, 12)
    assert step(again.run, standing, 21).run.stage is Stage.BOOT
    assert step(again.run, standing, 22).run.stage is Stage.VERIFY


def test_a_boot_log_fault_fails_at_once() -> None:
    """A fatal line in a console ends the run without waiting for the boot timeout, and names the line."""
    decided = step(booting(), seen(candidate=group(run().group, NEW), targets=(), boot_faults=("Aborted",)), 1)
    assert decided.run.stage is Stage.CLEAN_UP or isinstance(decided.action, RemoveGroup)
    assert decided.run.verdict is Outcome.ROLLED_BACK and "Aborted" in decided.run.reason


def test_machines_that_stay_sick_fail_after_the_boot_timeout_with_the_reason() -> None:
    """The reason carries what the balancer said of the targets."""
    look = seen(
        candidate=group(run().group, NEW), targets=targets(0, 2, "Health checks failed with these codes: [500]")
    )
    assert step(booting(), look, 60).run.stage is Stage.BOOT
    decided = step(booting(), look, 61)
    assert decided.run.verdict is Outcome.ROLLED_BACK
    assert "[500]" in decided.run.reason and "0 of 2 healthy" in decided.run.reason


def test_the_preview_must_name_the_candidate() -> None:
    """Three answers from the candidate open the way; answers of another release never do."""
    verifying = run(stage=Stage.VERIFY)
    assert step(verifying, seen(preview=answers(NEW, 3), targets=targets(2))).action == SetWeights(SHIFTED)
    wrong = step(verifying, seen(preview=answers(OLD, 3)))
    assert wrong.run.stage is Stage.VERIFY and wrong.run.tally.good == 0
    bad = step(verifying, seen(preview=answers(None, 9, 500)))
    assert bad.run.verdict is Outcome.ROLLED_BACK and "500" in bad.run.reason


def test_a_preview_may_answer_for_nobody_while_the_route_is_on_its_way() -> None:
    """Where a change of a route takes time; what names the candidate and is no good answer is its own, at any time."""
    slow = replace(LIMITS, spread=120.0)

    def outcome(answer: tuple[Answer, ...], seconds: float) -> Stage:
        of = run(stage=Stage.VERIFY, tally=Tally(since=NOW))
        for look in range(6):
            of = advance(of, seen(preview=answer), slow, after(seconds + look)).run
        return of.stage

    nobody = (*answers(None, 2), *answers(None, 1, 503))
    assert outcome(nobody, 100) is Stage.VERIFY
    assert outcome(nobody, 130) is Stage.DONE
    assert outcome(answers(run().candidate, 3, 500), 0) is Stage.DONE


def test_a_warm_rollback_decides_the_switch_on_its_first_look() -> None:
    """With machines, health and preview seen at once, the first step is already the one mutating call."""
    warm = run(kind=Kind.ROLLBACK, warm=True)
    look = seen(candidate=group(run().group, NEW), targets=targets(2), preview=answers(NEW, 3))
    decided = step(warm, look)
    assert decided.run.stage is Stage.SHIFT and decided.action == SetWeights(SHIFTED)


def shifting(**changes: Any) -> Run:
    return run(stage=Stage.SHIFT, shifted=NOW, **changes)


def test_the_switch_counts_only_when_answers_come_from_the_candidate_alone() -> None:
    """One answer from the old release among new ones starts the proof afresh."""
    mixed = (*answers(NEW, 9), *answers(OLD, 1), *answers(NEW, 9))
    undecided = step(shifting(), seen(weights=SHIFTED, targets=targets(2), live=mixed))
    assert undecided.run.stage is Stage.SHIFT and undecided.run.tally.good == 9
    proved = step(undecided.run, seen(weights=SHIFTED, targets=targets(2), live=answers(NEW, 1)))
    assert proved.run.stage is Stage.BAKE or proved.run.verdict is Outcome.SUCCEEDED


def test_bad_answers_after_the_switch_bring_traffic_back() -> None:
    """Failing answers through the balancer revert, and the revert sets the weights back."""
    decided = step(shifting(), seen(weights=SHIFTED, targets=targets(2), live=answers(None, 3, 502)))
    assert decided.run.stage is Stage.REVERT
    assert decided.action == SetWeights({Slot.BLUE: 100, Slot.GREEN: 0})


IN_A_ROW = (*answers(None, 3, 502), *answers(NEW, 2))


@pytest.mark.parametrize("look", [IN_A_ROW, (*answers(None, 1, 502), *IN_A_ROW), (*IN_A_ROW, *answers(None, 2, 502))])
@pytest.mark.parametrize("stage", [Stage.SHIFT, Stage.BAKE])
def test_good_answers_after_three_bad_ones_in_a_row_change_nothing(stage: Stage, look: tuple[Answer, ...]) -> None:
    """Where answers come in a fixed order, each look would end well for ever."""
    at_work = run(stage=stage, shifted=NOW, settings=with_bake(60))
    decided = step(at_work, seen(weights=SHIFTED, targets=targets(2), live=look))
    assert decided.run.stage is Stage.REVERT and "3 bad answers in a row" in decided.run.reason


def test_a_bake_whose_looks_never_end_well_has_an_end() -> None:
    """Some answers are bad, always the last one of a look among them: that is not waited for without end. Two looks
    with hours between them are two looks, and what stable answers badly is being left."""
    baking = run(stage=Stage.BAKE, shifted=NOW, settings=with_bake(36000))
    good, bad = answers(NEW, 1), answers(None, 1, 502)
    badly = seen(weights=SHIFTED, targets=targets(2), live=(*good, *bad, *good, *good, *bad))
    well = seen(weights=SHIFTED, targets=targets(2), live=good)
    left = seen(weights=SHIFTED, targets=targets(2), live=answers(OLD, 5, 500))
    for number, look in enumerate((*[left] * 100, badly, well, *[badly] * 60)):
        baking = step(baking, look, number * 100.0).run
        assert baking.stage is Stage.BAKE
    ended = step(baking, badly, 16300.0)
    assert ended.run.stage is Stage.REVERT and "61 looks in a row ended with a bad answer: 502" in ended.run.reason


def test_losing_all_machines_during_the_shift_brings_traffic_back() -> None:
    """No healthy target on two looks in a row is enough."""
    first = step(shifting(), seen(weights=SHIFTED, targets=targets(0, 2), live=()), 1)
    second = step(first.run, seen(weights=SHIFTED, targets=targets(0, 2), live=()), 2)
    assert second.run.stage is Stage.REVERT


def test_without_a_version_header_time_must_pass_too() -> None:
    """The weaker proof asks for good answers over the settling time, and says so."""
    blind = replace(run().settings, health=replace(run().settings.health, version_header=None))
    good = seen(weights=SHIFTED, targets=targets(2), live=answers(None, 10))
    first = step(shifting(settings=blind), good, 1)
    assert first.run.stage is Stage.SHIFT
    proved = step(first.run, good, 32)
    assert proved.run.verdict is Outcome.SUCCEEDED
    assert "weaker proof" in proved.run.gates[-1].seen


def test_where_only_time_is_missing_to_a_proof_looks_are_few() -> None:
    """Two minutes on Google, at four looks a second, were some thousand calls of an account's; both ways."""
    blind = replace(run().settings, health=replace(run().settings.health, version_header=None))
    slow = replace(LIMITS, settle=120.0, shift=300.0)
    moved = replace(run(stage=Stage.SHIFT, shifted=NOW, settings=blind), tally=Tally(since=NOW))
    good = seen(weights=SHIFTED, targets=targets(2), live=answers(None, 5))
    first = advance(moved, good, slow, after(1))
    assert first.wait == slow.quick_poll, "what is wrong with it shows in its first answers"
    assert advance(first.run, good, slow, after(2)).wait == 2.0
    back = replace(moved, stage=Stage.REVERT, verdict=Outcome.ROLLED_BACK, stable_health=blind.health)
    good = seen(targets=targets(2), live=answers(None, 10))
    assert advance(back, good, slow, after(2)).wait == 2.0


def test_each_step_of_weights_is_proved_and_baked() -> None:
    """Partial weights accept both releases, bake, and only then grow."""
    canary = shifting(steps=(TrafficStep(5, bake=60), TrafficStep(100)))
    part = {Slot.BLUE: 95, Slot.GREEN: 5}
    assert step(canary, seen(targets=targets(2))).action == SetWeights(part)
    both = seen(weights=part, targets=targets(2), live=(*answers(OLD, 9), *answers(NEW, 1)))
    baking = step(canary, both, 1)
    assert baking.run.stage is Stage.BAKE
    assert step(baking.run, both, 30).run.stage is Stage.BAKE
    shift = step(baking.run, both, 62)
    assert shift.action == SetWeights(SHIFTED)


def test_weights_changed_by_somebody_else_end_the_bake() -> None:
    """A bake whose weights were moved by hand is no proof of anything."""
    baking = run(stage=Stage.BAKE, shifted=NOW, settings=with_bake(60))
    once = step(baking, seen(targets=targets(2)), 5)
    assert once.run.stage is Stage.BAKE, "one look may be a stale one"
    assert step(once.run, seen(targets=targets(2)), 6).run.verdict is Outcome.ROLLED_BACK


def with_bake(seconds: float) -> Any:
    return replace(run().settings, strategy=replace(run().settings.strategy, bake=seconds))


def test_a_first_release_that_fails_has_nothing_to_go_back_to() -> None:
    """Without a stable release the run fails, and the candidate's machines go."""
    first = booting(stable=None, stable_group=None, slot=Slot.BLUE)
    look = seen(weights=None, candidate=group(run().group, NEW), targets=targets(0, 2))
    decided = step(first, look, 61)
    assert decided.run.verdict is Outcome.FAILED and decided.action == RemoveGroup(run().group)


def test_abort_before_the_shift_only_cleans_up() -> None:
    """An aborted run whose traffic never moved takes the candidate away."""
    decided = step(booting(abort="superseded"), seen(candidate=group(run().group, NEW)))
    assert decided.run.verdict is Outcome.ABORTED and decided.action == RemoveGroup(run().group)


def test_a_revert_that_cannot_be_proved_touches_no_capacity() -> None:
    """After its time is over, everything is left standing for a person to look at."""
    reverting = run(stage=Stage.REVERT, shifted=NOW, verdict=Outcome.ROLLED_BACK, reason="x")
    decided = step(reverting, seen(live=answers(None, 5, 502)), 301)
    assert decided.run.over and decided.run.verdict is Outcome.ROLLBACK_FAILED and decided.action is None


def test_traffic_does_not_go_back_to_machines_that_are_gone() -> None:
    """Seen twice, since one look may be a stale one. Of whom nobody knows, it goes back at once."""
    reverting = run(stage=Stage.REVERT, shifted=NOW, verdict=Outcome.ROLLED_BACK, reason="x")
    gone = seen(weights=SHIFTED, stable_gone=True)
    first = step(reverting, gone)
    assert first.action is None and first.wait > 0 and not first.run.over
    assert step(first.run, seen(weights=SHIFTED)).action == SetWeights({Slot.BLUE: 100, Slot.GREEN: 0})
    assert first.run.stable_gone is False
    blind = step(first.run, replace(gone, stable_gone=None), 1)
    assert blind.run.over, "what was seen to be gone does not stand because nobody could look again"
    assert step(reverting, replace(gone, stable_gone=None)).action == SetWeights({Slot.BLUE: 100, Slot.GREEN: 0})
    second = step(first.run, gone, 1)
    assert second.run.over and second.run.stable_gone and second.action is None
    reason = f"x; then the machines of {OLD} are gone"
    assert second.run.verdict is Outcome.ROLLBACK_FAILED and second.run.reason == reason
    shared = step(first.run, replace(gone, weights={Slot.BLUE: 80, Slot.GREEN: 20}), 1)
    assert shared.action == SetWeights({Slot.BLUE: 0, Slot.GREEN: 100}) and shared.run.stable_gone
    assert step(shared.run, seen(weights=SHIFTED), 2).run.over
    assert step(shared.run, seen(weights={Slot.BLUE: 80, Slot.GREEN: 20}), 400).run.over
    by_others = step(replace(first.run, shifted=None), replace(gone, weights={Slot.BLUE: 80, Slot.GREEN: 20}), 1)
    assert by_others.run.over and by_others.action is None and not by_others.run.stable_gone


def test_nothing_is_kept_warm_that_is_gone() -> None:
    """Somebody took the old release's machines away: its slot has nothing to be gone back to."""
    done = run(stage=Stage.CLEAN_UP, verdict=Outcome.SUCCEEDED)
    gone = seen(weights=SHIFTED, stable_gone=True)
    first = step(done, gone)
    assert first.wait > 0 and not first.run.stable_gone, "one look may be a stale one"
    second = step(first.run, gone, 1)
    assert second.run.over and second.run.stable_gone and second.run.verdict is Outcome.SUCCEEDED
    there = seen(weights=SHIFTED, left_behind=group(run().stable_group or "", OLD))
    assert not step(done, there).run.stable_gone


def test_what_a_rollback_leaves_is_taken_away_and_what_a_deploy_leaves_stays() -> None:
    """A bad release must not go on working; an old one stays to be gone back to."""
    left = group(run().stable_group or "", OLD)
    over = seen(weights=SHIFTED, left_behind=left)
    cleaning = run(stage=Stage.CLEAN_UP, verdict=Outcome.SUCCEEDED)
    assert step(cleaning, over).run.over
    assert step(replace(cleaning, kind=Kind.ROLLBACK), over).action == RemoveGroup(left.name)


def resumed(of: Run) -> Run:
    """As another process finds it in the ledger."""
    return replace(of, tally=type(of.tally)())


def test_time_when_nobody_was_at_work_is_no_fault_of_the_run() -> None:
    """Resumed hours later, a revert still brings traffic back, and a preparation still prepares."""
    reverting = resumed(run(stage=Stage.REVERT, shifted=NOW, verdict=Outcome.ROLLED_BACK, reason="x"))
    late = advance(reverting, seen(weights=SHIFTED), LIMITS, after(7200))
    assert late.action == SetWeights({Slot.BLUE: 100, Slot.GREEN: 0}) and late.run.stage is Stage.REVERT
    assert advance(resumed(run()), seen(), LIMITS, after(7200)).action == StartCandidate()


def test_a_bake_that_was_left_alone_is_judged_by_what_is_seen() -> None:
    """Its time being over proves nothing: sick machines and failing answers bring traffic back."""
    baking = resumed(run(stage=Stage.BAKE, shifted=NOW, settings=with_bake(60)))
    sick = seen(weights=SHIFTED, targets=targets(0, 2), live=answers(None, 3, 500))
    assert advance(baking, sick, LIMITS, after(7200)).run.stage is Stage.REVERT
    well = seen(weights=SHIFTED, targets=targets(2), live=answers(NEW, 5))
    assert advance(baking, well, LIMITS, after(7200)).run.verdict is Outcome.SUCCEEDED


def test_capacity_lost_before_the_shift_sends_no_traffic() -> None:
    """A pass through verify does not outlive the machines it was given for."""
    decided = step(run(stage=Stage.SHIFT), seen(targets=targets(1, 1), candidate=group(run().group, NEW)))
    assert decided.run.stage is Stage.BOOT and not isinstance(decided.action, SetWeights)


def test_a_clean_up_leaves_machines_that_somebody_gave_traffic_again() -> None:
    """Between success and clean-up a person may have moved traffic back."""
    left = group(run().stable_group or "", OLD)
    cleaning = run(stage=Stage.CLEAN_UP, verdict=Outcome.SUCCEEDED, kind=Kind.ROLLBACK)
    decided = step(cleaning, seen(left_behind=left))
    assert decided.run.over and decided.action is None and "left as it is" in decided.run.stages[-1].why


def test_traffic_that_somebody_moved_is_not_sent_to_machines_that_are_gone() -> None:
    """Of a rollout that never moved any itself. Where stable stands, it gets its traffic back."""
    failed = run(stage=Stage.CLEAN_UP, verdict=Outcome.ROLLED_BACK)
    left = step(failed, seen(weights=SHIFTED, stable_gone=True))
    assert left.run.over and left.action is None and "are gone: all is left as it is" in left.run.stages[-1].why
    assert left.run.verdict is Outcome.ROLLBACK_FAILED, "nobody is to be told that stable serves"
    assert step(failed, seen(weights=SHIFTED)).run.stage is Stage.REVERT


def test_the_first_release_with_a_version_header_is_no_failure() -> None:
    """While the balancer converges, the old release answers without the header: neither good nor bad."""
    health = run().settings.health
    nameless = shifting(stable_health=replace(health, version_header=None))
    mixed = (*answers(None, 5), *answers(NEW, 5))
    first = step(nameless, seen(weights=SHIFTED, targets=targets(2), live=mixed))
    assert first.run.stage is Stage.SHIFT and first.run.tally.bad == 0
    second = step(first.run, seen(weights=SHIFTED, targets=targets(2), live=answers(NEW, 5)))
    assert second.run.verdict is Outcome.SUCCEEDED
    back = replace(nameless, stage=Stage.REVERT, verdict=Outcome.ROLLED_BACK)
    old = seen(live=answers(None, 10))
    proved = step(step(back, old).run, old, 31)
    assert proved.run.stage is Stage.CLEAN_UP or proved.run.over


SCALED = Scaling(2, 2, 6, ("policy cpu",), rules='{"cpu":60}')
PAUSED = replace(SCALED, paused=True)


def test_the_stable_group_is_paused_right_before_it_loses_traffic() -> None:
    """As it is by then, saved in the same step; only when it shows that it keeps its size are weights moved."""
    ready = run(stage=Stage.SHIFT, scaling=SCALED)
    grown = replace(SCALED, maximum=9)
    before = step(ready, seen(targets=targets(2), scaling=grown))
    assert before.action == PauseScaling() and before.run.scaling == grown and before.run.shifted is None
    moved = step(before.run, seen(targets=targets(2), scaling=replace(grown, paused=True)))
    assert moved.action == SetWeights(SHIFTED) and moved.run.scaling == grown


def test_machines_that_are_asked_for_anew_have_the_time_of_machines_that_boot() -> None:
    """The load swings while a canary grows: each number has its own time, and what is good does not go back for it."""
    steps = (TrafficStep(50), TrafficStep(100))
    going = replace(run(stage=Stage.SHIFT, scaling=PAUSED), steps=steps, step=1, shifted=NOW)
    half = {Slot.BLUE: 50, Slot.GREEN: 50}
    for seconds, desired, asked in ((0.0, 4, 4), (52.0, 3, 3), (57.0, 5, 5), (61.0, 5, 5), (110.0, 5, 5)):
        decided = step(going, seen(weights=half, targets=targets(2), scaling=replace(PAUSED, desired=desired)), seconds)
        assert decided.run.stage is Stage.SHIFT and decided.run.grows == asked, decided.run.reason
        going = decided.run
    late = step(going, seen(weights=half, targets=targets(2), scaling=replace(PAUSED, desired=5)), 118.0)
    assert late.run.stage is not Stage.SHIFT


def test_a_stable_group_that_grew_meanwhile_asks_for_as_many_machines() -> None:
    """Traffic moves to no fewer than serve it."""
    decided = step(run(stage=Stage.SHIFT, scaling=SCALED), seen(targets=targets(2), scaling=replace(PAUSED, desired=5)))
    assert decided.run.stage is Stage.PREPARE and decided.run.capacity == 5
    assert step(decided.run, seen(candidate=group(run().group, NEW))).action == StartCandidate()


def test_a_warm_rollback_moves_traffic_before_anything_else() -> None:
    """Whatever scales the release that it leaves."""
    back = run(stage=Stage.SHIFT, kind=Kind.ROLLBACK, warm=True, scaling=SCALED)
    assert step(back, seen(targets=targets(2), scaling=replace(SCALED, desired=5))).action == SetWeights(SHIFTED)


def test_scaling_is_handed_over_after_success_before_anything_is_taken_away() -> None:
    """Until the candidate shows it."""
    done = run(stage=Stage.CLEAN_UP, verdict=Outcome.SUCCEEDED, kind=Kind.ROLLBACK, scaling=SCALED)
    look = seen(weights=SHIFTED, candidate=group(run().group, NEW), left_behind=group(run().stable_group or "", OLD))
    first = step(done, look)
    assert first.action == HandScalingOver() and not first.run.scaled
    second = step(first.run, replace(look, follows=True))
    assert second.action == RemoveGroup(run().stable_group or "") and second.run.scaled


def test_what_may_not_be_scaled_keeps_no_rollout_from_its_end() -> None:
    """After some refusals, or some minutes, it is left, and stays owed."""
    refused = run(stage=Stage.CLEAN_UP, verdict=Outcome.SUCCEEDED, scaling=SCALED, tally=Tally(since=NOW, bad=3))
    look = seen(weights=SHIFTED, candidate=group(run().group, NEW))
    decided = step(refused, look)
    assert decided.run.over and not decided.run.scaled
    decided = step(replace(refused, tally=Tally(since=NOW)), look, 301)
    assert decided.run.over and not decided.run.scaled


def test_a_failed_deploy_leaves_the_stable_group_scaled_as_before() -> None:
    """The candidate goes first; the run is not over before both are seen."""
    failed = run(stage=Stage.CLEAN_UP, verdict=Outcome.ROLLED_BACK, scaling=SCALED)
    look = seen(candidate=group(run().group, NEW), scaling=PAUSED, unpaused=SCALED)
    assert step(failed, look).action == RemoveGroup(run().group)
    gone = replace(look, candidate=None)
    assert step(failed, gone).action == ResumeScaling()
    ended = step(failed, replace(gone, scaling=SCALED))
    assert ended.run.over and ended.run.scaled


def test_what_the_user_paused_is_not_resumed() -> None:
    """Neither after a failure, nor is it paused before a shift."""
    failed = run(stage=Stage.CLEAN_UP, verdict=Outcome.ROLLED_BACK, scaling=PAUSED)
    assert step(failed, seen(scaling=PAUSED)).run.over
    ready = run(stage=Stage.SHIFT, scaling=PAUSED)
    assert step(ready, seen(targets=targets(2), scaling=PAUSED)).action == SetWeights(SHIFTED)


some_answers = st.lists(
    st.builds(Answer, well=st.booleans(), release=st.sampled_from([NEW, OLD, None]), told=st.just("an answer")),
    max_size=12,
).map(tuple)
some_groups = st.one_of(
    st.none(), st.builds(group, st.just(run().group), st.just(NEW), st.integers(0, 3), deleting=st.booleans())
)
some_weights = st.one_of(st.none(), st.integers(0, 100).map(lambda green: {Slot.BLUE: 100 - green, Slot.GREEN: green}))
observations = st.builds(
    Observation,
    wired=st.booleans(),
    weights=some_weights,
    occupant=st.one_of(st.none(), st.just(group("osvd-x-old", release("0.9.0").id))),
    candidate=some_groups,
    left_behind=st.one_of(st.none(), st.just(group(run().stable_group or "", OLD))),
    stable_gone=st.booleans(),
    targets=st.one_of(st.none(), st.builds(targets, st.integers(0, 3), st.integers(0, 3))),
    boot_faults=st.sampled_from([(), ("Aborted",)]),
    preview=st.one_of(st.none(), some_answers),
    live=st.one_of(st.none(), some_answers),
    scaling=st.one_of(st.none(), st.sampled_from([SCALED, PAUSED, replace(SCALED, desired=3)])),
    follows=st.booleans(),
)
runs = st.builds(
    run,
    stage=st.sampled_from([stage for stage in Stage if stage is not Stage.DONE]),
    kind=st.sampled_from(Kind),
    stable=st.sampled_from([OLD, None]),
    abort=st.sampled_from([None, "asked"]),
    warm=st.booleans(),
    shifted=st.sampled_from([None, NOW]),
    scaling=st.sampled_from([None, SCALED, PAUSED]),
    steps=st.sampled_from([(TrafficStep(100),), (TrafficStep(5, 60), TrafficStep(100))]),
).map(lambda made: replace(made, verdict=Outcome.ROLLED_BACK) if made.stage in (Stage.REVERT, Stage.CLEAN_UP) else made)


@settings(max_examples=150, deadline=None)
@given(runs, st.lists(st.tuples(observations, st.floats(0, 400)), min_size=1, max_size=8))
def test_whatever_is_seen_capacity_that_carries_traffic_is_never_taken_away(
    made: Run, looks: list[tuple[Observation, float]]
) -> None:
    """For any run and any sequence of looks: no group behind a weight is removed, no decision raises or idles."""
    passed = 0.0
    for look, seconds in looks:
        passed += seconds
        decided = step(made, look, passed)
        if isinstance(decided.action, RemoveGroup) and made.stable is not None and look.weights is not None:
            if decided.action.name == made.group:
                assert look.weights[made.slot] == 0
            if decided.action.name == made.stable_group:
                assert decided.run.verdict is Outcome.SUCCEEDED
        if isinstance(decided.action, SetWeights):
            assert sum(decided.action.weights.values()) == 100
            back = decided.run.stage is Stage.REVERT and decided.action.weights[made.slot] == 0
            assert not (back and look.stable_gone)
            assert back or decided.run.shifted is not None or decided.run.kind is Kind.ADOPT
        _assert_scaling_is_kept(made, look, decided)
        if decided.run.over:
            assert decided.run.verdict is not None
            return
        assert decided.action is not None or decided.wait > 0 or decided.run != made or look_lacks(decided.run, look)
        made = decided.run


def _assert_scaling_is_kept(made: Run, look: Observation, decided: Step) -> None:
    """Nothing is done about scaling where there is none; a deploy pauses before it takes traffic away, and then alone,
    also what was attached between two shares; what a user paused is never resumed, and the record says so at each
    moment."""
    now = decided.run
    match decided.action:
        case PauseScaling():
            assert now.kind is Kind.DEPLOY and now.stage in (Stage.VERIFY, Stage.SHIFT) and now.verdict is None
            assert look.weights is None or look.weights != now.weights(now.steps[now.step].weight)
            assert now.scaling == look.scaling and now.scaling is not None and not now.scaling.paused
        case ResumeScaling():
            assert now.verdict not in (None, Outcome.SUCCEEDED) and now.scaling is not None and not now.scaling.paused
        case HandScalingOver():
            assert now.verdict is Outcome.SUCCEEDED and now.scaling is not None and not now.scaled
        case SetWeights() if made.shifted is None and made.scaling is not None and look.scaling is not None:
            assert look.scaling.paused or now.kind is Kind.ROLLBACK or now.verdict is not None
    if made.scaling is None:
        assert now.scaling in (None, look.scaling) and not isinstance(decided.action, ResumeScaling | HandScalingOver)


def look_lacks(of: Run, look: Observation) -> bool:
    """Asking for another look is only fair when this one did not have what the stage needs."""
    return look.targets is None or look.preview is None or look.live is None

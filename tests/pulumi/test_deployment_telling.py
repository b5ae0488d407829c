"""What a deployment tells of a rollout that waits for a person. Releases of the memory cloud, no process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy import api
from osvdeploy.api import Standing
from osvdeploy.cloud.interfaces import CommandHook, CommandMetric, Slot
from osvdeploy.errors import RolloutWaiting
from osvdeploy.provider.deployments import left_out, outputs_of, problems_of, told_plan
from osvdeploy.rollout.gates import Bound, Compared, Gate, GateStage
from osvdeploy.rollout.hooks import Hook
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Outcome, RequestKind, Until
from osvdeploy.rollout.refusals import refuse_waiting
from osvdeploy.rollout.releases import Concurrent, StrategyKind, TrafficStep
from tests.rollout.made import SETTINGS
from tests.rollout.service import Service

CANARY = replace(
    SETTINGS.strategy,
    kind=StrategyKind.CANARY,
    steps=(TrafficStep(5, 120.0, approve=True), TrafficStep(50), TrafficStep(100)),
)
DEPTH = Gate(
    "depth", CommandMetric(("depth",)), (Bound(10.0),), (GateStage.STEP, GateStage.BAKE), interval=30.0, delay=0.0
)
SMOKE = Hook("smoke", CommandHook(("smoke",)), ("verify", "shift"))
WHERE = "hello/production --ledger s3://acme/releases"


class Asking(Service):
    """Its rollouts end where a person is asked, as the provider's do."""

    def manager(self) -> RolloutManager:
        return RolloutManager(self.ledger, self.cloud.cloud, self.cloud.prober, until=Until.ASKED)


@pytest.fixture
def waiting() -> Asking:
    """1.0.0 serves, and 1.1.0 waits at 5 % for approval."""
    service = Asking()
    service.deploy("1.0.0")
    service.settings = replace(service.settings, strategy=CANARY)
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    return service


def standing(service: Service) -> Standing:
    head = service.head
    assert head.place is not None
    return Standing(api.Service("hello", "production", "s3://acme/releases"), head, head.place, None, looked=False)


def problem(service: Service) -> str:
    (told,) = problems_of(standing(service), service.clock.now())
    return told


def test_what_to_type_for_an_approval(waiting: Asking) -> None:
    """Whole commands, which a shell takes as they stand."""
    assert problem(waiting) == (
        f"{waiting.id('1.1.0')} waits: approval to go on from 5 %; {waiting.id('1.0.0')} serves. "
        f"`osvdeploy approve {WHERE}` lets it go on, `osvdeploy abort {WHERE}` ends it"
    )


def test_what_to_type_for_a_pause(waiting: Asking) -> None:
    """What was paused is resumed."""
    waiting.manager().request(waiting.context(), RequestKind.PAUSE, why="lunch")
    assert "paused by somebody" in problem(waiting) and ": lunch; " in problem(waiting)
    assert f"`osvdeploy resume {WHERE}` lets it go on, `osvdeploy abort {WHERE}` ends it" in problem(waiting)


def test_a_preview_says_that_it_waits(waiting: Asking) -> None:
    """The next `up` does not go on by itself."""
    release = waiting.release("1.1.0")
    told = told_plan(standing(waiting), release.id, release.settings, waiting.clock.now())
    assert told == f"{release.id} waits: approval to go on from 5 %"


def test_another_release_is_refused_while_one_waits(waiting: Asking) -> None:
    """By a preview as by the rollout; one that may supersede ends it."""
    other = waiting.release("1.2.0")
    with pytest.raises(RolloutWaiting, match="waits: approval to go on from 5 %"):
        refuse_waiting(waiting.head, other, waiting.clock.now())
    strategy = replace(CANARY, concurrent=Concurrent.SUPERSEDE)
    superseding = replace(other, settings=replace(other.settings, strategy=strategy))
    refuse_waiting(waiting.head, superseding, waiting.clock.now())
    told = told_plan(standing(waiting), superseding.id, superseding.settings, waiting.clock.now())
    assert told.startswith(f"end the unfinished deploy of {waiting.id('1.1.0')} (stage bake), then switch blue ->")


def test_steps_are_told_with_who_is_asked() -> None:
    """Each share of a canary, how long it is watched, and where a person is asked."""
    service = Service()
    service.deploy("1.0.0")
    release = service.release("1.1.0")
    settings = replace(release.settings, strategy=replace(CANARY, approve=True))
    told = told_plan(standing(service), release.id, settings, service.clock.now())
    assert told.startswith(
        f"wait for approval, then switch blue -> green by 5 % (2m, then approval), 50 % "
        f"({service.id('1.0.0')} -> {release.id}), then "
    )


def test_a_first_release_may_have_to_wait_too() -> None:
    """The preview says so."""
    service = Service(strategy=replace(CANARY, approve=True))
    release = service.release("1.0.0")
    told = told_plan(None, release.id, release.settings, service.clock.now())
    assert told == f"start {release.id} in blue, then wait for approval, then send it all traffic"


def test_a_slot_says_whose_share_it_has(waiting: Asking) -> None:
    """Also while the rollout that brings the release is not over."""
    green = outputs_of(standing(waiting)).green
    assert (green.release, green.group) == (waiting.id("1.1.0"), waiting.group("1.1.0"))
    assert outputs_of(standing(waiting)).active_slot is Slot.BLUE


def test_what_a_program_leaves_out_is_missed(waiting: Asking) -> None:
    """Nobody is to lose them without a word where another release had them; a program that has some says which."""
    release = waiting.release("1.0.0")
    bare, gated = release.settings, replace(release.settings, gates=(DEPTH,), hooks=(SMOKE,))
    served = replace(standing(waiting), release=replace(release, settings=gated))
    told = left_out(served, bare)
    assert told is not None and f"{release.id} was deployed with metric gates (depth) and hooks (smoke)" in told
    told = left_out(served, replace(gated, hooks=()))
    assert told is not None and "was deployed with hooks (smoke), and the program has none" in told
    assert left_out(served, gated) is None
    assert left_out(replace(served, release=release), bare) is None


def test_gates_are_told_with_when_they_are_judged() -> None:
    """Where a release bakes, and nowhere else."""
    service = Service()
    service.deploy("1.0.0")
    release = service.release("1.1.0")
    against = replace(DEPTH, name="against", bounds=(Bound(2.0, compared=Compared.RATIO),), on=(GateStage.STEP,))
    gates = (DEPTH, replace(DEPTH, name="tried", dry_run=True), against)

    def told(standing_: Standing | None, **strategy: object) -> str:
        settings = replace(release.settings, gates=gates, strategy=replace(CANARY, **strategy))  # type: ignore[arg-type]
        return told_plan(standing_, release.id, settings, service.clock.now()).partition("; gates: ")[2]

    assert told(standing(service)) == "depth (step), tried (step, dry run), against (step)"
    assert told(standing(service), bake=60.0) == ("depth (step, bake), tried (step, bake, dry run), against (step)")
    assert told(None, bake=60.0) == "depth (bake), tried (bake, dry run)", "a first release has nothing beside it"
    assert told(None) == ""


def test_hooks_are_told_with_the_stages_that_they_are_asked_at() -> None:
    """Of a first release as of any."""
    service = Service()
    release = service.release("1.0.0")
    settings = replace(release.settings, hooks=(SMOKE,))
    told = told_plan(None, release.id, settings, service.clock.now())
    assert told == f"start {release.id} in blue, then send it all traffic; hooks: smoke (verify, shift)"
    service.deploy("1.0.0")
    told = told_plan(standing(service), service.release("1.1.0").id, settings, service.clock.now())
    assert told.endswith("; hooks: smoke (verify, shift)")

"""A rollout that people say something to: pause, resume, approve, promote, abort; and one that meets another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import click
import pytest

from osvdeploy import api
from osvdeploy.api import wiring
from osvdeploy.api.declared import Service as Named
from osvdeploy.cli import control
from osvdeploy.cloud.interfaces import Route, RouteState, Slot
from osvdeploy.cloud.memory import Call, MemoryRouter, Moment
from osvdeploy.context import Context, ProcessIdentity, VirtualClock
from osvdeploy.errors import (
    DeadlineExceeded,
    LeaseHeld,
    Refused,
    ReleaseHeld,
    RolloutWaiting,
    Unavailable,
    UsageError,
)
from osvdeploy.events import Note
from osvdeploy.rollout import lease
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.ledger import Head, HeldLedger, Ledger
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Kind, Outcome, Request, RequestKind, Run, Stage, Until
from osvdeploy.rollout.refusals import ways_past_hold
from osvdeploy.rollout.releases import Concurrent, OnFailure, Strategy, StrategyKind, TrafficStep
from tests.rollout.made import NOW, SETTINGS
from tests.rollout.service import Service
from tests.rollout.unledgered import Died

pytestmark = pytest.mark.whole

CANARY = replace(
    SETTINGS.strategy,
    kind=StrategyKind.CANARY,
    steps=(TrafficStep(5, 120.0), TrafficStep(50, 300.0), TrafficStep(100)),
    bake=60.0,
)
APPROVED = replace(SETTINGS.strategy, approve=True)


class Timed(VirtualClock):
    """Virtual time in which other people act: each ``at`` its moment, in seconds from the beginning."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.due: list[tuple[float, Callable[[], object]]] = []

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        ready = [act for moment, act in self.due if moment <= self.monotonic()]
        self.due = [(moment, act) for moment, act in self.due if moment > self.monotonic()]
        for act in ready:
            act()


class Controlled(Service):
    """A service whose rollouts others watch and say something to."""

    def __init__(self, strategy: Strategy = SETTINGS.strategy) -> None:
        self.time = Timed()
        super().__init__(self.time, strategy=strategy)
        self.until = Until.ASKED

    def manager(self) -> RolloutManager:
        return RolloutManager(self.ledger, self.cloud.cloud, self.cloud.prober, until=self.until)

    def then(self, seconds: float, act: Callable[[], object]) -> None:
        """Somebody acts, that many seconds from now."""
        self.time.due.append((self.time.monotonic() + seconds, act))

    def say(self, kind: RequestKind, why: str = "") -> None:
        """Put a request, as another process does that finds the lease held."""
        run = self.head.unfinished
        assert run is not None
        self.ledger.ask(self.context(), run.id, Request(kind, "ann@desk", self.time.now(), run.step, why))

    def weights(self) -> dict[Slot, int]:
        assert self.head.place is not None
        return dict(self.cloud.cloud.router.observe(self.context(), self.head.place.route).weights or {})

    def when(self, told: Callable[[], bool], act: Callable[[], object], every: float = 1.0) -> None:
        """Somebody acts as soon as they see something."""

        def look() -> None:
            if told():
                act()
            else:
                self.then(every, look)

        self.then(every, look)

    def shares(self) -> list[int]:
        """The candidate's weights, in the order in which they were set."""
        return list(self._shares)

    def watch(self) -> None:
        """Keep each change of the green slot's weight."""
        self._shares: list[int] = []

        def look() -> None:
            weight = self.weights().get(Slot.GREEN, 0) if self.head.place is not None else 0
            if not self._shares or self._shares[-1] != weight:
                self._shares.append(weight)
            self.then(0.5, look)

        self.then(0.5, look)


def serving(strategy: Strategy = SETTINGS.strategy) -> Controlled:
    """1.0.0 serves, deployed without any steps; what comes next goes by ``strategy``."""
    service = Controlled()
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    service.settings = replace(service.settings, strategy=strategy)
    return service


# -------------------------------------------------------------------------------------------------------- strategies


def test_a_canary_takes_each_share_for_its_time() -> None:
    """5 % for two minutes, half for five, then all, which bakes for a minute."""
    service = serving(CANARY)
    service.watch()
    began = service.time.monotonic()
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.SUCCEEDED
    assert service.shares() == [0, 5, 50, 100]
    assert service.time.monotonic() - began > 120 + 300 + 60


def test_a_first_release_gets_all_traffic_at_once() -> None:
    """There is nobody to share it with: the rest of a share would be answered by nobody."""
    service = Controlled(CANARY)
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    run = service.head.run
    assert run is not None and [step.weight for step in run.steps] == [100]


def test_a_canary_that_falls_sick_goes_back_from_where_it_is() -> None:
    """It never had more than its share."""
    service = serving(CANARY)
    service.watch()
    service.cloud.behave(service.id("1.1.0"), sick_after=100.0)
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    assert max(service.shares()) == 5 and service.shares()[-1] == 0
    assert service.cloud.serving == {service.id("1.0.0")}


# ---------------------------------------------------------------------------------------------------------- approval


def test_before_its_first_traffic_a_release_waits_for_approval() -> None:
    """The command ends with 5, the lease is given back, machines stand ready and have no traffic."""
    service = serving(APPROVED)
    outcome = service.deploy("1.1.0")
    assert (outcome.outcome, outcome.exit_code) == (Outcome.WAITING, 5)
    assert "approval before" in outcome.told
    assert service.weights() == {Slot.BLUE: 100, Slot.GREEN: 0} and service.head.lease is None
    assert service.cloud.running == {service.id("1.0.0"), service.id("1.1.0")}


def test_a_rollback_during_a_first_deploy_gives_it_up_and_says_that_nothing_serves() -> None:
    """What it did is no error of whoever asked for it."""
    here = Controlled()
    here.settings = replace(here.settings, strategy=replace(here.settings.strategy, approve=True))
    assert here.deploy("1.0.0").outcome is Outcome.WAITING
    ended = here.rollback()
    assert (ended.outcome, ended.told) == (Outcome.SUCCEEDED, f"{here.id('1.0.0')} was given up; nothing serves")
    assert not here.cloud.running and [hold.release for hold in here.head.holds] == [here.id("1.0.0")]
    with pytest.raises(UsageError, match="nothing serves, so there is nothing to go back from"):
        here.rollback()


def test_the_same_deploy_again_waits_still() -> None:
    """A pipeline that is run twice approves nothing."""
    service = serving(APPROVED)
    service.deploy("1.1.0")
    assert service.deploy("1.1.0").outcome is Outcome.WAITING


def test_who_approves_goes_on_where_nobody_is_at_work() -> None:
    """To the end, and the ledger says who it was."""
    service = serving(APPROVED)
    service.deploy("1.1.0")
    service.time.advance(3600)
    asked = service.manager().request(service.context(), RequestKind.APPROVE)
    assert asked.done and asked.rollout is not None and asked.rollout.outcome is Outcome.SUCCEEDED
    run = service.head.run
    assert run is not None and [(each.stage, each.by.partition("@")[0]) for each in run.approvals] == [
        (Stage.SHIFT, "somebody")
    ]
    assert service.cloud.serving == {service.id("1.1.0")}


def test_a_step_waits_for_approval_once_it_has_baked() -> None:
    """Not before: who approves should have seen the bake."""
    steps = (TrafficStep(5, 120.0, approve=True), TrafficStep(100))
    service = serving(replace(CANARY, steps=steps))
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.WAITING and "5 %" in outcome.told
    assert service.weights() == {Slot.BLUE: 95, Slot.GREEN: 5}
    with pytest.raises(UsageError, match="not paused"):
        service.manager().request(service.context(), RequestKind.RESUME)
    asked = service.manager().request(service.context(), RequestKind.APPROVE)
    assert asked.rollout is not None and asked.rollout.outcome is Outcome.SUCCEEDED


def test_what_waits_for_nobody_cannot_be_approved() -> None:
    """Who approves means what they see."""
    service = serving(CANARY)
    service.until = Until.BEGUN
    assert service.deploy("1.1.0").outcome is Outcome.BEGUN
    with pytest.raises(UsageError, match="nothing waits for approval; it is in stage prepare"):
        service.manager().request(service.context(), RequestKind.APPROVE)


def test_a_release_that_waits_and_falls_sick_gets_no_traffic() -> None:
    """An approval is not a proof of health: what it had before it waited is looked at anew."""
    service = serving(APPROVED)
    service.deploy("1.1.0")
    service.cloud.behave(service.id("1.1.0"), sick_after=0.0)
    service.time.advance(600)
    asked = service.manager().request(service.context(), RequestKind.APPROVE)
    assert asked.rollout is not None and asked.rollout.outcome is Outcome.ROLLED_BACK
    assert service.weights() == {Slot.BLUE: 100, Slot.GREEN: 0}


# ------------------------------------------------------------------------------------------------------------- pause


def test_a_paused_rollout_keeps_its_share_and_goes_on_when_resumed() -> None:
    """Said while another process works on it, which ends with 5 and leaves traffic as it is."""
    service = serving(CANARY)
    service.when(lambda: service.weights().get(Slot.GREEN) == 5, lambda: service.say(RequestKind.PAUSE, "lunch"))
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.WAITING and "paused by ann@desk: lunch" in outcome.told
    service.time.advance(7200)
    assert service.weights() == {Slot.BLUE: 95, Slot.GREEN: 5}
    asked = service.manager().request(service.context(), RequestKind.RESUME)
    assert asked.rollout is not None and asked.rollout.outcome is Outcome.SUCCEEDED


def test_a_pause_before_any_traffic_lets_machines_boot_and_no_more() -> None:
    """Traffic is what a pause keeps."""
    service = serving()
    service.then(1.0, lambda: service.say(RequestKind.PAUSE))
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    run = service.head.run
    assert run is not None and run.stage is Stage.SHIFT and run.shifted is None
    assert service.weights() == {Slot.BLUE: 100, Slot.GREEN: 0}


def test_a_paused_canary_that_falls_sick_is_rolled_back() -> None:
    """A pause keeps traffic where it is well; it does not keep users on what is broken."""
    service = serving(CANARY)
    service.until = Until.OVER
    service.cloud.behave(service.id("1.1.0"), sick_after=200.0)
    service.when(lambda: service.weights().get(Slot.GREEN) == 5, lambda: service.say(RequestKind.PAUSE))
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK


def test_a_strategy_may_ask_a_person_where_traffic_fails() -> None:
    """``on-failure = "pause"``: the share stays, the reason is told, and who resumes has it judged anew."""
    service = serving(replace(CANARY, on_failure=OnFailure.PAUSE))
    service.cloud.behave(service.id("1.1.0"), sick_after=100.0)
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.WAITING and "paused by osvdeploy: " in outcome.told
    assert service.weights() == {Slot.BLUE: 95, Slot.GREEN: 5}
    again = service.manager().request(service.context(), RequestKind.RESUME)
    assert again.rollout is not None and again.rollout.outcome is Outcome.WAITING
    ended = service.manager().request(service.context(), RequestKind.ABORT)
    assert ended.rollout is not None and ended.rollout.outcome is Outcome.ABORTED
    assert service.cloud.serving == {service.id("1.0.0")}


def test_what_fails_before_any_traffic_is_not_asked_about() -> None:
    """There is nothing that a person could decide."""
    service = serving(replace(CANARY, on_failure=OnFailure.PAUSE))
    service.cloud.behave(service.id("1.1.0"), answers=(500,))
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK


# ----------------------------------------------------------------------------------------------------------- promote


def test_promote_leaves_the_rest_of_a_bake_out() -> None:
    """Of the present step alone."""
    service = serving(replace(CANARY, steps=(TrafficStep(5, 86_400.0), TrafficStep(50, 300.0), TrafficStep(100))))
    began = service.time.monotonic()
    service.watch()
    service.when(lambda: service.weights().get(Slot.GREEN) == 5, lambda: service.say(RequestKind.PROMOTE))
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.shares() == [0, 5, 50, 100]
    assert 300 < service.time.monotonic() - began < 3600


def test_promote_full_brings_all_traffic_next_and_bakes() -> None:
    """No step between, but the last bake is the strategy's."""
    service = serving(replace(CANARY, steps=(TrafficStep(5, 86_400.0), TrafficStep(50, 300.0), TrafficStep(100))))
    service.watch()
    began = service.time.monotonic()
    service.when(lambda: service.weights().get(Slot.GREEN) == 5, lambda: service.say(RequestKind.PROMOTE_FULL))
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.shares() == [0, 5, 100]
    assert service.time.monotonic() - began > 60


def test_a_promotion_that_comes_late_promotes_no_other_step() -> None:
    """It was meant for the step that its sender saw."""
    service = serving(CANARY)
    service.then(1.0, lambda: None)

    def late() -> None:
        run = service.head.unfinished
        assert run is not None and run.step == 1
        request = Request(RequestKind.PROMOTE, "ann@desk", service.time.now(), 0)
        service.ledger.ask(service.context(), run.id, request)

    service.when(lambda: service.weights().get(Slot.GREEN) == 50, late)
    began = service.time.monotonic()
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    run = service.head.run
    assert run is not None and not run.heard[0].done
    assert service.time.monotonic() - began > 120 + 300 + 60


@pytest.mark.parametrize("kind", [RequestKind.APPROVE, RequestKind.PROMOTE])
def test_a_word_that_comes_late_lets_nothing_pass_that_its_sender_did_not_see(kind: RequestKind) -> None:
    """Two people say it before the first share. The first one's word lets that pass; the second one's is read when the
    same step has baked and asks anew, of what nobody has looked at."""
    service = serving(replace(CANARY, steps=(TrafficStep(5, 20.0, approve=True), TrafficStep(100)), approve=True))
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    run = service.head.unfinished
    assert run is not None and run.stage is Stage.SHIFT
    late = service.manager()._request(service.context(), kind, run, "")
    assert service.manager().request(service.context(), kind).done
    run = service.head.unfinished
    assert run is not None and run.stage is Stage.BAKE and run.awaits_approval(service.time.now())
    service.ledger.ask(service.context(), run.id, late)
    assert service.manager().recover(service.context()).outcome is Outcome.WAITING
    run = service.head.unfinished
    assert run is not None and service.weights()[Slot.GREEN] == 5
    assert [each.done for each in run.heard] == [True, False] and "had gone on" in run.heard[1].told


@pytest.mark.parametrize("kind", [RequestKind.RESUME, RequestKind.PROMOTE_FULL])
def test_a_word_that_comes_late_lifts_no_pause_that_its_sender_did_not_see(kind: RequestKind) -> None:
    """It is paused, somebody says it, and before that is read others have let it go on and paused it once more."""
    service = serving(CANARY)
    service.until = Until.BEGUN
    service.deploy("1.1.0")
    service.until = Until.ASKED
    manager, ctx = service.manager(), service.context()
    assert manager.request(ctx, RequestKind.PAUSE, "first").done
    run = service.head.unfinished
    assert run is not None
    late = manager._request(ctx, kind, run, "")
    manager.until = Until.BEGUN
    assert manager.request(ctx, RequestKind.RESUME).done
    service.clock.advance(1)
    assert manager.request(ctx, RequestKind.PAUSE, "the database is down").done
    service.ledger.ask(ctx, run.id, late)
    assert service.manager().recover(service.context()).outcome is Outcome.WAITING
    run = service.head.unfinished
    assert run is not None and run.paused is not None and run.paused.why == "the database is down"
    assert not run.heard[-1].done and run.heard[-1].told.endswith("the database is down")


def test_nothing_is_promoted_past_health() -> None:
    """Booting cannot be skipped."""
    service = serving(CANARY)
    service.until = Until.BEGUN
    service.deploy("1.1.0")
    with pytest.raises(UsageError, match="nothing to skip in stage prepare"):
        service.manager().request(service.context(), RequestKind.PROMOTE)


# ------------------------------------------------------------------------------------------------------------- abort


def test_abort_brings_traffic_back_and_takes_the_candidate_away() -> None:
    """Said to a living process; its command ends with 3."""
    service = serving(CANARY)
    service.when(lambda: service.weights().get(Slot.GREEN) == 50, lambda: service.say(RequestKind.ABORT, "errors"))
    outcome = service.deploy("1.1.0")
    assert (outcome.outcome, outcome.exit_code) == (Outcome.ABORTED, 3)
    assert outcome.run is not None and outcome.run.reason == "errors (ann@desk)"
    new, old = service.id("1.1.0"), service.id("1.0.0")
    assert outcome.told == f"{new} was aborted: errors (ann@desk); {old} serves", "it did not fail"
    assert service.cloud.serving == service.cloud.running == {old}


def test_with_nothing_under_way_there_is_nothing_to_abort() -> None:
    """Nothing is touched: aborting nothing has taken what served away elsewhere."""
    service = serving()
    for kind in RequestKind:
        with pytest.raises(UsageError, match="no rollout is under way"):
            service.manager().request(service.context(), kind)
    assert service.cloud.serving == {service.id("1.0.0")}


def test_one_who_asks_a_living_process_is_told_what_came_of_it() -> None:
    """And leaves the work to it."""
    service = serving(APPROVED)
    service.publish("1.1.0")
    here = ProcessIdentity.current()
    working = Context(clock=service.time, process=here, reporter=service.recorder)
    waiter = RolloutManager(service.ledger, service.cloud.cloud, service.cloud.prober, until=Until.OVER)
    ended: list[Rollout] = []
    thread = threading.Thread(target=lambda: ended.append(waiter.deploy(working, service.release("1.1.0"))))
    thread.start()
    try:
        while not ((run := service.head.unfinished) and run.awaits(service.time.now())):
            pass
        asked = service.manager().request(Context(clock=service.time, process=here), RequestKind.APPROVE)
        assert asked.done and asked.rollout is None
    finally:
        thread.join(60)
    assert [each.outcome for each in ended] == [Outcome.SUCCEEDED]


def test_one_who_asks_is_told_though_the_rollout_is_over_when_they_look() -> None:
    """It was heard: the end came between two looks."""
    service = serving(CANARY)
    service.until = Until.BEGUN
    service.deploy("1.1.0")
    service.until = Until.ASKED
    run = service.head.unfinished
    assert run is not None
    number = service.ledger.ask(service.context(), run.id, Request(RequestKind.PROMOTE_FULL, "ann", NOW, run.step))
    manager = service.manager()
    assert manager.recover(service.context()).outcome is Outcome.SUCCEEDED
    with lease.held(service.context(), service.ledger, "look") as held:
        asked = manager._carry_on(service.context(), held, RequestKind.PROMOTE_FULL, run, number)
    assert asked.done and asked.told == "all traffic is next" and asked.rollout is None


# --------------------------------------------------------------------------------------------- what meets another one


def living(service: Controlled) -> Context:
    """A process of this very machine: others know that it lives."""
    return Context(clock=service.time, process=ProcessIdentity.current(), reporter=service.recorder)


def baking(service: Controlled, seconds: float, act: Callable[[], object]) -> None:
    """Somebody acts, that many seconds into the first bake."""
    service.when(
        lambda: (run := service.head.unfinished) is not None and run.stage is Stage.BAKE,
        lambda: service.then(seconds, act),
    )


def die() -> None:
    raise KeyboardInterrupt


def weights_at(service: Controlled) -> list[float]:
    """When weights were changed, by the clock."""
    times: list[float] = []

    def look(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            times.append(service.time.monotonic())

    service.cloud.on_call(look)
    return times


def test_a_bake_counts_what_was_watched() -> None:
    """A process dies in the midst of a bake of two minutes; whoever goes on ten minutes later bakes the rest of it."""
    service = serving(CANARY)
    shares = weights_at(service)
    service.publish("1.1.0")
    baking(service, 40.0, die)
    with pytest.raises(KeyboardInterrupt):
        service.deploy("1.1.0")
    service.clock.advance(600)
    went_on = service.time.monotonic()
    service.manager().recover(service.context())
    assert shares[1] - went_on >= 60
    assert any("nobody has watched" in str(each) for each in service.recorder.events)


def test_a_bake_that_a_cloud_does_not_answer_in_goes_on_after_it() -> None:
    """Nobody sees anything for five minutes of it."""
    service = serving(CANARY)
    shares = weights_at(service)
    observe, since = type(service.cloud.cloud.router).observe, list[float]()

    def silent() -> None:
        since.append(service.time.monotonic())

    def answers(self: MemoryRouter, ctx: Context, route: Route) -> RouteState:
        if since and service.time.monotonic() - since[0] < 300:
            raise Unavailable("no answer")
        return observe(self, ctx, route)

    baking(service, 40.0, silent)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MemoryRouter, "observe", answers)
        assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert shares[1] - shares[0] >= 120 + 250


def test_a_bake_that_was_through_when_it_was_approved_is_not_begun_again() -> None:
    """An hour passes until somebody says so, and nobody has watched for that long."""
    service = serving(replace(CANARY, steps=(TrafficStep(5, 120.0, approve=True), TrafficStep(100)), bake=0.0))
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    service.clock.advance(3600)
    began = service.time.monotonic()
    service.manager().request(service.context(), RequestKind.APPROVE)
    assert service.weights() == {Slot.BLUE: 0, Slot.GREEN: 100} and service.time.monotonic() - began < 90


def test_a_deploy_while_another_waits_for_a_person_is_refused() -> None:
    """Nobody has said that the other one may be ended."""
    service = serving(APPROVED)
    service.deploy("1.1.0")
    with pytest.raises(RolloutWaiting, match=r"1\.1\.0.* waits: approval before"):
        service.deploy("1.2.0")
    assert service.head.unfinished is not None


def test_one_that_supersedes_ends_it_first() -> None:
    """With all traffic on stable before a third release may take any."""
    service = serving(replace(CANARY, steps=(TrafficStep(5, 10.0, approve=True), TrafficStep(100))))
    service.deploy("1.1.0")
    assert service.weights() == {Slot.BLUE: 95, Slot.GREEN: 5}
    service.settings = replace(service.settings, strategy=replace(APPROVED, concurrent=Concurrent.SUPERSEDE))
    assert service.deploy("1.2.0").outcome is Outcome.WAITING
    assert service.weights() == {Slot.BLUE: 100, Slot.GREEN: 0}
    assert service.cloud.running == {service.id("1.0.0"), service.id("1.2.0")}


def test_a_living_deploy_is_asked_to_end_by_the_one_that_supersedes_it() -> None:
    """The first command ends with 3 and says by what it was superseded; the second one serves."""
    service = serving(replace(CANARY, concurrent=Concurrent.SUPERSEDE))
    service.publish("1.1.0")
    service.publish("1.2.0")
    first, second = service.manager(), service.manager()
    ended: list[Rollout] = []

    def deploy_first() -> None:
        ended.append(first.deploy(living(service), service.release("1.1.0")))

    thread = threading.Thread(target=deploy_first)
    thread.start()
    while service.head.unfinished is None:
        pass
    outcome = second.deploy(living(service), service.release("1.2.0"))
    thread.join(60)
    assert outcome.outcome is Outcome.SUCCEEDED
    if ended[0].outcome is not Outcome.SUCCEEDED:
        assert ended[0].outcome is Outcome.ABORTED and "superseded by hello-1.2.0" in ended[0].told
    assert service.cloud.serving == {service.id("1.2.0")}


def test_a_queued_deploy_lets_the_one_before_it_come_to_its_end() -> None:
    """Also one whose process is dead: its release was to serve first."""
    service = serving(replace(CANARY, concurrent=Concurrent.QUEUE))
    service.until = Until.BEGUN
    service.deploy("1.1.0")
    service.until = Until.ASKED
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert [each.release for each in service.head.served] == [service.id(each) for each in ("1.0.0", "1.1.0", "1.2.0")]


def test_a_queued_deploy_that_is_only_begun_lets_the_one_before_it_end_first() -> None:
    """However far a process goes with its own release."""
    service = serving(replace(CANARY, concurrent=Concurrent.QUEUE))
    service.until = Until.BEGUN
    service.deploy("1.1.0")
    assert service.deploy("1.2.0").outcome is Outcome.BEGUN
    assert [each.release for each in service.head.served] == [service.id("1.0.0"), service.id("1.1.0")]


def test_a_queued_deploy_that_waits_for_a_person_writes_nothing_meanwhile() -> None:
    """It may be for days; a lease that is taken only to look is two documents."""
    service = serving(replace(CANARY, approve=True, concurrent=Concurrent.QUEUE))
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    service.publish("1.2.0")
    before = service.head.n
    with pytest.raises(DeadlineExceeded):
        service.manager().deploy(service.context().within(600.0), service.release("1.2.0"))
    assert service.head.n == before


def test_a_rollback_ends_a_deploy_that_another_process_works_on() -> None:
    """Who is on call does not have to find its terminal; and it goes back no further than to what served."""
    service = serving()
    service.deploy("1.1.0")
    service.settings = replace(service.settings, strategy=CANARY)
    service.publish("1.2.0")
    ended: list[Rollout] = []
    deploying = service.manager()
    thread = threading.Thread(target=lambda: ended.append(deploying.deploy(living(service), service.release("1.2.0"))))
    service.until = Until.OVER
    thread.start()
    while service.head.unfinished is None:
        pass
    outcome = service.manager().rollback(living(service))
    thread.join(60)
    assert outcome.outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.1.0")}
    assert service.id("1.2.0") in {hold.release for hold in service.head.holds}


@pytest.mark.parametrize("concurrent", Concurrent)
@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.SHIFT, Stage.BAKE])
def test_a_deploy_undoes_no_rollback_that_nobody_works_on(stage: Stage, concurrent: Concurrent) -> None:
    """A pipeline's queued deploy comes after the rollback's process died: that is brought to its end first, and where
    the new release fails nobody is sent back to what was left."""
    service = serving(replace(SETTINGS.strategy, concurrent=concurrent))
    service.deploy("1.1.0")
    service.publish("1.2.0")
    service.cloud.behave(service.id("1.2.0"), answers=(500,))

    def dies(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "store.put" and moment is Moment.AFTER else None
        if run is not None and run.kind is Kind.ROLLBACK and run.stage is stage:
            service.cloud.on_call(None)
            raise Died

    service.cloud.on_call(dies)
    with pytest.raises(Died):
        service.rollback()
    service.time.advance(120)
    assert service.manager().deploy(service.context(), service.release("1.2.0")).outcome is Outcome.ROLLED_BACK
    assert service.cloud.serving == {service.id("1.0.0")}
    assert service.id("1.1.0") in {hold.release for hold in service.head.holds}


def test_a_living_rollback_is_superseded_by_nobody() -> None:
    """It is waited for."""
    service = serving(replace(SETTINGS.strategy, concurrent=Concurrent.SUPERSEDE))
    service.deploy("1.1.0")
    service.publish("1.2.0")
    deployed: list[Rollout] = []
    going_back, begun = service.manager(), threading.Event()

    def hook(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "router.modify_rule" else None
        if run is not None and run.kind is Kind.ROLLBACK and not begun.is_set():
            begun.set()
            service.time.advance(0.5)

    service.cloud.on_call(hook)
    ctx = living(service)

    def deploys() -> None:
        begun.wait(10)
        deployed.append(service.manager().deploy(ctx, service.release("1.2.0")))

    thread = threading.Thread(target=deploys)
    thread.start()
    ended = going_back.rollback(living(service))
    thread.join(60)
    assert ended.outcome is Outcome.SUCCEEDED and ended.run is not None and not ended.run.heard
    assert [each.outcome for each in deployed] == [Outcome.SUCCEEDED]
    assert [each.release for each in service.head.served[-2:]] == [service.id("1.0.0"), service.id("1.2.0")]


def test_what_served_long_ago_is_gone_back_to_without_another_approval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer documents remember the last releases alone that have served."""
    monkeypatch.setattr("osvdeploy.rollout.ledger.SERVED_KEPT", 2)
    service = serving(APPROVED)
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        assert service.deploy(version).outcome is Outcome.WAITING
        assert service.manager().request(service.context(), RequestKind.APPROVE).rollout is not None
    assert [each.release for each in service.head.served] == [service.id("1.2.0"), service.id("1.3.0")]
    assert service.rollback("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.1.0")}


def test_nobody_goes_back_to_what_waits_for_approval_and_never_served() -> None:
    """That is all traffic at once for what nobody has approved; and the rollout stays as it is."""
    service = serving(APPROVED)
    service.deploy("1.1.0")
    before = service.head
    with pytest.raises(UsageError, match="being rolled out, in stage shift, and has not served") as refused:
        service.rollback("1.1.0")
    assert "promote --full hello/production" in str(refused.value.hint) and service.head == before
    service.manager().request(service.context(), RequestKind.ABORT)
    never = "needs an approval and has never served"
    with pytest.raises(UsageError, match=never):
        service.rollback("1.1.0")
    # Nor once another one waits, or where it had a share before it was to be approved.
    service.deploy("1.2.0")
    with pytest.raises(UsageError, match=never):
        service.rollback("1.1.0")
    service.manager().request(service.context(), RequestKind.ABORT)
    steps = (TrafficStep(5, 10.0, approve=True), TrafficStep(100))
    service.settings = replace(service.settings, strategy=replace(CANARY, steps=steps))
    assert service.deploy("1.3.0").outcome is Outcome.WAITING
    service.manager().request(service.context(), RequestKind.ABORT)
    with pytest.raises(UsageError, match=never):
        service.rollback("1.3.0")
    assert service.cloud.serving == {service.id("1.0.0")}


def test_what_began_while_a_rollback_was_on_its_way_to_the_lease_is_no_way_back() -> None:
    """It is looked at once more under the lease, before anything of it is ended."""
    service = serving(CANARY)
    service.until = Until.BEGUN
    release = service.release("1.1.0")
    seen = service.head
    looked: list[Context] = []

    class Early(Ledger):
        """Whose first look is from before the deploy."""

        def head(self, ctx: Context) -> Head | None:
            looked.append(ctx)
            return seen if len(looked) == 1 else super().head(ctx)

    service.deploy("1.1.0")
    ledger = Early(service.cloud.store, "hello", "production")
    manager = RolloutManager(ledger, service.cloud.cloud, service.cloud.prober)
    with pytest.raises(UsageError, match="being rolled out, in stage prepare"):
        manager.rollback(service.context(), release)
    run = service.head.unfinished
    assert run is not None and run.abort is None and service.cloud.serving == {service.id("1.0.0")}


def test_a_first_deploy_is_given_up_by_an_abort() -> None:
    service = Controlled(APPROVED)
    service.until = Until.BEGUN
    service.deploy("1.0.0")
    with pytest.raises(UsageError) as refused:
        service.rollback("1.0.0")
    assert "`osvdeploy abort hello/production` gives it up" in str(refused.value.hint)


def test_what_has_served_before_is_gone_back_to_also_while_it_is_rolled_out_again() -> None:
    """Who names it knows it."""
    service = serving()
    service.deploy("1.1.0")
    assert service.rollback().outcome is Outcome.SUCCEEDED
    service.manager().unhold(service.context())
    service.settings = replace(service.settings, strategy=APPROVED)
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    assert service.rollback("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.1.0")}


def without_image(service: Controlled, version: str) -> None:
    """Somebody has collected the release's image."""
    image = service.cloud.images.find(service.context(), service.id(version))
    assert image is not None
    service.cloud.images.deregister(service.context(), image.id)


def half(version: str = "1.2.0") -> Controlled:
    """1.0.0 has served and its machines are gone, 1.1.0 serves, and ``version`` has half of its traffic and waits."""
    service = serving()
    service.deploy("1.1.0")
    steps = (TrafficStep(50, 60.0, approve=True), TrafficStep(100))
    service.settings = replace(service.settings, strategy=replace(CANARY, steps=steps))
    assert service.deploy(version).outcome is Outcome.WAITING
    assert service.weights() == {Slot.BLUE: 50, Slot.GREEN: 50}
    return service


@pytest.mark.parametrize("gone", ["image", "document"])
def test_a_rollout_is_not_ended_for_a_way_back_to_what_could_not_be_started(gone: str) -> None:
    """It is said before anybody is asked to end it, and before any lease is taken: not a document more is written."""
    service = half()
    if gone == "image":
        without_image(service, "1.0.0")
    before, weights = service.head, service.weights()
    with pytest.raises(UsageError, match="its image is not in" if gone == "image" else "was never deployed"):
        service.rollback("1.0.0" if gone == "image" else "0.9.0")
    assert service.head == before and service.weights() == weights


def test_nobody_at_work_is_asked_to_end_for_a_way_back_to_what_could_not_be_started() -> None:
    """A living deploy goes on to its end."""
    service = serving(CANARY)
    service.deploy("1.1.0")
    without_image(service, "1.0.0")
    service.deploy("1.2.0")
    said: list[str] = []

    def asks() -> None:
        with pytest.raises(UsageError, match="its image is not in") as refused:
            service.rollback("1.0.0")
        said.append(str(refused.value))

    service.when(lambda: service.weights().get(Slot.GREEN) == 50, asks)
    assert service.deploy("1.3.0").outcome is Outcome.SUCCEEDED
    assert said and service.head.run is not None and service.head.run.heard == ()


def test_an_image_that_goes_while_a_rollback_is_on_its_way_to_the_lease_ends_no_rollout() -> None:
    """It is looked for once more under the lease, before anything is ended."""
    service = half()
    taken = lease.held

    @contextmanager
    def late(*arguments: object, **options: object) -> Iterator[HeldLedger]:
        without_image(service, "1.0.0")
        with taken(*arguments, **options) as held:  # type: ignore[arg-type]  # as they came
            yield held

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "held", late)
        with pytest.raises(UsageError, match="its image is not in"):
            service.rollback("1.0.0")
    run = service.head.unfinished
    assert run is not None and run.abort is None and service.weights() == {Slot.BLUE: 50, Slot.GREEN: 50}


def test_what_serves_beside_a_canary_is_gone_back_to_without_its_image() -> None:
    """Its machines stand and have traffic: nothing is started."""
    service = half()
    without_image(service, "1.1.0")
    assert service.rollback("1.1.0").outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.1.0")}


def test_images_that_cannot_be_seen_keep_nobody_from_leaving_a_release() -> None:
    """Whether one is gone nobody can tell then: what is left is left, and the rest waits for the answer."""
    service = half()

    def silent(call: Call, moment: Moment) -> None:
        if call.operation == "images.find":
            raise Unavailable("no answer")

    service.cloud.on_call(silent)
    with pytest.raises(Unavailable):
        service.rollback("1.0.0")
    assert service.weights() == {Slot.BLUE: 0, Slot.GREEN: 100}
    service.cloud.on_call(None)
    assert service.rollback("1.0.0").outcome is Outcome.SUCCEEDED


def test_a_rollback_that_died_once_it_had_moved_traffic_goes_on_without_the_image() -> None:
    """Its machines serve by then."""
    service = serving()
    service.deploy("1.1.0")
    service.deploy("1.2.0")

    def dies(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            service.cloud.on_call(None)
            raise Died

    service.cloud.on_call(dies)
    with pytest.raises(Died):
        service.rollback("1.0.0")
    without_image(service, "1.0.0")
    service.time.advance(120)
    assert service.rollback("1.0.0").outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.0.0")}


def test_traffic_that_could_not_be_brought_back_is_not_moved_for_a_way_back_to_what_could_not_be_started() -> None:
    """Nor is a failed way back gone again for it."""
    service = half()
    without_image(service, "1.0.0")

    def locked(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule":
            raise Refused("somebody locked the rule")

    service.cloud.on_call(locked)
    asked = service.manager().request(service.context(), RequestKind.ABORT)
    assert asked.rollout is not None and asked.rollout.outcome is Outcome.ROLLBACK_FAILED
    service.cloud.on_call(None)
    with pytest.raises(UsageError, match="its image is not in"):
        service.rollback("1.0.0")
    assert service.weights() == {Slot.BLUE: 50, Slot.GREEN: 50}
    assert service.rollback().outcome is Outcome.SUCCEEDED


def test_a_second_rollback_does_not_go_back_twice() -> None:
    """Two people type it at once: the later one is told that it is under way."""
    service = serving()
    service.deploy("1.1.0")
    service.deploy("1.2.0")
    route = service.head.place
    assert route is not None

    def second() -> None:
        with pytest.raises(LeaseHeld):
            service.manager().rollback(living(service))

    service.then(0.1, second)
    manager = service.manager()
    assert manager.rollback(living(service)).outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.1.0")}


# ------------------------------------------------------------------------------------------- begun, recovered, retried


def test_what_was_begun_is_gone_on_with_from_any_other_machine() -> None:
    """``--no-wait`` leaves the run in the ledger, ``recover`` needs nothing else."""
    service = serving()
    service.until = Until.BEGUN
    outcome = service.deploy("1.1.0")
    assert (outcome.outcome, outcome.exit_code) == (Outcome.BEGUN, 0)
    assert service.head.lease is None
    service.until = Until.ASKED
    assert service.manager().recover(service.context()).outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.1.0")}
    assert "no rollout is under way" in service.manager().recover(service.context()).told


def test_a_failed_deploy_is_tried_again_without_its_spec() -> None:
    """With the settings that the ledger has."""
    service = serving(replace(SETTINGS.strategy, bake=5.0))
    service.cloud.behave(service.id("1.1.0"), launch_fails="no capacity")
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    service.cloud.behave(service.id("1.1.0"), launch_fails=None)
    outcome = service.manager().retry(service.context())
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None
    assert outcome.run.settings.strategy.bake == 5.0
    with pytest.raises(UsageError, match=r"the last deploy, of hello-1\.1\.0-[0-9a-f]+, succeeded"):
        service.manager().retry(service.context())


def test_a_request_that_cannot_be_read_ends_no_rollout() -> None:
    """It is told; the rollout goes on."""
    service = serving(CANARY)

    def spoil() -> None:
        run = service.head.unfinished
        assert run is not None
        service.cloud.store.put_if_absent(service.context(), f"hello/production/requests/{run.id}/000001.json", b"{")

    service.when(lambda: service.weights().get(Slot.GREEN) == 5, spoil)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED


def test_what_was_asked_is_told_and_kept() -> None:
    """By whom, and what came of it."""
    service = serving(CANARY)
    service.when(lambda: service.weights().get(Slot.GREEN) == 5, lambda: service.say(RequestKind.PAUSE, "lunch"))
    service.deploy("1.1.0")
    run = service.head.run
    assert run is not None
    assert [(each.request.kind, each.request.by, each.done) for each in run.heard] == [
        (RequestKind.PAUSE, "ann@desk", True)
    ]
    assert any(
        isinstance(event, Note) and event.text == "ann@desk asked: pause (lunch): traffic stays as it is"
        for event in service.recorder.events
    )


def test_what_lets_a_held_rollout_go_on_takes_no_more_away_than_it_says() -> None:
    """A hold of every release has no word of its own: which others go with it is said. What is paused is resumed then,
    and what waits for nobody recovered."""
    service = waiting_at_five_percent()
    service.manager().hold(service.context(), service.id("1.0.0"), "a colleague's")
    service.manager().request(service.context(), RequestKind.PAUSE)
    service.manager().hold(service.context(), None, "freeze")
    head = service.head
    assert head.run is not None
    told = ways_past_hold(head, head.run, service.time.now())
    assert f"`osvdeploy unhold hello/production` (which takes the hold of {service.id('1.0.0')} away, too)" in told
    assert "then `osvdeploy resume hello/production` lets it go on" in told
    begun = replace(head.run, paused=None, stage=Stage.BOOT)
    assert "then `osvdeploy recover hello/production` lets it go on" in ways_past_hold(head, begun, service.time.now())
    service.manager().unhold(service.context(), service.id("1.0.0"))
    service.publish("1.2.0")
    with pytest.raises(RolloutWaiting) as refused:
        service.manager().deploy(service.context(), service.release("1.2.0"))
    assert refused.value.hint == ways_past_hold(service.head, head.run, service.time.now()), "a deploy says the same"


def test_a_promotion_is_told_as_what_it_left_out() -> None:
    """Past a pause before any traffic nothing of a bake is left out, and a share that was cut short was not held."""
    service = serving(CANARY)
    service.until = Until.OVER
    service.when(lambda: service.head.unfinished is not None, lambda: service.say(RequestKind.PAUSE), every=0.1)
    service.then(60, lambda: service.say(RequestKind.PROMOTE))
    service.when(lambda: service.weights().get(Slot.GREEN) == 50, lambda: service.say(RequestKind.PROMOTE), every=5)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    run = service.head.run
    assert run is not None
    promoted = [heard.told for heard in run.heard if heard.request.kind is RequestKind.PROMOTE]
    assert promoted == ["it goes on", "it goes on without the rest of the bake"]
    left = [each.why for each in run.stages if each.stage is Stage.BAKE]
    assert left[:2] == ["5 % held for 2m", "50 % proved"]


def asking(kind: RequestKind) -> Callable[[Controlled], object]:
    return lambda service: service.manager().request(service.context(), kind)


UPWARDS: dict[str, Callable[[Controlled], object]] = {
    "deploy": lambda service: service.deploy("1.1.0"),
    "recover": lambda service: service.manager().recover(service.context()),
    "retry": lambda service: service.manager().retry(service.context()),
    **{kind.value: asking(kind) for kind in (RequestKind.APPROVE, RequestKind.PROMOTE, RequestKind.PROMOTE_FULL)},
}


@pytest.mark.parametrize("named", [True, False], ids=["this release", "every release"])
@pytest.mark.parametrize("command", UPWARDS)
def test_a_rollout_that_is_held_goes_no_further(command: str, named: bool) -> None:
    """A freeze that comes while nobody works on it. Traffic stays as it is, and whoever was to go on is told why."""
    service = waiting_at_five_percent()
    service.manager().hold(service.context(), service.id("1.1.0") if named else None, "freeze until Monday")
    with pytest.raises(ReleaseHeld, match=r"goes no further: .* is held since .*: freeze until Monday") as told:
        UPWARDS[command](service)
    where = "hello/production"
    unhold = f"osvdeploy unhold {where} --release {service.id('1.1.0')}" if named else f"osvdeploy unhold {where}"
    onward = f"`{unhold}`, then `osvdeploy approve {where}` lets it go on"
    assert told.value.hint == f"{onward}, `osvdeploy abort {where}` ends it"
    run = service.head.unfinished
    assert run is not None and run.heard == () and service.weights() == {Slot.BLUE: 95, Slot.GREEN: 5}
    service.manager().unhold(service.context())
    approved = service.manager().request(service.context(), RequestKind.APPROVE).rollout
    assert approved is not None and approved.outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("way", ["abort", "rollback"])
def test_no_hold_keeps_a_rollout_from_going_back(way: str) -> None:
    """Not that of the release, nor a freeze of everything."""
    service = waiting_at_five_percent()
    service.manager().hold(service.context(), None, "freeze until Monday")
    if way == "abort":
        service.manager().request(service.context(), RequestKind.ABORT)
    else:
        service.rollback()
    assert service.cloud.serving == {service.id("1.0.0")} and service.head.unfinished is None


def test_a_word_lets_a_rollout_go_on_that_its_own_hold_stopped() -> None:
    """That hold is over then, as where a deploy begins; a freeze of everything is not."""
    for retried in (False, True):
        service = waiting_at_five_percent()
        new = service.release("1.1.0")
        service.manager().hold(service.context(), None, "freeze")
        with pytest.raises(ReleaseHeld, match="every release is held"):
            service.manager().deploy(service.context(), new, forced=True)
        service.manager().unhold(service.context())
        service.manager().hold(service.context(), new.id, "not this one")
        if retried:
            ended = service.manager().retry(service.context(), forced=True)
        else:
            ended = service.manager().deploy(service.context(), new, forced=True)
        assert ended.outcome is Outcome.WAITING and service.head.holds == ()


def test_a_word_that_a_freeze_overrules_takes_no_hold_away() -> None:
    """Nothing went on, so nothing is over."""
    service = waiting_at_five_percent()
    new = service.release("1.1.0")
    for release in (new.id, None):
        service.manager().hold(service.context(), release, "freeze")
    with pytest.raises(ReleaseHeld):
        service.manager().deploy(service.context(), new, forced=True)
    with pytest.raises(ReleaseHeld):
        service.manager().retry(service.context(), forced=True)
    assert {hold.release for hold in service.head.holds} == {new.id, None}


def test_an_end_that_was_asked_for_is_heard_though_it_is_held() -> None:
    """Of a process that died before it heard that: whoever recovers brings traffic back."""
    service = waiting_at_five_percent()
    service.say(RequestKind.ABORT, "it is bad")
    service.manager().hold(service.context(), None, "freeze")
    assert service.manager().recover(service.context()).outcome is Outcome.ABORTED
    assert service.cloud.serving == {service.id("1.0.0")}


def test_a_rollback_that_died_goes_on_through_a_freeze() -> None:
    """It is a way back."""
    service = Controlled()
    for version in ("1.0.0", "1.1.0"):
        service.deploy(version)
    service.until = Until.BEGUN
    assert service.rollback().outcome is Outcome.BEGUN
    service.until = Until.ASKED
    service.manager().hold(service.context(), None, "freeze")
    assert service.manager().recover(service.context()).outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.0.0")}


def test_what_is_held_may_be_paused_and_is_not_resumed() -> None:
    service = waiting_at_five_percent()
    service.manager().hold(service.context(), None, "freeze")
    assert service.manager().request(service.context(), RequestKind.PAUSE, "wait").done
    with pytest.raises(ReleaseHeld, match="goes no further"):
        service.manager().request(service.context(), RequestKind.RESUME)


def test_a_release_that_is_held_ends_no_rollout_to_be_refused_then() -> None:
    """One that would supersede it, and may not begin."""
    service = waiting_at_five_percent(replace(CANARY, concurrent=Concurrent.SUPERSEDE))
    service.manager().hold(service.context(), service.id("1.2.0"), "not this one")
    with pytest.raises(ReleaseHeld):
        service.deploy("1.2.0")
    assert service.head.unfinished is not None and service.weights()[Slot.GREEN] == 5


def waiting_at_five_percent(strategy: Strategy = CANARY) -> Controlled:
    """A canary that waits for a person once its first share has baked; nobody works on it."""
    service = Controlled()
    service.deploy("1.0.0")
    first, *others = strategy.steps
    service.settings = replace(
        service.settings, strategy=replace(strategy, steps=(replace(first, approve=True), *others))
    )
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    return service


def test_a_pinned_release_is_kept_until_it_is_unpinned() -> None:
    """In the ledger, for every gc to see."""
    service = serving()
    service.manager().pin(service.context(), service.id("1.0.0"))
    service.manager().pin(service.context(), service.id("1.0.0"))
    assert service.head.pins == (service.id("1.0.0"),)
    service.manager().pin(service.context(), service.id("1.0.0"), pinned=False)
    assert not service.head.pins


def test_a_share_that_was_left_is_not_proved_by_those_who_had_the_rest() -> None:
    """With nine in ten requests stable's before, ten answers of its own in a row come by chance: the candidate's
    machines are not taken away before that has lasted."""
    service = serving(replace(CANARY, steps=(TrafficStep(5, 10.0, approve=True), TrafficStep(100))))
    service.deploy("1.1.0")
    began = service.time.monotonic()
    gone: list[float] = []

    def look() -> None:
        if service.id("1.1.0") not in service.cloud.running and not gone:
            gone.append(service.time.monotonic() - began)
        elif not gone:
            service.then(0.5, look)

    service.then(0.5, look)
    asked = service.manager().request(service.context(), RequestKind.ABORT)
    assert asked.rollout is not None and asked.rollout.outcome is Outcome.ABORTED
    assert gone and gone[0] >= 30.0


def test_the_last_share_is_proved_by_more_than_a_run_of_luck() -> None:
    """Half of all requests were the candidate's already."""
    service = serving(replace(CANARY, steps=(TrafficStep(90), TrafficStep(100)), bake=0.0, keep_warm=0.0))
    began: list[float] = []
    service.when(
        lambda: service.weights().get(Slot.GREEN) == 100, lambda: began.append(service.time.monotonic()), every=0.1
    )
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    run = service.head.run
    assert run is not None
    assert (run.stages[-1].entered - NOW).total_seconds() - began[0] >= 29.0


def test_each_share_of_the_traffic_is_kept_with_its_time() -> None:
    """Before it is given: an abort under 50 % tells 5, 50 and 0, and when."""
    service = serving(CANARY)
    service.when(lambda: service.weights().get(Slot.GREEN) == 50, lambda: service.say(RequestKind.ABORT))
    service.deploy("1.1.0")
    run = service.head.run
    assert run is not None
    assert [move.weight for move in run.moves] == [5, 50, 0]
    first, second, back = (move.at for move in run.moves)
    assert run.shifted == first
    assert (second - first).total_seconds() >= CANARY.steps[0].bake
    assert second < back == next(each.entered for each in run.stages if each.stage is Stage.REVERT)


# -------------------------------------------------------------------------------------------------------------- waited


class Replayed:
    """A rollout that has been, as others see it who look at its ledger while it goes on."""

    def __init__(self, service: Controlled, monkeypatch: pytest.MonkeyPatch) -> None:
        run = service.head.run
        assert run is not None
        self.run, self.service, self.monkeypatch = run, service, monkeypatch
        self.heads = [head for head in service.ledger.heads(service.context()) if head.run and head.run.id == run.id]
        self.began = min(head.written for head in self.heads)

    def seconds(self, told: Callable[[Run], bool]) -> float:
        """When the ledger first had it."""
        moments = [head.written for head in self.heads if head.run is not None and told(head.run)]
        return (min(moments) - self.began).total_seconds()

    def entered(self, stage: Stage) -> float:
        """When the ledger had it that the run was in that stage, or had passed it."""
        return self.seconds(lambda run: stage in (run.stage, *(record.stage for record in run.stages)))

    def waited(self, milestone: api.Milestone, since: float = 0.0) -> tuple[api.Waited, float]:
        """What somebody is told who begins to wait at that second, and at which."""
        clock = VirtualClock(self.began + timedelta(seconds=since))
        ctx = Context(clock=clock)

        def head(ctx: Context, service: object) -> Head:
            return next(head for head in self.heads if head.written <= ctx.now())

        self.monkeypatch.setattr(wiring, "head", head)
        self.monkeypatch.setattr(wiring, "open_ledger", lambda _: self.service.ledger)
        found = api.wait(ctx, Named("hello", "production", "memory"), milestone)
        return found, (ctx.now() - self.began).total_seconds()


WHILE = timedelta(seconds=30)
FORWARD = ("prepare", "boot", "verify", "shift", "bake", "traffic", "clean-up")


def test_whoever_waits_for_a_stage_hears_of_it_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short it was, and also for the traffic: nothing bakes here, and old machines take their time to go."""
    service = serving(replace(SETTINGS.strategy, keep_warm=0.0))

    def slow(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "groups.delete" else None
        if run is not None and service.time.now() < run.entered + WHILE:
            raise Unavailable("it is busy")

    service.cloud.on_call(slow)
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    replayed = Replayed(service, monkeypatch)
    moments = {name: replayed.entered(Stage.BAKE if name == "traffic" else Stage(name)) for name in FORWARD}
    assert replayed.seconds(lambda run: run.stage is not Stage.BAKE and run.shifted is not None) - moments["bake"] < 2.0
    for name, moment in moments.items():
        for phase in range(20):
            found, when = replayed.waited(api.Milestone(name), since=phase / 10)
            assert found.reached and found.exit_code == 0 and found.rollout is None, name
            assert when <= max(moment, phase / 10) + 2.0, name


def test_a_share_is_not_the_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is, once that is proved, and not when the first share bakes."""
    service = serving(CANARY)
    service.deploy("1.1.0")
    replayed = Replayed(service, monkeypatch)
    proved = replayed.seconds(lambda run: run.stage is Stage.BAKE and run.step == 2)
    found, when = replayed.waited(api.Milestone.TRAFFIC)
    assert found.reached and found.rollout is None and proved <= when <= proved + 2.0


def test_traffic_that_goes_back_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks while it goes back is told of the end, with its own code."""
    service = serving(replace(SETTINGS.strategy, bake=300.0))
    service.cloud.behave(service.id("1.1.0"), sick_after=100.0)
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    replayed = Replayed(service, monkeypatch)
    assert replayed.waited(api.Milestone.TRAFFIC)[0].exit_code == 0
    back = replayed.entered(Stage.REVERT)
    found, when = replayed.waited(api.Milestone.TRAFFIC, since=back)
    assert not found.reached and found.exit_code == 3 and when >= replayed.entered(Stage.DONE)


def test_the_way_back_can_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is gone, and by whoever looks when it is over; where there was none, it never came, and that is no 0."""
    service = serving()
    service.cloud.behave(service.id("1.1.0"), sick_after=20.0)
    service.settings = replace(service.settings, strategy=replace(SETTINGS.strategy, bake=300.0))
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    replayed = Replayed(service, monkeypatch)
    back, over = replayed.entered(Stage.REVERT), replayed.entered(Stage.DONE)
    for since in (0.0, back + 0.1, over + 1.0):
        found, when = replayed.waited(api.Milestone.REVERT, since)
        assert found.reached and found.exit_code == 0 and when <= max(back, since) + 2.0
        assert replayed.waited(api.Milestone.CLEAN_UP, since)[0].exit_code == 0
    assert replayed.waited(api.Milestone.DONE)[0].exit_code == 3
    # It baked, and then it ended otherwise: whoever goes on by this is not to take that for a release that bakes.
    ended = replayed.waited(api.Milestone.BAKE, over + 1.0)[0]
    assert ended.reached and ended.exit_code == 3
    service = serving()
    service.deploy("1.1.0")
    found = Replayed(service, monkeypatch).waited(api.Milestone.REVERT)[0]
    assert not found.reached and found.exit_code == 1 and found.rollout is not None


def test_an_approval_that_was_given_between_two_looks_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that was given before anybody began to wait is not the one that they wait for."""
    steps = (TrafficStep(5, 60.0, approve=True), TrafficStep(100))
    service = serving(replace(CANARY, steps=steps, approve=True))
    service.deploy("1.1.0")
    service.manager().request(service.context(), RequestKind.APPROVE)
    service.manager().request(service.context(), RequestKind.APPROVE)
    replayed = Replayed(service, monkeypatch)
    given = [replayed.seconds(lambda run, n=n: len(run.approvals) > n) for n in range(2)]  # type: ignore[misc]
    found, when = replayed.waited(api.Milestone.APPROVAL)
    assert found.reached and when <= given[0] + 2.0
    found, when = replayed.waited(api.Milestone.APPROVAL, since=given[0] + 0.1)
    assert found.reached and found.rollout is None and given[1] - 2.0 <= when <= given[1] + 2.0


def test_every_name_that_can_be_waited_for_is_a_word_of_the_command() -> None:
    """And each stage is one of them."""
    [option] = [each for each in control.wait.params if each.name == "milestone"]
    assert isinstance(option.type, click.Choice) and list(option.type.choices) == [*api.Milestone]
    assert {*Stage} <= {*api.Milestone}

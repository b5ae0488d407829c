"""Where probes leave from: where none does, the place's own counts are the proof; where none arrives, that is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from osvdeploy.api import from_cloud
from osvdeploy.api.from_cloud import Whereabouts
from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.context import Context
from osvdeploy.errors import Unavailable, UsageError
from osvdeploy.rollout import lease
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Outcome, RequestKind, Run, Stage, Until
from osvdeploy.rollout.observe import judged
from osvdeploy.rollout.releases import Health, ProbePlace, Strategy, StrategyKind, TrafficStep
from tests.rollout.made import SETTINGS
from tests.rollout.service import Service
from tests.rollout.unledgered import Died

pytestmark = pytest.mark.whole

COUNTED = replace(SETTINGS.health, probe_from=ProbePlace.REQUESTS)
CANARY = Strategy(StrategyKind.CANARY, (TrafficStep(10, 30.0), TrafficStep(100)), bake=0.0, keep_warm=3600.0)


class Elsewhere(Service):
    """A service whose balancer cannot be reached from here; its clients reach it, and come each ten seconds."""

    def __init__(self, *, clients: bool = True, health: Health = COUNTED, **settings: Any) -> None:
        super().__init__(health=health, **settings)
        self.clients = clients
        self.asked: list[ProbeRequest] = []
        self.came = 0.0
        self.cloud.on_call(self.come)

    def come(self, call: Call, moment: Moment) -> None:
        """Clients come between the calls of whoever is at work."""
        if not self.clients or call.operation.startswith(("prober.", "store.")):
            return
        while self.came < self.clock.monotonic():
            self.came += 10
            head = self.ledger.head(Context(clock=self.clock))
            for _ in range(10 if head is not None and head.place is not None else 0):
                assert head is not None
                assert head.place is not None
                self.cloud.prober.probe(Context(clock=self.clock), ProbeRequest(head.place.base_url))

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        self.asked.append(request)
        return ProbeAnswer(None, error="10.0.0.1:80: connection timed out")

    def manager(self) -> RolloutManager:
        return RolloutManager(
            self.ledger, self.cloud.cloud, self, self.limits, hooks=self.cloud.hooks, notifier=self.cloud.notifier
        )


def last(service: Service) -> Run:
    run = service.head.run
    assert run is not None
    return run


def serving(service: Service) -> set[str]:
    return {str(each) for each in service.cloud.serving}


def deployed(**settings: Any) -> Elsewhere:
    made = Elsewhere(**settings)
    assert made.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    return made


def test_where_nothing_is_asked_requests_that_are_counted_prove_the_switch() -> None:
    here = deployed()
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    assert (here.asked, serving(here)) == ([], {here.id("2.0.0")})
    told = {gate.gate: gate.seen for gate in last(here).gates}
    assert "the weaker proof" in told["preview"]
    assert "the weaker proof" in told["traffic"]
    assert ", 0 to the other slot" in told["traffic"]


def test_a_share_is_proved_by_requests_to_the_candidate() -> None:
    here = deployed(strategy=CANARY)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    first, second = [gate.seen for gate in last(here).gates if gate.gate == "traffic"]
    assert not first.startswith("0 requests")
    assert ", 0 to the other slot" in second


def test_each_switch_is_proved_by_what_was_counted_after_it() -> None:
    """And not by what was read of the one before, however soon the next one comes."""
    here = deployed(strategy=replace(CANARY, steps=(TrafficStep(10), TrafficStep(50), TrafficStep(100))))
    here.cloud.metrics.tell(here.id("2.0.0"), "RequestCount", lambda at: 10.0)
    here.cloud.metrics.tell(here.id("1.0.0"), "RequestCount", lambda at: None)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    run = last(here)
    proofs = [gate.at for gate in run.gates if gate.gate == "traffic"]
    assert [(proved - move.at).total_seconds() >= 180 for proved, move in zip(proofs, run.moves, strict=True)] == [
        True, True, True,
    ]  # fmt: skip


def test_a_switch_of_which_nobody_takes_notice_is_told_as_the_rules_word_alone() -> None:
    here = deployed(clients=False)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    (told,) = [gate.seen for gate in last(here).gates if gate.gate == "traffic"]
    assert told.startswith("no requests in 2 minutes, on either side")


def test_a_switch_that_is_not_in_force_is_not_proved() -> None:
    """Requests that go on coming to what was there before fail it."""
    here = deployed()
    here.cloud.metrics.tell(here.id("1.0.0"), "RequestCount", lambda at: 100.0)
    here.cloud.metrics.tell(here.id("2.0.0"), "RequestCount", lambda at: 1.0)
    ended = here.deploy("2.0.0")
    assert ended.outcome is not Outcome.SUCCEEDED
    assert "was not proved" in ended.told


def test_counts_that_cannot_be_read_prove_nothing() -> None:
    here = deployed()
    here.cloud.on_call(nothing_is_counted)
    assert here.deploy("2.0.0").outcome is not Outcome.SUCCEEDED
    assert "nothing is counted yet" in last(here).reason


def nothing_is_counted(call: Call, moment: Moment) -> None:
    if call.operation == "metrics.read":
        raise Unavailable("throttled")


def test_counts_that_cannot_be_read_keep_nobody_from_going_back() -> None:
    """The rule and the balancer's own checks say that it is done; that it is the weakest proof is said."""
    here = deployed()
    here.deploy("2.0.0")
    here.cloud.on_call(nothing_is_counted)
    assert here.rollback().outcome is Outcome.SUCCEEDED
    assert serving(here) == {here.id("1.0.0")}
    run = last(here)
    assert [move.weight for move in run.moves] == [100] and "weakest proof" in run.gates[-1].seen


def test_a_deploy_whose_counts_cannot_be_read_is_back_where_it_was() -> None:
    """Which is no failure of the way back."""
    here = deployed()
    here.cloud.on_call(nothing_is_counted)
    assert here.deploy("2.0.0").outcome is Outcome.ROLLED_BACK
    assert serving(here) == {here.id("1.0.0")}


def test_a_rollback_moves_traffic_at_once_and_is_proved_by_counts() -> None:
    here = deployed()
    here.deploy("2.0.0")
    assert here.rollback().outcome is Outcome.SUCCEEDED
    assert serving(here) == {here.id("1.0.0")}
    run = last(here)
    assert (run.moves[0].at - run.started).total_seconds() < 10


def test_a_release_that_falls_sick_is_reverted_and_that_is_proved_by_counts() -> None:
    here = deployed(strategy=replace(SETTINGS.strategy, bake=300.0))

    def sicken(call: Call, moment: Moment) -> None:
        here.come(call, moment)
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            here.cloud.behave(here.id("2.0.0"), answers=(500,), health=500)

    here.cloud.on_call(sicken)
    assert here.deploy("2.0.0").outcome is Outcome.ROLLED_BACK
    assert serving(here) == {here.id("1.0.0")}
    assert Stage.REVERT in [record.stage for record in last(here).stages]


def test_what_a_release_leaves_behind_is_kept_where_nothing_is_asked_too() -> None:
    """Whose answers nobody can have; the balancer's word of each machine, and their consoles, anybody can."""
    here = deployed()
    here.cloud.behave(here.id("2.0.0"), never_healthy=True)
    assert here.deploy("2.0.0").outcome is Outcome.ROLLED_BACK
    kept = {each.source: each.text for each in last(here).evidence}
    assert "unhealthy" in kept["targets of slot green"] or "initial" in kept["targets of slot green"], kept
    assert not here.asked and any(source.startswith("console of ") for source in kept)


def test_probes_that_reach_nobody_name_what_can_be_declared() -> None:
    here = Elsewhere(health=SETTINGS.health)
    ended = here.deploy("1.0.0")
    assert ended.outcome is Outcome.FAILED
    assert "no probe reached anybody" in ended.told
    assert "`probe-from`" in ended.told


def test_a_service_that_answers_badly_is_not_told_to_be_out_of_reach() -> None:
    here = Service()
    here.cloud.behave(here.id("1.0.0"), answers=(500,), health=200)
    assert "probe-from" not in here.deploy("1.0.0").told


@pytest.mark.parametrize("command", [(), ("bastion-probe",)])
def test_each_probe_is_sent_by_the_command_that_is_declared(command: tuple[str, ...]) -> None:
    place = ProbePlace.COMMAND if command else ProbePlace.HERE
    here = Elsewhere(health=replace(SETTINGS.health, probe_from=place, probe_command=command))
    here.deploy("1.0.0")
    assert {request.via for request in here.asked} == {command}


def test_a_rollback_asks_from_where_was_declared_last() -> None:
    here = Service()
    here.deploy("1.0.0")
    here.settings = replace(
        here.settings, health=replace(SETTINGS.health, probe_from=ProbePlace.COMMAND, probe_command=("bastion",))
    )
    here.deploy("2.0.0")
    here.rollback()
    assert last(here).settings.health.probe_command == ("bastion",)


def test_a_command_that_is_not_there_is_refused_before_anything_moves() -> None:
    here = Service(health=replace(SETTINGS.health, probe_from=ProbePlace.COMMAND, probe_command=("bastion",)))
    here.cloud.hooks.missing.add("bastion")
    here.publish("1.0.0")
    with pytest.raises(UsageError, match=r"health\.probe-from: bastion: is not there"):
        here.manager().preflight(here.context(), here.release("1.0.0"))


# ------------------------------------------------------------------------------------------------------------- tcp


def test_a_service_that_speaks_no_http_is_proved_by_connections() -> None:
    """That are held; of no release, so that only time can tell."""
    health = replace(SETTINGS.health, kind="tcp", version_header=None)
    here = Service(health=health)
    assert here.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED
    (told,) = [gate.seen for gate in last(here).gates if gate.gate == "traffic"]
    assert "a connection that is held (no version header: the weaker proof)" in told
    assert here.rollback().outcome is Outcome.SUCCEEDED
    assert serving(here) == {here.id("1.0.0")}


# ------------------------------------------------------------------------------ by the word of whoever goes back


class Unreached(Elsewhere):
    """Declared to be asked from ``here``, which a pipeline's machine can; whoever is on call sits somewhere else."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(health=SETTINGS.health, **settings)
        self.on_call = False

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        return super().probe(ctx, request) if self.on_call else self.cloud.prober.probe(ctx, request)

    def manager(self, word: ProbePlace | None = None) -> RolloutManager:
        manager = super().manager()
        manager.driver.probe_from = word
        return manager

    def goes_back(self, word: ProbePlace | None = None) -> Rollout:
        return self.manager(word).rollback(self.context())


@pytest.fixture
def unreached() -> Unreached:
    """2.0.0 serves, 1.0.0 stands warm, and nobody on call reaches the balancer."""
    made = Unreached()
    for version in ("1.0.0", "2.0.0"):
        assert made.deploy(version).outcome is Outcome.SUCCEEDED
    made.on_call = True
    return made


def test_a_rollback_that_reaches_nobody_names_the_way_that_asks_nobody(unreached: Unreached) -> None:
    ended = unreached.goes_back()
    assert ended.outcome is not Outcome.SUCCEEDED and serving(unreached) == {unreached.id("2.0.0")}
    assert "`osvdeploy rollback --probe-from requests`" in ended.told


def test_a_rollback_goes_by_counts_where_whoever_goes_back_says_so(unreached: Unreached) -> None:
    """For this once: the next one asks from where is declared."""
    ended = unreached.goes_back(ProbePlace.REQUESTS)
    assert ended.outcome is Outcome.SUCCEEDED and not unreached.asked
    assert serving(unreached) == {unreached.id("1.0.0")}
    assert "the weaker proof" in last(unreached).gates[-1].seen
    unreached.on_call = False
    assert unreached.manager().rollback(unreached.context(), unreached.release("2.0.0")).outcome is Outcome.SUCCEEDED
    assert last(unreached).settings.health == SETTINGS.health


def test_whoever_goes_on_with_such_a_rollback_need_not_say_it_again(unreached: Unreached) -> None:
    def dies(call: Call, moment: Moment) -> None:
        unreached.come(call, moment)
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            raise Died

    unreached.cloud.on_call(dies)
    with pytest.raises(Died):
        unreached.goes_back(ProbePlace.REQUESTS)
    unreached.cloud.on_call(unreached.come)
    unreached.clock.advance(120)
    assert unreached.manager().recover(unreached.context()).outcome is Outcome.SUCCEEDED
    assert not unreached.asked and serving(unreached) == {unreached.id("1.0.0")}


def test_a_deploy_whose_process_is_dead_is_given_up_by_counts(unreached: Unreached) -> None:
    """By a rollback and by an abort alike; what it declares is what the release goes by when it comes again."""
    for word in ("rollback", "abort"):
        unreached.on_call = False
        unreached.settings = replace(unreached.settings, strategy=replace(CANARY, approve=False))
        dies_while_it_bakes(unreached, "3.0.0")
        unreached.clock.advance(120)
        unreached.on_call = True
        manager = unreached.manager(ProbePlace.REQUESTS)
        if word == "rollback":
            ended: Rollout | None = manager.rollback(unreached.context())
        else:
            ended = manager.request(unreached.context(), RequestKind.ABORT).rollout
        assert ended is not None and ended.run is not None and ended.run.verdict is Outcome.ABORTED, ended
        assert serving(unreached) == {unreached.id("2.0.0")} and not unreached.asked
        unreached.manager().unhold(unreached.context())
    known = unreached.ledger.release(unreached.context(), unreached.release("3.0.0").id)
    assert known is not None and known.settings.health == SETTINGS.health


def dies_while_it_bakes(service: Unreached, version: str) -> None:
    def hook(call: Call, moment: Moment) -> None:
        service.come(call, moment)
        head = service.ledger.head(service.context()) if call.operation == "store.put" else None
        run = head.unfinished if head is not None else None
        if moment is Moment.AFTER and run is not None and run.stage is Stage.BAKE:
            service.cloud.on_call(service.come)
            raise Died

    service.cloud.on_call(hook)
    with pytest.raises(Died):
        service.deploy(version)


def test_where_no_requests_are_counted_that_is_refused_before_anything_moves() -> None:
    here = Service(listener="pointer-1", priority=0, preview_header="")
    for version in ("1.0.0", "2.0.0"):
        assert here.deploy(version).outcome is Outcome.SUCCEEDED
    manager = RolloutManager(
        here.ledger, here.cloud.cloud, here.cloud.prober, here.limits, probe_from=ProbePlace.REQUESTS
    )
    with pytest.raises(UsageError, match="requests are not counted behind pointer-1"):
        manager.rollback(here.context())
    assert serving(here) == {here.id("2.0.0")} and here.head.unfinished is None


@pytest.mark.parametrize("way", ["abort", "rollback"])
def test_what_could_not_be_proved_back_is_proved_and_no_further_release_is_gone_back_to(way: str) -> None:
    """An abort of a dead rollout, or of a rollback, from where nobody is reached: traffic is back and nobody knows it.
    Whoever then does as the reason says is where the abort was to lead."""
    unreached = Unreached()
    for version in ("1.0.0", "2.0.0"):
        assert unreached.deploy(version).outcome is Outcome.SUCCEEDED
    if way == "abort":
        unreached.settings = replace(unreached.settings, strategy=CANARY)
        dies_while_it_bakes(unreached, "3.0.0")
    else:

        def dies(call: Call, moment: Moment) -> None:
            unreached.come(call, moment)
            if call.operation == "router.modify_rule" and moment is Moment.AFTER:
                unreached.cloud.on_call(unreached.come)
                raise Died

        unreached.cloud.on_call(dies)
        with pytest.raises(Died):
            unreached.manager().rollback(unreached.context())
    unreached.clock.advance(120)
    unreached.on_call = True
    ended = unreached.manager().request(unreached.context(), RequestKind.ABORT).rollout
    assert ended is not None and ended.outcome is Outcome.ROLLBACK_FAILED
    assert "`osvdeploy rollback --probe-from requests`" in ended.told and serving(unreached) == {unreached.id("2.0.0")}
    again = unreached.goes_back(ProbePlace.REQUESTS)
    assert again.outcome is Outcome.SUCCEEDED and serving(unreached) == {unreached.id("2.0.0")}, again.told


def test_no_living_deploy_is_ended_for_a_rollback_that_is_refused() -> None:
    here = Service(listener="pointer-1", priority=0, preview_header="")
    for version in ("1.0.0", "2.0.0"):
        assert here.deploy(version).outcome is Outcome.SUCCEEDED
    with lease.held(here.context(), here.ledger, "somebody is at work") as held:
        run = held.head.run
        assert run is not None
        going = replace(run, id="another", candidate=here.id("3.0.0"), stage=Stage.BOOT, verdict=None)
        held.save(here.context(), "deploy", run=going)
        manager = here.manager()
        manager.driver.probe_from = ProbePlace.REQUESTS
        with pytest.raises(UsageError, match="requests are not counted behind"):
            manager.rollback(here.context())
        assert here.ledger.requests(here.context(), "another", 0) == []


def test_going_back_by_tags_a_second_time_is_proved_by_counts_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process died right behind the switch, and nobody has written down when that was."""
    there = Unreached()
    for version in ("1.0.0", "2.0.0"):
        assert there.deploy(version).outcome is Outcome.SUCCEEDED
    there.on_call = True
    where = Whereabouts("hello", "production", "memory", "nowhere-1", ledger="out of reach")

    def back() -> from_cloud.WentBack:
        return from_cloud.go_back(there.context(), where, there.cloud.cloud, there, probe_from="requests")

    def dies(call: Call, moment: Moment) -> None:
        there.come(call, moment)
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            there.cloud.on_call(there.come)
            raise Died

    there.cloud.on_call(dies)
    with pytest.raises(Died):
        back()
    began = there.clock.monotonic()
    ended = back().rollout
    assert ended.outcome is Outcome.SUCCEEDED and there.clock.monotonic() - began < 600
    assert ended.run is not None
    assert "could not be counted" not in str(ended.run.stages) + str(ended.run.gates)


def test_probes_name_a_host_that_a_pattern_of_hosts_matches() -> None:
    """A program that looks at the name would refuse the pattern itself."""
    here = Service(host="*.acme.example")
    names: set[str] = set()
    asks = here.cloud.prober.probe

    class Noting:
        def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
            names.add(request.headers["Host"])
            return asks(ctx, request)

    here.publish("1.0.0")
    manager = RolloutManager(here.ledger, here.cloud.cloud, Noting())
    assert manager.deploy(here.context(), here.release("1.0.0")).outcome is Outcome.SUCCEEDED
    assert names == {"osvdeploy.acme.example"}


# --------------------------------------------------------------------------------- whoever goes on from elsewhere

GATED = Strategy(StrategyKind.CANARY, (TrafficStep(20, 30.0, approve=True), TrafficStep(100)), 30.0, 3600.0)


class Nobody:
    """Reaches no balancer."""

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        return ProbeAnswer(None, error="10.0.0.1:80: connection timed out")


def from_a_laptop(service: Service) -> RolloutManager:
    return RolloutManager(service.ledger, service.cloud.cloud, Nobody())


def waiting(strategy: Strategy = GATED) -> Service:
    """A canary that waits for approval; whoever deployed it has gone."""
    here = Service(strategy=strategy)
    here.deploy("1.0.0")
    assert here.deploy("2.0.0").outcome is Outcome.WAITING
    return here


def test_whoever_approves_where_the_balancer_is_out_of_reach_is_told_and_the_release_is_not_failed() -> None:
    """The word counts, and is heard by whoever goes on from where it is in reach."""
    here = waiting()
    with pytest.raises(UsageError, match="it goes on; but it cannot go on from here: no probe of http") as told:
        from_a_laptop(here).request(here.context(), RequestKind.APPROVE)
    assert "connection timed out" in str(told.value) and "osvdeploy recover" in str(told.value.hint)
    with pytest.raises(UsageError, match="no probe of http"):
        from_a_laptop(here).recover(here.context())
    run = here.head.run
    assert run is not None and run.verdict is None and len(run.approvals) == 1 and here.head.lease is None
    assert here.cloud.serving == {here.id("1.0.0"), here.id("2.0.0")}
    assert here.manager().recover(here.context()).outcome is Outcome.SUCCEEDED


def test_a_candidate_that_answers_nobody_is_gone_back_from_by_whoever_recovers_it() -> None:
    """It has all the traffic: that no probe is answered says nothing of where it is asked from."""
    here = Service(strategy=replace(SETTINGS.strategy, bake=600.0))
    here.deploy("1.0.0")

    def die(call: Call, moment: Moment) -> None:
        run = here.head.run if call.operation == "store.put" and moment is Moment.AFTER else None
        if run is not None and run.stage is Stage.BAKE and run.candidate == here.id("2.0.0"):
            here.cloud.on_call(None)
            raise Died

    here.cloud.on_call(die)
    with pytest.raises(Died):
        here.deploy("2.0.0")
    here.cloud.behave(here.id("2.0.0"), answers=(500,), health=500)
    here.clock.advance(120)
    ended = from_a_laptop(here).recover(here.context())
    assert ended.outcome is not Outcome.SUCCEEDED and here.cloud.serving == {here.id("1.0.0")}


def test_a_fix_goes_on_where_what_serves_answers_nobody() -> None:
    """No probe is answered, since the machines that have the traffic are down: they are what it is to mend."""
    here = Service()
    here.deploy("1.0.0")
    here.settings = replace(here.settings, strategy=replace(SETTINGS.strategy, approve=True))
    assert here.deploy("2.0.0").outcome is Outcome.WAITING
    here.cloud.behave(here.id("1.0.0"), answers=(500,), health=500)
    here.clock.advance(120)
    ask = here.cloud.prober.probe

    class Reset:
        def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
            answer = ask(ctx, request)
            return ProbeAnswer(None, error="connection reset") if answer.status == 500 else answer

    manager = RolloutManager(here.ledger, here.cloud.cloud, Reset())
    asked = manager.request(here.context(), RequestKind.APPROVE)
    assert asked.rollout is not None and asked.rollout.outcome is Outcome.SUCCEEDED


def test_an_abort_by_the_library_goes_to_its_end_however_far_it_was_to_go() -> None:
    here = waiting()
    only = RolloutManager(here.ledger, here.cloud.cloud, here.cloud.prober, until=Until.BEGUN)
    asked = only.request(here.context(), RequestKind.ABORT)
    assert asked.rollout is not None and here.cloud.serving == {here.id("1.0.0")}


def test_whoever_aborts_where_the_balancer_is_out_of_reach_is_not_kept_from_it() -> None:
    here = waiting()
    asked = from_a_laptop(here).request(here.context(), RequestKind.ABORT)
    assert asked.rollout is not None and here.cloud.serving == {here.id("1.0.0")}


def test_an_answer_is_told_on_one_line() -> None:
    """Whatever it is made of: it stands in reasons, gates and events. One without words is its status."""
    page = b"<html>\n<head><title>503 Service\nTemporarily Unavailable</title></head>\n</html>"
    told = judged(ProbeAnswer(503, {}, page), "x-release").told
    assert told == "503 without the header x-release: 503 Service Temporarily Unavailable"
    assert judged(ProbeAnswer(500, {}, b"no\npool\n"), None).told == "500: no pool"
    assert judged(ProbeAnswer(502, {}, b"<html>\n<hr>\n</html>"), None).told == "502"

"""Two at work on one service: one that is stopped, for longer than its lease, between its look at the clock and a call,
while another takes over; and ones that begin at once.

Nobody can fence what is sent late on AWS. What is held: it is one call, of its own release; whoever took over reads the
rules again and puts them right, and what comes later still is told by `drift` and cured by it. On Google a change of a
URL map is refused; a forwarding rule has nothing that could refuse it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.cloud.interfaces import Scaling
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.context import Clock, Context, ProcessIdentity
from osvdeploy.errors import LeaseHeld, LeaseLost, OsvDeployError
from osvdeploy.rollout import lease
from osvdeploy.rollout.drifting import DriftKind
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.model import Outcome, RequestKind, Stage
from osvdeploy.rollout.releases import Strategy
from osvdeploy.rollout.scaling import suspended
from osvdeploy.sandbox import core, wire
from osvdeploy.sandbox.wire import ApiRequest
from tests.faults.branches import Branches
from tests.faults.matrix import Scenario, Site, Watch
from tests.faults.scenarios import ASKING, AT_ONCE, CANARY, OTHER_SITES, SITES, adopt_first, scaled
from tests.faults.test_stories import Story
from tests.rollout.made import SETTINGS, UNHURRIED
from tests.rollout.test_drifting import looked
from tests.world import Kept

pytestmark = pytest.mark.slow

BAKED = replace(SETTINGS.strategy, bake=20.0)

EVERY = int(os.environ.get("OSVDEPLOY_STOPS_EVERY", "40"))
"""Of the calls that only look, every which is stopped before; `make soak` tries all."""

STOPS = int(os.environ.get("OSVDEPLOY_STILL", "10"))
"""Calls after which a process is tried standing still, at most twice as many."""

LATE = int(os.environ.get("OSVDEPLOY_LATE", "2"))
"""Moments of the other one's command at which a late call is tried, beside its end."""


class Skewed:
    """A clock that is set wrong; it goes as fast as others do."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock, self._off = clock, timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self._clock.now() + self._off

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def wait(self, seconds: float, cancelled: Any) -> None:
        self._clock.wait(seconds, cancelled)


Command = Callable[[Story, Context], Rollout]


def _rollback(story: Story, ctx: Context) -> Rollout:
    return story.manager().rollback(ctx)


def _recover(story: Story, ctx: Context) -> Rollout:
    return story.manager().recover(ctx)


def _deploy_another(story: Story, ctx: Context) -> Rollout:
    return story.manager().deploy(ctx, story.release("1.2.0"))


def begun(strategy: Strategy) -> Story:
    """1.0.0 serves, 1.1.0 is to be deployed, 1.2.0 is there too."""
    story = Story("1.0.0", strategy=strategy)
    story.limits = UNHURRIED
    for version in ("1.1.0", "1.2.0"):
        story.publish(version)
    return story


@dataclass
class Stopped:
    """The process that deploys 1.1.0, stopped before each of these calls while another one runs a command to its end:
    each time in a branch of its own."""

    story: Story
    at: Container[int]
    command: Command
    skew: float = 0.0
    branches: Branches = field(default_factory=Branches)
    seen: int = 0
    stopped: int = 0
    """The call at which this branch was."""
    late: int = 0
    """Changes of the cloud that it makes once it goes on."""
    held: bool = False
    """It had the lease when it was stopped, and the other one did not get it from its hands."""
    other: Rollout | OsvDeployError | None = None
    took: float = 0.0
    """Seconds that the other one's command took."""

    def __call__(self, call: Call, moment: Moment) -> None:
        if moment is Moment.AFTER:
            return
        self.seen += 1
        if not self.stopped and self.seen in self.at and self.branches.here():
            self.stopped = self.seen
            self.story.cloud.on_call(None)
            found = self.story.head.lease
            self.held = found is not None
            ctx, began = self.story.context(), self.story.time.monotonic()
            try:
                self.other = self.command(self.story, replace(ctx, clock=Skewed(self.story.clock, self.skew)))
            except OsvDeployError as error:
                self.other = error
            self.took = self.story.time.monotonic() - began
            self.story.cloud.on_call(self)
        if self.other is not None and call.mutating and not call.operation.startswith("store"):
            self.late += 1

    def play(self, then: Callable[[Rollout | OsvDeployError], None]) -> None:
        """The deploy, and in each branch ``then``, which is told how it ended there."""

        def work() -> tuple[str, ...]:
            self.story.cloud.on_call(self)
            first: Rollout | OsvDeployError
            try:
                first = self.story.manager().deploy(self.story.context(), self.story.release("1.1.0"))
            except OsvDeployError as error:
                first = error
            self.story.cloud.on_call(None)
            if self.stopped:
                then(first)
            return ()

        self.branches.run(work)
        assert self.seen > 10 and not self.branches.wrong, "\n".join(self.branches.wrong[:5])


def calls_of(strategy: Strategy) -> list[int]:
    """The calls to be stopped before: each change, of the cloud and of the ledger, and some of the others."""
    story = begun(strategy)
    before = len(story.cloud.calls)
    story.manager().deploy(story.context(), story.release("1.1.0"))
    calls = story.cloud.calls[before:]
    return [at for at, call in enumerate(calls, 1) if at > 1 and (call.mutating or at % EVERY == 0)]


@pytest.mark.forks
@pytest.mark.parametrize(
    ("command", "strategy"),
    [(_rollback, BAKED), (_recover, BAKED), (_deploy_another, BAKED), (_rollback, CANARY)],
    ids=["rollback", "recover", "another deploy", "rollback of a canary"],
)
def test_one_that_was_stopped_makes_one_more_change_at_most_and_what_it_did_is_put_right(
    command: Command, strategy: Strategy
) -> None:
    """Before each of its calls. The other one's command ends as it should; then the first goes on, and finds out."""
    story = begun(strategy)
    stopped = Stopped(story, calls_of(strategy), command)

    def then(first: Rollout | OsvDeployError) -> None:
        said = f"stopped before call {stopped.stopped}: then {first}, while the other {stopped.other}"
        assert stopped.other is not None, said
        assert not stopped.held or stopped.late <= 1, said
        assert isinstance(first, Rollout | LeaseLost | LeaseHeld) or stopped.late == 0, said
        # What came when the other was through is nobody's to see before the next command.
        told = looked(story)
        assert all(each.kind in (DriftKind.ROUTE, DriftKind.STRANGER, DriftKind.MACHINES) for each in told), said
        if any(each.kind is DriftKind.ROUTE for each in told):
            story.manager().realign(story.context())
        story.clock.advance(60)
        assert None not in story.releases(), said
        story.publish("1.3.0")
        third = story.manager().deploy(story.context(), story.release("1.3.0"))
        assert third.outcome is Outcome.SUCCEEDED, said
        story.clock.advance(60)
        assert story.cloud.serving == {story.id("1.3.0")}, said
        recorded = {record.group for record in story.head.slots.values()}
        standing = [group for group in story.cloud.world.groups.values() if not group.deleting]
        strangers = {group.release for group in standing if group.name not in recorded}
        # Of the late process's own release, in the slot that was not emptied since: told, for gc to take away.
        assert strangers <= {story.id("1.1.0")}, said
        assert bool(strangers) == (DriftKind.STRANGER in {each.kind for each in looked(story)}), said

    stopped.play(then)


@pytest.mark.forks
def test_each_epoch_has_one_writer() -> None:
    """However two take turns: the ledger's heads tell."""
    story = begun(BAKED)

    def then(first: Rollout | OsvDeployError) -> None:
        heads = list(story.ledger.heads(story.context()))
        writers: dict[int, set[str]] = {}
        for head in heads:
            if head.lease is not None:
                writers.setdefault(head.epoch, set()).add(head.lease.holder.host)
        assert all(len(each) == 1 for each in writers.values()), writers
        epochs = [head.epoch for head in heads]
        assert epochs == sorted(epochs, reverse=True)

    Stopped(story, calls_of(BAKED)[::3], _rollback).play(then)


# ------------------------------------------------------------------------------------------------------------ clocks


@pytest.mark.forks
@pytest.mark.parametrize("skew", [-86_400.0, -300.0, 300.0, 86_400.0])
def test_clocks_that_differ_change_nothing(skew: float) -> None:
    """A day apart: the lease is waited out by a stopwatch, and nobody bakes for a day."""
    stopped = Stopped(begun(BAKED), calls_of(BAKED)[2::4], _recover, skew)

    def then(first: Rollout | OsvDeployError) -> None:
        assert isinstance(stopped.other, Rollout) and stopped.other.outcome is Outcome.SUCCEEDED
        assert stopped.took < 300.0

    stopped.play(then)


@pytest.mark.parametrize("skew", [-86_400.0, 0.0, 86_400.0])
def test_the_lease_of_a_dead_process_on_another_host_is_taken_after_its_length(skew: float) -> None:
    """And not before, whatever either's clock says."""
    story = begun(BAKED)
    lease.acquire(story.context(), story.ledger, "somebody who dies")
    began = story.time.monotonic()
    ctx = replace(story.context(), clock=Skewed(story.clock, skew))
    held = lease.acquire(ctx, story.ledger, "whoever comes next")
    assert lease.LENGTH <= story.time.monotonic() - began < lease.LENGTH + 5.0
    assert held.taken_over


@pytest.mark.parametrize("skew", [-86_400.0, 86_400.0])
def test_a_process_that_lives_keeps_its_lease_whatever_others_clocks_say(skew: float) -> None:
    """It writes a head each half minute."""
    story = begun(BAKED)
    living = story.context()
    held = lease.acquire(living, story.ledger, "deploy")

    def renew() -> None:
        held.renew(living)
        story.then(1.0, renew)

    story.then(1.0, renew)
    with pytest.raises(LeaseHeld):
        story.manager().deploy(replace(story.context(), clock=Skewed(story.clock, skew)), story.release("1.2.0"))
    story.time.due.clear()
    held.give_up(living)


# ------------------------------------------------------------------------------------------------------ two at once


def at_once(story: Story, at: int, second: Callable[[], object], first: Callable[[], Rollout]) -> tuple[object, object]:
    """A living process runs ``first``; before its n-th call another one of the same machine begins ``second``."""
    seen, ended = [0], list[object]()

    def hook(call: Call, moment: Moment) -> None:
        seen[0] += moment is Moment.BEFORE
        if seen[0] == at and not ended:
            ended.append(None)
            story.cloud.on_call(None)
            try:
                ended[0] = second()
            except OsvDeployError as error:
                ended[0] = error
            story.cloud.on_call(hook)

    story.cloud.on_call(hook)
    try:
        one: object = first()
    except OsvDeployError as error:
        one = error
    story.cloud.on_call(None)
    return one, ended[0] if ended else None


def here(story: Story, number: int) -> Context:
    """A living process of this machine: nobody waits for whether it is dead."""
    me = ProcessIdentity.current()
    return replace(story.context(), process=replace(me, user=f"user-{number}"))


def test_of_two_deploys_at_once_one_rolls_out_and_one_is_refused() -> None:
    """Whenever the second begins."""
    for at in (1, *calls_of(BAKED)[::2]):
        story = begun(BAKED)
        one, other = at_once(
            story,
            at,
            lambda story=story: story.manager().deploy(here(story, 2), story.release("1.2.0")),  # type: ignore[misc]
            lambda story=story: story.manager().deploy(here(story, 1), story.release("1.1.0")),  # type: ignore[misc]
        )
        ended = [each for each in (one, other) if isinstance(each, Rollout)]
        refused = [each for each in (one, other) if isinstance(each, LeaseHeld)]
        assert len(ended) + len(refused) == 2, (at, one, other)
        assert ended and all(each.outcome is Outcome.SUCCEEDED for each in ended), (at, one, other)
        assert story.head.stable is not None and story.cloud.serving == {story.head.stable.release}
        assert len(story.cloud.running) == 2


def test_of_two_rollbacks_at_once_one_goes_back_and_none_goes_back_twice() -> None:
    """Two on call type it in the same minute."""
    for at in range(1, 30, 2):
        story = Story("1.0.0", "1.1.0", "1.2.0")
        one, other = at_once(
            story,
            at,
            lambda story=story: story.manager().rollback(here(story, 2)),  # type: ignore[misc]
            lambda story=story: story.manager().rollback(here(story, 1)),  # type: ignore[misc]
        )
        told = [type(each).__name__ for each in (one, other)]
        if told.count("Rollout") == 2:
            # The second began before the first had said anything: it was through by then.
            assert at < 4, (at, one, other)
            continue
        assert told.count("LeaseHeld") <= 1 and "Rollout" in told, (at, one, other)
        assert story.cloud.serving == {story.id("1.1.0")}, (at, one, other)


# -------------------------------------------------------------------------------------------------- the clouds' own way


class Frozen(BaseException):
    """The process stands still, with a request about to be sent."""


def _moves_traffic(site: Site, call: wire.Call) -> bool:
    run = site.world.head.unfinished
    return run is not None and run.shifted is not None


class Freezer:
    """Stops a process before a change (of traffic, if not told), and sends the call's request later, as it stands."""

    def __init__(self, site: Site, stops: Callable[[Site, wire.Call], bool] = _moves_traffic) -> None:
        self.site, self.sandbox, self.stops = site, site.world.sandbox, stops
        self.request: ApiRequest | None = None
        self.then: Kept | None = None
        """Everything as it was: what stands still gives no lease back."""
        self._handle = self.sandbox.handle

    def freeze(self, command: Callable[[], object]) -> None:
        self.sandbox.hook = self._stop
        self.sandbox.handle = self._noted  # type: ignore[method-assign]
        try:
            command()
        except Frozen:
            pass
        self.sandbox.hook = None
        self.sandbox.handle = self._handle  # type: ignore[method-assign]
        assert self.request is not None

    def _stop(self, moment: core.Moment, call: wire.Call) -> None:
        if moment is core.Moment.BEFORE and call.mutating and self.stops(self.site, call):
            self.then = self.site.world.kept()
            raise Frozen

    def _noted(self, request: ApiRequest, now: datetime) -> Any:
        try:
            return self._handle(request, now)
        except Frozen:
            self.request = request
            raise

    def send(self) -> int:
        """The status of the answer that nobody waits for any more."""
        assert self.request is not None
        answer = self._handle(self.request, self.site.world.clock.now())
        return int(getattr(answer, "status", 0))


@dataclass
class Arrival:
    """Watches whoever took over; before its n-th call what was sent late arrives."""

    freezer: Freezer
    watch: Watch
    at: int
    status: int = 0
    going: bool = False
    """The rules had been looked at for the last time before machines were taken away."""

    def __call__(self, moment: core.Moment, call: wire.Call) -> None:
        sandbox = self.freezer.sandbox
        if moment is core.Moment.BEFORE and self.status == 0:
            self.going = self.watch.stage() == Stage.CLEAN_UP
            if len(self.watch.seen) == self.at:
                sandbox.hook = None
                self.status = self.freezer.send()
                sandbox.hook = self
        self.watch(moment, call)


@pytest.mark.sandbox
@pytest.mark.parametrize("kind", SITES)
def test_a_switch_that_is_sent_late_is_refused_or_put_right(kind: str, tmp_path: Path) -> None:
    """A deploy stops at its switch; a rollback from elsewhere takes over, and the late switch arrives before any call
    of that one. On Google it is refused, once the other has taken over. On AWS it is seen, and traffic is brought back:
    unnoticed, unless the machines that it leads to are on their way out already."""
    site = SITES[kind](tmp_path)
    site.new("1.0.0")
    freezer = Freezer(site)
    freezer.freeze(lambda: site.deploy("new"))
    start = freezer.then
    assert start is not None
    site.world.put_back(start)
    scenario = Scenario("late", lambda each: None, lambda each: each.rollback(), frozenset({"1.0.0", "new"}))
    whole = Watch(site, scenario)
    site.world.sandbox.hook = whole
    site.rollback()
    site.world.sandbox.hook = None
    left, calls = site.standing(), len(whole.seen)
    came = []
    for at in range(0, calls, max(1, calls // 12)):
        site.world.put_back(start)
        arrival = Arrival(freezer, Watch(site, scenario), at)
        site.world.sandbox.hook = arrival
        ended = site.rollback()
        site.world.sandbox.hook = None
        came.append(arrival.status)
        said = f"sent before call {at} of {calls}, answered {arrival.status}"
        assert ended.exit_code == 0, said
        if kind == "google" and arrival.status == 200:
            # The other had not taken over yet.
            assert 412 not in came, said
        if not arrival.going:
            arrival.watch.go_on(60)
            assert arrival.watch.wrong == [], (said, arrival.watch.wrong[:5])
        now = site.standing()
        if [what for what in now if what != "leading" and now[what] != left[what]]:
            # It came after the last look: no command was there to see it, and the next one is told.
            assert kind == "aws" and arrival.going, (said, now, left)
            here = site.place.process(UNHURRIED)
            here.manager.realign(here.ctx)
            site.world.wait(30)
            assert site.ask() == site.names["1.0.0"], said
    assert 200 in came if kind == "aws" else 412 in came, came


@pytest.mark.sandbox
def test_a_switch_of_a_forwarding_rule_that_is_sent_late_is_an_outage_until_it_is_repaired(tmp_path: Path) -> None:
    """`setTarget` has no condition. A deploy stops at its switch, a rollback takes over and takes its machines away,
    and then the switch arrives: Google carries it out, and a moment later nobody gets an answer. `drift` tells it, and
    `--repair` lets the rule lead back."""
    site = OTHER_SITES["google by a rule"](tmp_path)
    site.new("1.0.0")
    freezer = Freezer(site, lambda site, call: call.operation == "forwardingRules.setTarget")
    freezer.freeze(lambda: site.deploy("new"))
    assert freezer.then is not None
    site.world.put_back(freezer.then)
    ended = site.rollback()
    assert ended.exit_code == 0 and site.ask() == site.names["1.0.0"], ended.told
    assert freezer.send() == 200
    site.world.wait(30.0)
    assert site.ask() is None
    here = site.place.process(site.limits)
    here.manager.realign(here.ctx)
    site.world.wait(30.0)
    assert site.ask() == site.names["1.0.0"]


@dataclass(frozen=True)
class Removal:
    """A command that takes a group away, and one that goes back to its release, or on without it, from elsewhere.
    ``operations`` are the calls of the removal on each cloud, each of which is sent late."""

    name: str
    before: Callable[[Site], object]
    removes: Callable[[Site], object]
    after: Callable[[Site], Rollout]
    answers: frozenset[str] | None
    serves: str


OF_A_REMOVAL = {
    "aws": ("DeleteAutoScalingGroup",),
    "google": ("backendServices.patch", "instanceGroupManagers.delete"),
}


def _serves(site: Site, *versions: str, new: str = "new", strategy: Strategy | None = None) -> None:
    site.put_into_service(*versions)
    site.made(new, strategy=strategy)


def _asked_for(site: Site) -> None:
    site.new("1.0.0", strategy=ASKING)
    assert site.deploy("new").exit_code == 5


def _deploy_after_all(site: Site) -> Rollout:
    """The abort comes to its end; then the same release again, with nobody asked."""
    here, release = site.place.process(site.limits), site.releases["new"]
    here.manager.recover(here.ctx)
    alone = replace(release, settings=replace(release.settings, strategy=AT_ONCE))
    ended: Rollout = here.manager.deploy(here.ctx, alone)
    return ended


def _aged(site: Site) -> None:
    site.put_into_service("1.0.0", "1.1.0")
    site.world.wait(2 * 3600.0)


def _about_to_be_destroyed(site: Site) -> None:
    site.put_into_service("1.0.0")
    site.made("new")


REMOVALS = [
    Removal(
        "the old release, at the end of a deploy",
        lambda site: _serves(site, "1.0.0", strategy=AT_ONCE),
        lambda site: site.deploy("new"),
        lambda site: site.rollback("1.0.0"),
        frozenset({"1.0.0", "new"}),
        "1.0.0",
    ),
    Removal(
        "an aborted release",
        _asked_for,
        lambda site: site.say(RequestKind.ABORT),
        _deploy_after_all,
        frozenset({"1.0.0", "new"}),
        "new",
    ),
    Removal(
        "what is warm, for a newer release",
        lambda site: _serves(site, "1.0.0", "1.1.0"),
        lambda site: site.deploy("new"),
        lambda site: site.rollback("1.0.0"),
        frozenset({"1.0.0", "1.1.0"}),
        "1.0.0",
    ),
    Removal(
        "what was warm, by gc",
        _aged,
        lambda site: site.gc(),
        lambda site: site.rollback("1.0.0"),
        frozenset({"1.0.0", "1.1.0"}),
        "1.0.0",
    ),
    Removal(
        "what serves, by destroy",
        _about_to_be_destroyed,
        lambda site: site.destroy(),
        lambda site: site.deploy("new"),
        None,
        "new",
    ),
]


@pytest.mark.sandbox
@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("removal", REMOVALS, ids=lambda each: each.name)
def test_machines_that_are_taken_away_late_are_nobodys(kind: str, removal: Removal, tmp_path: Path) -> None:
    """A command stops at a call that takes a group away; another one takes over, and goes back to that release, or on
    without it. Whenever the late call arrives, also after all is done: no client notices, and no machine of what
    serves goes."""
    site = SITES[kind](tmp_path)
    removal.before(site)
    begun = site.world.kept()
    for operation in OF_A_REMOVAL[kind]:
        site.world.put_back(begun)
        freezer = Freezer(site, lambda site, call, operation=operation: _takes_away(call, operation))  # type: ignore[misc]
        freezer.freeze(lambda: removal.removes(site))
        start = freezer.then
        assert start is not None
        scenario = Scenario("late", lambda each: None, removal.after, removal.answers)
        site.world.put_back(start)
        whole = Watch(site, scenario)
        site.world.sandbox.hook = whole
        assert removal.after(site).exit_code == 0
        site.world.sandbox.hook = None
        calls = len(whole.seen)
        for at in (*range(0, calls, max(1, calls // LATE)), calls):
            site.world.put_back(start)
            arrival = Arrival(freezer, Watch(site, scenario), at)
            site.world.sandbox.hook = arrival
            ended = removal.after(site)
            site.world.sandbox.hook = None
            assert ended.exit_code == 0, ended.told
            if at == calls:
                site.world.wait(60.0)
                arrival.status = freezer.send()
            said = f"{operation} sent before call {at} of {calls}, answered {arrival.status}"
            arrival.watch.go_on(90)
            assert arrival.watch.wrong == [], (said, arrival.watch.wrong[:5])
            assert site.ask() == site.names[removal.serves], said
            capacity = site.world.settings.capacity
            assert [healthy >= capacity for healthy in site.carrying().values()] == [True], said


@pytest.mark.sandbox
@pytest.mark.parametrize("kind", SITES)
def test_nothing_is_sent_when_the_lease_is_over(kind: str, tmp_path: Path) -> None:
    """A process that stood still for a while after any of its calls looks at the clock before it sends another change,
    and renews its lease first."""
    site = SITES[kind](tmp_path)
    _serves(site, "1.0.0", strategy=AT_ONCE)
    start, world = site.world.kept(), site.world
    counted: list[wire.Call] = []
    world.sandbox.hook = lambda moment, call: counted.append(call) if moment is core.Moment.BEFORE else None
    site.deploy("new")
    for stop in range(0, len(counted), max(1, len(counted) // STOPS)):
        world.put_back(start)
        seen, late = [0], list[str]()

        def hook(moment: core.Moment, call: wire.Call, stop: int = stop, seen: list[int] = seen) -> None:
            if moment is core.Moment.BEFORE:
                since = (world.clock.now() - world.head.written).total_seconds()
                if call.mutating and since >= lease.LENGTH:
                    late.append(f"{call.operation}, {since:g} s after the lease was renewed")  # noqa: B023
                return
            seen[0] += 1
            if seen[0] == stop + 1:
                world.clock.advance(90.0)

        world.sandbox.hook = hook
        ended = site.deploy("new")
        world.sandbox.hook = None
        assert not late, f"stood still after {counted[stop].operation}: {late}"
        assert ended.exit_code == 0, ended.told


def _takes_away(call: wire.Call, operation: str) -> bool:
    emptied = operation != "backendServices.patch" or call.params.get("body", {}).get("backends") == []
    return call.operation == operation and emptied


@pytest.mark.sandbox
@pytest.mark.parametrize("kind", SITES)
def test_an_adopted_group_that_is_let_go_late_is_put_back(kind: str, tmp_path: Path) -> None:
    """Its name is its own, so it is gone back to under it, and on Google the backend service has the fingerprint again
    that it had: a hash of what is in it. Its machines leave the slot, and whoever puts right what drifted brings them
    back."""
    site = SITES[kind](tmp_path)
    adopt_first(site)
    for version in ("1.0.0", "1.1.0"):
        site.made(version)
    assert site.deploy("1.0.0").exit_code == 0
    lets_go = {"aws": "DetachLoadBalancerTargetGroups", "google": "backendServices.patch"}[kind]
    freezer = Freezer(site, lambda site, call: _takes_away(call, lets_go))
    freezer.freeze(lambda: site.deploy("1.1.0"))
    assert freezer.then is not None
    site.world.put_back(freezer.then)
    here = site.place.process(site.limits)
    back: Rollout = here.manager.rollback(here.ctx, site.adopted())
    assert back.exit_code == 0 and site.ask() == site.names["0.9.0"], back.told
    assert freezer.send() == 200
    site.world.wait(60.0)
    assert site.ask() is None
    here = site.place.process(site.limits)
    here.manager.realign(here.ctx)
    site.world.wait(60.0)
    assert site.ask() == site.names["0.9.0"]
    assert all(healthy >= site.world.settings.capacity for healthy in site.carrying().values())


@pytest.mark.sandbox
@pytest.mark.parametrize("kind", SITES)
def test_a_pause_of_what_scales_that_is_sent_late_is_told_and_taken_back(kind: str, tmp_path: Path) -> None:
    """A deploy stops as it is about to pause what scales stable; a rollback takes over and ends it, and then the pause
    arrives. What serves would keep its size for ever."""
    site = SITES[kind](tmp_path)
    site.put_into_service("1.0.0")
    scaled(site)
    site.made("new")
    pauses = {"aws": "SuspendProcesses", "google": "autoscalers.patch"}[kind]
    freezer = Freezer(site, lambda site, call: call.operation == pauses)
    freezer.freeze(lambda: site.deploy("new"))
    assert freezer.then is not None
    site.world.put_back(freezer.then)
    assert site.rollback().exit_code == 0
    assert freezer.send() == 200
    site.world.wait(30.0)
    here, stable = site.place.process(site.limits), site.world.head.stable
    assert stable is not None
    groups = here.manager.cloud.groups

    def there() -> Scaling:
        found = groups.scaling(here.ctx, stable.group)
        assert isinstance(found, Scaling)
        return found

    run = site.world.head.run
    assert there().paused and suspended(run, stable, there())
    here.manager.realign(here.ctx)
    site.world.wait(30.0)
    assert not there().paused and not suspended(run, stable, there())

"""Every scenario, with every kind of trouble at every call that changes something, and at one read of each kind.

A scenario runs once without trouble; its calls are counted. It runs once more, and at each call is gone on with by a
fork for each kind of trouble: the process lives, and goes on with what it was told. If it does not end as it did
without trouble, the same command runs again, as people do. What stands in the end must be what the run without trouble
left, and on the way what must never be, never was.

And in a fork right before and one right after each change, in every scenario, the process dies; deaths at each write of
the ledger are in test_deploy_crashes.py and test_gcp_crashes.py.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from osvdeploy.cloud.interfaces import Metric
from osvdeploy.errors import OsvDeployError
from osvdeploy.events import StageEntered
from osvdeploy.rollout.ends import Asked, Rollout
from osvdeploy.rollout.model import REFUSED, Kind, Outcome, RequestKind, Stage
from osvdeploy.rollout.releases import Release, Strategy
from osvdeploy.sandbox.core import ALWAYS_CURRENT, Moment
from osvdeploy.sandbox.dataplane import HttpRequest, SendTo, TargetState, View
from osvdeploy.sandbox.faults import Fault, FaultKind, Faults
from osvdeploy.sandbox.inprocess import Client
from osvdeploy.sandbox.runners import GuestAnswer
from osvdeploy.sandbox.traffic import Traffic
from osvdeploy.sandbox.wire import Call
from tests.faults.branches import Branches
from tests.rollout.made import UNHURRIED
from tests.world import GOOD, MIN_READY, Kept, World, unnumbered

T = TypeVar("T")

STALE = 5.0
"""Seconds that a stale read is behind."""

CHANGES: Mapping[FaultKind, int] = {
    FaultKind.AFTER: 1,
    FaultKind.HANG_AFTER: 1,
    FaultKind.HANG: 3,
    FaultKind.THROTTLED: 3,
    FaultKind.BROKEN: 3,
    FaultKind.DENIED: 1,
}
"""What befalls a change, and how many calls in a row: three are more than one call is repeated."""

READS: Mapping[FaultKind, int] = {
    FaultKind.STALE: 1,
    FaultKind.HANG: 3,
    FaultKind.THROTTLED: 3,
    FaultKind.DENIED: 1,
}


class Site(ABC):
    """A place with a service in it, as its user works on it and as its clients see it.

    ``place`` is the world of one cloud, which has ``publish(release)``, ``process()`` and all of ``World``.
    """

    def __init__(self, place: Any, port: int) -> None:
        self.place = place
        self.world: World = place
        self.port = port
        self.customer = Client(self.world.sandbox, self.world.clock)
        self.limits = UNHURRIED
        self.apart = 0.0
        """Seconds by which each further machine of a release comes up later than the one before."""
        self._carried: tuple[View | None, Mapping[str, int]] = None, {}
        """What carried traffic by the view that was looked at last."""
        self.releases: dict[str, Release] = {}
        self.names: dict[str, str] = {}
        self.world.sandbox.stale = timedelta(seconds=STALE)
        health = replace(self.world.settings.health, min_ready=MIN_READY)
        self.world.settings = replace(self.world.settings, health=health)

    # -------------------------------------------------------------------------------------------------- as a user

    def made(self, version: str, program: Mapping[str, Any] = GOOD, strategy: Strategy | None = None) -> None:
        """Built and published, so that only the rollout is left to do."""
        if strategy is not None:
            self.world.settings = replace(self.world.settings, strategy=strategy)
        release = self.world.build(version, {**program, "apart": self.apart} if self.apart else program)
        self.releases[version], self.names[version] = release, release.id
        self.place.publish(release)

    def new(
        self, *live: str, version: str = "new", program: Mapping[str, Any] = GOOD, strategy: Strategy | None = None
    ) -> None:
        """``live`` serve one after the other, and another version is there to be rolled out."""
        self.put_into_service(*live)
        self.made(version, program, strategy)

    def one_by_one(self) -> Site:
        """What is built from now on has machines that come up one after the other, for which there is time."""
        self.apart = self.comes_apart
        health = replace(self.world.settings.health, boot_timeout=300.0)
        self.world.settings = replace(self.world.settings, health=health)
        return self

    def put_into_service(self, *versions: str) -> None:
        for version in versions:
            self.made(version)
            assert self.deploy(version).exit_code == 0

    def deploy(self, version: str) -> Rollout:
        here = self.place.process(self.limits)
        ended: Rollout = here.manager.deploy(here.ctx, self.releases[version])
        return ended

    def rollback(self, version: str | None = None) -> Rollout:
        """Names its release where the one before was over, not to go back twice."""
        here, run = self.place.process(self.limits), self.world.head.run
        assert run is not None
        if version is None and run.kind is Kind.ROLLBACK and run.over and run.verdict is Outcome.SUCCEEDED:
            version = next(name for name, id in self.names.items() if id == run.candidate)
        ended: Rollout = here.manager.rollback(here.ctx, self.releases[version] if version else None)
        return ended

    def destroy(self) -> object:
        here = self.place.process(self.limits)
        return here.manager.destroy(here.ctx) if not self.world.head.destroyed else None

    def say(self, kind: RequestKind) -> Rollout | Asked | None:
        """Asked, or gone on with where it was heard; what was asked for may have come about, or be tried again."""
        here, run = self.place.process(self.limits), self.world.head.unfinished
        approves, last = kind is RequestKind.APPROVE, self.world.head.run
        if run is None:
            if approves and last is not None and last.verdict is not Outcome.SUCCEEDED:
                retried: Rollout = here.manager.retry(here.ctx)
                return retried
            return None
        if run.verdict is not None or run.abort is not None or (approves and not run.awaits(here.ctx.now())):
            recovered: Rollout = here.manager.recover(here.ctx)
            return recovered
        asked: Asked = here.manager.request(here.ctx, kind)
        return asked.rollout if asked.rollout is not None else asked

    # ---------------------------------------------------------------------------------------------- to look at it

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients find the service."""

    @property
    @abstractmethod
    def version_header(self) -> str:
        """The header of an answer that names its release."""

    metric: Metric
    """A count of the requests that a slot got."""

    comes_apart: float
    """Seconds between two machines that come up one by one: whoever takes one for enough has moved traffic by then,
    also where the cloud is slow."""

    told_after: float
    """Seconds after which that is known."""

    @abstractmethod
    def groups(self) -> Mapping[str, frozenset[str]]:
        """The groups of machines that stand, also those on their way out, each with the backends that it is behind."""

    @abstractmethod
    def taken_from(self, call: Call) -> str | None:
        """The group that a call takes machines away from, None for none."""

    @abstractmethod
    def leads_to(self, call: Call) -> frozenset[str]:
        """The backends that a call lets clients' requests go to."""

    @abstractmethod
    def led_to(self) -> frozenset[str]:
        """Those that they are let go to now, in force or not."""

    theirs = ""
    """The group that somebody else made, which has the traffic until it is adopted."""

    @abstractmethod
    def plant(self) -> None:
        """Let somebody's group serve 0.9.0, by a rule of theirs at 200."""

    @abstractmethod
    def suspended(self) -> list[str]:
        """What of all that scales their group stands still, none where it scales as its user wants it to."""

    @abstractmethod
    def adopted(self) -> Release:
        """The release that their group becomes."""

    @abstractmethod
    def gc(self) -> object:
        """``osvdeploy gc --keep 1``."""

    @abstractmethod
    def standing(self) -> Mapping[str, object]:
        """What there is in the end, in the cloud and in the ledger, but for when and by whom."""

    def but_theirs(self, found: Mapping[str, frozenset[str]]) -> Mapping[str, frozenset[str]]:
        """Their group counts while it stands in a slot: after that it is none of ours."""
        head = self.world.ledger.head(self.world.next_context()) if self.theirs else None
        ours = {record.group for record in head.slots.values()} if head is not None else set()
        return {name: behind for name, behind in found.items() if name != self.theirs or name in ours}

    def ask(self) -> str | None:
        """The release that answers a client now, None for an answer that is no good."""
        answer = self.customer.get(self.address, self.port, "/")
        good = isinstance(answer, GuestAnswer) and answer.status == 200
        return answer.headers.get(self.version_header) if isinstance(answer, GuestAnswer) and good else None

    def carrying(self) -> Mapping[str, int]:
        """Healthy machines of each backend that requests go to now."""
        view, request = self.world.sandbox.view(), HttpRequest("GET", "/")
        if view is self._carried[0]:
            return self._carried[1]
        found: dict[str, int] = {}
        for name, endpoint in view.endpoints.items():
            if endpoint.listener.port != self.port or not self.is_for_clients(name):
                continue
            for draw in _DRAWS:
                decision = endpoint.listener.decide(request, view.targets, draw)
                if isinstance(decision, SendTo) and decision.group not in found:
                    # Google's fronts have names of their own for what stands behind them.
                    named = getattr(endpoint.listener, "group", str)
                    targets = view.targets[named(decision.group)]
                    found[decision.group] = sum(each.state is TargetState.HEALTHY for each in targets)
        self._carried = view, found
        return found

    def is_for_clients(self, front: str) -> bool:
        """Whether clients come by this front, and not only who previews a slot."""
        return True

    def healthy(self, backend: str) -> int:
        """Machines behind a backend that are healthy now, whether it has traffic or not."""
        found = self.world.sandbox.view().targets
        behind = [targets for name, targets in found.items() if name.rpartition(" ")[2] == backend]
        return max((sum(each.state is TargetState.HEALTHY for each in targets) for targets in behind), default=0)

    def missing(self) -> list[str]:
        """What was in the account before the service, and is gone."""
        now = self.world.sandbox.inventory()
        return sorted(
            f"{kind} {key}" for kind, keys in self.world.empty.items() for key in {*keys} - {*now.get(kind, [])}
        )

    def ledger(self) -> dict[str, object]:
        """What of the newest head is the same however one came to it."""
        head = self.world.head
        return {
            "serving": head.serving,
            "stable": head.stable.release if head.stable else None,
            "slots": {slot: (record.release, unnumbered(record.group)) for slot, record in head.slots.items()},
            "destroyed": head.destroyed,
            "unfinished": None if head.unfinished is None else head.unfinished.stage,
            "lease": head.lease,
            "hooks": [(each.hook, each.stage, each.step, each.passed) for each in head.run.hooks] if head.run else [],
        }

    def unasked(self) -> list[str]:
        """What others were not asked or told that they should have been, of the last rollout."""
        world, run = self.world, self.world.head.run
        assert run is not None
        wrong: list[str] = []
        if world.hooks is not None:
            asked = set(world.hooks.events)
            wrong += [f"{each.hook} was not asked at {each.stage}" for each in run.hooks if each.event not in asked]
        if world.notifier is None or not run.settings.notify:
            return wrong
        own = f"{run.id}/"
        owed = {each.news.event: each.news.notice for each in world.head.notices if each.news.event.startswith(own)}
        told = world.notifier.heard(own)
        if run.verdict is None or run.verdict.value not in {*owed.values(), *told.values()}:
            wrong.append(f"of the end, {run.verdict}, nobody was told, and nothing is owed: {told}, {owed}")
        # Whatever comes next pays what is owed, of which each takes another try.
        for _ in owed:
            if not world.head.notices:
                break
            world.wait(60)
            here = self.place.process(self.limits)
            here.manager.recover(here.ctx)
        told = world.notifier.heard(own)
        if world.head.notices or not set(owed) <= set(told):
            wrong.append(f"{owed} is owed, and was not told afterwards: {told}")
        if sorted(told, key=lambda event: int(event.removeprefix(own))) != list(told):
            wrong.append(f"news came in this order: {list(told)}")
        return wrong


_DRAWS = [(2 * number + 1) / 20 for number in range(10)]
"""So many that a share of 10 % is met."""


@dataclass(frozen=True)
class Scenario:
    """``answers``: versions that a client may get meanwhile; None where the service comes or goes. ``first``: nothing
    serves before it."""

    name: str
    before: Callable[[Site], object]
    command: Callable[[Site], object]
    answers: frozenset[str] | None
    first: bool = False


@dataclass(frozen=True)
class Trouble:
    """What befalls the calls from the ``number``-th on."""

    number: int
    operation: str
    stage: str
    kind: FaultKind
    times: int

    def __str__(self) -> str:
        return f"{self.kind} at call {self.number}, {self.operation} in {self.stage}"


@dataclass
class Watch:
    """Is called around each call: asks as a client, and looks at what must never be."""

    site: Site
    scenario: Scenario
    seen: list[tuple[str, str, bool]] = field(default_factory=list)
    """Operation, stage and whether it changes something, of each call."""
    wrong: list[str] = field(default_factory=list)
    events: int = 0
    looked: datetime | None = None
    """When it was looked last, and nothing was asked to change since: then all is as it was."""

    def __post_init__(self) -> None:
        self.events = len(self.site.world.recorder.events)

    def __call__(self, moment: Moment, call: Call) -> None:
        if moment is Moment.AFTER:
            self.looked = None if call.mutating else self.looked
            return
        self.seen.append((f"{call.service}:{call.operation}", self.stage(), call.mutating))
        if call.mutating:
            self._look_before_a_change(call)
        if self.scenario.answers is None:
            return
        if self.looked != self.site.world.clock.now():
            self.look(f"before {call.operation}")

    def look(self, when: str) -> None:
        """As a client, and at the capacity behind whatever has traffic."""
        assert self.scenario.answers is not None
        self.looked = self.site.world.clock.now()
        answered = self.site.ask()
        if answered not in {self.site.names[version] for version in self.scenario.answers}:
            self.wrong.append(f"a client got {answered or 'no good answer'} {when}")
        for backend, healthy in self.site.carrying().items():
            if healthy < self.site.world.settings.capacity:
                self.wrong.append(f"only {healthy} machines behind {backend}, which has traffic, {when}")

    def go_on(self, seconds: int) -> None:
        """Clients come for a while after the command, once a second: what it has begun comes into force."""
        for second in range(seconds if self.scenario.answers is not None else 0):
            self.site.world.wait(1.0)
            self.look(f"{second} s after the end")

    def _look_before_a_change(self, call: Call) -> None:
        groups = self.site.groups()
        if len(groups) > 2:
            self.wrong.append(f"{', '.join(sorted(groups))} stand before {call.operation}")
        self.wrong += [f"{each}, which is not ours, is gone before {call.operation}" for each in self.site.missing()]
        self._look_before_a_switch(call)
        taken = self.site.taken_from(call)
        if taken is None:
            return
        # A destroy takes rules away first, and does not wait until that is in force: nobody is to be served any more.
        comes_or_goes = self.scenario.answers is None
        if not comes_or_goes and groups.get(taken, frozenset()) & set(self.site.carrying()):
            self.wrong.append(f"{call.operation} of {taken}, which has traffic")
        run = self.site.world.head.unfinished
        if run is not None and run.stable_group == taken and run.verdict is not Outcome.SUCCEEDED:
            self.wrong.append(f"{call.operation} of {taken}, before {run.candidate} is proved")

    def _look_before_a_switch(self, call: Call) -> None:
        """Also where what it asks for comes into force a minute later, when the other machines are up."""
        head = self.site.world.head
        leads = self.site.leads_to(call)
        for backend in leads - self.site.led_to() if leads else ():
            healthy = self.site.healthy(backend)
            if healthy < self.site.world.settings.capacity:
                self.wrong.append(f"{call.operation} leads to {backend}, which has {healthy} healthy machines")
            run = head.unfinished
            own = run is not None and head.place is not None and head.place.backends.get(run.slot) == backend
            if own and run is not None and run.verdict is None and run.stage not in (Stage.SHIFT, Stage.BAKE):
                self.wrong.append(f"{call.operation} leads to {run.candidate} in {run.stage}, before it is proved")

    def stage(self) -> str:
        """The stage that the command is in, by what it has told."""
        for event in reversed(self.site.world.recorder.events[self.events :]):
            if isinstance(event, StageEntered):
                return str(event.stage)
        return "begin"


@dataclass
class Played:
    """One scenario without trouble: where it began, what it called, what it left."""

    site: Site
    scenario: Scenario
    start: Kept
    calls: Sequence[tuple[str, str, bool]]
    ended: object
    left: Mapping[str, object]


def played(site: Site, scenario: Scenario) -> Played:
    """Run a scenario without trouble."""
    scenario.before(site)
    site.world.sandbox.faults.clear()
    start = site.world.kept()
    watch = _watched(site, scenario)
    ended = _run(scenario, site)
    site.world.sandbox.hook = None
    assert not isinstance(ended, OsvDeployError), f"without trouble: {ended}"
    assert not watch.wrong, watch.wrong[:5]
    recorded = {record.group for record in site.world.head.slots.values()}
    left = site.standing()
    assert set(site.groups()) == recorded, f"the ledger has {recorded}"
    unasked = site.unasked()
    assert not unasked, unasked
    return Played(site, scenario, start, watch.seen, ended, left)


def troubles(plot: Played) -> Iterator[Trouble]:
    """Every change with each kind of trouble, and the first read of each operation in each stage; no stale one of a
    service whose reads are always current."""
    looked: set[tuple[str, str]] = set()
    for number, (operation, stage, mutating) in enumerate(plot.calls):
        if mutating:
            kinds = CHANGES
        elif (operation, stage) not in looked:
            looked.add((operation, stage))
            kinds = READS
        else:
            continue
        current = operation.partition(":")[0] in ALWAYS_CURRENT
        for kind, times in kinds.items():
            if kind is FaultKind.STALE and current:
                continue
            yield Trouble(number, operation, stage, kind, times)


def sampled(found: Sequence[T], share: float) -> list[T]:
    """That share of them, the same ones in each run."""
    chosen = [each for each in found if int(hashlib.sha256(str(each).encode()).hexdigest()[:8], 16) < share * 2**32]
    return chosen or list(found[:1])


@dataclass(frozen=True)
class Death:
    """The process is gone right before or after its ``number``-th call, which changes something."""

    number: int
    operation: str
    stage: str
    moment: Moment

    def __str__(self) -> str:
        return f"dead {self.moment} call {self.number}, {self.operation} in {self.stage}"


def deaths(plot: Played) -> Iterator[Death]:
    """Right before and right after every change."""
    for number, (operation, stage, mutating) in enumerate(plot.calls):
        if mutating:
            yield Death(number, operation, stage, Moment.BEFORE)
            yield Death(number, operation, stage, Moment.AFTER)


def befallen(plot: Played, tried: Sequence[Trouble], died: Sequence[Death] = ()) -> list[str]:
    """What is wrong when each of these befalls the scenario, and when the process dies at each of those and another one
    runs the command again. It is run once more for all of them: from its call on, each is gone on with in a process of
    its own."""
    site, scenario, world = plot.site, plot.scenario, plot.site.world
    _begin(plot)
    branches = Branches(*world.kept_folders)
    befalling = _Befalling(tried, branches)
    world.sandbox.faults, before = befalling, world.sandbox.faults

    def work() -> list[str]:
        watch = _Dying(site, scenario, due={(each.number, each.moment): each for each in died}, branches=branches)
        watch.goes_on = lambda: _ended(plot, _watched(site, scenario), _run(scenario, site))
        world.sandbox.hook = watch
        wrong = [
            f"{befalling.befalls or 'without trouble'}: {each}" for each in _ended(plot, watch, _run(scenario, site))
        ]
        return wrong if branches.is_branch else wrong + [f"{each}: never came" for each in watch.due.values()]

    branches.run(work)
    world.sandbox.faults = before
    wrong = branches.wrong
    for trouble in (*befalling.alone, *(each for missed in befalling.due.values() for each in missed)):
        wrong += _befallen_alone(plot, trouble)
    return wrong


@dataclass
class _Dying(Watch):
    """Ends the process at its calls, each time in a branch of its own: no other branch dies. ``due`` are those to
    come."""

    due: dict[tuple[int, Moment], Death] = field(default_factory=dict)
    branches: Branches = field(default_factory=Branches)
    goes_on: Callable[[], list[str]] = list
    calls: int = 0

    def __call__(self, moment: Moment, call: Call) -> None:
        number = self.calls if moment is Moment.BEFORE else self.calls - 1
        self.calls += moment is Moment.BEFORE
        super().__call__(moment, call)
        if self.branches.is_branch or not self.branches.splits:
            return
        death = self.due.pop((number, moment), None)
        if death is not None and self.branches.here():
            # Nothing of the call that it was in goes on.
            self.site.world.sandbox.hook = None
            self.branches.ends([f"{death}: {each}" for each in (*self.wrong[:2], *self.goes_on())])


class _Befalling(Faults):
    """Faults of which each strikes at its call, in a branch; the run itself goes on without. ``due`` are those to come,
    ``alone`` those whose call came in a thread beside others: each of them needs a run of its own."""

    def __init__(self, tried: Sequence[Trouble], branches: Branches) -> None:
        super().__init__()
        self.branches = branches
        self.befalls: Trouble | None = None
        self.due: dict[int, list[Trouble]] = {}
        for trouble in tried:
            self.due.setdefault(trouble.number, []).append(trouble)
        self.alone: list[Trouble] = []
        self._calls = 0

    def take(self, call: Call, kinds: Container[FaultKind] = frozenset(FaultKind)) -> FaultKind | None:
        if not self.branches.is_branch and FaultKind.HANG in kinds:
            number, self._calls = self._calls, self._calls + 1
            for trouble in self.due.pop(number, ()):
                if not self.branches.splits:
                    self.alone.append(trouble)
                elif self.branches.here():
                    self.befalls = trouble
                    self.add(Fault("*", trouble.kind, times=trouble.times))
                    break
        return super().take(call, kinds)


def _befallen_alone(plot: Played, trouble: Trouble) -> list[str]:
    """The same for one, by a run from the beginning."""
    site, world = plot.site, plot.site.world
    _begin(plot)
    world.sandbox.faults.add(Fault("*", trouble.kind, skip=trouble.number, times=trouble.times))
    watch = _watched(site, plot.scenario)
    return [f"{trouble}: {each}" for each in _ended(plot, watch, _run(plot.scenario, site))]


def _begin(plot: Played) -> None:
    world = plot.site.world
    world.put_back(plot.start)
    # What was before belongs to the run before.
    world.sandbox.store._past.clear()
    world.sandbox.traffic = Traffic()
    world.sandbox.faults.clear()


def _ended(plot: Played, watch: Watch, ended: object) -> list[str]:
    """What is wrong after a run, which people repeat until it ends as it should."""
    site, scenario, world = plot.site, plot.scenario, plot.site.world
    world.sandbox.faults.clear()
    times = 0
    while _differs(ended, plot.ended):
        times += 1
        if times > 4:
            return [f"it does not end as it should, however often: {_told(ended)}", *watch.wrong]
        ended = _run(scenario, site)
    world.sandbox.hook = None
    left = site.standing()
    # Where nothing served before, one slot is as good as the other: a second try takes the one that has no traffic.
    other = scenario.first and left.get("serving") != plot.left.get("serving")
    wrong = [
        f"{what} is {left.get(what)}, not {plot.left.get(what)}"
        for what in sorted({*left, *plot.left} - ({"serving", "slots", "leading", "carrying"} if other else set()))
        if left.get(what) != plot.left.get(what)
    ]
    return [*watch.wrong[:2], *wrong, *site.unasked()]


def _watched(site: Site, scenario: Scenario) -> Watch:
    watch = Watch(site, scenario)
    site.world.sandbox.hook = watch
    return watch


def _run(scenario: Scenario, site: Site) -> object:
    try:
        return scenario.command(site)
    except OsvDeployError as error:
        return error


def _differs(ended: object, wanted: object) -> bool:
    if isinstance(ended, Rollout) and isinstance(wanted, Rollout):
        return ended.exit_code != wanted.exit_code or _was_refused(ended) != _was_refused(wanted)
    return isinstance(ended, OsvDeployError) or (isinstance(ended, Asked) and not ended.done)


def _was_refused(ended: Rollout) -> bool:
    """A release may go back because it is bad, or because something was not allowed: that is not the same end."""
    return ended.run is not None and ended.run.reason.startswith(REFUSED)


def _told(ended: object) -> str:
    return ended.told if isinstance(ended, Rollout) else f"{type(ended).__name__}: {ended}"

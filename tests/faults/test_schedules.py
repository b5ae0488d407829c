"""Any commands in any order, by two controllers and somebody on call, by processes that die or are stopped at any call.

What must hold, holds after each of them, and in the end a good release serves.

On the memory cloud, in virtual time. Each command is a process of its own on a host of its own, so that nobody can know
whether the one before is dead. One that is stopped goes on when another command was run to its end: it finds out only
by what it sees, and makes one late change at most. Whatever came late is put right as people do, by `drift --repair`
and `gc`; then all must hold again.

A failure prints the shortest schedule that Hypothesis finds, and how to run it again. `make soak` runs ten thousand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from osvdeploy.api import declared, from_cloud, manifests, services, wiring
from osvdeploy.api.from_cloud import Whereabouts
from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import (
    CommandHook,
    GroupState,
    HookAnswer,
    Message,
    ReleaseId,
    Scaling,
    Slot,
    WebhookTarget,
)
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.cloud.memory.world import Backend
from osvdeploy.context import Context, ProcessIdentity
from osvdeploy.errors import OsvDeployError, Refused, ReleaseHeld, Unavailable, UsageError
from osvdeploy.events import Warned
from osvdeploy.rollout.drifting import DriftKind
from osvdeploy.rollout.ends import Asked, Rollout
from osvdeploy.rollout.hooks import Hook, Notify
from osvdeploy.rollout.ledger import Head
from osvdeploy.rollout.manager import RolloutManager
from osvdeploy.rollout.model import Kind, Outcome, Request, RequestKind, Run, Stage, Until
from osvdeploy.rollout.news import NewsKind
from osvdeploy.rollout.releases import (
    Adopted,
    Concurrent,
    OnFailure,
    ProbePlace,
    Release,
    Strategy,
    StrategyKind,
    TrafficStep,
    adopted_release,
)
from osvdeploy.rollout.requests import refuse_senseless
from tests.rollout.made import SETTINGS, UNHURRIED
from tests.rollout.service import Service
from tests.rollout.test_drifting import looked

pytestmark = pytest.mark.slow

SCHEDULES = int(os.environ.get("OSVDEPLOY_SCHEDULES", "60"))

BY_TAGS = Whereabouts("hello", "production", "memory", "nowhere-1", ledger="out of reach")

HELLO = declared.Service("hello", "production", "memory")

APART = 20.0
"""Seconds between two machines that come up one by one: whoever takes one for enough has moved traffic by then."""

THEIRS = "legacy-web"
"""A group that somebody made by hand."""


class Killed(BaseException):
    """The process is gone."""


WAYS: list[tuple[StrategyKind, tuple[TrafficStep, ...]]] = [
    (StrategyKind.ALL_AT_ONCE, (TrafficStep(100),)),
    (StrategyKind.BLUE_GREEN, (TrafficStep(100),)),
    (StrategyKind.CANARY, (TrafficStep(5, 20.0), TrafficStep(100))),
    (StrategyKind.CANARY, (TrafficStep(20, 10.0, approve=True), TrafficStep(60), TrafficStep(100))),
    (StrategyKind.LINEAR, (TrafficStep(34, 10.0), TrafficStep(68, 10.0), TrafficStep(100))),
]


def _strategy(way: tuple[StrategyKind, tuple[TrafficStep, ...]], **rest: Any) -> Strategy:
    return Strategy(*way, **rest)


STRATEGIES = st.builds(
    _strategy,
    st.sampled_from(WAYS),
    bake=st.sampled_from([0.0, 30.0]),
    keep_warm=st.sampled_from([0.0, 3600.0]),
    approve=st.booleans(),
    on_failure=st.sampled_from(OnFailure),
    concurrent=st.sampled_from(Concurrent),
)

BEHAVIOURS: dict[str, dict[str, Any]] = {
    "good": {},
    "answers 500": {"answers": (500,)},
    "answers 500, but to its checks": {"answers": (500,), "health": 200},
    "finds no machines": {"launch_fails": "InsufficientInstanceCapacity"},
    "never healthy": {"never_healthy": True},
    "aborts": {"aborts": "OSv v0.57.0\nAborted\n"},
    "falls sick": {"sick_after": 25.0},
    "fails its hook": {},
    "hangs its hook": {},
}

SMOKE = Hook("smoke", CommandHook(("smoke",)), ("verify", "bake"), timeout=10.0)
TELLING = Notify(WebhookTarget(None, "SLACK"), tuple(kind.value for kind in NewsKind))

FAULTS: dict[str, Callable[[], BaseException]] = {
    "dies": Killed,
    "unavailable": lambda: Unavailable("no answer"),
    "refused": lambda: Refused("not allowed"),
}


@dataclass(frozen=True)
class Trouble:
    """What befalls a process at its n-th call: a fault; or it is stopped there, and ``other`` runs to its end; or it
    lives, and somebody does ``other`` meanwhile that needs no lease."""

    kind: str
    at: int
    moment: Moment
    other: str = ""


OTHERS = ("rollback", "recover", "deploy", "abort", "repair", "retry", "gc", "hold", "pin", "destroy", "nothing")
"""What another controller runs while one is stopped; "nothing": it only stands still for longer than its lease."""

CALLS = st.integers(1, 60) | st.integers(1, 300)
"""By number: a command makes some dozens of calls, a deploy of what scales up to two hundred."""

TROUBLES = st.none() | st.builds(
    Trouble,
    st.sampled_from(sorted(FAULTS)),
    CALLS,
    st.sampled_from(Moment),
)
ALL_TROUBLES = (
    TROUBLES
    | st.builds(Trouble, st.just("stopped"), CALLS, st.sampled_from(Moment), st.sampled_from(OTHERS))
    | st.builds(
        Trouble,
        st.just("meanwhile"),
        CALLS,
        st.just(Moment.BEFORE),
        st.sampled_from([*map(str, RequestKind), "weights", "larger"]),
    )
)


class Schedules(RuleBasedStateMachine):
    """One service, from its first release on."""

    def __init__(self) -> None:
        super().__init__()
        self.service = Service()
        self.service.limits = UNHURRIED
        # There is time for machines that come up one by one, also where somebody has made them four.
        self.base = replace(SETTINGS, health=replace(SETTINGS.health, boot_timeout=120.0))
        self.wrong: list[str] = []
        """What must never be, and was on the way."""
        self.pointer = False
        """The way in sends all traffic to one slot."""
        self.number = 0
        self.bad: set[str] = set()
        self.versions: list[str] = []
        self.late = False
        """Somebody changed the cloud who had no right to: by hand, or late. It is yet to be put right."""
        self.unlearnt = False
        """Traffic was moved without the ledger, which is yet to learn it."""
        self.gone: set[str] = set()
        """Groups that were taken away without the ledger: one that was warm is told as gone."""
        self.images: set[str] = set()
        """Those that there were when it was last looked."""
        self.scaled: tuple[int, int, str] | None = None
        """What the user has said that scales what serves: least, most, rules."""
        self.sizes: dict[str, int] = {}
        """Machines of each group when it was last looked: what stands warm keeps its own number."""
        self.scaled_at = 0
        """The number of the ledger's document when that was said."""
        self.behaving: dict[str, str] = {}
        self.service.cloud.hooks.behaves = self._hook
        self.deaf = False
        """Whoever is to be told does not answer well."""
        self.service.cloud.notifier.behaves = self._told
        self.destroying: str | None = None
        """A destroy was begun after this run, and did not come to its end."""
        self.exported: dict[str, Any] | None = None
        """The first manifest of releases that was made."""
        self.collected: set[str] = set()
        """Releases whose images went while a process was stopped that had seen them: what it begins then ends badly."""

    def _hook(self, facts: dict[str, Any]) -> tuple[float, HookAnswer]:
        behaving = self.behaving.get(facts["candidate"], "")
        return (1e6 if behaving == "hangs its hook" else 0.0), HookAnswer(behaving != "fails its hook", "exit status")

    def _told(self, target: str, message: Message) -> tuple[float, HookAnswer]:
        return 0.0, HookAnswer(not self.deaf, "answered")

    @initialize(
        begin=st.sampled_from(["two releases", "two releases", "an adopted group", "nothing"]),
        kind=st.sampled_from(["named", "named", "unnamed", "pointer"]),
    )
    def begin(self, begin: str, kind: str = "named") -> None:
        """``kind``: answers name their release; they do not; or they come by a way in that has no weights."""
        self.pointer = kind == "pointer" and begin == "two releases"
        if kind == "unnamed":
            self.base = replace(self.base, health=replace(self.base.health, version_header=None))
        if self.pointer:
            self.base = replace(self.base, listener="pointer-1", priority=0, preview_header="")
        self.service.settings = self.base
        if begin != "two releases":
            self.service.cloud.plant_service(THEIRS, 200)
            self.service.clock.advance(60)
        if begin == "an adopted group":
            release = self._theirs()
            ended = self.service.manager().adopt(self.service.context(), release)
            assert ended.outcome is Outcome.SUCCEEDED, ended.told
        elif begin == "two releases":
            for version in ("0.0.0", "0.1.0"):
                self.versions.append(version)
                assert self.service.deploy(version).outcome is Outcome.SUCCEEDED

    def _theirs(self) -> Release:
        health = replace(self.base.health, version_header=None)
        group = Adopted(THEIRS, "image-of-theirs", "rule at priority 200", False)
        now = self.service.context().now()
        return adopted_release("hello", "0.0.1", group, replace(self.base, health=health), created=now, by="somebody")

    @property
    def head(self) -> Head | None:
        return self.service.ledger.head(self.service.context())

    def unasked_head(self) -> Head | None:
        """The head, in the midst of a command whose calls are counted."""
        cloud = self.service.cloud
        hook = cloud.faults.hook
        cloud.on_call(None)
        head = self.head
        cloud.on_call(hook)
        return head

    @property
    def astray(self) -> bool:
        """Whether the cloud may be otherwise than the ledger says."""
        return self.late or self.unlearnt

    @property
    def under_way(self) -> bool:
        head = self.head
        return head is not None and head.unfinished is not None

    @property
    def deployed(self) -> bool:
        head = self.head
        return head is not None and head.place is not None and not head.destroyed

    @property
    def serves_nothing(self) -> bool:
        head = self.head
        return head is None or head.stable is None or head.destroyed

    @property
    def at_rest(self) -> bool:
        head = self.head
        return head is not None and head.unfinished is None and not self.half_destroyed

    @property
    def half_destroyed(self) -> bool:
        """Until it is destroyed again, or something serves again."""
        head = self.head
        if self.destroying is not None and head is not None and head.run is not None:
            again = head.run.id != self.destroying and head.run.verdict is Outcome.SUCCEEDED
            if head.destroyed or again:
                self.destroying = None
        return self.destroying is not None

    # ------------------------------------------------------------------------------------------------- a process

    def _process(self) -> Context:
        """Nobody waits for ever for somebody else."""
        return self.service.context().within(900.0)

    def run(self, trouble: Trouble | None, command: Callable[[Context], object]) -> object:
        """A command as a process runs it: it ends, is refused, or dies. Afterwards what came late is put right."""
        ctx = self._process()
        struck = _Struck(trouble, self, ctx.process) if trouble is not None else None
        self.service.cloud.on_call(_Watched(self, ctx.process, struck))
        try:
            return command(ctx)
        except Killed:
            return None
        except OsvDeployError as error:
            return error
        finally:
            self.service.cloud.on_call(None)
            if struck is not None and struck.late:
                # Who has lost the lease finds out, at the latest, by what it does next.
                assert len(struck.late) == 1, [str(call) for call in struck.late]
                self.late = True
            if self.astray and self.at_rest:
                self._put_right()

    def meanwhile(self, trouble: Trouble) -> None:
        """What another one does at a call of a process that is stopped, or that lives."""
        hook = self.service.cloud.faults.hook
        self.service.cloud.on_call(None)
        try:
            if trouble.other == "nothing":
                self.service.clock.advance(100.0)
            elif trouble.kind == "stopped":
                before = self._images()
                self.run(None, _COMMANDS[trouble.other](self))
                self.collected |= before - self._images()
            elif trouble.other == "weights":
                self._weights_by_hand()
            elif trouble.other == "larger":
                self._larger()
            else:
                self._ask(RequestKind(trouble.other))
        finally:
            self.service.cloud.on_call(hook)

    def _ask(self, kind: RequestKind) -> None:
        """As the command does that finds the lease held by a process that lives."""
        head = self.head
        run = head.unfinished if head is not None else None
        if run is None:
            return
        now = self.service.clock.now()
        try:
            refuse_senseless(run, kind, self.service.ledger.service, now)
        except OsvDeployError:
            return
        self.service.ledger.ask(self.service.context(), run.id, Request(kind, "ann@desk", now, run.step))

    def _put_right(self) -> None:
        """As people do who see that something is not as it should be."""
        head = self.head
        if head is not None and head.place is None:
            return  # a ledger that is yet to be written anew
        self.late = self.unlearnt = False
        if head is None:
            return
        if head.destroyed:
            self._gc(self._process())
            stays = {each for each in self.service.cloud.standing if not each.startswith("backend ")}
            assert not {each for each in stays if not self._leads_nowhere(each)}, stays
            return
        if head.stable is None:
            self._gc(self._process())
            return
        # Machines may be on their way up, or sick: then whoever moved traffic is asked to.
        self.service.clock.advance(30.0)
        try:
            self._repair(self._process())
        except Refused as error:
            assert "no machine in" in str(error) and head.serving is not None and head.place is not None
            weights = {head.serving: 100, head.serving.other: 0}
            self.service.cloud.cloud.router.set_weights(self._process(), head.place.route, weights)
        self._gc(self._process())
        left = [each for each in looked(self.service) if each.kind in (DriftKind.ROUTE, DriftKind.STRANGER)]
        assert not left, left

    # ------------------------------------------------------------------------------------------------- commands

    def _release(self, version: str, behaviour: str = "good") -> Release:
        """Built and published; it is remembered as one that there is."""
        self.service.publish(version)
        self.collected.discard(self.service.id(version))
        # Of every second release one machine comes up after the other.
        apart = APART if self.number % 2 else 0.0
        self.service.cloud.behave(self.service.id(version), **{"apart": apart, **BEHAVIOURS[behaviour]})
        self.behaving[self.service.id(version)] = behaviour
        if BEHAVIOURS[behaviour]:
            self.bad.add(self.service.id(version))
        if version not in self.versions:
            self.versions.append(version)
        return self.service.release(version)

    def _next(self) -> str:
        self.number += 1
        return f"1.{self.number}.0"

    @rule(
        behaviour=st.sampled_from(sorted(BEHAVIOURS)),
        strategy=STRATEGIES,
        trouble=ALL_TROUBLES,
        until=st.sampled_from([Until.ASKED, Until.BEGUN]),
        deaf=st.booleans(),
        capacity=st.sampled_from([2, 2, 1, 3]),
    )
    def deploy(
        self,
        behaviour: str,
        strategy: Strategy,
        trouble: Trouble | None,
        until: Until,
        deaf: bool = False,
        capacity: int = 0,
    ) -> None:
        self.deaf = deaf
        hooks = (SMOKE,) if behaviour.endswith("hook") else ()
        if self.pointer:
            strategy = replace(strategy, steps=strategy.steps[-1:])
        telling = (TELLING,) if deaf else ()
        self.service.settings = replace(
            self.base, strategy=strategy, hooks=hooks, notify=telling, capacity=capacity or self.base.capacity
        )
        release = self._release(self._next(), behaviour)
        manager = self.service.manager()
        manager.until = until
        self.run(trouble, lambda ctx: manager.deploy(ctx, release))

    @rule(strategy=STRATEGIES, trouble=ALL_TROUBLES)
    def deploy_a_good_one(self, strategy: Strategy, trouble: Trouble | None) -> None:
        self.deploy("good", strategy, trouble, Until.ASKED)

    @precondition(lambda self: THEIRS in self.service.cloud.world.groups and self.serves_nothing)
    @rule(trouble=ALL_TROUBLES)
    def adopt(self, trouble: Trouble | None) -> None:
        """Somebody's group begins to serve."""
        release = self._theirs()
        ended = self.run(trouble, lambda ctx: self.service.manager().adopt(ctx, release))
        if trouble is None and isinstance(ended, Rollout) and ended.outcome is Outcome.SUCCEEDED:
            assert self.service.head.stable is not None and self.service.head.stable.release == release.id

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), trouble=ALL_TROUBLES, forced=st.booleans())
    def deploy_again(self, data: st.DataObject, trouble: Trouble | None, forced: bool) -> None:
        """One that there was; where a hold names it, only by a word."""
        version = data.draw(st.sampled_from(self.versions[-3:]))
        release = self.service.release(version)
        self.service.publish(version)
        self.collected.discard(release.id)
        head = self.head
        held = head is not None and any(hold.release in (release.id, None) for hold in head.holds)
        ended = self.run(trouble, lambda ctx: self.service.manager().deploy(ctx, release, forced=forced))
        if held and not forced and trouble is None and isinstance(ended, Rollout):
            assert ended.outcome is not Outcome.SUCCEEDED or ended.run is None or ended.run.candidate != release.id

    @precondition(lambda self: self.deployed)
    @rule(behaviour=st.sampled_from(["good", "answers 500"]), meanwhile=st.sampled_from(["", *OTHERS]))
    def deploy_by_a_plan(self, behaviour: str, meanwhile: str) -> None:
        """Only where nothing has happened since the plan was made."""
        self.service.settings, self.deaf = self.base, False
        release, planned = self._release(self._next(), behaviour), self.service.head.n
        if meanwhile in _COMMANDS:
            self.run(None, _COMMANDS[meanwhile](self))
        head, before = self.head, len(self.service.cloud.mutations)
        assert head is not None
        ended = self.run(None, lambda ctx: self.service.manager().deploy(ctx, release, since=planned))
        if head.n != planned:
            assert isinstance(ended, OsvDeployError), ended
            changed = [call for call in self.service.cloud.mutations[before:] if not call.operation.startswith("store")]
            assert not changed, changed

    @precondition(lambda self: self.deployed)
    @rule()
    def export_releases(self) -> None:
        """Nothing is changed by that."""
        before = self.head
        with self._by_the_interface():
            manifest = manifests.export_releases(self._process(), HELLO, look=False)
        document = {"schema": 1, "command": manifests.COMMAND, **manifests.manifest_document(manifest)}
        self.exported = json.loads(json.dumps(document))
        assert self.head == before

    @precondition(lambda self: self.exported is not None and self.deployed)
    @rule(trouble=ALL_TROUBLES)
    def import_releases(self, trouble: Trouble | None) -> None:
        """Into the ledger that there is now, which may be another one. Nothing serves for that, and what is there is
        not written over; run again, it puts what is missing."""
        before = self.head
        with self._by_the_interface():
            releases = manifests.read_manifest(self.exported, "exported")

            def put(ctx: Context) -> object:
                return manifests.import_releases(ctx, HELLO, releases, missing_only=True)

            ended = self.run(trouble, put)
            ended = self.run(None, put) if trouble is not None else ended
        if not self._disturbed(trouble):
            assert self.head == before
        known = {release.id: release for release in self.service.ledger.releases(self.service.context())}
        assert isinstance(ended, manifests.Imported) or self._disturbed(trouble), ended
        assert not isinstance(ended, manifests.Imported) or {each[0].id for each in releases} <= set(known)

    @contextmanager
    def _by_the_interface(self) -> Iterator[None]:
        """Functions of the library work on the service's own cloud and ledger."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(wiring, "ground_of", lambda ctx, place: self.service.cloud.cloud)
            patched.setattr(wiring, "open_ledger", lambda service: self.service.ledger)
            # This ledger's address is no path.
            patched.setattr(manifests, "_at", lambda revisions, address: list(revisions))
            yield

    @precondition(lambda self: self.deployed)
    @rule(trouble=ALL_TROUBLES, force=st.booleans(), counted=st.booleans())
    def rollback(self, trouble: Trouble | None, force: bool, counted: bool = False) -> None:
        """``counted``: from where the balancer cannot be reached."""
        manager = self.service.manager()
        manager.driver.probe_from = ProbePlace.REQUESTS if counted else None
        ended = self.run(trouble, lambda ctx: manager.rollback(ctx, force=force))
        if counted and self.pointer:
            assert isinstance(ended, OsvDeployError | None), ended
        if isinstance(ended, Rollout) and ended.outcome is Outcome.SUCCEEDED and not self._disturbed(trouble):
            assert not self.under_way

    @precondition(lambda self: self.deployed and self.versions)
    @rule(data=st.data(), trouble=ALL_TROUBLES)
    def rollback_to(self, data: st.DataObject, trouble: Trouble | None) -> None:
        release = self.service.release(data.draw(st.sampled_from(self.versions[-4:])))
        ended = self.run(trouble, lambda ctx: self.service.manager().rollback(ctx, release))
        if isinstance(ended, Rollout) and ended.outcome is Outcome.SUCCEEDED and not self._disturbed(trouble):
            head = self.head
            assert head is not None and head.stable is not None and head.stable.release == release.id

    @staticmethod
    def _disturbed(trouble: Trouble | None) -> bool:
        """Whether somebody else had a say in what came of a command."""
        return trouble is not None and trouble.kind in ("stopped", "meanwhile")

    @precondition(lambda self: self.deployed and not self.half_destroyed)
    @rule(data=st.data(), trouble=TROUBLES)
    def rollback_from_cloud(self, data: st.DataObject, trouble: Trouble | None) -> None:
        """While the ledger cannot be reached, and with nobody else at work: it learns of it afterwards."""
        to = data.draw(st.sampled_from([None, *map(self.service.id, self.versions[-3:])]))

        def back(ctx: Context) -> object:
            self.unlearnt = True
            cloud = self.service.cloud
            # One that is cut off hands nothing over, and no ledger knows that it is owed.
            scaled, self.scaled = self.scaled, None
            went = from_cloud.go_back(ctx, BY_TAGS, cloud.cloud, cloud.prober, limits=UNHURRIED, to=to)
            run = went.rollout.run
            if run is None or (run.scaling is not None and run.scaled):
                self.scaled = scaled
            # Where no note could be left, that was said, and what to do before anything else.
            return went if went.noted else self._written_anew(ctx)

        before = set(self._groups())
        self.run(trouble, back)
        self.gone |= before - set(self._groups())

    def _written_anew(self, ctx: Context) -> object:
        cloud = self.service.cloud
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(wiring, "open_store", lambda address: cloud.store)
            return from_cloud.write_anew(ctx, replace(BY_TAGS, ledger=None), cloud.cloud, cloud.prober)

    @precondition(lambda self: self.deployed and not self.serves_nothing and not self.half_destroyed)
    @rule(trouble=TROUBLES)
    def lose_the_ledger(self, trouble: Trouble | None) -> None:
        """All of it is gone, and it is written anew by the cloud's tags. Traffic that is shared goes to one first. What
        was exported before is put into it."""
        stable = self.service.head.stable
        assert stable is not None
        shared = sum(weight > 0 for weight in self._weights().values()) > 1
        if self.under_way:
            # What the rollout was about to hand over, only its ledger knew.
            self.scaled = None
        self._each_epoch_has_one_writer()
        self.service.cloud.store._objects.clear()
        self.scaled_at = 0

        def anew(ctx: Context) -> object:
            cloud = self.service.cloud
            if shared:
                self.unlearnt = True
                from_cloud.go_back(ctx, BY_TAGS, cloud.cloud, cloud.prober, limits=UNHURRIED, to=stable.release)
            return self._written_anew(ctx)

        self.run(trouble, anew)
        ended = self.run(None, anew) if not self.deployed else None
        assert self.deployed, ended
        groups, serves = self.service.cloud.cloud.groups, self.service.head.stable
        there = groups.scaling(self._process(), serves.group) if serves is not None else None
        if serves is not None and there is not None and there.paused and there.parts:
            # What a rollout had paused, only its ledger knew. That was said, and somebody lets it go on.
            told = f"what scales {serves.release} is suspended ("
            warned = [event.text for event in self.service.recorder.events if isinstance(event, Warned)]
            assert any(told in text for text in warned)
            groups.resume(self._process(), serves.group, replace(there, paused=False))
        if self.exported is not None:
            self.import_releases(None)

    @precondition(lambda self: self.under_way)
    @rule(kind=st.sampled_from(RequestKind), trouble=ALL_TROUBLES)
    def request(self, kind: RequestKind, trouble: Trouble | None) -> None:
        ended = self.run(trouble, lambda ctx: self.service.manager().request(ctx, kind))
        if kind is RequestKind.ABORT and isinstance(ended, Asked) and ended.done and ended.rollout is not None:
            assert ended.rollout.outcome in (Outcome.ABORTED, Outcome.ROLLBACK_FAILED, Outcome.SUCCEEDED)

    @precondition(lambda self: self.under_way)
    @rule(trouble=ALL_TROUBLES)
    def recover(self, trouble: Trouble | None) -> None:
        self.run(trouble, lambda ctx: self.service.manager().recover(ctx))

    @precondition(lambda self: self.deployed)
    @rule(trouble=ALL_TROUBLES, forced=st.booleans())
    def retry(self, trouble: Trouble | None, forced: bool) -> None:
        self.run(trouble, lambda ctx: self.service.manager().retry(ctx, forced=forced))

    @rule(seconds=st.sampled_from([1.0, 30.0, 90.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        self.service.clock.advance(seconds)

    @precondition(lambda self: self.deployed)
    @rule(data=st.data(), everything=st.booleans(), trouble=ALL_TROUBLES, stays=st.sampled_from([False, False, True]))
    def hold(self, data: st.DataObject, everything: bool, trouble: Trouble | None, stays: bool) -> None:
        """Nothing that it refuses begins."""
        named = None if everything or not self.versions else self.service.id(data.draw(st.sampled_from(self.versions)))
        ended = self.run(trouble, lambda ctx: self.service.manager().hold(ctx, named, "not now"))
        if not isinstance(ended, Head) or self._disturbed(trouble):
            return
        version = self._next() if named is None else next(v for v in self.versions if self.service.id(v) == named)
        release = self._release(version)
        before = len(self.service.cloud.mutations)
        stable = ended.stable
        if ended.unfinished is None and (stable is None or stable.release != release.id):
            with pytest.raises((ReleaseHeld, UsageError)):
                self.service.manager().deploy(self.service.context(), release)
            changed = [call for call in self.service.cloud.mutations[before:] if not call.operation.startswith("store")]
            assert not changed, changed
        if not stays:
            self.service.manager().unhold(self.service.context())

    @precondition(lambda self: (head := self.head) is not None and head.holds)
    @rule(trouble=ALL_TROUBLES)
    def unhold(self, trouble: Trouble | None) -> None:
        self.run(trouble, lambda ctx: self.service.manager().unhold(ctx))

    @precondition(lambda self: self.deployed and self.versions)
    @rule(data=st.data(), pinned=st.booleans(), trouble=ALL_TROUBLES)
    def pin(self, data: st.DataObject, pinned: bool, trouble: Trouble | None) -> None:
        release = self.service.id(data.draw(st.sampled_from(self.versions)))
        self.run(trouble, lambda ctx: self.service.manager().pin(ctx, release, pinned=pinned))

    @precondition(lambda self: self.deployed)
    @rule(trouble=ALL_TROUBLES)
    def repair(self, trouble: Trouble | None) -> None:
        """What is told as repairable is not told afterwards."""
        ended = self.run(trouble, self._repair)
        if trouble is None and isinstance(ended, Head) and ended.unfinished is None and ended.stable is not None:
            assert not [each for each in looked(self.service) if each.repairable]

    def _repair(self, ctx: Context) -> Head:
        return self.service.manager().realign(ctx)

    @precondition(lambda self: self.deployed or self.half_destroyed)
    @rule(trouble=ALL_TROUBLES)
    def gc(self, trouble: Trouble | None) -> None:
        """Takes nothing that anybody needs. One that was cut off is run again: records go before their groups."""
        self.run(trouble, self._gc)
        if trouble is not None:
            self.run(None, self._gc)

    def _gc(self, ctx: Context) -> object:
        with self._by_the_interface():
            return services.gc(ctx, HELLO, keep=1)

    @precondition(lambda self: self.deployed)
    @rule(trouble=ALL_TROUBLES, sure=st.integers(0, 3))
    def destroy(self, trouble: Trouble | None, sure: int) -> None:
        """Seldom, or there is nothing else to be seen."""
        if sure:
            return
        ended = self.run(trouble, self._destroy)
        if isinstance(ended, Head) and not self._disturbed(trouble):
            assert self.service.cloud.standing == set()

    def _destroy(self, ctx: Context) -> Head:
        before = self.head
        if before is not None:
            self.destroying = before.run.id if before.run is not None else ""
        # Of what was never deployed it is refused.
        head = self.service.manager().destroy(ctx)
        self.destroying = None
        return head

    # ------------------------------------------------------------------------------------------- what others do by hand

    @precondition(lambda self: self.deployed and not self.under_way and not self.half_destroyed)
    @rule(trouble=TROUBLES)
    def weights_by_hand(self, trouble: Trouble | None) -> None:
        """Told; no deploy goes over it; repaired, or told why not."""
        if not self._weights_by_hand():
            return
        self.late = False
        assert any(each.kind is DriftKind.ROUTE for each in looked(self.service))
        self.late = True
        self.run(trouble, self._repair)

    def _weights_by_hand(self) -> bool:
        head = self.head
        if self.pointer or head is None or head.serving is None or head.place is None or not self._weights():
            return False
        if self.service.cloud.cloud.router.observe(self.service.context(), head.place.route).left is not None:
            # Traffic was taken from what the ledger says just now: nobody sends it there again.
            return False
        self.service.cloud.set_weights("hello/production", {head.serving: 50, head.serving.other: 50})
        self.late = True
        return True

    @precondition(lambda self: self.deployed and not self.under_way and not self.half_destroyed)
    @rule()
    def larger(self) -> None:
        """Somebody adds a machine to what serves: what comes next is as large."""
        self._larger()

    def _larger(self) -> None:
        head = self.head
        world = self.service.cloud.world
        group = world.groups.get(head.stable.group) if head is not None and head.stable is not None else None
        if group is not None and not group.deleting and group.capacity < 4 and group.scaler is None:
            group.capacity += 1
            world.fill(group, world.settle())

    @precondition(lambda self: self.deployed and not self.under_way and not self.half_destroyed)
    @rule(minimum=st.integers(1, 2), maximum=st.integers(2, 4), wanted=st.integers(1, 4))
    def scale(self, minimum: int, maximum: int, wanted: int) -> None:
        """Somebody lets what serves be scaled, or otherwise than before: so is what comes next."""
        stable = self.service.head.stable
        group = self.service.cloud.world.groups.get(stable.group) if stable is not None else None
        if group is None or group.deleting:
            return
        self.service.cloud.scale(group.name, minimum, maximum, cpu=f"{minimum}0 %")
        self.service.cloud.load(group.name, wanted)
        self.scaled = minimum, maximum, f'{{"cpu": "{minimum}0 %"}}'
        self.scaled_at = self.service.head.n

    @precondition(lambda self: self.under_way)
    @rule()
    def see_it_through(self) -> None:
        """Somebody brings what is under way to its end: then ledger and cloud agree."""
        for _ in range(4):
            head = self.head
            run = head.unfinished if head is not None else None
            if run is None:
                break
            assert head is not None
            held = any(hold.release in (None, run.candidate) for hold in head.holds)
            undecided = not run.returning and run.abort is None
            aborts = run.awaits(self.service.clock.now()) or (held and undecided)
            self.run(None, _COMMANDS["abort" if aborts else "recover"](self))
        assert not self.under_way

    # ------------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def nothing_was_wrong_on_the_way(self) -> None:
        """What :class:`_Watched` has seen."""
        assert not self.wrong, self.wrong

    def _each_epoch_has_one_writer(self) -> None:
        """By all that was ever written to this ledger."""
        writers: dict[int, set[str]] = {}
        for key, content in self.service.cloud.store._objects.items():
            document = json.loads(content.content).get("head", {}) if "/head/" in key else {}
            if document.get("lease"):
                writers.setdefault(document["epoch"], set()).add(document["lease"]["holder"]["host"])
        assert writers and all(len(each) == 1 for each in writers.values()), writers

    @invariant()
    def what_has_served_goes_on_serving(self) -> None:
        """The stable release's machines stand, all that it needs, and traffic goes to it or to a candidate."""
        head = self.head
        if head is None or head.place is None or head.destroyed or self.half_destroyed or self.astray:
            return
        if head.stable is None:
            return
        assert head.serving is not None
        groups = self._groups()
        run = head.run
        moving = run is not None and not (run.over and run.verdict is not Outcome.ROLLBACK_FAILED)
        if not moving:
            assert head.stable.group in groups, f"{head.stable} has no machines"
            assert not groups[head.stable.group].deleting
            assert self._weights().get(head.serving, 0) == 100
        assert sum(self._weights().values()) == 100

    @invariant()
    def all_traffic_never_goes_where_nothing_stands(self) -> None:
        """Whatever the ledger knows, as long as nobody has changed weights by hand, or late."""
        head = self.head
        if head is None or head.place is None or head.stable is None or head.destroyed or self.half_destroyed:
            return
        carrying = {slot for slot, weight in self._weights().items() if weight > 0}
        there = {group.tags.get(tags.SLOT) for group in self._groups().values() if not group.deleting}
        assert self.late or not carrying or carrying & there, (carrying, there)

    @invariant()
    def at_most_two_releases_stand(self) -> None:
        if self.astray:
            return
        standing = [group for group in self._groups().values() if not group.deleting]
        assert len(standing) <= 2, [group.release for group in standing]
        slots = [group.tags.get(tags.SLOT) for group in standing]
        assert len(set(slots)) == len(slots)

    @invariant()
    def at_rest_ledger_and_cloud_agree(self) -> None:
        head = self.head
        if head is None or head.unfinished is not None or head.lease is not None or self.half_destroyed or self.astray:
            return
        standing = {group.name for group in self._groups().values() if not group.deleting}
        recorded = {record.group for record in head.slots.values()}
        if head.run is not None and head.run.verdict is not Outcome.ROLLBACK_FAILED:
            assert standing == recorded - (self.gone - standing)

    @invariant()
    def what_was_seen_to_be_bad_does_not_serve_by_itself(self) -> None:
        """A release that never answered well has no traffic at rest."""
        head = self.head
        if head is not None and head.unfinished is None and head.stable is not None:
            never = {id for id in self.bad if not self._ever_well(id)}
            assert head.stable.release not in never
        run = head.run if head is not None else None
        if run is not None and run.verdict is Outcome.SUCCEEDED and run.settings.hooks and run.kind is Kind.DEPLOY:
            # In a rollback, also to that very release, which somebody may ask for, hooks have no say.
            assert not self.behaving.get(run.candidate, "").endswith("hook")

    @invariant()
    def what_is_needed_has_its_image(self) -> None:
        """What serves, is warm, is pinned or is on its way can be started."""
        head, before = self.head, self.images
        self.images = self._images()
        if head is None:
            return
        assert set(head.pins) & before <= self.images, head.pins
        if head.destroyed:
            return
        # What was taken away without the ledger is not warm any more, whatever it says.
        gone = self.gone - set(self._groups())
        needed = {record.release for record in head.slots.values() if record.group not in gone}
        if head.unfinished is not None:
            needed |= {head.unfinished.candidate} - self.collected
        needed = {each for each in needed - self.images if self._is_built(each)}
        assert not needed

    @invariant()
    def what_scales_passes_on(self) -> None:
        """From release to release, or it is told that it did not."""
        self._see_what_scales()
        self.sizes = {name: group.capacity for name, group in self._groups().items()}

    def _see_what_scales(self) -> None:
        head = self.head
        if head is None or head.destroyed or head.stable is None or self.half_destroyed:
            self.scaled = None
        if self.scaled is None or head is None or head.stable is None or not self.at_rest or self.astray:
            return
        there = self.service.cloud.cloud.groups.scaling(self.service.context(), head.stable.group)
        assert there is not None
        if not self._passed_on(head, there) or there.paused:
            if any(each.destroyed for each in self.service.ledger.since(self.service.context(), self.scaled_at)):
                # Its process stood still behind that, and another one has deployed anew meanwhile.
                self.scaled = None
                return
            assert DriftKind.SCALING in {each.kind for each in looked(self.service)}, (there, self.scaled)

    def _passed_on(self, head: Head, there: Scaling) -> bool:
        """Whether bounds and rules are those of before. Between bounds that are one number nothing scales: there it is
        the spec's number that counts, once a release comes with another one, and what stood warm keeps its own."""
        assert self.scaled is not None
        minimum, maximum, rules = self.scaled
        if there.rules != rules or (there.minimum, there.maximum) == (minimum, maximum):
            return there.rules == rules
        releases = [self.service.ledger.release(self.service.context(), each.release) for each in head.served]
        declared = {release.settings.capacity for release in releases if release is not None}
        stood = self.sizes.get(head.stable.group) if head.stable is not None else None
        return minimum == maximum and there.minimum == there.maximum and there.minimum in declared | {stood}

    @invariant()
    def nothing_of_a_destroyed_service_stands(self) -> None:
        head = self.head
        if head is not None and head.destroyed and head.unfinished is None and not self.astray:
            assert self._groups() == {}

    @invariant()
    def theirs_is_never_deleted(self) -> None:
        """A group that was adopted is let go."""
        group = self.service.cloud.world.groups.get(THEIRS)
        assert THEIRS not in self.service.cloud.world.templates or (group is not None and not group.deleting)

    def _leads_nowhere(self, standing: str) -> bool:
        """Whether it is a rule that previews an empty slot."""
        kind, _, name = standing.partition(" ")
        return kind == "rule" and self.service.cloud.world.rules[name].preview

    def _images(self) -> set[str]:
        owned = self.service.cloud.cloud.images.owned(self.service.context(), {tags.APP: "hello"})
        return {each.name for each in owned}

    def _is_built(self, release: ReleaseId) -> bool:
        known = self.service.ledger.release(self.service.context(), release)
        return known is not None and known.adopted is None

    def teardown(self) -> None:
        """Whatever happened: a rollout of a good release succeeds in the end."""
        self.nothing_was_wrong_on_the_way()
        if self.half_destroyed:
            self._destroy(self._process())
        for _ in range(3):
            if not self.under_way:
                break
            self.see_it_through()
        if self.head is not None:
            self.service.manager().unhold(self.service.context())
        self.service.settings = self.base
        ended = None
        for _ in range(3):
            try:
                ended = self.service.deploy("9.9.9")
            except OsvDeployError as error:
                if "weights are" in str(error) or "carries traffic" in str(error):
                    self.run(None, self._repair)
                    continue
                raise
            if ended.outcome is Outcome.SUCCEEDED:
                break
        assert ended is not None and ended.outcome is Outcome.SUCCEEDED, ended and ended.told
        assert self.service.cloud.serving - {THEIRS} == {self.service.id("9.9.9")}
        recorded = {record.group for record in self.service.head.slots.values()}
        assert {group.name for group in self._groups().values() if not group.deleting} == recorded
        self._each_epoch_has_one_writer()

    def _groups(self) -> Mapping[str, GroupState]:
        owned = self.service.cloud.cloud.groups.owned(self.service.context(), {tags.SERVICE: "hello/production"})
        return {group.name: group for group in owned}

    def _weights(self) -> dict[Slot, int]:
        place = self.service.head.place
        assert place is not None
        return dict(self.service.cloud.cloud.router.observe(self.service.context(), place.route).weights or {})

    def _ever_well(self, release: str) -> bool:
        return self.service.cloud.world.behaviour(release).sick_after is not None


Command = Callable[[Context], object]


def _deploying(machine: Schedules) -> Command:
    release = machine._release(machine._next())
    return lambda ctx: machine.service.manager().deploy(ctx, release)


def _by_manager(command: Callable[[RolloutManager, Context], object]) -> Callable[[Schedules], Command]:
    return lambda machine: lambda ctx: command(machine.service.manager(), ctx)


_COMMANDS: Mapping[str, Callable[[Schedules], Command]] = {
    "rollback": _by_manager(lambda manager, ctx: manager.rollback(ctx)),
    "recover": _by_manager(lambda manager, ctx: manager.recover(ctx)),
    "abort": _by_manager(lambda manager, ctx: manager.request(ctx, RequestKind.ABORT)),
    "hold": _by_manager(lambda manager, ctx: manager.hold(ctx, None, "not now")),
    "pin": _by_manager(lambda manager, ctx: manager.pin(ctx, ReleaseId("hello-0.0.0-00000000"))),
    "retry": _by_manager(lambda manager, ctx: manager.retry(ctx)),
    "destroy": lambda machine: machine._destroy,
    "deploy": _deploying,
    "repair": lambda machine: machine._repair,
    "gc": lambda machine: machine._gc,
}


class _Watched:
    """Looks at each change that a process makes which has the lease; then what befalls the call does.

    What is done without the ledger, by hand, or late, has no run that it could be held to."""

    def __init__(self, machine: Schedules, process: ProcessIdentity, struck: _Struck | None) -> None:
        self.machine, self.process, self.struck = machine, process, struck

    def __call__(self, call: Call, moment: Moment) -> None:
        if self.struck is not None:
            self.struck(call, moment)
        if moment is Moment.BEFORE and call.operation in ("router.modify_rule", "router.create_rule", "groups.delete"):
            head = self.machine.unasked_head()
            run = head.unfinished if head is not None else None
            if head is None or run is None or head.lease is None or head.lease.holder != self.process:
                return
            if call.operation == "groups.delete":
                if call.arguments[0] == run.stable_group and run.verdict is not Outcome.SUCCEEDED:
                    self.machine.wrong.append(f"{run.stable} is taken away before {run.candidate} is proved")
            elif run.verdict is None and not run.returning:
                self._look_before_a_switch(call, run)

    def _look_before_a_switch(self, call: Call, run: Run) -> None:
        """What gets more traffic has been proved to be good, and all machines that were asked for are healthy: but for
        what falls sick by itself at that moment."""
        world = self.machine.service.cloud.world
        backend = next((each for each in world.backends.values() if each.slot is run.slot and carries(each)), None)
        # A rule that previews a slot is made with that slot's name alone.
        wanted = dict(each.split("=") for each in str(call.arguments[1]).split(", ") if "=" in each)
        if backend is None or int(wanted.get(run.slot, 0)) == 0:
            return
        if run.stage not in (Stage.SHIFT, Stage.BAKE):
            self.machine.wrong.append(f"{run.candidate} gets traffic in {run.stage}")
        healthy = sum(each.state == "healthy" for each in backend.targets.values())
        if healthy < run.capacity and run.candidate not in self.machine.bad:
            self.machine.wrong.append(f"{run.candidate} gets {wanted}, with {healthy} of {run.capacity} healthy")


def carries(backend: Backend) -> bool:
    """Whether it is the service's, and not one that somebody else made."""
    return tags.is_ours(backend.tags)


class _Struck:
    """One call of a process goes wrong, or others act at it; one that dies makes no other."""

    def __init__(self, trouble: Trouble, machine: Schedules, process: ProcessIdentity) -> None:
        self.trouble, self.machine, self.process = trouble, machine, process
        # Who is refused has done nothing.
        self.moment = Moment.BEFORE if trouble.kind == "refused" else trouble.moment
        self.seen = 0
        self.lost = False
        """The lease, while it was stopped."""
        self.late: list[Call] = []
        """Changes of the cloud that it made after that."""

    def __call__(self, call: Call, moment: Moment) -> None:
        if moment is Moment.BEFORE:
            self.seen += 1
        kind, at = self.trouble.kind, self.trouble.at
        here = self.seen == at and moment is self.moment
        if kind in FAULTS:
            if here or (kind == "dies" and self.seen > at):
                raise FAULTS[kind]()
            return
        if here:
            held, before = self._holds()
            self.machine.meanwhile(self.trouble)
            self.lost = held and self._holds()[1] != before
        changes = call.mutating and not call.operation.startswith("store.")
        # It may have got the lease anew: to take it is tried again where somebody else was faster.
        if self.lost and moment is Moment.BEFORE and changes and not self._holds()[0]:
            self.late.append(call)

    def _holds(self) -> tuple[bool, int]:
        """Whether the process has the lease, and that lease's number; without being asked at these calls."""
        head = self.machine.unasked_head()
        if head is None:
            return False, 0
        return head.lease is not None and head.lease.holder == self.process, head.epoch


@pytest.mark.timeout(7200)
def test_any_schedule_ends_well(record_property: Callable[[str, object], None]) -> None:
    """Two controllers, somebody on call, and processes that die."""
    run_state_machine_as_test(
        Schedules,
        settings=settings(
            max_examples=SCHEDULES,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
    record_property("told", f"{SCHEDULES} schedules of up to 15 commands")

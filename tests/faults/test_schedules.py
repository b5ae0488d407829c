"""Any commands in any order, by two controllers and somebody on call, by processes that die at any call.

What must hold, holds after each of them, and in the end a good release serves.

On the memory cloud, in virtual time. Each command is a process of its own on a host of its own, so that nobody can know
whether the one before is dead. A failure prints the shortest schedule that Hypothesis finds, and how to run it again.
`make soak` runs ten thousand.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import Slot
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import OsvDeployError, Refused, Unavailable
from osvdeploy.rollout.ends import Asked, Rollout
from osvdeploy.rollout.model import Outcome, RequestKind, Until
from osvdeploy.rollout.releases import Concurrent, OnFailure, Strategy, StrategyKind, TrafficStep
from tests.rollout.made import SETTINGS, UNHURRIED
from tests.rollout.service import Service

pytestmark = pytest.mark.slow

SCHEDULES = int(os.environ.get("OSVDEPLOY_SCHEDULES", "60"))


class Killed(BaseException):
    """The process is gone."""


STRATEGIES = st.builds(
    Strategy,
    kind=st.just(StrategyKind.CANARY),
    steps=st.sampled_from(
        [
            (TrafficStep(100),),
            (TrafficStep(5, 20.0), TrafficStep(100)),
            (TrafficStep(20, 10.0, approve=True), TrafficStep(60), TrafficStep(100)),
        ]
    ),
    bake=st.sampled_from([0.0, 30.0]),
    keep_warm=st.sampled_from([0.0, 3600.0]),
    approve=st.booleans(),
    on_failure=st.sampled_from(OnFailure),
    concurrent=st.sampled_from(Concurrent),
)

BEHAVIOURS: dict[str, dict[str, Any]] = {
    "good": {},
    "answers 500": {"answers": (500,)},
    "never healthy": {"never_healthy": True},
    "aborts": {"aborts": "OSv v0.57.0\nAborted\n"},
    "falls sick": {"sick_after": 25.0},
}

TROUBLE: dict[str, Callable[[], BaseException]] = {
    "dies": Killed,
    "unavailable": lambda: Unavailable("no answer"),
    "refused": lambda: Refused("not allowed"),
}

TROUBLES = st.none() | st.tuples(st.sampled_from(sorted(TROUBLE)), st.integers(1, 60), st.sampled_from(Moment))


class Schedules(RuleBasedStateMachine):
    """One service, from its first release on."""

    def __init__(self) -> None:
        super().__init__()
        self.service = Service()
        self.service.limits = UNHURRIED
        self.number = 0
        self.bad: set[str] = set()
        for version in ("0.0.0", "0.1.0"):
            assert self.service.deploy(version).outcome is Outcome.SUCCEEDED

    @property
    def under_way(self) -> bool:
        return self.service.head.unfinished is not None

    # ------------------------------------------------------------------------------------------------- commands

    def run(self, trouble: tuple[str, int, Moment] | None, command: Callable[[], object]) -> object:
        """A command as a process runs it: it ends, is refused, or dies."""
        if trouble is not None:
            self.service.cloud.on_call(_Struck(*trouble))
        try:
            return command()
        except Killed:
            return None
        except OsvDeployError as error:
            return error
        finally:
            self.service.cloud.on_call(None)

    @rule(
        behaviour=st.sampled_from(sorted(BEHAVIOURS)),
        strategy=STRATEGIES,
        trouble=TROUBLES,
        until=st.sampled_from([Until.ASKED, Until.BEGUN]),
    )
    def deploy(self, behaviour: str, strategy: Strategy, trouble: tuple[str, int, Moment] | None, until: Until) -> None:
        self.number += 1
        version = f"1.{self.number}.0"
        self.service.settings = replace(SETTINGS, strategy=strategy)
        self.service.publish(version)
        self.service.cloud.behave(self.service.id(version), **BEHAVIOURS[behaviour])
        if behaviour != "good":
            self.bad.add(self.service.id(version))
        manager = self.service.manager()
        manager.until = until
        # Nobody waits for ever for somebody else's rollout.
        ctx = self.service.context().within(600.0)
        self.run(trouble, lambda: manager.deploy(ctx, self.service.release(version)))

    @rule(strategy=STRATEGIES, trouble=TROUBLES)
    def deploy_a_good_one(self, strategy: Strategy, trouble: tuple[str, int, Moment] | None) -> None:
        self.deploy("good", strategy, trouble, Until.ASKED)

    @precondition(lambda self: self.under_way or len(self.service.head.served) > 1)
    @rule(trouble=TROUBLES, force=st.booleans())
    def rollback(self, trouble: tuple[str, int, Moment] | None, force: bool) -> None:
        ctx = self.service.context().within(900.0)
        ended = self.run(trouble, lambda: self.service.manager().rollback(ctx, force=force))
        if isinstance(ended, Rollout) and ended.outcome is Outcome.SUCCEEDED:
            assert self.service.head.unfinished is None

    @precondition(lambda self: self.under_way)
    @rule(kind=st.sampled_from(RequestKind), trouble=TROUBLES)
    def request(self, kind: RequestKind, trouble: tuple[str, int, Moment] | None) -> None:
        ctx = self.service.context().within(900.0)
        ended = self.run(trouble, lambda: self.service.manager().request(ctx, kind))
        if kind is RequestKind.ABORT and isinstance(ended, Asked) and ended.done and ended.rollout is not None:
            assert ended.rollout.outcome in (Outcome.ABORTED, Outcome.ROLLBACK_FAILED, Outcome.SUCCEEDED)

    @precondition(lambda self: self.under_way)
    @rule(trouble=TROUBLES)
    def recover(self, trouble: tuple[str, int, Moment] | None) -> None:
        ctx = self.service.context().within(900.0)
        self.run(trouble, lambda: self.service.manager().recover(ctx))

    @rule(seconds=st.sampled_from([1.0, 30.0, 90.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        self.service.clock.advance(seconds)

    @precondition(lambda self: self.service.head.holds)
    @rule()
    def unhold(self) -> None:
        self.run(None, lambda: self.service.manager().unhold(self.service.context()))

    @precondition(lambda self: self.under_way)
    @rule()
    def see_it_through(self) -> None:
        """Somebody brings what is under way to its end: then ledger and cloud agree."""
        for _ in range(4):
            run = self.service.head.unfinished
            if run is None:
                break
            ctx, manager = self.service.context(), self.service.manager()
            if run.awaits(self.service.clock.now()):
                self.run(None, lambda manager=manager, ctx=ctx: manager.request(ctx, RequestKind.ABORT))  # type: ignore[misc]
            else:
                self.run(None, lambda manager=manager, ctx=ctx: manager.recover(ctx))  # type: ignore[misc]
        assert self.service.head.unfinished is None

    # ------------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def what_has_served_goes_on_serving(self) -> None:
        """The stable release's machines stand, all that it needs, and traffic goes to it or to a candidate."""
        head = self.service.head
        assert head.stable is not None and head.serving is not None
        groups = {group.name: group for group in self._groups()}
        run = head.run
        moving = run is not None and not (run.over and run.verdict is not Outcome.ROLLBACK_FAILED)
        if not moving:
            assert head.stable.group in groups, f"{head.stable} has no machines"
            assert not groups[head.stable.group].deleting
            assert self._weights().get(head.serving, 0) == 100
        assert sum(self._weights().values()) == 100

    @invariant()
    def at_most_two_releases_stand(self) -> None:
        standing = [group for group in self._groups() if not group.deleting]
        assert len(standing) <= 2, [group.release for group in standing]
        slots = [group.tags.get(tags.SLOT) for group in standing]
        assert len(set(slots)) == len(slots)

    @invariant()
    def at_rest_ledger_and_cloud_agree(self) -> None:
        head = self.service.head
        if head.unfinished is not None or head.lease is not None:
            return
        standing = {group.name for group in self._groups() if not group.deleting}
        recorded = {record.group for record in head.slots.values()}
        if head.run is not None and head.run.verdict is not Outcome.ROLLBACK_FAILED:
            assert standing == recorded

    @invariant()
    def what_was_seen_to_be_bad_does_not_serve_by_itself(self) -> None:
        """A release that never answered well has no traffic at rest."""
        head = self.service.head
        if head.unfinished is None and head.stable is not None:
            never = {id for id in self.bad if not self._ever_well(id)}
            assert head.stable.release not in never

    def teardown(self) -> None:
        """Whatever happened: a rollout of a good release succeeds in the end."""
        for _ in range(3):
            if self.service.head.unfinished is None:
                break
            self.see_it_through()
        self.service.manager().unhold(self.service.context())
        self.service.settings = SETTINGS
        ended = None
        for _ in range(3):
            try:
                ended = self.service.deploy("9.9.9")
            except OsvDeployError as error:
                if "weights are" in str(error) or "carries traffic" in str(error):
                    self.run(None, lambda: self.service.manager().rollback(self.service.context()))
                    continue
                raise
            if ended.outcome is Outcome.SUCCEEDED:
                break
        assert ended is not None and ended.outcome is Outcome.SUCCEEDED, ended and ended.told
        assert self.service.cloud.serving == {self.service.id("9.9.9")}
        recorded = {record.group for record in self.service.head.slots.values()}
        assert {group.name for group in self._groups() if not group.deleting} == recorded

    def _groups(self) -> Any:
        return self.service.cloud.cloud.groups.owned(self.service.context(), {tags.SERVICE: "hello/production"})

    def _weights(self) -> dict[Slot, int]:
        place = self.service.head.place
        assert place is not None
        return dict(self.service.cloud.cloud.router.observe(self.service.context(), place.route).weights or {})

    def _ever_well(self, release: str) -> bool:
        return self.service.cloud.world.behaviour(release).sick_after is not None


class _Struck:
    """One call of a process goes wrong; one that dies makes no other."""

    def __init__(self, kind: str, at: int, moment: Moment) -> None:
        # Who is refused has done nothing.
        self.kind, self.at, self.moment = kind, at, Moment.BEFORE if kind == "refused" else moment
        self.seen = 0

    def __call__(self, call: Call, moment: Moment) -> None:
        if moment is Moment.BEFORE:
            self.seen += 1
        dead = self.kind == "dies" and self.seen > self.at
        if dead or (self.seen == self.at and moment is self.moment):
            raise TROUBLE[self.kind]()


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

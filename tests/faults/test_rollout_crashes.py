"""Every call of a rollout is a place to die at: the next command finds what was done, and goes on.

On the memory cloud, in virtual time, by each call's number: the process dies before the call took effect, or after
it did and before it heard so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from osvdeploy.cloud.interfaces import Scaling
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import Interrupted
from osvdeploy.rollout.model import Kind, Outcome
from osvdeploy.rollout.releases import TrafficStep
from tests.faults.branches import Branches
from tests.rollout.made import SETTINGS, UNHURRIED
from tests.rollout.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.forks]

EVERY = int(os.environ.get("OSVDEPLOY_DEATHS_EVERY", "21"))
"""Of the calls that only look, which are died at; `make soak` dies at all."""


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, no clean-up either."""


@dataclass
class Killer:
    """Dies at the n-th call from now, and at every call after that: a dead process makes none."""

    at: int
    moment: Moment
    seen: int = 0
    dead: bool = False

    def __call__(self, call: Call, moment: Moment) -> None:
        if self.dead:
            raise Killed
        if moment is Moment.BEFORE:
            self.seen += 1
        if self.seen == self.at and moment is self.moment:
            self.dead = True
            raise Killed


@contextmanager
def killed(service: Service, killer: Killer | Deaths) -> Iterator[None]:
    service.cloud.on_call(killer)
    try:
        yield
    except Killed:
        pass
    finally:
        service.cloud.on_call(None)


def served(version: str, service: Service | None = None) -> Service:
    service = service or Service()
    service.limits = UNHURRIED
    service.deploy(version)
    return service


def begun(scenario: Scenario) -> Service:
    """What stands before. Only who comes then looks as often as a user's run does."""
    service = scenario.before()
    service.limits = None
    return service


@dataclass(frozen=True)
class Scenario:
    """What stands before, the command that dies, the same command again, and what must hold then."""

    name: str
    before: Callable[[], Service]
    command: Callable[[Service], object]
    again: Callable[[Service], object]
    serving: str
    running: frozenset[str]
    scaling: Scaling | None = None
    """What scales the release that serves in the end."""


SCALING = Scaling(1, 2, 6, ("cpu", "night"), rules='{"cpu": "60 %", "night": "0 3 * * *"}')


def _failing() -> Service:
    service = served("1.0.0")
    service.publish("1.1.0")
    service.cloud.behave(service.id("1.1.0"), answers=(500,))
    return service


def _prepared() -> Service:
    service = served("1.0.0")
    service.publish("1.1.0")
    return service


def _two() -> Service:
    service = served("1.0.0")
    service.deploy("1.1.0")
    return service


def _three() -> Service:
    service = _two()
    service.deploy("1.2.0")
    return service


def _scaled(service: Service) -> Service:
    """What serves is scaled by itself."""
    service.scale("1.0.0", 1, 6)
    return service


def _breaking() -> Service:
    """A release that is a good one until it has had traffic for a while."""
    service = _scaled(_baking())
    service.publish("1.1.0")
    service.cloud.behave(service.id("1.1.0"), sick_after=30.0)
    return service


def _baking() -> Service:
    return served("1.0.0", Service(strategy=replace(SETTINGS.strategy, bake=60.0)))


def _scaled_twice() -> Service:
    service = _scaled(_prepared())
    _deploy(service)
    return service


def _raised_in_canary() -> Service:
    """A deploy that was cut off once the new release had its first share; stable's maximum was raised since."""
    steps = (TrafficStep(10, 5.0), TrafficStep(100))
    service = _scaled(served("1.0.0", Service(strategy=replace(SETTINGS.strategy, steps=steps))))
    service.publish("1.1.0")
    ctx = service.context()

    def cut_off(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER:
            ctx.cancel.cancel()

    service.cloud.on_call(cut_off)
    with pytest.raises(Interrupted):
        service.manager().deploy(ctx, service.release("1.1.0"))
    service.cloud.on_call(None)
    group = service.cloud.world.groups[service.group("1.0.0")]
    assert group.scaler is not None and group.scaler.paused
    group.scaler.maximum = 9
    service.cloud.load(group.name, 7)
    service.clock.advance(60)
    return service


def _deploy(service: Service) -> object:
    return service.manager().deploy(service.context(), service.release("1.1.0"))


def _back_to_first(service: Service) -> object:
    return service.rollback("1.0.0")


def _back_unless_over(service: Service) -> object:
    """`osvdeploy rollback` again, as long as the one that died was not over: it names no release."""
    over = service.head.unfinished is None and service.head.run is not None and service.head.run.kind is Kind.ROLLBACK
    return None if over and service.head.lease is None else service.rollback(None if not over else "1.0.0")


SCENARIOS = [
    Scenario("deploy", _prepared, _deploy, _deploy, "1.1.0", frozenset({"1.0.0", "1.1.0"})),
    Scenario("deploy of a bad release", _failing, _deploy, _deploy, "1.0.0", frozenset({"1.0.0"})),
    Scenario("rollback", _two, _back_unless_over, _back_unless_over, "1.0.0", frozenset({"1.0.0"})),
    Scenario("warm rollback", _two, _back_to_first, _back_to_first, "1.0.0", frozenset({"1.0.0"})),
    Scenario("cold rollback", _three, _back_to_first, _back_to_first, "1.0.0", frozenset({"1.0.0"})),
    Scenario(
        "deploy with scaling",
        lambda: _scaled(_prepared()),
        _deploy,
        _deploy,
        "1.1.0",
        frozenset({"1.0.0", "1.1.0"}),
        SCALING,
    ),
    Scenario("release that breaks, with scaling", _breaking, _deploy, _deploy, "1.0.0", frozenset({"1.0.0"}), SCALING),
    Scenario(
        "warm rollback with scaling",
        _scaled_twice,
        _back_to_first,
        _back_to_first,
        "1.0.0",
        frozenset({"1.0.0"}),
        SCALING,
    ),
]


def points(scenario: Scenario) -> tuple[int, list[int]]:
    """How many calls the command makes, and which to die at: every change, and of the reads every so many and the last
    ones (they are polls and look-ups that all end the same way)."""
    service = begun(scenario)
    before = len(service.cloud.calls)
    scenario.command(service)
    calls = service.cloud.calls[before:]
    chosen = [at for at, call in enumerate(calls, 1) if call.mutating or at % EVERY == 0 or at > len(calls) - 12]
    return len(calls), chosen


@dataclass
class Deaths:
    """Dies at each of these calls, each time in a branch of its own, and at every call after that. The run itself goes
    on."""

    at: Container[int]
    moment: Moment
    branches: Branches = field(default_factory=Branches)
    seen: int = 0
    died: str = ""
    """Where this branch did."""

    def __call__(self, call: Call, moment: Moment) -> None:
        if self.died:
            raise Killed
        if moment is Moment.BEFORE:
            self.seen += 1
        if moment is self.moment and self.seen in self.at and self.branches.here():
            self.died = f"died {moment} call {self.seen}: {call}"
            raise Killed


def die(service: Service, deaths: Deaths, command: Callable[[Service], object], then: Callable[[], None]) -> None:
    """Run a command that dies at some of its calls, each time in a branch, which goes on with ``then``."""

    def work() -> tuple[str, ...]:
        with killed(service, deaths):
            command(service)
        if deaths.died:
            then()
        return ()

    deaths.branches.run(work)
    assert not deaths.branches.wrong, "\n".join(deaths.branches.wrong[:5])


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_dying_at_any_call_converges(scenario: Scenario, moment: Moment) -> None:
    """After a death at call n, the same command again ends as it would have, and nothing is left over."""
    total, chosen = points(scenario)
    assert total > 10
    service = begun(scenario)
    deaths = Deaths(chosen, moment)

    def then() -> None:
        said = f"{deaths.died}, of {total}"
        assert len(service.cloud.serving) == 1, said
        scenario.again(service)
        service.clock.advance(120)
        assert service.cloud.serving == {service.id(scenario.serving)}, said
        assert service.cloud.running == {service.id(version) for version in scenario.running}, said
        head = service.head
        assert head.lease is None and head.unfinished is None, said
        assert head.stable is not None and head.stable.release == service.id(scenario.serving), said
        if scenario.scaling is not None:
            assert service.scaling(scenario.serving) == scenario.scaling, said
            assert head.run is not None and head.run.scaled, said

    die(service, deaths, scenario.command, then)
    assert deaths.seen == total


@pytest.mark.parametrize("moment", list(Moment))
def test_dying_in_a_canary_whose_maximum_is_raised_converges(moment: Moment) -> None:
    """Whoever goes on hands over what stable had right before the last share, and no pause of the dead one's. All
    traffic never has fewer machines than stable."""
    deaths = Deaths(range(1, 1_000, 7), moment)
    service = _raised_in_canary()

    def enough() -> bool:
        [slots] = [rule.weights for rule in service.cloud.world.rules.values() if rule.weights and not rule.preview]
        group = service.cloud.world.groups[service.group("1.1.0")]
        return slots[group.backend] < 100 or len(group.alive) >= 7

    def then() -> None:
        assert enough(), deaths.died
        _deploy(service)
        assert enough(), deaths.died
        service.clock.advance(120)
        assert service.cloud.serving == {service.id("1.1.0")}, deaths.died
        assert service.scaling("1.1.0") == replace(SCALING, desired=7, maximum=9), deaths.died
        assert service.head.run is not None and service.head.run.scaled, deaths.died

    die(service, deaths, _deploy, then)
    assert deaths.seen > 100


@pytest.mark.parametrize("moment", list(Moment))
def test_destroy_that_dies_goes_on(moment: Moment) -> None:
    """Destroying again takes away what was left, whatever it was."""
    service = _two()
    deaths = Deaths(range(1, 1_000), moment)

    def then() -> None:
        if not service.head.destroyed:
            service.destroy()
        assert service.cloud.standing == set(), deaths.died

    die(service, deaths, lambda service: service.destroy(), then)
    assert deaths.seen > 10


def test_two_deaths_in_one_rollout_converge() -> None:
    """Dying while going on from a death is no different."""
    for first in range(5, 60, 11):
        for second in range(5, 60, 13):
            service = _prepared()
            for at in (first, second):
                with killed(service, Killer(at, Moment.AFTER)):
                    _deploy(service)
            outcome = service.manager().deploy(service.context(), service.release("1.1.0"))
            assert outcome.outcome is Outcome.SUCCEEDED
            assert service.cloud.running == {service.id("1.0.0"), service.id("1.1.0")}

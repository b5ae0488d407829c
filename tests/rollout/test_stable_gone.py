"""Traffic is to go back, and the machines of what served before are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from osvdeploy.api import wiring
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import Unavailable
from osvdeploy.rollout.ends import Asked
from osvdeploy.rollout.model import Outcome, RequestKind, Run, Stage
from osvdeploy.rollout.releases import Strategy, StrategyKind, TrafficStep
from tests.rollout.unledgered import Died, Gone, Unledgered, asked, dies_entering

WHOLE = Strategy(StrategyKind.ALL_AT_ONCE, (TrafficStep(100),), bake=3600.0, keep_warm=3600.0)
SHARED = Strategy(StrategyKind.CANARY, (TrafficStep(20, 3600.0), TrafficStep(100)), bake=0.0, keep_warm=3600.0)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Unledgered:
    """1.0.0 served, 1.1.0 serves."""
    service = Unledgered()
    monkeypatch.setattr(wiring, "open_store", lambda address: Gone())
    for version in ("1.0.0", "1.1.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    return service


def bakes(service: Unledgered, strategy: Strategy = WHOLE) -> None:
    """A deploy whose process dies when its bake has begun."""
    service.settings = replace(service.settings, strategy=strategy)

    dies_entering(service, Stage.BAKE)
    service.clock.advance(120)


def going_back_without_the_ledger_dies(service: Unledgered) -> None:
    """`osvdeploy rollback --from-cloud --to 1.0.0`, killed right after it took the machines of 1.1.0 away."""

    def hook(call: Call, moment: Moment) -> None:
        if call.operation == "groups.delete" and moment is Moment.AFTER:
            raise Died

    service.cloud.on_call(hook)
    with pytest.raises(Died):
        service.back(to="1.0.0")
    service.cloud.on_call(None)
    service.clock.advance(120)


def abort(service: Unledgered) -> Asked:
    return service.manager().request(service.context(), RequestKind.ABORT)


COMMANDS: dict[str, tuple[Callable[[Unledgered], object], str]] = {
    "abort": (abort, "1.2.0"),
    "rollback": (lambda service: service.rollback(), "1.1.0"),
    "rollback --to": (lambda service: service.rollback("1.0.0"), "1.0.0"),
    "another deploy": (lambda service: service.deploy("1.3.0"), "1.3.0"),
    "recover": (lambda service: service.manager().recover(service.context()), "1.2.0"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_sends_traffic_to_machines_that_are_gone(service: Unledgered, command: str) -> None:
    """All of it is on the candidate, and stays there until there is something else to send it to: a rollback starts
    what served before anew, a deploy its own release."""
    bakes(service)
    going_back_without_the_ledger_dies(service)
    bad = asked(service)
    ask, serves = COMMANDS[command]
    ask(service)
    assert not bad, bad[:3]
    service.cloud.on_call(None)
    assert service.cloud.serving == {service.id(serves)}
    head = service.head
    assert head.unfinished is None and head.stable is not None and head.stable.release == service.id(serves)
    recorded = {record.group for record in head.slots.values()}
    assert {name for name, group in service.cloud.world.groups.items() if not group.deleting} == recorded


def test_an_abort_that_brings_nothing_back_says_what_serves(service: Unledgered) -> None:
    """And exits as a rollback that failed does: somebody has to look."""
    bakes(service)
    going_back_without_the_ledger_dies(service)
    ended = abort(service).rollout
    assert ended is not None and ended.outcome is Outcome.ROLLBACK_FAILED and ended.exit_code == 6
    old, new = service.id("1.1.0"), service.id("1.2.0")
    assert ended.told.startswith(f"traffic could not be brought back to {old}: ")
    assert ended.told.endswith(f"the machines of {old} are gone; {new} serves")
    assert service.head.served[-1].release == new


def test_a_share_is_left_as_it_is_where_the_rest_goes_nowhere(service: Unledgered) -> None:
    """Somebody took the stable release's machines away by hand. Who is to have its part is for a person to say."""
    bakes(service, SHARED)
    service.cloud.cloud.groups.delete(service.context(), service.group("1.1.0"))
    service.clock.advance(120)
    ended = abort(service).rollout
    assert ended is not None and ended.outcome is Outcome.ROLLBACK_FAILED
    assert f"the machines of {service.id('1.1.0')} are gone: traffic stays as it is" in ended.told
    assert sorted(service.weights().values()) == [20, 80]


def test_a_look_that_fails_keeps_no_traffic_from_going_back(service: Unledgered) -> None:
    """Whether the machines stand is asked once, for a moment: no way back waits for an answer to that."""
    bakes(service)
    looked: list[Run] = []

    def hook(call: Call, moment: Moment) -> None:
        run = service.head.run if call.operation == "groups.observe" else None
        if run is not None and run.stage is Stage.REVERT:
            looked.append(run)
            raise Unavailable("no answer")

    service.cloud.on_call(hook)
    ended = abort(service).rollout
    assert ended is not None and ended.outcome is Outcome.ABORTED and len(looked) == 1
    assert service.cloud.serving == {service.id("1.1.0")}


def test_what_scaled_the_release_that_is_gone_is_owed_to_the_one_that_serves(service: Unledgered) -> None:
    """By the same release, deployed again, or by the next one."""
    service.scale("1.1.0", 2, 6)
    bakes(service)
    going_back_without_the_ledger_dies(service)
    ended = abort(service).rollout
    assert ended is not None and "what serves has not the scaling of before" in ended.told
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    scaling = service.scaling("1.2.0")
    assert scaling is not None and (scaling.minimum, scaling.maximum) == (2, 6)

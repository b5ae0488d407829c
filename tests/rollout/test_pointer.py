"""Rollouts over a pointer, on a cloud in memory: traffic moves in one step, and idle slots are asked on their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.errors import NotOurs, UsageError
from osvdeploy.rollout.model import Outcome, Stage
from osvdeploy.rollout.releases import TrafficStep, about_pointer
from tests.rollout.made import SETTINGS
from tests.rollout.service import Service


@pytest.fixture
def service() -> Service:
    return Service(listener="pointer-1", priority=0, preview_header="")


def test_it_goes_and_comes_back_by_one_call_each(service: Service) -> None:
    """Two releases, and the first again while it is warm."""
    service.deploy("1.0.0")
    for serving in ("1.1.0", "1.0.0"):
        before = len(service.cloud.mutations)
        ended = service.deploy(serving) if serving == "1.1.0" else service.rollback()
        assert ended.outcome is Outcome.SUCCEEDED
        changes = [call.operation for call in service.cloud.mutations[before:]]
        assert changes.count("router.modify_rule") == 1
        assert service.cloud.serving == {service.id(serving)}


def test_a_release_that_is_bad_at_its_slot_s_own_address_never_gets_traffic(service: Service) -> None:
    """Health alone does not let it pass: checks are answered well here, requests are not."""
    service.deploy("1.0.0")
    service.cloud.behave(service.id("1.1.0"), answers=(500,), health=200)
    before = len(service.cloud.mutations)
    outcome = service.deploy("1.1.0")
    assert outcome.outcome is Outcome.ROLLED_BACK and outcome.run is not None
    assert [gate.gate for gate in outcome.run.gates if not gate.passed] == ["preview probe"]
    assert Stage.SHIFT not in [record.stage for record in outcome.run.stages]
    assert "router.modify_rule" not in [call.operation for call in service.cloud.mutations[before:]]


def test_a_pointer_moved_behind_everybody_s_back_is_drift(service: Service) -> None:
    """As weights are."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.cloud.set_weights("hello/production", {Slot.BLUE: 100, Slot.GREEN: 0})
    with pytest.raises(UsageError, match="the ledger says green serves"):
        service.deploy("1.2.0")


def test_a_pointer_that_was_led_back_stays_there(service: Service) -> None:
    """To where it led before the first deploy: somebody took the service out of use, and no command takes that back."""
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    world = service.cloud.world
    route = next(rule for rule in world.rules.values() if rule.listener == "pointer-1")
    del world.rules[route.id]
    before = len(service.cloud.mutations)
    commands: list[Callable[[], object]] = [lambda: service.deploy("1.2.0"), service.rollback]
    for command in commands:
        with pytest.raises(UsageError, match="the ledger says green serves, but pointer-1 leads elsewhere"):
            command()
    made = [call.operation for call in service.cloud.mutations[before:]]
    assert not [operation for operation in made if operation.startswith(("router.", "groups."))]
    service.destroy()


def test_steps_need_weights(service: Service) -> None:
    """Refused before anything is made, with what can be done."""
    strategy = replace(SETTINGS.strategy, steps=(TrafficStep(5), TrafficStep(100)))
    service.settings = replace(service.settings, strategy=strategy)
    with pytest.raises(UsageError, match="5 % first, but pointer-1 has no weights") as raised:
        service.deploy("1.0.0")
    assert raised.value.hint
    assert service.cloud.running == set()


def test_a_pointer_serves_one_service(service: Service) -> None:
    """Another that names it is refused before anything is made."""
    service.deploy("1.0.0")
    release = replace(service.release("1.0.0"), app="other")
    with pytest.raises(NotOurs, match="belongs to hello/production"):
        service.manager().preflight(service.context(), release)


def test_what_it_has_not_is_said_in_words() -> None:
    """And that the proof is a weaker one where the program names no release."""
    told = about_pointer("rule web", named=True)
    assert told.startswith("rule web has no weights and no preview") and "version-header" not in told
    assert "without health.version-header" in about_pointer("rule web", named=False)

"""Leaving a release that has gone bad: what it still answers, until the switch is in force, blames nobody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import Refused
from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.releases import TrafficStep
from tests.rollout.made import SETTINGS
from tests.rollout.service import Service

pytestmark = pytest.mark.whole


def gone_bad(**settings: Any) -> Service:
    """1.0.0 has served before 1.1.0, which was good when it came."""
    service = Service(**settings)
    for version in ("1.0.0", "1.1.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    service.clock.advance(120)
    service.cloud.behave(service.id("1.1.0"), answers=(500,), health=200)
    return service


@pytest.mark.parametrize("header", [SETTINGS.health.version_header, None])
@pytest.mark.parametrize("keep_warm", [3600.0, 0.0])
def test_a_rollback_leaves_it(header: str | None, keep_warm: float) -> None:
    """Warm or cold, whether answers name their release or not."""
    service = gone_bad(
        health=replace(SETTINGS.health, version_header=header),
        strategy=replace(SETTINGS.strategy, keep_warm=keep_warm),
    )
    assert service.rollback().outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.0.0")}


def test_a_rollback_leaves_what_is_gone() -> None:
    """The balancer answers in its place, and names nobody."""
    service = gone_bad()
    service.cloud.cloud.groups.delete(service.context(), service.group("1.1.0"))
    service.clock.advance(120)
    assert service.rollback().outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.0.0")}


@pytest.mark.parametrize("header", [SETTINGS.health.version_header, None])
@pytest.mark.parametrize("gone", [True, False])
def test_a_deploy_leaves_what_names_nobody(header: str | None, gone: bool) -> None:
    """That it answered badly before the switch is known: it was asked."""
    service = gone_bad(health=replace(SETTINGS.health, version_header=header))
    if gone:
        service.cloud.behave(service.id("1.1.0"), never_healthy=True)
        service.cloud.cloud.groups.delete(service.context(), service.group("1.1.0"))
        service.clock.advance(120)
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.2.0")}


@pytest.mark.parametrize("steps", [(TrafficStep(100),), (TrafficStep(50, 30.0), TrafficStep(100))], ids=len)
def test_a_deploy_leaves_it(steps: tuple[TrafficStep, ...]) -> None:
    """The next release cures it; with steps too, while most of the answers are bad ones of the release before."""
    service = gone_bad()
    service.settings = replace(service.settings, strategy=replace(SETTINGS.strategy, steps=steps))
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.2.0")}


@pytest.mark.parametrize("header", [SETTINGS.health.version_header, None])
def test_what_takes_its_place_is_judged_all_the_same(header: str | None) -> None:
    """A release that went bad while it stood warm is no place to go back to: it is found out, and left again."""
    service = gone_bad(health=replace(SETTINGS.health, version_header=header))
    moved: list[Call] = []

    def asked(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and not moved:
            moved.append(call)
            service.cloud.behave(service.id("1.0.0"), answers=(500,), health=200)

    service.cloud.on_call(asked)
    service.cloud.behave(service.id("1.1.0"), answers=(200,))
    assert service.rollback().outcome is Outcome.ROLLBACK_FAILED
    assert service.cloud.serving == {service.id("1.1.0")}


def test_a_warm_rollback_that_is_not_allowed_leaves_its_machines_warm() -> None:
    """They are not to blame: once it is allowed, it is one change again."""
    service = Service()
    for version in ("1.0.0", "1.1.0"):
        service.deploy(version)

    def denied(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.BEFORE:
            raise Refused("not allowed to change the rule")

    warm = service.group("1.0.0")
    service.cloud.on_call(denied)
    ended = service.rollback()
    service.cloud.on_call(None)
    assert ended.outcome is not Outcome.SUCCEEDED and "not allowed" in ended.told
    assert service.cloud.serving == {service.id("1.1.0")} and service.group("1.0.0") == warm
    before = len(service.cloud.mutations)
    assert service.rollback().outcome is Outcome.SUCCEEDED
    changes = [call.operation for call in service.cloud.mutations[before:] if not call.operation.startswith("store.")]
    assert changes[0] == "router.modify_rule" and "groups.create_group" not in changes

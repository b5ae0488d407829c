"""A ledger that was put back from a copy, while releases it never heard of serve and stand warm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from osvdeploy.errors import LedgerBehind
from osvdeploy.events import Warned
from osvdeploy.rollout.drifting import DriftKind
from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.releases import TrafficStep
from tests.rollout.service import Service
from tests.rollout.test_drifting import looked

pytestmark = pytest.mark.whole


@pytest.fixture
def service() -> Service:
    """1.2.0 serves on five machines where the ledger has 1.0.0 on two; 1.1.0 stands warm beside it."""
    service = Service()
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    copy = dict(service.cloud.store._objects)
    for version in ("1.1.0", "1.2.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    service.scale("1.2.0", 2, 6)
    service.cloud.load(service.group("1.2.0"), 5)
    service.clock.advance(30)
    service.cloud.store._objects = copy
    return service


def moved_to(service: Service, version: str) -> None:
    """It serves, on as many machines as there were, and the ledger knows that."""
    assert service.cloud.serving == {service.id(version)}
    stable = service.head.stable
    assert stable is not None and stable.release == service.id(version)
    assert service.head.run is not None and service.head.run.capacity == 5
    assert any(
        isinstance(event, Warned) and f"but {service.id('1.2.0')} does" in event.text
        for event in service.recorder.events
    )


def test_drift_tells_what_serves_apart_from_what_is_left_over(service: Service) -> None:
    """`gc` leaves what has traffic, and nobody is told that it takes it; what is no longer warm it does take."""
    strangers = [each for each in looked(service) if each.kind is DriftKind.STRANGER]
    [serves] = [each for each in strangers if service.group("1.2.0") in each.what]
    assert "has traffic" in serves.what and "gc" not in serves.cure and "adopt --from-cloud" in serves.cure
    [warm] = [each for each in strangers if service.group("1.1.0") in each.what]
    assert "has traffic" not in warm.what and "`osvdeploy gc` takes it away" in warm.cure


def test_what_the_ledger_takes_for_serving_is_rolled_out(service: Service) -> None:
    """Beside what serves, and not in its place: until the switch each answer is 1.2.0's."""
    assert service.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    moved_to(service, "1.0.0")
    assert service.head.served[-2].release == service.id("1.2.0")


def test_it_can_be_gone_back_to(service: Service) -> None:
    """It does not serve already."""
    assert service.rollback("1.0.0").outcome is Outcome.SUCCEEDED
    moved_to(service, "1.0.0")


def test_the_release_before_is_the_newest_that_the_ledger_knows_of(service: Service) -> None:
    """What serves is no good, so it is held."""
    assert service.rollback().outcome is Outcome.SUCCEEDED
    moved_to(service, "1.0.0")
    assert [hold.release for hold in service.head.holds] == [service.id("1.2.0")]


def test_a_canary_is_proved_beside_what_serves(service: Service) -> None:
    """Its answers are those of the release before; and a bad one leaves the traffic there."""
    steps = (TrafficStep(50, 30.0), TrafficStep(100))
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, steps=steps))
    assert service.deploy("1.3.0").outcome is Outcome.SUCCEEDED
    moved_to(service, "1.3.0")


def test_another_ledger_s_release_is_not_taken(service: Service) -> None:
    """As with the marks of its leases: unless it is said that no other is in use."""
    group = service.cloud.world.groups[service.group("1.2.0")]
    group.tags = {**group.tags, "osvdeploy:ledger": "s3://elsewhere"}
    commands: list[Callable[[], object]] = [lambda: service.deploy("1.3.0"), service.rollback]
    for command in commands:
        with pytest.raises(LedgerBehind, match="of the ledger s3://elsewhere") as raised:
            command()
        assert "--take-over" in (raised.value.hint or "")
    assert service.cloud.serving == {service.id("1.2.0")}
    manager = service.manager()
    manager.executor.take_over = True
    assert manager.deploy(service.context(), service.release("1.3.0")).outcome is Outcome.SUCCEEDED
    assert service.cloud.serving == {service.id("1.3.0")}


def test_a_service_whose_group_is_gone_comes_back_on_as_many_as_declared() -> None:
    """Nobody knows how many there were."""
    service = Service(capacity=3, strategy=replace(Service().settings.strategy, keep_warm=0.0))
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    service.cloud.cloud.groups.delete(service.context(), service.group("1.1.0"))
    service.clock.advance(120)
    outcome = service.rollback()
    assert outcome.outcome is Outcome.SUCCEEDED and outcome.run is not None and outcome.run.capacity == 3

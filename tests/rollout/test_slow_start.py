"""How a machine that joins others is given its share: set with a service, changed while it is in use."""

from __future__ import annotations

from dataclasses import replace

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.errors import CloudError
from osvdeploy.rollout.drifting import DriftKind, drift_of
from osvdeploy.rollout.model import Outcome
from tests.rollout.made import SETTINGS
from tests.rollout.service import Service


def there(service: Service) -> set[float | None]:
    place = service.head.place
    assert place is not None
    return {service.cloud.cloud.router.slow_start(service.context(), place.route, slot) for slot in Slot}


def wanted(service: Service, seconds: float) -> None:
    service.settings = replace(service.settings, health=replace(SETTINGS.health, slow_start=seconds))


def sets(service: Service) -> int:
    return sum(call.startswith("router.set_slow_start") for call in service.cloud.faults.calls)


def test_a_change_reaches_both_slots_with_the_next_deploy() -> None:
    """Of another release, and of the same one; nothing is sent where nothing changes, nor for a service without it."""
    service = Service()
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    assert there(service) == {0.0} and sets(service) == 0
    wanted(service, 60.0)
    assert service.deploy("1.2.0").outcome is Outcome.SUCCEEDED
    assert there(service) == {60.0} and sets(service) == 2
    assert service.head.place is not None and service.head.place.route.slow_start == 60.0
    service.deploy("1.3.0")
    assert sets(service) == 2
    wanted(service, 0.0)
    again = service.deploy("1.3.0")
    assert again.run is None and there(service) == {0.0} and sets(service) == 4
    assert service.deploy("1.3.0").run is None and sets(service) == 4


def test_a_rollback_leaves_it_as_it_is() -> None:
    """It is the way's, not the release's."""
    service = Service()
    service.deploy("1.0.0")
    wanted(service, 60.0)
    service.deploy("1.1.0")
    assert service.rollback().outcome is Outcome.SUCCEEDED
    assert there(service) == {60.0}


def test_a_process_that_dies_in_between_leaves_it_to_the_next() -> None:
    """The ledger says it only when it is so."""
    service = Service()
    service.deploy("1.0.0")
    wanted(service, 60.0)
    service.cloud.faults.fail("router.set_slow_start", KeyboardInterrupt(), at=2)
    try:
        service.deploy("1.1.0")
    except (KeyboardInterrupt, CloudError):
        pass
    assert service.head.place is not None and service.head.place.route.slow_start == 0.0
    service.cloud.faults.clear()
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    assert there(service) == {60.0}


def test_what_somebody_has_changed_is_drift_and_repaired() -> None:
    """Each slot is told of, with both values."""
    service = Service(health=replace(SETTINGS.health, slow_start=60.0))
    service.deploy("1.0.0")
    router, place = service.cloud.cloud.router, service.head.place
    assert place is not None
    router.set_slow_start(service.context(), replace(place.route, slow_start=90.0))
    state = router.observe(service.context(), place.route)
    found = {slot: router.slow_start(service.context(), place.route, slot) for slot in Slot}
    groups = {each.name: each for each in service.cloud.cloud.groups.owned(service.context(), {})}
    release = service.release("1.0.0")
    drift = drift_of(service.head, release, state, groups, {release.id}, None, found)
    assert [each.kind for each in drift] == [DriftKind.SLOW_START] * 2 and all(each.repairable for each in drift)
    assert "after 90 s, and not after 60 s" in drift[0].what
    service.manager().realign(service.context())
    assert there(service) == {60.0}

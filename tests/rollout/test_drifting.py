"""What a cloud has that the ledger does not say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from osvdeploy import api
from osvdeploy.api import wiring
from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import ReleaseId, Slot
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import Refused, UsageError
from osvdeploy.events import Warned
from osvdeploy.rollout.drifting import Drift, DriftKind, drift_of
from osvdeploy.rollout.model import Outcome, Stage
from tests.rollout.service import Service

pytestmark = pytest.mark.whole


def looked(service: Service, images: frozenset[ReleaseId] | None = None) -> list[Drift]:
    cloud, ctx, head = service.cloud.cloud, service.context(), service.head
    assert head.place is not None
    groups = {each.name: each for each in cloud.groups.owned(ctx, {tags.SERVICE: head.service})}
    known = frozenset(ReleaseId(each.name) for each in cloud.images.owned(ctx, {tags.APP: "hello"}))
    release = service.ledger.release(ctx, head.stable.release) if head.stable else None
    state = cloud.router.observe(ctx, head.place.route)
    scaling = cloud.groups.scaling(ctx, head.stable.group) if head.stable else None
    targets = {slot: cloud.router.health(ctx, head.place.route, slot) for slot in Slot}
    known = known if images is None else images
    return drift_of(head, release, state, groups, known, scaling, targets=targets)


def two() -> Service:
    service = Service()
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    return service


def test_what_is_as_the_ledger_says_is_no_drift() -> None:
    """After a deploy, and after a rollback."""
    service = two()
    assert looked(service) == []
    service.rollback()
    assert looked(service) == []


def test_weights_that_somebody_changed_are_told_and_repaired() -> None:
    """By the word of the ledger."""
    service = two()
    place = service.head.place
    assert place is not None
    service.cloud.cloud.router.set_weights(service.context(), place.route, {Slot.BLUE: 50, Slot.GREEN: 50})
    [found] = looked(service)
    assert found.kind is DriftKind.ROUTE and found.repairable and "green serves, but the weights are" in found.what
    service.manager().realign(service.context())
    assert looked(service) == []


CHANGES: dict[str, Callable[[Service], None]] = {
    "a stranger with weight": lambda service: service.cloud.share_out("hello/production", 900),
    "another path": lambda service: service.cloud.narrow("hello/production", "/nowhere"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_rule_is_told_and_repaired_though_its_weights_are_right(change: str) -> None:
    """Clients get nothing, or not from machines of the service."""
    service = two()
    CHANGES[change](service)
    [found] = looked(service)
    assert found.kind is DriftKind.ROUTE and found.repairable
    assert found.what.startswith("green serves, but the rule that sends traffic ")
    assert found.what.endswith(("sends 900 of 1000 to theirs", "takes /nowhere, and not every request"))
    service.manager().realign(service.context())
    assert looked(service) == []
    assert service.cloud.serving == {service.id("1.1.0")}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_rule_refuses_a_deploy_and_a_rollback_before_anything_moves(change: str) -> None:
    """Whoever changed it may have had a reason, and what clients miss is no fault of the release. Put right, it is
    deployed behind."""
    service = two()
    CHANGES[change](service)
    service.publish("1.2.0")
    before = service.head.run
    commands: list[Callable[[], object]] = [
        lambda: service.manager().preflight(service.context(), service.release("1.2.0")),
        lambda: service.manager().deploy(service.context(), service.release("1.2.0")),
        lambda: service.manager().rollback(service.context()),
    ]
    for command in commands:
        with pytest.raises(UsageError, match="somebody has changed the rule that sends its traffic: it ") as raised:
            command()
        assert "`osvdeploy drift hello/production --repair`" in (raised.value.hint or "")
    assert service.head.run == before
    assert service.cloud.running == {service.id("1.0.0"), service.id("1.1.0")}
    service.manager().realign(service.context())
    assert service.manager().deploy(service.context(), service.release("1.2.0")).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_rule_stays_while_all_machines_of_the_service_are_sick(change: str) -> None:
    """Whoever sent traffic elsewhere knew why."""
    service = two()
    service.cloud.behave(service.id("1.1.0"), health=500)
    CHANGES[change](service)
    service.clock.advance(120)
    with pytest.raises(Refused, match="no machine in green is healthy"):
        service.manager().realign(service.context())
    assert [each.kind for each in looked(service)] == [DriftKind.ROUTE]


def test_machines_that_are_gone_are_told_by_what_they_were_for() -> None:
    """Those that serve, and those that were warm."""
    service = two()
    service.cloud.cloud.groups.delete(service.context(), service.group("1.0.0"))
    service.clock.advance(60)
    [warm] = looked(service)
    assert warm.kind is DriftKind.MACHINES and "was kept warm in blue" in warm.what
    service.cloud.cloud.groups.delete(service.context(), service.group("1.1.0"))
    service.clock.advance(60)
    assert any("serves in green, and its machines" in each.what for each in looked(service))


def test_a_group_in_no_slot_is_a_stranger() -> None:
    """It has the service's tags, and the ledger knows nothing of it."""
    service = two()
    labels = tags.service_tags("hello", "hello/production", "memory")
    service.cloud.plant_group("theirs", tags.slot_tags(labels, Slot.BLUE))
    [found] = looked(service)
    assert found.kind is DriftKind.STRANGER and "theirs" in found.what and "gc" in found.cure


def test_an_image_that_is_gone_is_told_while_it_could_be_gone_back_to() -> None:
    """Of what serves, is warm or is pinned."""
    service = two()
    [found] = looked(service, frozenset({service.id("1.1.0")}))
    assert found.kind is DriftKind.IMAGE and service.id("1.0.0") in found.what


def test_another_capacity_is_told_unless_something_scales() -> None:
    """Who scales by hand is told; who has a scaler is not."""
    service = two()
    group, head = service.cloud.world.groups[service.group("1.1.0")], service.head
    group.capacity = 5
    assert [each.kind for each in looked(service)] == [DriftKind.CAPACITY]
    service.scale("1.1.0", 1, 6)
    assert looked(service) == []
    assert head.unfinished is None


def test_a_rollout_under_way_has_no_drift() -> None:
    """It is between two states."""
    service = two()
    run = service.head.run
    assert run is not None
    state = service.cloud.cloud.router.observe(service.context(), service.head.place.route)  # type: ignore[union-attr]
    head = replace(service.head, run=replace(run, stage=Stage.BOOT), slots={})
    assert drift_of(head, None, state, {}, frozenset(), None) == []


def test_no_rule_is_made_that_leads_to_machines_that_are_all_sick() -> None:
    """Somebody took it away, and what answers in its place is better than they are. Once they are well, it is made."""
    service = two()
    place, stable = service.head.place, service.head.stable
    assert place is not None and stable is not None
    service.cloud.behave(service.id("1.1.0"), health=500)
    rule = next(name for name, rule in service.cloud.world.rules.items() if rule.priority == place.route.priority)
    del service.cloud.world.rules[rule]
    service.clock.advance(120)
    with pytest.raises(Refused, match="no machine in green is healthy"):
        service.manager().realign(service.context())
    service.cloud.behave(service.id("1.1.0"), health=200)
    service.clock.advance(120)
    service.manager().realign(service.context())
    assert service.cloud.serving == {service.id("1.1.0")}


@pytest.mark.parametrize("operation", ["groups.shape", "router.check_of", "images.find"])
def test_what_cannot_be_compared_keeps_no_traffic_where_it_should_not_be(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = two()
    place = service.head.place
    assert place is not None
    monkeypatch.setattr(wiring, "ground_of", lambda ctx, place: service.cloud.cloud)
    monkeypatch.setattr(wiring, "ground_again", lambda ctx, known, place: service.cloud.cloud)
    monkeypatch.setattr(wiring, "open_ledger", lambda each: service.ledger)
    service.cloud.cloud.router.set_weights(service.context(), place.route, {Slot.BLUE: 50, Slot.GREEN: 50})

    def denied(call: Call, moment: Moment) -> None:
        if call.operation == operation:
            raise Refused("not allowed")

    service.cloud.on_call(denied)
    ended = api.drift(service.context(), api.Service("hello", "production", "memory"), repair=True)
    service.cloud.on_call(None)
    assert ended.found == () and [each.kind for each in ended.repaired] == [DriftKind.ROUTE]
    warned = [event.text for event in service.recorder.events if isinstance(event, Warned)]
    assert any("templates and health checks are not compared" in text for text in warned)

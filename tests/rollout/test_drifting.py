"""What a cloud has that the ledger does not say."""

from __future__ import annotations

from dataclasses import replace

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import ReleaseId, Slot
from osvdeploy.rollout.drifting import Drift, DriftKind, drift_of
from osvdeploy.rollout.model import Stage
from tests.rollout.service import Service


def looked(service: Service, images: frozenset[ReleaseId] | None = None) -> list[Drift]:
    cloud, ctx, head = service.cloud.cloud, service.context(), service.head
    assert head.place is not None
    groups = {each.name: each for each in cloud.groups.owned(ctx, {tags.SERVICE: head.service})}
    known = frozenset(ReleaseId(each.name) for each in cloud.images.owned(ctx, {tags.APP: "hello"}))
    release = service.ledger.release(ctx, head.stable.release) if head.stable else None
    state = cloud.router.observe(ctx, head.place.route)
    scaling = cloud.groups.scaling(ctx, head.stable.group) if head.stable else None
    return drift_of(head, release, state, groups, known if images is None else images, scaling)


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

"""What every implementation of InstanceGroups promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import GroupCount, Machine, MachineState, ReleaseId, Slot
from osvdeploy.errors import CloudError, NotOurs, Refused
from tests.contract.scenes import SERVICE, Guest, Scene


def test_a_group_starts_its_machines(scene: Scene) -> None:
    """A group has as many running machines as its capacity, behind its backend, and tells whose it is."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=2)
    groups = scene.cloud.groups

    seen = groups.observe(scene.ctx, made.name)
    assert seen is not None
    assert (seen.name, seen.release, seen.capacity, seen.deleting) == (made.name, "hello-1", 2, False)
    assert dict(made.tags).items() <= dict(seen.tags).items()

    scene.until(lambda: scene.healthy(Slot.BLUE) == 2)
    seen = groups.observe(scene.ctx, made.name)
    assert seen is not None
    assert [machine.state for machine in seen.machines] == [MachineState.RUNNING] * 2
    assert {machine.id for machine in seen.machines} == {target.machine for target in scene.health(Slot.BLUE)}
    assert seen.troubles == ()
    assert groups.counted(scene.ctx, {tags.SERVICE: SERVICE}) == [GroupCount(made.name, 2, 2)]
    assert groups.counted(scene.ctx, {tags.SERVICE: "another/production"}) == []


def test_ensuring_twice_is_once(scene: Scene) -> None:
    """The second call finds the first one's work, at once or later: no machine is added."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=2)
    scene.cloud.groups.ensure(scene.ctx, made)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 2)
    scene.cloud.groups.ensure(scene.ctx, made)
    scene.ctx.sleep(60)
    assert len(scene.cloud.groups.machines(scene.ctx, made.name)) == 2


def test_ensuring_brings_capacity(scene: Scene) -> None:
    """An existing group grows or shrinks to what is asked for."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    scene.cloud.groups.ensure(scene.ctx, replace(made, capacity=3))
    scene.until(lambda: scene.healthy(Slot.BLUE) == 3)
    scene.cloud.groups.ensure(scene.ctx, replace(made, capacity=1))

    def one_left() -> bool:
        seen = scene.cloud.groups.observe(scene.ctx, made.name)
        return seen is not None and seen.capacity == 1 and len(seen.machines) == 1 and len(scene.health(Slot.BLUE)) == 1

    scene.until(one_left)


def test_a_name_never_changes_its_release_or_image(scene: Scene) -> None:
    """A group of ours under that name with another release or image is refused, and left as it is."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    other = scene.image(ReleaseId("hello-2"), Guest.SERVES)
    with pytest.raises(Refused, match=made.name):
        scene.cloud.groups.ensure(scene.ctx, replace(made, image=other))
    with pytest.raises(Refused, match=made.name):
        changed = {**made.tags, tags.RELEASE: "hello-2"}
        scene.cloud.groups.ensure(scene.ctx, replace(made, release=ReleaseId("hello-2"), tags=changed))
    seen = scene.cloud.groups.observe(scene.ctx, made.name)
    assert seen is not None and seen.release == "hello-1"


def test_what_is_not_ours_is_left_alone(scene: Scene) -> None:
    """A group somebody else made is neither taken over, nor listed, nor deleted."""
    scene.plant_group("osvd-theirs")
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    image = scene.image(ReleaseId("hello-1"), Guest.SERVES)
    with pytest.raises(NotOurs, match="osvd-theirs"):
        scene.cloud.groups.ensure(scene.ctx, scene.request(Slot.BLUE, "hello-1", image, name="osvd-theirs"))
    with pytest.raises(NotOurs, match="osvd-theirs"):
        scene.cloud.groups.delete(scene.ctx, "osvd-theirs")
    assert scene.cloud.groups.owned(scene.ctx, {}) == []
    assert "osvd-theirs" not in scene.cloud.groups.templates(scene.ctx, {})


def test_an_image_that_is_not_there_is_refused(scene: Scene) -> None:
    """A group that could never start a machine is not made."""
    scene.cloud.router.ensure_slots(scene.ctx, scene.route())
    request = scene.request(Slot.BLUE, "hello-1", "ami-0123456789abcdef0")
    with pytest.raises(CloudError):
        scene.cloud.groups.ensure(scene.ctx, request)
    assert scene.cloud.groups.observe(scene.ctx, request.name) is None


def test_there_is_nothing_where_nothing_was_made(scene: Scene) -> None:
    """Looking at, and deleting, what is not there."""
    groups = scene.cloud.groups
    assert groups.observe(scene.ctx, "osvd-none") is None
    assert groups.machines(scene.ctx, "osvd-none") == ()
    assert groups.owned(scene.ctx, {}) == []
    assert groups.templates(scene.ctx, {}) == []
    groups.delete(scene.ctx, "osvd-none")
    groups.delete_template(scene.ctx, "osvd-none")


def test_ours_are_found_by_their_tags(scene: Scene) -> None:
    """By any of their tags, groups and templates; by others, not."""
    blue = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    green = scene.stand(Slot.GREEN, "hello-2", capacity=1)
    groups = scene.cloud.groups
    assert {group.name for group in groups.owned(scene.ctx, {tags.SERVICE: SERVICE})} == {blue.name, green.name}
    [second] = groups.owned(scene.ctx, {tags.SLOT: "green"})
    [first] = groups.owned(scene.ctx, {tags.SLOT: "blue"})
    assert second.release == "hello-2"
    assert first.created is not None and second.created is not None, "which of two was there first, only that tells"
    assert first.created <= second.created
    assert groups.owned(scene.ctx, {tags.SERVICE: "another/production"}) == []
    assert set(groups.templates(scene.ctx, {tags.SERVICE: SERVICE})) == {blue.name, green.name}
    assert groups.templates(scene.ctx, {tags.RELEASE: "hello-1"}) == [blue.name]


def test_deleting_takes_machines_away_and_keeps_the_template(scene: Scene) -> None:
    """A deleted group says so while it goes, then is gone with its machines; its template stays until it is deleted."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=2)
    groups = scene.cloud.groups
    scene.until(lambda: scene.healthy(Slot.BLUE) == 2)
    groups.delete(scene.ctx, made.name)
    seen = groups.observe(scene.ctx, made.name)
    assert seen is None or seen.deleting
    groups.delete(scene.ctx, made.name)
    scene.until(lambda: groups.observe(scene.ctx, made.name) is None)
    assert groups.owned(scene.ctx, {}) == []
    scene.until(lambda: scene.health(Slot.BLUE) == ())
    assert groups.templates(scene.ctx, {}) == [made.name]
    groups.delete_template(scene.ctx, made.name)
    groups.delete_template(scene.ctx, made.name)
    assert groups.templates(scene.ctx, {}) == []


def test_a_group_can_be_made_again(scene: Scene) -> None:
    """The same release comes back under the same name, from the template that stayed, with machines of its own."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    groups = scene.cloud.groups
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    before = {machine.id for machine in groups.machines(scene.ctx, made.name)}
    groups.delete(scene.ctx, made.name)
    scene.until(lambda: groups.observe(scene.ctx, made.name) is None)
    # Machines of two groups of one name are told apart by launch times in whole seconds, also of a hurried sandbox.
    scene.ctx.sleep(120)
    groups.ensure(scene.ctx, made)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    after = {machine.id for machine in groups.machines(scene.ctx, made.name)}
    assert len(after) == 1
    assert not after & before


def test_a_template_that_stayed_does_not_hold_an_old_image(scene: Scene) -> None:
    """A release whose image was registered anew starts from the new one."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    groups = scene.cloud.groups
    groups.delete(scene.ctx, made.name)
    scene.until(lambda: groups.observe(scene.ctx, made.name) is None)
    again = replace(made, image=scene.image(ReleaseId("hello-2"), Guest.SERVES))
    groups.ensure(scene.ctx, again)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 1)
    assert groups.templates(scene.ctx, {}) == [made.name]
    with pytest.raises(Refused, match=made.image):
        groups.ensure(scene.ctx, made)


def test_machines_that_died_are_told_of(scene: Scene) -> None:
    """A program that ends takes its machine along; the group starts another, and the gone ones are listed, too, where
    the place tells of them: else that it stopped is."""
    made = scene.stand(Slot.BLUE, "hello-1", Guest.ENDS, capacity=1)

    def machines() -> tuple[Machine, ...]:
        return scene.cloud.groups.machines(scene.ctx, made.name)

    def oldest(state: MachineState) -> Callable[[], bool]:
        return lambda: bool(there := machines()) and there[-1].state is state

    if scene.keeps_dead:
        scene.until(lambda: len(machines()) >= 2)
        scene.until(oldest(MachineState.GONE))
    else:
        for state in (MachineState.STOPPED, MachineState.PENDING, MachineState.STOPPED):
            scene.until(oldest(state))
    assert scene.healthy(Slot.BLUE) == 0


def test_a_group_tells_what_its_machines_are(scene: Scene) -> None:
    """By its template: whoever finds the group alone can start more of the kind."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    shape = scene.cloud.groups.shape(scene.ctx, made.name)
    assert shape is not None
    assert (shape.image, shape.machine_type) == (made.image, made.machine_type)
    assert (set(shape.networks), set(shape.firewalls)) == (set(made.networks), set(made.firewalls))
    assert scene.cloud.groups.shape(scene.ctx, "osvd-none") is None

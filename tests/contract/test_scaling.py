"""What every implementation of InstanceGroups promises of what scales a group by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.cloud.interfaces import Scaling, Slot
from osvdeploy.errors import NotFound
from tests.contract.scenes import Scene


def scaling_of(scene: Scene, name: str) -> Scaling:
    found = scene.cloud.groups.scaling(scene.ctx, name)
    assert found is not None
    return found


def capacity(scene: Scene, name: str) -> int:
    seen = scene.cloud.groups.observe(scene.ctx, name)
    assert seen is not None
    return seen.capacity


def test_a_group_is_made_of_one_size(scene: Scene) -> None:
    """Nothing scales what was just made, and there is nothing to pause."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=2)
    found = scaling_of(scene, made.name)
    assert found.fixed and found.paused and (found.minimum, found.desired, found.maximum) == (2, 2, 2)
    before = scene.mutations()
    scene.cloud.groups.pause(scene.ctx, made.name)
    scene.cloud.groups.resume(scene.ctx, made.name, found)
    scene.cloud.groups.apply(scene.ctx, made.name, found)
    assert scene.cloud.groups.follows(scene.ctx, made.name, found)
    assert scene.mutations() == before


def test_what_scales_a_group_is_seen(scene: Scene) -> None:
    """Bounds, size, and a name for each part of it."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=2)
    scene.scale(made.name, 1, 6)
    found = scaling_of(scene, made.name)
    assert (found.minimum, found.desired, found.maximum) == (1, 2, 6)
    assert found.moves and found.parts and not found.paused and not found.fixed


def test_a_paused_group_does_not_get_smaller(scene: Scene) -> None:
    """By one change, made once; and all its rules are still there."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=3)
    scene.scale(made.name, 1, 6)
    scene.until(lambda: scene.healthy(Slot.BLUE) == 3)
    before, changes = scaling_of(scene, made.name), scene.mutations()
    scene.cloud.groups.pause(scene.ctx, made.name)
    scene.cloud.groups.pause(scene.ctx, made.name)
    assert scene.mutations() == changes + 1
    paused = scaling_of(scene, made.name)
    assert paused.paused and (paused.minimum, paused.maximum) == (before.minimum, before.maximum)
    scene.unload(made.name)
    scene.ctx.sleep(300)
    assert capacity(scene, made.name) == 3


def test_a_pause_is_taken_back(scene: Scene) -> None:
    """What scales the group is then what it was, to the letter, and makes it smaller again; rules that were changed
    meanwhile stay."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=3)
    scene.scale(made.name, 1, 6)
    groups, before = scene.cloud.groups, scaling_of(scene, made.name)
    groups.pause(scene.ctx, made.name)
    changes = scene.mutations()
    groups.resume(scene.ctx, made.name, before)
    groups.resume(scene.ctx, made.name, before)
    assert scene.mutations() == changes + 1
    assert scaling_of(scene, made.name) == before
    groups.pause(scene.ctx, made.name)
    groups.resume(scene.ctx, made.name, before)
    scene.unload(made.name)
    scene.until(lambda: capacity(scene, made.name) == 1)


def test_what_was_paused_before_stays_so(scene: Scene) -> None:
    """Of what a user paused nothing is resumed."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=3)
    scene.scale(made.name, 1, 6)
    groups = scene.cloud.groups
    groups.pause(scene.ctx, made.name)
    theirs, changes = scaling_of(scene, made.name), scene.mutations()
    groups.pause(scene.ctx, made.name)
    groups.resume(scene.ctx, made.name, theirs)
    assert scaling_of(scene, made.name) == theirs and scene.mutations() == changes


def test_a_pause_is_told_apart_from_what_the_user_has(scene: Scene) -> None:
    """What is read of a paused group tells what it was, without the pause; what the user had paused is theirs."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=3)
    fixed = scaling_of(scene, made.name)
    scene.scale(made.name, 1, 6)
    groups, before = scene.cloud.groups, scaling_of(scene, made.name)
    groups.pause(scene.ctx, made.name)
    paused = scaling_of(scene, made.name)
    assert paused != before and groups.unpaused(paused, before) == before
    for same in (fixed, before):
        assert groups.unpaused(same, before) == same
    assert groups.unpaused(paused, paused) == paused


def test_no_machine_is_taken_away_that_is_needed(scene: Scene) -> None:
    """Of a group that is larger than the maximum, where the other one was to have as many: what it has is its maximum
    then. Beyond that the bounds hold."""
    blue = scene.stand(Slot.BLUE, "hello-1", capacity=2)
    scene.scale(blue.name, 1, 3)
    green = scene.stand(Slot.GREEN, "hello-2", capacity=4)
    groups, wanted = scene.cloud.groups, replace(scaling_of(scene, blue.name), desired=4)
    groups.apply(scene.ctx, green.name, wanted)
    assert groups.follows(scene.ctx, green.name, wanted)
    scene.ctx.sleep(60)
    found = scaling_of(scene, green.name)
    assert (found.minimum, found.desired, found.maximum) == (1, 4, 4)
    fewer = replace(wanted, desired=2)
    assert not groups.follows(scene.ctx, green.name, fewer)
    groups.apply(scene.ctx, green.name, fewer)
    assert scaling_of(scene, green.name).maximum == 3


def test_another_group_is_scaled_likewise(scene: Scene) -> None:
    """Bounds and rules are the same, of its own name and backend; its size is its own. Twice is once."""
    blue = scene.stand(Slot.BLUE, "hello-1", capacity=2)
    scene.scale(blue.name, 1, 6)
    green = scene.stand(Slot.GREEN, "hello-2", capacity=4)
    groups, wanted = scene.cloud.groups, scaling_of(scene, blue.name)
    assert not groups.follows(scene.ctx, green.name, wanted)
    groups.apply(scene.ctx, green.name, wanted)
    assert groups.follows(scene.ctx, green.name, wanted)
    found = scaling_of(scene, green.name)
    assert found.rules == wanted.rules and len(found.parts) == len(wanted.parts)
    assert (found.minimum, found.desired, found.maximum, found.paused) == (1, 4, 6, False)
    changes = scene.mutations()
    groups.apply(scene.ctx, green.name, wanted)
    assert scene.mutations() == changes
    assert scaling_of(scene, blue.name) == wanted


def test_a_group_that_stood_paused_is_scaled_again(scene: Scene) -> None:
    """Whatever it had of its own goes, and with it the pause."""
    blue = scene.stand(Slot.BLUE, "hello-1", capacity=3)
    scene.scale(blue.name, 2, 6)
    wanted = scaling_of(scene, blue.name)
    green = scene.stand(Slot.GREEN, "hello-2", capacity=3)
    scene.scale(green.name, 1, 4)
    groups = scene.cloud.groups
    groups.pause(scene.ctx, green.name)
    groups.apply(scene.ctx, green.name, wanted)
    found = scaling_of(scene, green.name)
    assert (found.minimum, found.maximum, found.paused, found.rules) == (2, 6, False, wanted.rules)


def test_scaling_can_be_taken_away(scene: Scene) -> None:
    """A group that is to be scaled by nothing is not, and keeps its size."""
    blue = scene.stand(Slot.BLUE, "hello-1", capacity=2)
    nothing = scaling_of(scene, blue.name)
    green = scene.stand(Slot.GREEN, "hello-2", capacity=3)
    scene.scale(green.name, 1, 4)
    scene.cloud.groups.apply(scene.ctx, green.name, nothing)
    assert scaling_of(scene, green.name).parts == () and capacity(scene, green.name) == 3


def test_size_is_asked_for_whatever_scales_the_group(scene: Scene) -> None:
    """A group that stood paused is brought to a capacity as any other is, and keeps it."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=2)
    scene.scale(made.name, 1, 3)
    scene.cloud.groups.pause(scene.ctx, made.name)
    scene.cloud.groups.ensure(scene.ctx, replace(made, capacity=5))
    scene.ctx.sleep(120)
    assert capacity(scene, made.name) == 5


def test_a_scaled_group_can_be_deleted(scene: Scene) -> None:
    """With what scales it."""
    made = scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.scale(made.name, 1, 3)
    groups, before = scene.cloud.groups, scaling_of(scene, made.name)
    groups.delete(scene.ctx, made.name)
    scene.until(lambda: groups.observe(scene.ctx, made.name) is None)
    assert groups.scaling(scene.ctx, made.name) is None
    groups.pause(scene.ctx, made.name)
    groups.resume(scene.ctx, made.name, before)
    assert not groups.follows(scene.ctx, made.name, before)
    with pytest.raises(NotFound, match=made.name):
        groups.apply(scene.ctx, made.name, before)
    groups.ensure(scene.ctx, made)
    assert scaling_of(scene, made.name).fixed
